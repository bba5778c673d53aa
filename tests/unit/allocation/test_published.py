"""Published devices: what Dynamic Resource Allocation learns about the devices of an offer."""

from genplug.allocation.published import LeftOut, publish_resource
from tests.support.allocation import DeviceTree, build_resource, mark_healthy, mark_unhealthy, offer_devices


def test_withheld_device_is_left_out_with_its_reason(tree: DeviceTree) -> None:
    offer = offer_devices(build_resource(), *tree.make_healthy("x0", "x1"))
    published = publish_resource(offer, withheld={"x0": "pod a uses it by the device plugin API"})
    assert [device.name for device in published.devices] == ["x1"]
    assert published.left_out == (LeftOut("x0", "pod a uses it by the device plugin API"),)


def test_unhealthy_device_is_left_out_if_the_api_server_drops_taints(tree: DeviceTree) -> None:
    x0, x1 = tree.make_device("x0"), tree.make_device("x1")
    offer = offer_devices(build_resource(), *mark_healthy(x0), mark_unhealthy(x1, "/dev/x1 is gone"))
    assert publish_resource(offer, keeps_taints=False).left_out == (LeftOut("x1", "/dev/x1 is gone"),)
    assert publish_resource(offer).left_out == ()
