"""The faults of the stand-in, further connections to a plugin, and invalid calls."""

import asyncio

import grpc
import pytest

from genplug.testing.kubelet import KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin, build_device

X = "example.com/x"
Y = "example.com/y"


async def test_register_hangs_until_the_gate_opens(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin, asyncio.TaskGroup() as group:
        with kubelet.faults.hang_register(X) as gate:
            registering = group.create_task(plugin.register())
            await gate.wait_reached()
            assert kubelet.registrations == ()
            assert not registering.done()
            assert plugin.calls == []
        await kubelet.wait_for_list(X, healthy={"a"})


async def test_fault_of_a_resource_does_not_affect_other_resources(kubelet: KubeletStandIn) -> None:
    kubelet.faults.refuse_register("not now", X)
    async with (
        TinyPlugin(kubelet.plugins_dir, X, "a", socket="x.sock") as refused,
        TinyPlugin(kubelet.plugins_dir, Y, "a", socket="y.sock") as taken,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await refused.register()
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNKNOWN, "not now")
        await taken.register()
        await kubelet.wait_for_list(Y, healthy={"a"})

        kubelet.faults.clear()
        await refused.register()
        await kubelet.wait_for_list(X, healthy={"a"})


async def test_delayed_register_takes_at_least_the_delay(kubelet: KubeletStandIn) -> None:
    kubelet.faults.delay_register(0.1)
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        assert kubelet.registrations[0].time - kubelet.attempts[0].time >= 0.1


async def test_ignored_register_returns_ok_and_the_plugin_is_not_called(kubelet: KubeletStandIn) -> None:
    kubelet.faults.ignore_register(X)
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_registered(X)
        assert plugin.methods == ["(registered)"]
        assert kubelet.stream_count(X) == 0


async def test_kubelet_that_stopped_reading_reads_one_message_per_opening_of_the_gate(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X) as plugin:
        gate = kubelet.faults.stop_reading(X)
        plugin.set_devices(*(build_device(f"device-{n}") for n in range(10_000)))
        await plugin.register()
        await gate.wait_reached()
        assert kubelet.messages(X) == ()
        assert kubelet.stream_count(X) == 1

        gate.open(1)
        await kubelet.wait_for_list(X, lambda devices: len(devices) == 10_000)
        plugin.set_devices(build_device("a"))
        await gate.wait_reached(2)
        await kubelet.plugin(X).get_options()
        assert len(kubelet.messages(X)) == 1
        gate.open()
        await kubelet.wait_for_list(X, healthy={"a"})


async def test_second_stream_of_a_plugin_receives_the_same_lists_as_the_first(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        async with kubelet.connect(X) as second:
            lists = second.watch()
            assert (await anext(lists)).devices.healthy == {"a"}
            plugin.set_devices(build_device("b"))
            assert (await anext(lists)).devices.healthy == {"b"}
            await lists.aclose()
        await kubelet.wait_for_list(X, healthy={"b"})
        assert plugin.methods.count("ListAndWatch") == 2
        assert kubelet.stream_count(X) == 1


async def test_plugin_answers_beside_idle_connections(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        async with kubelet.open_idle_connections(X, 20):
            response = await kubelet.plugin(X).allocate([["a"]])
        assert response.container_responses[0].envs == {"IDS": "a"}


async def test_list_larger_than_4_mib_ends_the_stream(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X) as plugin:
        plugin.set_devices(*(build_device(f"{n:0>63}") for n in range(60_000)))
        await plugin.register()
        await kubelet.wait_for(lambda: "ListAndWatch" in plugin.methods and kubelet.stream_count(X) == 0)
        assert kubelet.messages(X) == ()


async def test_call_method_sends_any_bytes_to_any_method(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await kubelet.plugin(X).call_method("Deallocate")
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as garbage:
            await kubelet.plugin(X).call_method("Allocate", b"\xff\xff")
        assert "Error parsing message" in str(garbage.value.details())
        assert await kubelet.plugin(X).call_method("Allocate", b"\xba\x3e\x01?") == b""
