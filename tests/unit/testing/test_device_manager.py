"""The state of the stand-in's device manager as text."""

from genplug.testing.kubelet import ListedDevice
from genplug.testing.kubelet.device_manager import DeviceManager


def test_repr_of_device_manager_shows_counts_by_resource() -> None:
    manager = DeviceManager()
    assert repr(manager) == "<DeviceManager without resources>"
    manager.connect("example.com/x")
    manager.set_list("example.com/x", [("a", ListedDevice(healthy=True)), ("b", ListedDevice(healthy=False))])
    manager.mark_in_use("example.com/x", ["a"])
    manager.restore(["example.com/y"], [], now=0.0)
    assert repr(manager) == (
        "<DeviceManager example.com/x: 1 healthy, 1 unhealthy, 0 in use; "
        "example.com/y: 0 healthy, 0 unhealthy, 0 in use, stopped>"
    )
