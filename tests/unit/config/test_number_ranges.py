"""Every number of a configuration has a range, and a number without sense is an error at its location."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.load import load_text
from genplug.config.schema import schema_text
from genplug.spec.diagnostic import ErrorCode

HEAD = (
    "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n  a.io/x:\n    devices: [{glob: /dev/x}]\n"
)
PROBE = "    health: {{probes: [{{file: {{path: /sys/x, equals: a}}, {}: VALUE}}]}}\n"
NUMBERS = {
    "replicas": "    replicas: VALUE\n",
    "tokens": "    tokens: VALUE\n",
    "slices": "    slices: VALUE\n",
    "maxPerContainer": "    share: {maxPerContainer: VALUE}\n",
    "health.periodSeconds": "    health: {periodSeconds: VALUE}\n",
    "health.timeoutSeconds": "    health: {timeoutSeconds: VALUE}\n",
    "health.failureThreshold": "    health: {failureThreshold: VALUE}\n",
    "health.removalGracePeriodSeconds": "    health: {removalGracePeriodSeconds: VALUE}\n",
    "probe.periodSeconds": PROBE.format("periodSeconds"),
    "probe.timeoutSeconds": PROBE.format("timeoutSeconds"),
    "probe.successThreshold": PROBE.format("successThreshold"),
    "maxIncrease": "    health: {probes: [{file: {path: /sys/x, maxIncrease: VALUE, perSeconds: 60}}]}\n",
    "perSeconds": "    health: {probes: [{file: {path: /sys/x, maxIncrease: 1, perSeconds: VALUE}}]}\n",
    "expectStatus": "    health: {probes: [{http: {url: 'http://x', expectStatus: VALUE}}]}\n",
    "port": "    health: {probes: [{tcpSocket: {port: VALUE}}]}\n",
    "preStart.timeoutSeconds": "    preStart: {timeoutSeconds: VALUE, exec: {command: [/bin/true]}}\n",
}
SENSELESS = (
    "-1",
    "1e-310.5",
    "-1e300",
    "1e300",
    "1e400",
    "9" * 299,
    "9" * 5000,
    ".nan",
    ".inf",
    "-.inf",
    "'10'",
    "0x1f",
)
TOO_SMALL = ("0", "1e-20", "1e-310", "0.0000001", "0.09")


def find_numbers(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield path, schema
        for key, value in schema.items():
            yield from find_numbers(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from find_numbers(value, f"{path}/{number}")


def test_every_number_of_the_schema_has_a_range() -> None:
    numbers = dict(find_numbers(json.loads(schema_text())))
    assert len(numbers) > 10
    assert not [path for path, schema in numbers.items() if not {"minimum", "maximum"} <= schema.keys()]


@pytest.mark.parametrize("value", SENSELESS, ids=[value[:8] for value in SENSELESS[:-1]] + ["hexadecimal"])
@pytest.mark.parametrize("key", NUMBERS)
def test_number_without_sense_is_an_error_at_its_location(key: str, value: str) -> None:
    if value == "'10'" and key == "port":
        # The text of a template.
        load_text(HEAD + NUMBERS[key].replace("VALUE", value), "c.yaml")
        return
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(HEAD + NUMBERS[key].replace("VALUE", value), "c.yaml")
    assert {diagnostic.location.line for diagnostic in caught.value.diagnostics} == {6}


@pytest.mark.parametrize("value", TOO_SMALL)
@pytest.mark.parametrize("key", [key for key in NUMBERS if key.endswith("Seconds") and "Grace" not in key])
def test_seconds_below_the_floor_are_refused_with_the_floor(key: str, value: str) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(HEAD + NUMBERS[key].replace("VALUE", value), "c.yaml", None)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code is ErrorCode.WRONG_VALUE
    assert diagnostic.expected.startswith("at least 0.1")
    load_text(HEAD + NUMBERS[key].replace("VALUE", "0.1"), "c.yaml", None)


@pytest.mark.parametrize("key", ["health.timeoutSeconds", "probe.timeoutSeconds"])
def test_timeout_over_the_ceiling_is_refused_with_the_reason(key: str) -> None:
    load_text(HEAD + NUMBERS[key].replace("VALUE", "60"), "c.yaml")
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(HEAD + NUMBERS[key].replace("VALUE", "3600"), "c.yaml")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.expected.startswith("at most 60")
    assert "a place that other runs need" in diagnostic.hint


def test_period_below_the_floor_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(HEAD + NUMBERS["health.periodSeconds"].replace("VALUE", "0.0000001"), "c.yaml")
    assert "0.1 seconds is the shortest period" in caught.value.diagnostics[0].hint


@pytest.mark.parametrize("mask", ["0x1" + "0" * 16, "18446744073709551616", "0x" + "f" * 4000, "0", "-1"])
def test_bit_mask_beyond_64_bits_is_an_error(mask: str) -> None:
    body = "    health: {probes: [{file: {path: /sys/x, bitsClear: '" + mask + "'}}]}\n"
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(HEAD + body, "c.yaml")
    assert caught.value.diagnostics[0].location.line == 6
