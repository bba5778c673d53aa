"""What the stand-in does to plugins beyond its duty."""

import asyncio

import grpc
import pytest

from genplug.testing.kubelet.stand_in import KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin, device

X = "example.com/x"
Y = "example.com/y"


async def test_a_held_register_hangs_until_it_is_let_go(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin, asyncio.TaskGroup() as group:
        with kubelet.faults.hang_register(X) as gate:
            registering = group.create_task(plugin.register())
            await gate.wait_reached()
            assert kubelet.registrations == ()
            assert not registering.done()
            assert plugin.calls == []
        await kubelet.wait_for_list(X, healthy={"a"})


async def test_a_fault_of_one_resource_leaves_the_others_alone(kubelet: KubeletStandIn) -> None:
    kubelet.faults.refuse_register("go away", X)
    async with (
        TinyPlugin(kubelet.plugins_dir, X, "a", socket="x.sock") as refused,
        TinyPlugin(kubelet.plugins_dir, Y, "a", socket="y.sock") as taken,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await refused.register()
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNKNOWN, "go away")
        await taken.register()
        await kubelet.wait_for_list(Y, healthy={"a"})

        kubelet.faults.clear()
        await refused.register()
        await kubelet.wait_for_list(X, healthy={"a"})


async def test_a_delayed_register_takes_its_time(kubelet: KubeletStandIn) -> None:
    kubelet.faults.delay_register(0.1)
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        assert kubelet.registrations[0].time - kubelet.attempts[0].time >= 0.1


async def test_an_ignored_plugin_is_told_ok_and_never_called(kubelet: KubeletStandIn) -> None:
    kubelet.faults.ignore_register(X)
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_registered(X)
        assert plugin.names == ["(registered)"]
        assert kubelet.stream_count(X) == 0


async def test_a_kubelet_that_does_not_read_takes_nothing_in_and_goes_on_message_by_message(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X) as plugin:
        gate = kubelet.faults.stop_reading(X)
        plugin.offer(*(device(f"device-{n}") for n in range(10_000)))
        await plugin.register()
        await gate.wait_reached()
        assert kubelet.messages(X) == ()
        assert kubelet.stream_count(X) == 1

        gate.open(1)
        await kubelet.wait_for_list(X, lambda devices: len(devices) == 10_000)
        plugin.offer(device("a"))
        await gate.wait_reached(2)
        await kubelet.plugin(X).get_options()
        assert len(kubelet.messages(X)) == 1
        gate.open()
        await kubelet.wait_for_list(X, healthy={"a"})


async def test_a_second_list_of_one_plugin_lives_beside_the_first(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        async with kubelet.connect(X) as second:
            lists = second.watch()
            assert (await anext(lists)).devices.healthy == {"a"}
            plugin.offer(device("b"))
            assert (await anext(lists)).devices.healthy == {"b"}
            await lists.aclose()
        await kubelet.wait_for_list(X, healthy={"b"})
        assert plugin.names.count("ListAndWatch") == 2
        assert kubelet.stream_count(X) == 1


async def test_idle_connections_are_open_until_they_are_closed(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        async with kubelet.open_idle_connections(X, 20):
            answer = await kubelet.plugin(X).allocate([["a"]])
        assert answer.container_responses[0].envs == {"IDS": "a"}


async def test_a_list_of_more_than_4_mib_ends_the_stream(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X) as plugin:
        plugin.offer(*(device(f"{n:0>63}") for n in range(60_000)))
        await plugin.register()
        await kubelet.wait_for(lambda: "ListAndWatch" in plugin.names and kubelet.stream_count(X) == 0)
        assert kubelet.messages(X) == ()


async def test_any_bytes_can_be_sent_to_any_method(kubelet: KubeletStandIn) -> None:
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
