"""The versions of drivers and firmware of the devices, as sysfs and procfs show them.

- Driver and module of a device: the links ``driver`` and ``module`` (the kernel's
  Documentation/driver-api/driver-model/binding.rst).
- Version of a module: ``/sys/module/NAME/version``, which exists only if the source has MODULE_VERSION
  (Documentation/ABI/stable/sysfs-module); ``taint`` shows whether a module comes from outside of the kernel tree
  (Documentation/ABI/testing/sysfs-module).
- Firmware: the files of :data:`FIRMWARE_FILES`, and ``/proc/driver/nvidia/gpus/ADDRESS/information`` of the driver of
  NVIDIA.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from genplug.hardware.attributes import ATTRIBUTES
from genplug.hardware.attributes.lazy import LazyAttributes
from genplug.hardware.attributes.sysfs_device import SysfsDevice
from genplug.hardware.host import Host, printable
from genplug.hardware.inventory import Device, Inventory
from genplug.record.facts import Fact, Known, Unknown
from genplug.spec.limits import MAX_RECORDED_DEVICES, MAX_RECORDED_VERSIONS
from genplug.spec.model import Source
from genplug.spec.policy import DEFAULT_POLICY

KERNEL_RELEASE_FILE = "/proc/sys/kernel/osrelease"
FIRMWARE_FILES = {
    "fw_ver": "InfiniBand and RoCE adapters, Documentation/ABI/stable/sysfs-class-infiniband",
    "firmware_rev": "NVMe controllers, drivers/nvme/host/sysfs.c",
    "firmware_version": "CXL memory devices, Documentation/ABI/testing/sysfs-bus-cxl",
    "vbios_version": "AMD GPUs, Documentation/gpu/amdgpu/driver-misc.rst",
    "armcp_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "cpucp_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "infineon_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "uboot_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "cpld_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "fw_os_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "preboot_btl_ver": "Gaudi accelerators, Documentation/ABI/testing/sysfs-driver-habanalabs",
    "bitstream_id": "FPGAs, Documentation/ABI/testing/sysfs-platform-dfl-fme",
    "fwrev": "MMC cards, Documentation/driver-api/mmc/mmc-dev-attrs.rst",
    "bcdDevice": "USB devices: the release number of the device, drivers/usb/core/sysfs.c",
}
"""The files of sysfs with a version of firmware, and the kind of device that has each of them, with the source."""
_CLASSES = ("infiniband", "nvme", "accel", "habanalabs")
"""The classes with devices of their own below a PCI function, in whose directories the files may be."""
_FIRMWARE_DIRECTORY = "fw_version"
"""The versions of all microcodes of an AMD GPU, drivers/gpu/drm/amd/amdgpu/amdgpu_ucode.c."""
_NVIDIA_FIELDS = ("GPU Firmware", "Video BIOS")
_NVIDIA_VERSION = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", re.MULTILINE)
_TAINTS = {"P": "proprietary", "O": "out-of-tree", "F": "force-loaded", "C": "staging", "E": "unsigned"}
_IDENTITY = {
    "pciAddress": "pci.address",
    "pciVendor": "pci.vendor",
    "pciDevice": "pci.device",
    "usbVendor": "usb.vendor",
    "usbProduct": "usb.product",
    "serial": "usb.serial",
}
"""The attributes that identify the hardware of a device, by the keys of the record."""


class DriverVersion(Struct, frozen=True):
    """A driver that devices use: the module, its version, and its marks, for example ``out-of-tree``."""

    driver: str
    module: Fact
    version: Fact
    source_checksum: Fact
    taints: Fact


class FirmwareVersion(Struct, frozen=True):
    """A version of firmware: the name of the file or field, and the file that contains it."""

    name: str
    version: str
    source: str


class DeviceDrivers(Struct, frozen=True):
    """The drivers and the firmware of a device; ``identity`` has the attributes that identify its hardware."""

    resource: str
    id: str
    paths: tuple[str, ...]
    identity: Mapping[str, str]
    drivers: Fact
    firmware: Fact


def describe_devices(inventory: Inventory, host: Host) -> Fact:
    """Return the drivers and the firmware of each device of the node."""
    devices = [device for devices in inventory.devices.values() for device in devices]
    if len(devices) > MAX_RECORDED_DEVICES:
        return Unknown(f"the node has {len(devices)} devices, and a record at most {MAX_RECORDED_DEVICES}")
    cached = host.cached()
    sources = {
        path: source
        for scan in inventory.scans.values()
        for source, candidates in zip(scan.resource.sources, scan.candidates_by_source, strict=True)
        for path in candidates
    }
    records = tuple(_describe_device(device, sources, cached) for device in devices)
    return Known(records, "/sys and /proc/driver of the node")


def describe_drivers(devices: Fact, host: Host) -> Fact:
    """Return the version of each driver that the devices use."""
    if isinstance(devices, Unknown):
        return devices
    names = {name for device in devices.value if isinstance(device.drivers, Known) for name in device.drivers.value}
    return Known(tuple(_describe_driver(name, host) for name in sorted(names)), "/sys/bus/*/drivers and /sys/module")


def _describe_device(device: Device, sources: Mapping[str, Source], host: Host) -> DeviceDrivers:
    views = tuple(_list_views(device, sources, host))
    drivers = {name: None for view in views for name in _find_drivers(view)}
    firmware = {(version.name, version.source): version for view in views for version in _find_firmware(view)}
    found = sorted(firmware.values(), key=lambda version: (version.name, version.source))
    firmware_fact: Fact = Known(tuple(found[:MAX_RECORDED_VERSIONS]), "the files that 'source' names")
    if not found:
        firmware_fact = Unknown("no file of /sys and /proc/driver contains a version of firmware of this device")
    driver_fact: Fact = Known(tuple(sorted(drivers)), "the links 'driver' in /sys")
    if not drivers:
        driver_fact = Unknown("/sys has no driver of this device: it belongs to a virtual device or to no bus")
    return DeviceDrivers(
        device.resource,
        device.id,
        tuple(map(printable, device.candidates)),
        _read_identity(views),
        driver_fact,
        firmware_fact,
    )


def _list_views(device: Device, sources: Mapping[str, Source], host: Host) -> Iterator[SysfsDevice]:
    """Yield the directories of a device in /sys: those of its candidates, and those of its device nodes."""
    infos = {path: host.stat(path) for path in device.candidates}
    paths = {**infos, **{node.path: node.info for node in device.nodes}}
    seen: set[str] = set()
    for path, info in paths.items():
        if info is None:
            continue
        directory: str | None = None
        if path in sources:
            attribute = LazyAttributes(path, info, sources[path], host, DEFAULT_POLICY).value("sysfs")
            directory = attribute.values[0] if attribute is not None else None
        elif info.is_device:
            directory = host.resolve(f"/sys/dev/{info.kind.value}/{info.major}:{info.minor}")
        view = SysfsDevice(path, info, host, directory, DEFAULT_POLICY)
        if view.is_in_sysfs and (directory or path) not in seen:
            seen.add(directory or path)
            yield view


def _read_identity(views: Sequence[SysfsDevice]) -> dict[str, str]:
    """Return the attributes that identify the hardware, several values separated by commas."""
    found: dict[str, str] = {}
    for key, name in _IDENTITY.items():
        values = (value for view in views if (value := ATTRIBUTES[name].read(view)) is not None)
        if texts := dict.fromkeys(text for value in values for text in value.values):
            found[key] = ",".join(texts)
    return found


def _find_drivers(view: SysfsDevice) -> Iterator[str]:
    """Yield the name of the driver of the nearest directory that has one, for each function."""
    for chain in view.ancestor_chains:
        found = next((value for path in chain if (value := view.link(f"{path}/driver")) is not None), None)
        if found is not None:
            yield found.values[0]


def _find_firmware(view: SysfsDevice) -> Iterator[FirmwareVersion]:
    for path in _list_directories(view):
        for name in FIRMWARE_FILES:
            if (value := view.file(f"{path}/{name}")) is not None:
                yield FirmwareVersion(name, value.values[0], value.origin)
        for name in view.names(f"{path}/{_FIRMWARE_DIRECTORY}"):
            if (value := view.file(f"{path}/{_FIRMWARE_DIRECTORY}/{name}")) is not None:
                yield FirmwareVersion(name, value.values[0], value.origin)
    for function in view.functions:
        file = f"/proc/driver/nvidia/gpus/{function.rpartition('/')[2]}/information"
        for line in (view.read_text(file) or "").splitlines():
            name, _, text = line.partition(":")
            if name.strip() in _NVIDIA_FIELDS and text.strip():
                yield FirmwareVersion(name.strip(), text.strip(), file)


def _list_directories(view: SysfsDevice) -> Iterator[str]:
    """Yield the directories of the device up to its PCI function or USB device, and those of classes below it.

    The directories above belong to a bridge or a hub.
    """
    for chain in view.ancestor_chains:
        for path in chain:
            yield path
            if path in view.functions:
                classes = (f"{path}/{name}" for name in _CLASSES)
                yield from (f"{parent}/{name}" for parent in classes for name in view.names(parent))
            if path in view.functions or view.file(f"{path}/idVendor") is not None:
                break


def _describe_driver(driver: str, host: Host) -> DriverVersion:
    module = _find_module(driver, host)
    if module is None:
        unknown = Unknown(f"the driver '{driver}' has no link to a module, like a driver that is built into the kernel")
        return DriverVersion(driver, unknown, unknown, unknown, unknown)
    directory = f"/sys/module/{module}"
    version = host.read_text(f"{directory}/version")
    checksum, taint = host.read_text(f"{directory}/srcversion"), host.read_text(f"{directory}/taint")
    version_fact: Fact = Known(version, f"{directory}/version")
    if not version and module == "nvidia":
        found = _NVIDIA_VERSION.search(host.read_text("/proc/driver/nvidia/version") or "")
        version = found[1] if found else None
        version_fact = Known(version, "/proc/driver/nvidia/version")
    if not version:
        version_fact = Unknown(
            f"{directory}/version does not exist; a module of the kernel tree has the version of the kernel"
        )
    return DriverVersion(
        driver,
        Known(module, f"the link 'module' of the driver '{driver}'"),
        version_fact,
        Known(checksum, f"{directory}/srcversion") if checksum else Unknown(f"{directory}/srcversion does not exist"),
        Unknown(f"{directory}/taint does not exist")
        if taint is None
        else Known(tuple(_TAINTS.get(mark, mark) for mark in taint.strip()), f"{directory}/taint"),
    )


def _find_module(driver: str, host: Host) -> str | None:
    """Return the module of a driver of any bus."""
    for bus in host.list_directory("/sys/bus"):
        if (directory := host.resolve(f"/sys/bus/{bus}/drivers/{driver}/module")) is not None:
            return directory.rpartition("/")[2]
    return None
