"""A node that changes from another device plugin to genplug and back (docs/how-to/migrate)."""

from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from tests.support.resources import X, build_x_config, list_host_paths, plug_devices
from tests.support.tiny_plugin import TinyPlugin

SAME_ID_CONFIG = build_x_config(source="id: '${name|upper}', verbatimId: true")
OTHER_ID_CONFIG = build_x_config(source="id: '${name|upper}', verbatimId: false")


async def test_device_of_running_pod_stays_in_use_when_genplug_lists_its_id(
    node: FakeNode, kubelet: KubeletStandIn
) -> None:
    plug_devices(node, "x0", "x1")
    async with TinyPlugin(kubelet.plugins_dir, X, "X0", "X1") as other_plugin:
        await other_plugin.register()
        await kubelet.wait_for_list(X, healthy={"X0", "X1"})
        await kubelet.admit(X, 1, pod="before", ids={"X0"})
    await kubelet.wait_for_list(X, unhealthy={"X0", "X1"})

    async with node.run_agent(SAME_ID_CONFIG):
        await kubelet.wait_for_list(X, healthy={"X0", "X1"})
        after = await kubelet.admit(X, 1, pod="after")
        assert after.ids == ("X1",)
        assert list_host_paths(after.response) == ["/dev/x1"]
    await kubelet.wait_for_list(X, lambda devices: not devices.healthy)

    async with TinyPlugin(kubelet.plugins_dir, X, "X0", "X1", socket="again.sock") as other_plugin:
        await other_plugin.register()
        await kubelet.wait_for_list(X, healthy={"X0", "X1"})
        await kubelet.remove_pod("before")
        assert (await kubelet.admit(X, 1, pod="back")).ids == ("X0",)


async def test_device_of_running_pod_is_free_when_genplug_lists_another_id(
    node: FakeNode, kubelet: KubeletStandIn
) -> None:
    node.plug("/dev/x0")
    async with TinyPlugin(kubelet.plugins_dir, X, "X0") as other_plugin:
        await other_plugin.register()
        await kubelet.wait_for_list(X, healthy={"X0"})
        await kubelet.admit(X, 1, pod="before")

    async with node.run_agent(OTHER_ID_CONFIG):
        await kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 1 and "X0" not in devices.ids)
        after = await kubelet.admit(X, 1, pod="after")
        assert list_host_paths(after.response) == ["/dev/x0"]
