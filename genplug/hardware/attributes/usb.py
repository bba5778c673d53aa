"""USB devices: the nearest directory with an ``idVendor`` is the device, its name the port (``1-1.2``).

Documentation/ABI/testing/sysfs-bus-usb.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice


def _device(sysfs_device: SysfsDevice) -> str | None:
    return next((at for at in sysfs_device.ancestors if sysfs_device.file(f"{at}/idVendor") is not None), None)


def _of_device(name: str) -> Reader:
    def read(sysfs_device: SysfsDevice) -> AttributeValue | None:
        device = _device(sysfs_device)
        return sysfs_device.file(f"{device}/{name}") if device is not None else None

    return read


def _port(sysfs_device: SysfsDevice) -> AttributeValue | None:
    device = _device(sysfs_device)
    return AttributeValue((device.rpartition("/")[2],), device) if device is not None else None


READERS: Mapping[str, Reader] = {
    "usb.vendor": _of_device("idVendor"),
    "usb.product": _of_device("idProduct"),
    "usb.serial": _of_device("serial"),
    "usb.port": _port,
}
