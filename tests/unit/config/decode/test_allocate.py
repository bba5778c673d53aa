"""``allocate``: environment variables, mounts and CDI devices, and the limits of their sizes."""

import pytest

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.files import ConfigFile
from genplug.config.load import load_texts
from genplug.spec.diagnostic import ErrorCode
from tests.support.configs import DEVICES, find_codes, load_resource, render_config


@pytest.mark.parametrize(("written", "by_cdi"), [("", False), ("inject: nodes", False), ("inject: cdi", True)])
def test_device_nodes_are_injected_without_cdi_by_default(written: str, *, by_cdi: bool) -> None:
    assert load_resource(f"{DEVICES}\nallocate: {{{written}}}").allocate.injects_by_cdi is by_cdi


def test_cdi_devices_keep_their_order() -> None:
    found = load_resource(f"{DEVICES}\nallocate: {{cdiDevices: ['b.io/x=${{index}}', a.io/x=all]}}")
    assert [device.text for device in found.allocate.cdi_devices] == ["b.io/x=${index}", "a.io/x=all"]


@pytest.mark.parametrize("other", ["/opt/lib", "/opt/lib/", "/opt//lib", "/opt/./lib"])
def test_mounts_at_equivalent_container_paths_are_rejected(other: str) -> None:
    mounts = f"[{{hostPath: /a, containerPath: /opt/lib}}, {{hostPath: /b, containerPath: {other}}}]"
    assert find_codes(f"{DEVICES}\nallocate: {{mounts: {mounts}}}") == [ErrorCode.CONFLICT]


@pytest.mark.parametrize(
    ("length", "expected"), [(131_071 - len("A="), []), (131_072 - len("A="), [ErrorCode.WRONG_VALUE])]
)
def test_environment_variable_over_the_size_limit_is_rejected(length: int, expected: list[ErrorCode]) -> None:
    assert find_codes(f"{DEVICES}\nallocate: {{env: {{A: {'x' * length}}}}}") == expected


def test_62_response_over_the_message_size_limit_is_rejected() -> None:
    files = [ConfigFile("0.yaml", render_config(DEVICES))]
    for number in range(5):
        variables = "".join(f"        V{number}{index}: {'x' * 130_000}\n" for index in range(8))
        text = f"resources:\n  example.com/x:\n    allocate:\n      env:\n{variables}"
        files.append(ConfigFile(f"{number + 1}.yaml", text))
    assert len(load_texts(files[:5]).resources["example.com/x"].allocate.env) == 32
    with pytest.raises(ConfigInvalidError, match="4 MiB that the kubelet accepts"):
        load_texts(files)


@pytest.mark.parametrize(
    ("allocate", "expected"),
    [
        ("{env: {A: 1}}", ErrorCode.WRONG_TYPE),
        ("{env: {1A: x}}", ErrorCode.NAME),
        ("{annotations: {cdi.k8s.io/x: x}}", ErrorCode.NAME),
        ("{mounts: [{hostPath: /a, containerPath: /}]}", ErrorCode.PATH),
        ("{cdiDevices: [a.io=x]}", ErrorCode.NAME),
        ("{cdiDevices: [a.io/b=]}", ErrorCode.NAME),
    ],
)
def test_invalid_allocate_is_reported_once(allocate: str, expected: ErrorCode) -> None:
    assert find_codes(f"{DEVICES}\nallocate: {allocate}") == [expected]
