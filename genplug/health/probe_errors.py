"""The errors or the warnings of probes, with the devices that have them. Pure.

A new error or warning of a probe is an event, and so is its end. Devices of a resource with the same text share an
event.
"""

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from genplug.health.status import ProbeError, ProbeWarning
from genplug.health.verdict import DeviceRef
from genplug.spec.similarity import similarity_key

ReportT = TypeVar("ReportT", bound=ProbeError | ProbeWarning)


class _Error(NamedTuple):
    resource: str
    probe: str
    error: str


def _merge_similar(reports: Iterable[ReportT]) -> list[ReportT]:
    """Return one report for all reports of a probe with similar texts."""
    merged: dict[tuple[str, str, str], ReportT] = {}
    for report in reports:
        text = report.error if isinstance(report, ProbeError) else report.reason
        key = (report.resource, report.probe, similarity_key(text))
        first = merged.get(key)
        merged[key] = report if first is None else replace(first, devices=(*first.devices, *report.devices))
    return list(merged.values())


class ProbeErrors(Generic[ReportT]):
    """The current errors or warnings of probes, and the events that have not been taken yet."""

    def __init__(self, make_report: Callable[[str, str, str, tuple[str, ...]], ReportT]) -> None:
        self._make_report = make_report
        self._devices: dict[_Error, set[str]] = {}
        self._new: set[_Error] = set()
        self._resolved: list[ReportT] = []

    def __repr__(self) -> str:
        return f"<ProbeErrors [{len(self._devices)} current, {len(self._new)} new, {len(self._resolved)} resolved]>"

    @property
    def current(self) -> tuple[ReportT, ...]:
        """The current errors, sorted."""
        return tuple(self._make_report(*error, tuple(sorted(ids))) for error, ids in sorted(self._devices.items()))

    def change(self, device: DeviceRef, probe: str, previous: str, error: str) -> None:
        """Record that the error of a probe for a device has changed; an empty text means that there is no error."""
        self._remove(_Error(device.resource, probe, previous), device, is_resolved=not error)
        if error:
            key = _Error(device.resource, probe, error)
            # A probe whose error changes to another error has no new event.
            if not previous and key not in self._devices:
                self._new.add(key)
            self._devices.setdefault(key, set()).add(device.device)

    def forget(self, device: DeviceRef, probe: str, error: str) -> None:
        """Remove the error of a device that is no longer watched, which does not resolve the error."""
        self._remove(_Error(device.resource, probe, error), device, is_resolved=False)

    def take_events(self) -> tuple[ReportT, ...]:
        """Return the changes since the last call: the resolved errors, then the new errors.

        Similar errors of a probe, for example the same missing file of each device, are one event with the first text.
        """
        new = (self._make_report(*key, tuple(sorted(self._devices[key]))) for key in sorted(self._new))
        events = (*_merge_similar(self._resolved), *_merge_similar(new))
        self._resolved, self._new = [], set()
        return events

    def _remove(self, key: _Error, device: DeviceRef, *, is_resolved: bool) -> None:
        devices = self._devices.get(key)
        if devices is None:
            return
        devices.discard(device.device)
        if not devices:
            del self._devices[key]
            if key in self._new:
                # It ended before it was reported.
                self._new.discard(key)
            elif is_resolved:
                self._resolved.append(replace(self._make_report(*key, (device.device,)), resolved=True))
