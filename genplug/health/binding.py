"""A probe of the configuration and a device together: what to ask, or what to listen for. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from genplug.hardware.inventory import Device
from genplug.health.probes import exec as exec_probe
from genplug.health.probes import file, http, kernel_log, open, pci, uevent, unix_socket  # noqa: A004 - called so
from genplug.health.probes.kernel_log import LinePatterns
from genplug.health.probes.uevent import EventPatterns
from genplug.health.thresholds import Outcome, Result
from genplug.health.verdict import DeviceRef
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from genplug.spec.probes import (
    Check,
    ExecCheck,
    FileCheck,
    HttpCheck,
    KernelLogCheck,
    OpenCheck,
    PciCheck,
    ProbeSpec,
    ProbeTiming,
    UeventCheck,
    UnixSocketCheck,
)
from genplug.spec.regex import PatternError
from genplug.spec.template import MissingAttributeError

_EVALUATORS: Mapping[type, Callable[[Any, Any, Any, float], tuple[Result, Any]]] = {
    PciCheck: pci.evaluate,
    FileCheck: file.evaluate,
    OpenCheck: open.evaluate,
    ExecCheck: exec_probe.evaluate,
    HttpCheck: http.evaluate,
    UnixSocketCheck: unix_socket.evaluate,
}
_CALLS = (ExecCheck, HttpCheck, UnixSocketCheck)


@frozen
class BoundProbe:
    """A probe of one device.

    ``ask`` is the question that is put again and again; ``lines`` and ``events`` are what the kernel may say by itself.
    ``fault`` is why neither can be: the probe has an error for as long as the device is as it is.
    """

    key: DeviceRef
    spec: ProbeSpec
    request: ProbeRequest | None = None
    lines: LinePatterns | None = None
    events: EventPatterns | None = None
    locations: tuple[str, ...] = ()
    """Where in /sys the device stands."""
    fault: str = ""

    @property
    def is_call(self) -> bool:
        """Whether it waits for somebody else, and not for a file."""
        return isinstance(self.spec.check, _CALLS)

    @property
    def timing(self) -> ProbeTiming:
        """The numbers to go by: what the kernel says is said once, and need not be said again."""
        if self.request is not None or self.fault:
            return self.spec.timing
        return evolve(self.spec.timing, failure_threshold=1, success_threshold=1)

    def evaluate(self, reply: ProbeResponse, memory: Any, now: float) -> tuple[Result, Any]:  # noqa: ANN401 - each kind's own
        """Return what a reply means, and what to remember until the next (``now`` is monotonic seconds)."""
        if reply.error:
            return Result(Outcome.ERROR, reply.error), memory
        return _EVALUATORS[type(self.spec.check)](self.spec.check, reply.answer, memory, now)


def probe_requests(resource: Resource, devices: Iterable[Device]) -> tuple[ProbeRequest, ...]:
    """Return every question that the probes of a resource ask of its devices, each once."""
    every = (
        bind_probe(DeviceRef(resource.name, device.id), device, probe, resource.policy).request
        for device in devices
        for probe in resource.health.probes
    )
    return tuple(dict.fromkeys(ask for ask in every if ask is not None))


def bind_probe(key: DeviceRef, device: Device, spec: ProbeSpec, policy: Policy) -> BoundProbe:
    """Return a probe for a device; what the policy does not allow (any more) has that as its fault."""
    check, values = spec.check, device.attributes
    locations = tuple(values.get("sysfs", ()))
    if refused := _refused(check, policy):
        return BoundProbe(key, spec, fault=refused)
    try:
        match check:
            case PciCheck():
                return BoundProbe(key, spec, request=pci.make_request(check, values))
            case FileCheck():
                return BoundProbe(key, spec, request=file.make_request(check, values))
            case OpenCheck():
                return BoundProbe(key, spec, request=open.make_request(check, device.nodes))
            case ExecCheck():
                return BoundProbe(key, spec, request=exec_probe.make_request(check, values))
            case HttpCheck():
                return BoundProbe(key, spec, request=http.make_request(check, values))
            case UnixSocketCheck():
                return BoundProbe(key, spec, request=unix_socket.make_request(check, values))
            case KernelLogCheck():
                return BoundProbe(key, spec, lines=kernel_log.bind_patterns(check, values), locations=locations)
            case UeventCheck():
                return BoundProbe(key, spec, events=uevent.bind_patterns(check, values), locations=locations)
    except MissingAttributeError as error:
        return BoundProbe(key, spec, fault=f"needs '{error.name}', which this device does not have")
    except PatternError as error:
        return BoundProbe(key, spec, fault=f"its pattern cannot be read with this device's attributes: {error}")


def _refused(check: Check, policy: Policy) -> str:
    match check:
        case ExecCheck(command) if fault := policy.exec_error(command[0].text):
            return f"to run {command[0].text} is {fault}"
        case OpenCheck() if fault := policy.open_error():
            return f"to open device nodes is {fault}"
    return ""
