"""The stand-in's device manager: resources of stopped endpoints, and the state as text."""

from genplug.testing.kubelet import ListedDevice, NodeStatus
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


def test_resource_of_a_stopped_endpoint_is_removed_after_five_minutes() -> None:
    manager = DeviceManager()
    manager.connect("example.com/x")
    manager.set_list("example.com/x", [("a", ListedDevice(healthy=True))])
    manager.disconnect("example.com/x", now=100.0)
    assert manager.node_status(399.0) == NodeStatus({"example.com/x": 1}, {"example.com/x": 0})
    assert manager.node_status(400.0) == NodeStatus({"example.com/x": 0}, {"example.com/x": 0})
    assert manager.resources == ()
    manager.connect("example.com/x")
    manager.set_list("example.com/x", [("b", ListedDevice(healthy=True))])
    assert manager.node_status(401.0) == NodeStatus({"example.com/x": 1}, {"example.com/x": 1})


def test_disconnect_of_an_unknown_resource_adds_no_resource() -> None:
    manager = DeviceManager()
    manager.disconnect("example.com/x", now=100.0)
    assert manager.resources == ()
