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
from genplug.health.verdict import Key
from genplug.health.workers.protocol import Ask, Reply
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
    ProbeNumbers,
    ProbeSpec,
    UeventCheck,
    UnixSocketCheck,
)
from genplug.spec.regex import PatternError
from genplug.spec.template import MissingAttributeError

_JUDGES: Mapping[type, Callable[[Any, Any, Any, float], tuple[Result, Any]]] = {
    PciCheck: pci.judged,
    FileCheck: file.judged,
    OpenCheck: open.judged,
    ExecCheck: exec_probe.judged,
    HttpCheck: http.judged,
    UnixSocketCheck: unix_socket.judged,
}
_CALLS = (ExecCheck, HttpCheck, UnixSocketCheck)


@frozen
class Bound:
    """A probe of one device.

    ``ask`` is the question that is put again and again; ``lines`` and ``events`` are what the kernel may say by itself.
    ``fault`` is why neither can be: the probe has an error for as long as the device is as it is.
    """

    key: Key
    spec: ProbeSpec
    ask: Ask | None = None
    lines: LinePatterns | None = None
    events: EventPatterns | None = None
    places: tuple[str, ...] = ()
    """Where in /sys the device stands."""
    fault: str = ""

    @property
    def is_call(self) -> bool:
        """Whether it waits for somebody else, and not for a file."""
        return isinstance(self.spec.check, _CALLS)

    @property
    def numbers(self) -> ProbeNumbers:
        """The numbers to go by: what the kernel says is said once, and need not be said again."""
        if self.ask is not None or self.fault:
            return self.spec.numbers
        return evolve(self.spec.numbers, failure_threshold=1, success_threshold=1)

    def judged(self, reply: Reply, memory: Any, now: float) -> tuple[Result, Any]:  # noqa: ANN401 - each kind's own
        """Return what a reply means, and what to remember until the next (``now`` is monotonic seconds)."""
        if reply.error:
            return Result(Outcome.ERROR, reply.error), memory
        return _JUDGES[type(self.spec.check)](self.spec.check, reply.answer, memory, now)


def questions(resource: Resource, devices: Iterable[Device]) -> tuple[Ask, ...]:
    """Return every question that the probes of a resource ask of its devices, each once."""
    every = (
        bound(Key(resource.name, device.id), device, probe, resource.policy).ask
        for device in devices
        for probe in resource.health.probes
    )
    return tuple(dict.fromkeys(ask for ask in every if ask is not None))


def bound(key: Key, device: Device, spec: ProbeSpec, policy: Policy) -> Bound:
    """Return a probe for a device; what the policy does not allow (any more) has that as its fault."""
    check, values = spec.check, device.attributes
    places = tuple(values.get("sysfs", ()))
    if refused := _refused(check, policy):
        return Bound(key, spec, fault=refused)
    try:
        match check:
            case PciCheck():
                return Bound(key, spec, ask=pci.ask(check, values))
            case FileCheck():
                return Bound(key, spec, ask=file.ask(check, values))
            case OpenCheck():
                return Bound(key, spec, ask=open.ask(check, device.nodes))
            case ExecCheck():
                return Bound(key, spec, ask=exec_probe.ask(check, values))
            case HttpCheck():
                return Bound(key, spec, ask=http.ask(check, values))
            case UnixSocketCheck():
                return Bound(key, spec, ask=unix_socket.ask(check, values))
            case KernelLogCheck():
                return Bound(key, spec, lines=kernel_log.bound(check, values), places=places)
            case UeventCheck():
                return Bound(key, spec, events=uevent.bound(check, values), places=places)
    except MissingAttributeError as error:
        return Bound(key, spec, fault=f"needs '{error.name}', which this device does not have")
    except PatternError as error:
        return Bound(key, spec, fault=f"its pattern cannot be read with this device's attributes: {error}")


def _refused(check: Check, policy: Policy) -> str:
    match check:
        case ExecCheck(command) if fault := policy.exec_fault(command[0].text):
            return f"to run {command[0].text} is {fault}"
        case OpenCheck() if fault := policy.open_fault():
            return f"to open device nodes is {fault}"
    return ""
