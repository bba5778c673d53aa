"""The parts of ``genplug plan`` about Dynamic Resource Allocation: published devices and DeviceClasses."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from genplug.allocation.device_class import build_device_classes
from genplug.allocation.published import (
    AttributeValue,
    PublishedDevice,
    PublishedResource,
    Taint,
    Version,
    publish_resource,
)
from genplug.allocation.resource_state import ResourceState
from genplug.cli.output import format_table, format_yaml, table_width
from genplug.observe.text import join_names
from genplug.spec.published_values import RESERVED_NAMES
from genplug.spec.similarity import similarity_key

_MAX_ROWS = 20
"""Rows of a resource in each table."""


def format_published(states: Mapping[str, ResourceState], driver: str, *, is_wide: bool) -> Iterator[str]:
    """Yield the tables of published devices and of those that are left out, and the DeviceClasses to write."""
    width = None if is_wide else table_width()
    published = {name: publish_resource(state.offer) for name, state in states.items()}
    rows = [row for name, found in published.items() for row in _device_rows(name, found, is_wide=is_wide)]
    if rows:
        headings = ("RESOURCE", "DEVICE", "ATTRIBUTES", "CAPACITY", "TAINT")
        yield "published in ResourceSlices:\n" + format_table(headings, rows, width)
    left_out = [row for name, found in published.items() for row in _left_out_rows(name, found, is_wide=is_wide)]
    if left_out:
        yield "not published:\n" + format_table(("RESOURCE", "DEVICE", "REASON"), left_out, width)
    if runs := [name for name, state in states.items() if state.offer.resource.pre_start is not None]:
        yield f"{join_names(runs)}: 'preStart' runs once for each pod, when its claim is prepared"
    classes = [
        found
        for name, state in states.items()
        if "${" not in name
        for found in build_device_classes(state.offer.resource, driver)
    ]
    if classes:
        yield "DeviceClasses to create in the cluster:\n" + "---\n".join(map(format_yaml, classes)).rstrip("\n")


def build_published(state: ResourceState, driver: str) -> dict[str, Any]:
    """Return the published devices of a resource as an object of the plan document."""
    resource = state.offer.resource
    found = publish_resource(state.offer)
    return {
        "devices": [_build_device(device) for device in found.devices],
        "leftOut": [{"id": left_out.device_id, "reason": left_out.reason} for left_out in found.left_out],
        "deviceClasses": [] if "${" in resource.name else list(build_device_classes(resource, driver)),
    }


def _build_device(device: PublishedDevice) -> dict[str, Any]:
    return {
        "name": device.name,
        "id": device.device_id,
        "attributes": {name: _build_value(value) for name, value in device.attributes.items()},
        "capacity": dict(device.capacity),
        "taints": [{"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in device.taints],
    }


def _build_value(value: AttributeValue) -> dict[str, str | int | bool]:
    """Return the value of an attribute with its type as the key, as in a ResourceSlice."""
    match value:
        case Version():
            return {"version": value.text}
        case bool():
            return {"bool": value}
        case int():
            return {"int": value}
        case str():
            return {"string": value}


def _device_rows(
    name: str, found: PublishedResource, *, is_wide: bool
) -> Iterator[tuple[str, str, tuple[str, ...], tuple[str, ...], str]]:
    """Yield the rows of a resource: one for devices that differ in their names only, unless the table is wide.

    The attributes that repeat the first two columns are shown only if it is wide.
    """
    groups = [
        list(group) for _, group in groupby(found.devices, lambda device: device.name if is_wide else _values(device))
    ]
    shown = groups if is_wide else groups[:_MAX_ROWS]
    for group in shown:
        device = group[0]
        label = device.name if len(group) == 1 else f"{len(group)} × {device.attributes['device']}"
        attributes = tuple(
            f"{attribute} = {_format_value(value)}"
            for attribute, value in device.attributes.items()
            if is_wide or attribute not in RESERVED_NAMES
        )
        capacity = tuple(f"{key} = {quantity}" for key, quantity in device.capacity.items())
        taints = ", ".join(f"{taint.key}={taint.value}:{taint.effect}" for taint in device.taints)
        yield name, label, attributes or ("-",), capacity or ("-",), taints or "-"
    if more := sum(map(len, groups[len(shown) :])):
        yield name, f"{more} more devices", ("'-o wide' shows all",), ("-",), "-"


def _values(device: PublishedDevice) -> tuple[Mapping[str, AttributeValue], Mapping[str, str], tuple[Taint, ...]]:
    return device.attributes, device.capacity, device.taints


def _format_value(value: AttributeValue) -> str:
    """Return a value with its type: strings have quotes, and versions the letter ``v``."""
    if isinstance(value, Version):
        return f"v{value.text}"
    return json.dumps(value, ensure_ascii=False)


def _left_out_rows(name: str, found: PublishedResource, *, is_wide: bool) -> Iterator[tuple[str, str, str]]:
    """Yield resource, devices and reason; a row has all devices of a resource with such a reason."""
    groups: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for left_out in found.left_out:
        key = left_out.device_id if is_wide else similarity_key(left_out.reason)
        groups.setdefault(key, []).append(left_out.device_id)
        reasons.setdefault(key, left_out.reason)
    rows = [(name, join_names(ids), reasons[key]) for key, ids in groups.items()]
    yield from rows if is_wide else rows[:_MAX_ROWS]
    if not is_wide and (more := len(rows) - _MAX_ROWS) > 0:
        yield name, f"{more} more reasons", "'-o wide' shows all"
