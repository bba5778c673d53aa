"""Binds a probe of the configuration to a device: makes its request, or the patterns for its events. Pure."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Effect, EventStream, ProbeKind
from genplug.health.probes import kind_of
from genplug.health.thresholds import Outcome, Result
from genplug.health.verdict import DeviceRef
from genplug.health.workers.protocol import ProbeRequest, ProbeResponse
from genplug.spec.model import Resource
from genplug.spec.probes import ProbeSpec, ProbeTiming
from genplug.spec.regex import PatternError
from genplug.spec.template import MissingAttributeError, RenderError


class BoundProbe(Struct, frozen=True):
    """A probe of one device.

    ``request`` is polled, if the kind polls; events are compared with ``patterns``, if it listens. ``error`` is the
    reason why the probe has neither; the probe has this error until the device changes.
    """

    device: DeviceRef
    spec: ProbeSpec
    request: ProbeRequest | None = None
    patterns: Any = None
    sysfs_directories: tuple[str, ...] = ()
    """The device's directories in /sys."""
    error: str = ""

    @property
    def kind(self) -> ProbeKind:
        """The kind of the probe."""
        return kind_of(self.spec.check)

    @property
    def is_call(self) -> bool:
        """Whether a run waits for another program."""
        polling = self.kind.polling
        return polling is not None and polling.effect is Effect.CALL

    @property
    def timing(self) -> ProbeTiming:
        """The timing and thresholds. A probe that evaluates events has thresholds of 1: an event is not repeated."""
        if self.request is not None or self.error:
            return self.spec.timing
        return replace(self.spec.timing, failure_threshold=1, success_threshold=1)

    def evaluate(self, response: ProbeResponse, memory: Any, now: float) -> tuple[Result, Any]:  # noqa: ANN401 - the kind's own
        """Return the result of a response, and the memory for the next one (``now`` is monotonic seconds)."""
        polling = self.kind.polling
        if response.error or polling is None:
            return Result(Outcome.ERROR, response.error), memory
        return polling.evaluate(self.spec.check, response.answer, memory, now)


def archive_error(kind: ProbeKind) -> str:
    """Return why a probe of a kind cannot run on an archive of a node; empty if it can."""
    if kind.listening is not None:
        missing = "kernel log" if kind.listening.stream is EventStream.KERNEL_LOG else "events of the kernel"
        return f"an archive of 'genplug capture' has no {missing}"
    if kind.polling is None or kind.polling.effect is Effect.READ:
        return ""
    missing = "device nodes that can be opened" if kind.polling.effect is Effect.OPEN else "running programs"
    return f"an archive of 'genplug capture' has no {missing}"


def bind_probe(device: Device, resource: Resource, spec: ProbeSpec, *, is_archive: bool = False) -> BoundProbe:
    """Return a probe of a resource for one of its devices; if it cannot be bound, its ``error`` is the reason.

    ``is_archive`` is whether the devices are those of an archive of a node.
    """
    kind, ref = kind_of(spec.check), DeviceRef(resource.name, device.id)
    if (denial := kind.denial(spec.check, resource.policy)) is not None:
        return BoundProbe(ref, spec, error=denial.reason)
    if is_archive and (reason := archive_error(kind)):
        return BoundProbe(ref, spec, error=reason)
    try:
        if kind.polling is not None:
            return BoundProbe(
                ref, spec, request=kind.restrict(kind.polling.request(spec.check, device), resource.policy)
            )
        patterns = kind.listening.bind(spec.check, device) if kind.listening is not None else None
    except MissingAttributeError as error:
        return BoundProbe(ref, spec, error=f"needs the attribute '{error.name}', which the device does not have")
    except RenderError as error:
        return BoundProbe(ref, spec, error=f"its configuration {error.describe('the device')}")
    except PatternError as error:
        return BoundProbe(
            ref, spec, error=f"its pattern is not a regular expression with the attributes of the device: {error}"
        )
    return BoundProbe(
        ref, spec, patterns=patterns, sysfs_directories=tuple(dict.fromkeys(device.attributes.get("sysfs", ())))
    )


def bind_probes(resource: Resource, devices: Iterable[Device]) -> Iterable[BoundProbe]:
    """Yield every probe of a resource for each of its devices."""
    return (bind_probe(device, resource, spec) for device in devices for spec in resource.health.probes)
