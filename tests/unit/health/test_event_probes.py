"""Probes that listen: which events end what the kernel logged."""

from genplug.hardware.uevents import Uevent
from genplug.health.event_probes import is_driver_bound

BRIDGE = "/devices/pci0000:00/0000:00:03.0"
FUNCTION = f"{BRIDGE}/0000:03:00.0"
CARD = f"{FUNCTION}/drm/card0"


def event(action: str, devpath: str, **values: str) -> Uevent:
    return Uevent(action, devpath, "pci", {"ACTION": action, "DEVPATH": devpath, **values})


def test_driver_is_bound_to_device_or_to_what_it_is_part_of() -> None:
    directories = (f"/sys{CARD}",)
    assert is_driver_bound(directories, event("bind", FUNCTION, DRIVER="amdgpu"))
    assert is_driver_bound(("/sys/devices/x", *directories), event("bind", FUNCTION, DRIVER="amdgpu"))
    for action in ("unbind", "add", "change", "remove"):
        assert not is_driver_bound(directories, event(action, FUNCTION, DRIVER="amdgpu"))
    for other in (f"{CARD}/card0-DP-1", f"{BRIDGE}/0000:03:00.1", f"{FUNCTION}0"):
        assert not is_driver_bound(directories, event("bind", other, DRIVER="amdgpu"))
    assert not is_driver_bound((), event("bind", FUNCTION, DRIVER="amdgpu"))
    # The driver of a bridge is not a driver of the device below it.
    assert not is_driver_bound(directories, event("bind", BRIDGE, DRIVER="pcieport"))
