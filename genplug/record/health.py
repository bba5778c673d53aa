"""How the health of the devices of each resource is decided: what each probe reads, opens, runs or connects to."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from genplug.health.probes import kind_of
from genplug.health.value_check import ValueCheck
from genplug.observe.text import count_noun
from genplug.record.facts import Fact, Known
from genplug.spec.model import Config, Resource
from genplug.spec.probes import ProbeSpec

PRESENCE = "the device nodes of a device exist; otherwise the device is unhealthy"
"""The check that every resource has without a probe."""


class ProbeRecord(Struct, frozen=True):
    """A probe: its kind, what it does and to what, which condition it checks, and when its results decide.

    ``action`` is a verb: ``reads``, ``opens``, ``runs``, ``connects to`` or ``listens to``. Targets are templates.
    A probe that the kernel notifies has neither a period nor a timeout (seconds).
    """

    name: str
    kind: str
    action: str
    targets: tuple[str, ...]
    condition: str
    severity: str
    period_seconds: float | None
    timeout_seconds: float | None
    failure_threshold: int
    success_threshold: int
    on_error: str
    sticky: bool
    location: str


class ResourceHealth(Struct, frozen=True):
    """The health monitoring of a resource: the built-in check of the device nodes, and the probes."""

    resource: str
    presence: str
    removal_grace_period_seconds: float
    expected_devices: int | None
    probes: tuple[ProbeRecord, ...]


def describe_health(config: Config) -> Fact:
    """Return how the health of each resource is monitored."""
    resources = tuple(_describe_resource(resource) for resource in config.resources.values())
    return Known(resources, "'health' of the configuration")


def _describe_resource(resource: Resource) -> ResourceHealth:
    return ResourceHealth(
        resource.configured_name,
        PRESENCE,
        resource.health.removal_grace_period_seconds,
        resource.expected,
        tuple(_describe_probe(probe) for probe in resource.health.probes),
    )


def _describe_probe(probe: ProbeSpec) -> ProbeRecord:
    kind = kind_of(probe.check)
    action, targets, condition = DESCRIPTIONS[kind.name](probe.check)
    is_polled, timing = kind.polling is not None, probe.timing
    return ProbeRecord(
        name=probe.name,
        kind=kind.name,
        action=action,
        targets=targets,
        condition=condition,
        severity="warning" if probe.is_warning else "failure",
        period_seconds=timing.period if is_polled else None,
        timeout_seconds=timing.timeout if is_polled else None,
        failure_threshold=timing.failure_threshold,
        success_threshold=timing.success_threshold,
        on_error=timing.on_error.value,
        sticky=timing.sticky,
        location=str(probe.location),
    )


Description = tuple[str, tuple[str, ...], str]
"""Action, targets and condition of a probe."""


def _describe_pci(check: Any) -> Description:  # noqa: ANN401 - the options of the kind
    address = check.address.text if check.address is not None else "${pci.address}"
    conditions = ["the function is on the bus, responds, and has the driver of the first run"]
    if check.min_width is not None:
        conditions.append(f"its link has at least {check.min_width} lanes")
    if check.keep_initial_width:
        conditions.append("its link is not narrower than at the first run")
    return "reads", (f"/sys/bus/pci/devices/{address}/",), "; ".join(conditions)


def _describe_file(check: Any) -> Description:  # noqa: ANN401 - the options of the kind
    conditions = list(_describe_value(check.expected))
    conditions += [f"{option}: {template.text}" for option, template in check.limits]
    if check.counter is not None:
        conditions.append(
            f"increases by at most {check.counter.max_increase:g} within {check.counter.window_seconds:g} s"
        )
    if check.must_not_exist:
        conditions.append("the file does not exist")
    subject = f"the part that matches {check.find!r}: " if check.find else ""
    scope = "" if check.require_all else " (of any file)"
    text = f"{subject}{'; '.join(conditions)}{scope}" if conditions else f"{subject}the file can be read{scope}"
    if not check.must_not_exist:
        text += (
            f"; a missing file is: {check.missing.value}; a value that is not a number is: {check.non_numeric.value}"
        )
    return "reads", (check.path.text, *(template.text for _, template in check.limits)), text


def _describe_value(expected: ValueCheck) -> Iterator[str]:
    texts: Mapping[str, str | None] = {
        "equals": expected.equals,
        "does not equal": expected.not_equals,
        "matches": expected.matches,
        "does not match": expected.not_matches,
        "is at least": expected.minimum[1] if expected.minimum else None,
        "is at most": expected.maximum[1] if expected.maximum else None,
        "has no bits of": hex(expected.bits_clear) if expected.bits_clear is not None else None,
    }
    yield from (f"{words} {text}" for words, text in texts.items() if text is not None)


def _describe_events(check: Any, action: str, targets: tuple[str, ...]) -> Description:  # noqa: ANN401 - as above
    parts = {"fails on": check.fail, "ignores": getattr(check, "ignore", ()), "recovers on": check.clear}
    texts = [f"{words} {' and '.join(template.text for template in found)}" for words, found in parts.items() if found]
    return action, targets, "; ".join(texts)


def _describe_uevent(check: Any) -> Description:  # noqa: ANN401 - as above
    path = check.path.text if check.path is not None else "${sysfs}"
    return _describe_events(check, "listens to", (f"uevents of {path}",))


def _describe_exec(check: Any) -> Description:  # noqa: ANN401 - as above
    """Return the program without its arguments, which may contain secrets."""
    count = len(check.command) - 1
    arguments = f" with {count_noun(count, 'argument')}" if count else ""
    return "runs", (check.command[0].text + arguments,), "the exit status is 0"


def _hide_secrets(url: str) -> str:
    """Return a URL without a user, a password and a query, which may contain secrets."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url).partition("?")[0]


DESCRIPTIONS: Mapping[str, Callable[[Any], Description]] = {
    "pci": _describe_pci,
    "file": _describe_file,
    "kernelLog": lambda check: _describe_events(check, "listens to", ("/dev/kmsg",)),
    "uevent": _describe_uevent,
    "open": lambda check: ("opens", ("the device nodes of the device",), f"opens with mode {check.mode}"),
    "exec": _describe_exec,
    "http": lambda check: ("connects to", (_hide_secrets(check.url.text),), f"the status is {check.expect_status}"),
    "unixSocket": lambda check: ("connects to", (check.path.text,), "the socket accepts the connection"),
    "tcpSocket": lambda check: ("connects to", (f"port {check.port.text}",), "the port accepts the connection"),
}
"""The description of each kind of probe, by the key of the kind."""
