"""Reads what identifies the hardware of a device, for the audit log: addresses, serial numbers and drivers."""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice

from msgspec import Struct

from genplug.audit.records import Hardware
from genplug.hardware.attributes.lazy import LazyAttributes
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device
from genplug.spec.model import Resource
from genplug.spec.template import distinct_values

MAX_VALUES = 32
"""Paths, device numbers, attributes, and values of an attribute of a device in a record."""
MAX_VALUE_CHARACTERS = 256
"""Characters of a value in a record."""
MAX_HARDWARE_BYTES = 3072
"""Bytes of the paths, numbers and attributes of a device in a record: `genplug audit` accepts a record of 256 devices.
A configuration can add attributes, which must not make a record too long."""

_BUILT_IN = ("pci.address", "pci.vendor", "pci.device", "usb.serial", "usb.port", "ib.guid", "net.mac", "driver")
_FILES = ("attr.wwid", "attr.uuid", "attr.unique_id")
"""Files in the directory of the device or of the nearest parent that has one: NVMe (drivers/nvme/host/sysfs.c, also
``serial``), SCSI disks (drivers/scsi/scsi_sysfs.c) and AMD GPUs (drivers/gpu/drm/amd/pm/amdgpu_pm.c)."""
_SERIAL = "attr.serial"
_USB_VENDOR = "usb.vendor"
_KNOWN = frozenset({*_BUILT_IN, *_FILES, _SERIAL, "driverVersion"})
_IDENTIFYING = re.compile(r"serial|uuid|guid|wwid|wwn|mac\b|address|unique", re.IGNORECASE)
"""Names of custom attributes that identify hardware, for example ``gpuUuid``."""


def describe_device(device: Device) -> Hardware:
    """Return what the scan of a device has found, without reading anything."""
    attributes = distinct_values(device.attributes)
    found = {name: values for name, values in attributes.items() if name in _KNOWN or _IDENTIFYING.search(name)}
    return _limit(device, found)


def read_hardware(devices: Iterable[tuple[Device, Resource]], host: Host) -> tuple[Hardware, ...]:
    """Return the hardware of devices, read from files that the policies of their resources allow.

    Raises:
        HangError: a file operation hangs.
    """
    return tuple(_read(device, resource, host) for device, resource in devices)


def _read(device: Device, resource: Resource, host: Host) -> Hardware:
    described = describe_device(device)
    source = next((source for source in resource.sources if source.location == device.location), None)
    if source is None:
        return described
    found: dict[str, dict[str, None]] = {}
    for path in device.candidates[:MAX_VALUES]:
        info = host.stat(path)
        if info is None:
            continue
        lazy = LazyAttributes(path, info, source, host, resource.policy)
        names = [*_BUILT_IN, *_FILES]
        if _USB_VENDOR not in lazy:
            # Above a USB device without a serial number is the hub, which has another.
            names.append(_SERIAL)
        for name in names:
            if name in lazy:
                found.setdefault(name, {}).update(dict.fromkeys(lazy[name]))
        for driver in lazy.get("driver", ()):
            text = host.read_text(f"/sys/module/{driver}/version", resource.policy.read.allows)
            if text and text.strip():
                found.setdefault("driverVersion", {}).update({text.partition("\n")[0].strip(): None})
    return _limit(device, {**described.attributes, **{name: tuple(values) for name, values in found.items()}})


class _Budget(Struct):
    """The bytes that are left in the record of a device."""

    left: int = MAX_HARDWARE_BYTES

    def take(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Return the first texts that fit."""
        taken: list[str] = []
        for text in islice(texts, MAX_VALUES):
            # With the comma.
            size = len(json.dumps(text)) + 1
            if size > self.left:
                break
            self.left -= size
            taken.append(text)
        return tuple(taken)


def _limit(device: Device, attributes: Mapping[str, tuple[str, ...]]) -> Hardware:
    """Return the hardware of a device: the attributes that genplug reads first, then the others that fit."""
    budget = _Budget()
    numbers = [node.info.describe_numbers() for node in islice(device.nodes, MAX_VALUES) if node.info.is_device]
    names = sorted(attributes, key=lambda name: (name not in _KNOWN, name))[:MAX_VALUES]
    kept: dict[str, tuple[str, ...]] = {}

    def keep(name: str) -> None:
        # A name has the colon and the brackets of its values.
        if budget.take([f"{name}:[]"]) and (
            values := budget.take(value[:MAX_VALUE_CHARACTERS] for value in attributes[name])
        ):
            kept[name] = values

    for name in names:
        if name in _KNOWN:
            keep(name)
    paths, shown_numbers = budget.take(device.candidates), budget.take(numbers)
    for name in names:
        if name not in _KNOWN:
            keep(name)
    return Hardware(device.id, paths, shown_numbers, {name: kept[name] for name in sorted(kept)})
