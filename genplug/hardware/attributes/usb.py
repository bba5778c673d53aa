"""Attributes of USB devices: the nearest directory with an ``idVendor`` is the device, its name the port (``1-1.2``).

Documentation/ABI/testing/sysfs-bus-usb.
"""

from genplug.hardware.attributes.family import Attribute, AttributeFamily, Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice


def _find_usb_device(device: SysfsDevice) -> str | None:
    return next((path for path in device.ancestors if device.file(f"{path}/idVendor") is not None), None)


def _file_reader(name: str) -> Reader:
    def read(device: SysfsDevice) -> AttributeValue | None:
        directory = _find_usb_device(device)
        return device.file(f"{directory}/{name}") if directory is not None else None

    return read


def _read_port(device: SysfsDevice) -> AttributeValue | None:
    directory = _find_usb_device(device)
    return AttributeValue((directory.rpartition("/")[2],), directory) if directory is not None else None


FAMILY = AttributeFamily(
    "usb",
    {
        "usb.vendor": Attribute(_file_reader("idVendor"), "vendor ID of the nearest USB device", "idVendor"),
        "usb.product": Attribute(_file_reader("idProduct"), "product ID of the USB device", "idProduct"),
        "usb.serial": Attribute(_file_reader("serial"), "serial number of the USB device", "serial"),
        "usb.port": Attribute(_read_port, "port of the USB device, for example `1-1.2`"),
    },
)
