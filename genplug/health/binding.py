"""Binds a probe of the configuration to a device: makes its request, or the patterns for its events. Pure."""

from collections.abc import Iterable, Iterator
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


class BoundProbe(Struct, frozen=True, gc=False):
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


class ProbeBinder:
    """Binds the probes of a resource to its devices. Parts that do not depend on the device are evaluated once.

    ``is_archive`` is whether the devices are those of an archive of a node.
    """

    def __init__(self, resource: Resource, *, is_archive: bool = False) -> None:
        self._resource = resource
        self._probes = [
            (spec, kind, _find_error(spec, kind, resource, is_archive=is_archive))
            for spec in resource.health.probes
            for kind in (kind_of(spec.check),)
        ]

    def bind(self, device: Device) -> Iterator[BoundProbe]:
        """Yield each probe for a device; if it cannot be bound, its ``error`` is the reason."""
        ref = DeviceRef(self._resource.name, device.id)
        for spec, kind, error in self._probes:
            yield BoundProbe(ref, spec, error=error) if error else _bind(spec, kind, self._resource, device, ref)


def bind_probes(resource: Resource, devices: Iterable[Device]) -> Iterable[BoundProbe]:
    """Yield every probe of a resource for each of its devices."""
    binder = ProbeBinder(resource)
    return (bound for device in devices for bound in binder.bind(device))


def _find_error(spec: ProbeSpec, kind: ProbeKind, resource: Resource, *, is_archive: bool) -> str:
    """Return why a probe cannot run for any device; empty if it can."""
    if (denial := kind.denial(spec.check, resource.policy)) is not None:
        return denial.reason
    return archive_error(kind) if is_archive else ""


def _bind(spec: ProbeSpec, kind: ProbeKind, resource: Resource, device: Device, ref: DeviceRef) -> BoundProbe:
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
