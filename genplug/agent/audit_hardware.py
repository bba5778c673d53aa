"""Reads what identifies the hardware of a device, for the audit log: addresses, serial numbers and drivers."""

import re
from collections.abc import Iterable, Mapping

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

_BUILT_IN = ("pci.address", "pci.vendor", "pci.device", "usb.serial", "usb.port", "ib.guid", "net.mac", "driver")
_FILES = ("attr.wwid", "attr.uuid", "attr.unique_id")
"""Files in the directory of the device or of the nearest parent that has one: NVMe (drivers/nvme/host/sysfs.c, also
``serial``), SCSI disks (drivers/scsi/scsi_sysfs.c) and AMD GPUs (drivers/gpu/drm/amd/pm/amdgpu_pm.c)."""
_SERIAL = "attr.serial"
_USB_VENDOR = "usb.vendor"
_IDENTIFYING = re.compile(r"serial|uuid|guid|wwid|wwn|mac\b|address|unique", re.IGNORECASE)
"""Names of custom attributes that identify hardware, for example ``gpuUuid``."""


def describe_device(device: Device) -> Hardware:
    """Return what the scan of a device has found, without reading anything."""
    attributes = distinct_values(device.attributes)
    known = {*_BUILT_IN, *_FILES, _SERIAL}
    return Hardware(
        device.id,
        device.candidates[:MAX_VALUES],
        tuple(node.info.describe_numbers() for node in device.nodes[:MAX_VALUES] if node.info.is_device),
        _limit({name: values for name, values in attributes.items() if name in known or _IDENTIFYING.search(name)}),
    )


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
    attributes = {**described.attributes, **_limit({name: tuple(values) for name, values in found.items()})}
    return Hardware(device.id, described.paths, described.numbers, _limit(attributes))


def _limit(attributes: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    names = sorted(attributes)[:MAX_VALUES]
    return {name: tuple(value[:MAX_VALUE_CHARACTERS] for value in attributes[name][:MAX_VALUES]) for name in names}
