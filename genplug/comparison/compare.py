"""Compares two plans of a node: resources, their keys, devices and what containers receive.

Two devices of the plans are the same if they have the same resource and ID, or else if they are the same hardware. The
comparison is symmetric: with the plans swapped, what was added is removed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct

from genplug.comparison.plan import Plan, PlannedDevice, PlannedResource
from genplug.spec.natural_sort import natural_sort_key

_Key = tuple[str, str]
"""The resource and the ID of a device."""
_Value = TypeVar("_Value")


class Change(StrEnum):
    """The change of a resource or a device."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENAMED = "renamed"
    """The hardware has another ID in the same resource."""
    MOVED = "moved"
    """The hardware is in another resource."""


class ValueChange(Struct, frozen=True):
    """A key, or an edit of a container, with its values as text; None where it does not exist."""

    name: str
    old: str | None
    new: str | None


class ResourceChange(Struct, frozen=True):
    """A resource that differs: in the plans, one of them None if it was added or removed, and the keys that differ."""

    name: str
    change: Change
    old: PlannedResource | None
    new: PlannedResource | None
    settings: tuple[ValueChange, ...] = ()


class DeviceChange(Struct, frozen=True):
    """A device that differs, with its resource and its state in both plans.

    ``edits`` is what a container receives in addition, no longer, or with another value. ``is_other_hardware`` is
    whether the ID belongs to other hardware in the new plan.
    """

    change: Change
    old_resource: str | None
    old: PlannedDevice | None
    new_resource: str | None
    new: PlannedDevice | None
    edits: tuple[ValueChange, ...] = ()
    is_other_hardware: bool = False


class Comparison(Struct, frozen=True):
    """The differences of two plans. ``remarks`` are the texts of warnings and conflicts of one of them only."""

    old: Plan
    new: Plan
    resources: tuple[ResourceChange, ...] = ()
    devices: tuple[DeviceChange, ...] = ()
    added_remarks: tuple[str, ...] = ()
    removed_remarks: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the plans do not differ."""
        return not (self.resources or self.devices or self.added_remarks or self.removed_remarks)


def compare(old: Plan, new: Plan) -> Comparison:
    """Return the differences between two plans of the same node."""
    return Comparison(
        old,
        new,
        tuple(_compare_resources(old, new)),
        tuple(_compare_devices(old, new)),
        tuple(text for key, text in new.remarks.items() if key not in old.remarks),
        tuple(text for key, text in old.remarks.items() if key not in new.remarks),
    )


def compare_values(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[ValueChange, ...]:
    """Return the names whose values differ, in the order of both mappings."""
    names = [*dict.fromkeys((*old, *new))]
    return tuple(ValueChange(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))


def compare_settings(old: Any, new: Any, path: str = "") -> Iterator[ValueChange]:  # noqa: ANN401 - decoded YAML
    """Yield the keys whose values differ; lists are compared without the items that both begin and end with."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            inner = f"{path}.{key}" if path else key
            if key not in old or key not in new:
                yield ValueChange(inner, *_format_sides(old, new, key))
            else:
                yield from compare_settings(old[key], new[key], inner)
    elif isinstance(old, Sequence) and isinstance(new, Sequence) and _has_mappings(old) and _has_mappings(new):
        start, old_rest, new_rest = _strip_common(old, new)
        for number in range(max(len(old_rest), len(new_rest))):
            inner = f"{path}[{start + number}]"
            if number < min(len(old_rest), len(new_rest)):
                yield from compare_settings(old_rest[number], new_rest[number], inner)
            else:
                sides = (_format(rest[number]) if number < len(rest) else None for rest in (old_rest, new_rest))
                yield ValueChange(inner, *sides)
    elif json.dumps(old) != json.dumps(new):
        yield ValueChange(path, _format(old), _format(new))


def _compare_resources(old: Plan, new: Plan) -> Iterator[ResourceChange]:
    for name in dict.fromkeys((*old.resources, *new.resources)):
        before, after = old.resources.get(name), new.resources.get(name)
        if before is None or after is None:
            yield ResourceChange(name, Change.ADDED if before is None else Change.REMOVED, before, after)
            continue
        settings = tuple(compare_settings(before.settings, after.settings))
        if settings or before.grants != after.grants or before.devices.keys() != after.devices.keys():
            yield ResourceChange(name, Change.CHANGED, before, after, settings)


def _compare_devices(old: Plan, new: Plan) -> Iterator[DeviceChange]:
    before, after = _list_devices(old), _list_devices(new)
    pairs = {key: key for key in before.keys() & after.keys()}
    pairs |= _pair_by_hardware(
        {key: device for key, device in before.items() if key not in pairs},
        {key: device for key, device in after.items() if key not in pairs},
    )
    paired = {new_key: old_key for old_key, new_key in pairs.items()}
    keys = [*before, *(key for key in after if key not in before)]
    for key in keys:
        if key in before:
            yield from _compare_pair(key, before[key], pairs.get(key), after)
        if key in after and key not in paired:
            yield DeviceChange(Change.ADDED, None, None, key[0], after[key])


def _compare_pair(
    old_key: _Key, old: PlannedDevice, new_key: _Key | None, after: Mapping[_Key, PlannedDevice]
) -> Iterator[DeviceChange]:
    """Yield the change of a device of the old plan, unless it does not differ."""
    if new_key is None:
        yield DeviceChange(Change.REMOVED, old_key[0], old, None, None)
        return
    new = after[new_key]
    edits = compare_values(old.edits, new.edits)
    if old_key != new_key:
        change = Change.RENAMED if old_key[0] == new_key[0] else Change.MOVED
        yield DeviceChange(change, old_key[0], old, new_key[0], new, edits)
        return
    is_other = not (old.hardware & new.hardware) and old.hardware != new.hardware
    if edits or is_other or old.problem != new.problem:
        yield DeviceChange(Change.CHANGED, old_key[0], old, new_key[0], new, edits, is_other)


def _list_devices(plan: Plan) -> dict[_Key, PlannedDevice]:
    return {
        (resource.name, device.id): device
        for resource in plan.resources.values()
        for device in resource.devices.values()
    }


def _pair_by_hardware(old: Mapping[_Key, PlannedDevice], new: Mapping[_Key, PlannedDevice]) -> dict[_Key, _Key]:
    """Return for devices of the old plan the devices of the new plan that are the same hardware.

    Pairs in the same resource come first, then those that have the most in common. The order of equal pairs does not
    depend on which plan is the old one.
    """
    by_hardware: dict[str, list[_Key]] = {}
    for key, device in new.items():
        for name in device.hardware:
            by_hardware.setdefault(name, []).append(key)
    candidates = {
        (old_key, new_key)
        for old_key, device in old.items()
        for name in device.hardware
        for new_key in by_hardware.get(name, ())
    }

    def rank(pair: tuple[_Key, _Key]) -> tuple[object, ...]:
        first, second = old[pair[0]].hardware, new[pair[1]].hardware
        return (pair[0][0] != pair[1][0], len(first ^ second), -len(first & second), sorted(map(_sort_key, pair)))

    pairs: dict[_Key, _Key] = {}
    used: set[_Key] = set()
    for old_key, new_key in sorted(candidates, key=rank):
        if old_key not in pairs and new_key not in used:
            pairs[old_key] = new_key
            used.add(new_key)
    return pairs


def _sort_key(key: _Key) -> tuple[object, ...]:
    return (natural_sort_key(key[0]), key[0], natural_sort_key(key[1]), key[1])


def _has_mappings(items: Sequence[Any]) -> bool:
    return not isinstance(items, str) and any(isinstance(item, Mapping) for item in items)


def _strip_common(old: Sequence[_Value], new: Sequence[_Value]) -> tuple[int, Sequence[_Value], Sequence[_Value]]:
    """Return the number of equal items at the start, and the items between those and the equal items at the end."""
    shorter = min(len(old), len(new))
    start = next((number for number in range(shorter) if old[number] != new[number]), shorter)
    end = next((number for number in range(shorter - start) if old[-1 - number] != new[-1 - number]), shorter - start)
    return start, old[start : len(old) - end], new[start : len(new) - end]


def _format_sides(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> tuple[str | None, str | None]:
    return (
        _format(old[key]) if key in old else None,
        _format(new[key]) if key in new else None,
    )


def _format(value: Any) -> str:  # noqa: ANN401 - decoded YAML
    """Return a value as text: a string verbatim, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
