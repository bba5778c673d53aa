"""USB devices: the nearest directory with an ``idVendor`` is the device, its name the port (``1-1.2``).

Documentation/ABI/testing/sysfs-bus-usb.
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import Fact, Place


def _device(place: Place) -> str | None:
    return next((at for at in place.ancestors if place.file(f"{at}/idVendor") is not None), None)


def _of_device(name: str) -> Reader:
    def read(place: Place) -> Fact | None:
        device = _device(place)
        return place.file(f"{device}/{name}") if device is not None else None

    return read


def _port(place: Place) -> Fact | None:
    device = _device(place)
    return Fact((device.rpartition("/")[2],), device) if device is not None else None


READERS: Mapping[str, Reader] = {
    "usb.vendor": _of_device("idVendor"),
    "usb.product": _of_device("idProduct"),
    "usb.serial": _of_device("serial"),
    "usb.port": _port,
}
