"""How the stand-in registers plugins: the order of calls, the refusals, both generations of the kubelet."""

import asyncio
from pathlib import Path

import grpc
import pytest

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.stand_in import KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin, device

X = "example.com/x"


async def test_a_plugin_is_asked_for_options_before_register_returns_and_for_its_list_after(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        devices = await kubelet.wait_for_list(X, healthy={"a", "b"})

        assert plugin.names[:1] == ["GetDevicePluginOptions"]
        assert sorted(plugin.names[1:]) == ["(registered)", "ListAndWatch"]
        assert devices["a"].healthy
        assert devices["a"].numa == ()
        assert [one.endpoint for one in kubelet.registrations] == ["tiny.sock"]


async def test_options_count_as_the_plugin_answers_them_not_as_register_says(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register(says=pb.DevicePluginOptions(pre_start_required=True))
        assert not (await kubelet.wait_registered(X)).pre_start_required


async def test_each_list_replaces_the_one_before(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b"})
        plugin.offer(device("b", healthy=False), device("c", 0, 1))
        devices = await kubelet.wait_for_list(X, healthy={"c"}, unhealthy={"b"})

        assert devices["c"].numa == (0, 1)
        assert [sorted(one.devices) for one in kubelet.messages(X)] == [["a", "b"], ["b", "c"]]
        first, second = kubelet.messages(X)
        assert first.time < second.time
        assert kubelet.node_status().capacity == {X: 2}
        assert kubelet.node_status().allocatable == {X: 1}


async def test_when_the_stream_ends_its_devices_are_unhealthy_and_no_other_is_opened(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        kubelet.cancel_stream(X)
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"a"})
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)

        assert plugin.names.count("ListAndWatch") == 1
        assert kubelet.node_status().allocatable == {X: 0}
        assert kubelet.node_status().capacity == {X: 1}


@pytest.mark.parametrize(
    ("resource", "version", "text"),
    [
        (X, "v1", 'requested API version "v1" is not supported by kubelet. Supported version is ["v1beta1"]'),
        ("x", "v1beta1", 'the ResourceName "x" is invalid'),
        ("a.kubernetes.io/x", "v1beta1", 'the ResourceName "a.kubernetes.io/x" is invalid'),
        ("mykubernetes.io/x", "v1beta1", 'the ResourceName "mykubernetes.io/x" is invalid'),
        ("requests.a.b/x", "v1beta1", 'the ResourceName "requests.a.b/x" is invalid'),
        ("a/b/c", "v1beta1", 'the ResourceName "a/b/c" is invalid'),
        ("A.com/x", "v1beta1", 'the ResourceName "A.com/x" is invalid'),
        ("a.com/" + "x" * 64, "v1beta1", f'the ResourceName "a.com/{"x" * 64}" is invalid'),
        ("a" * 245 + "/x", "v1beta1", f'the ResourceName "{"a" * 245}/x" is invalid'),
    ],
)
async def test_what_the_kubelet_refuses_is_refused_in_its_words(
    kubelet: KubeletStandIn, resource: str, version: str, text: str
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, resource) as plugin:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plugin.register(version=version)

        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNKNOWN, text)
        assert [one.resource for one in kubelet.attempts] == [resource]
        assert kubelet.registrations == ()
        assert plugin.calls == []


@pytest.mark.parametrize("resource", ["foo/bar", "a.io/X_y.z", "a" * 244 + "/x"])
async def test_names_that_look_odd_and_are_valid_are_taken(kubelet: KubeletStandIn, resource: str) -> None:
    async with TinyPlugin(kubelet.plugins_dir, resource, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(resource, healthy={"a"})


async def test_an_endpoint_that_does_not_answer_fails_register_with_the_words_of_go(kubelet_dir: Path) -> None:
    async with (
        KubeletStandIn(kubelet_dir, dial_timeout=0.2) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a") as plugin,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plugin.register(endpoint="nobody.sock")
        assert refused.value.details() == "failed to dial device plugin: context deadline exceeded"
        assert X not in kubelet.node_status().capacity


async def test_a_kubelet_up_to_1_24_answers_first_dials_later_and_takes_options_from_the_request(
    kubelet_dir: Path,
) -> None:
    async with (
        KubeletStandIn(kubelet_dir, version=(1, 24), dial_timeout=0.2) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a", pre_start_required=True) as plugin,
    ):
        await plugin.register(endpoint="nobody.sock")
        assert (await kubelet.wait_registered(X)).pre_start_required
        assert kubelet.stream_count(X) == 0

        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        # Who hears first of an answer and of a call that follows it is not said.
        assert sorted(plugin.names) == ["(registered)", "(registered)", "ListAndWatch"]


@pytest.mark.parametrize(("version", "has_bug"), [((1, 24), False), ((1, 25), True), ((1, 35), True), ((1, 36), False)])
async def test_the_end_of_an_old_stream_closes_the_new_client_in_versions_with_the_bug(
    kubelet_dir: Path, version: tuple[int, int], *, has_bug: bool
) -> None:
    async with (
        KubeletStandIn(kubelet_dir, version=version) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a", socket="new.sock") as new,
    ):
        async with TinyPlugin(kubelet.plugins_dir, X, "a", socket="old.sock") as old:
            await old.register()
            await kubelet.wait_for_list(X, healthy={"a"})
            await new.register()
            await kubelet.wait_for(lambda: kubelet.stream_count(X) == 2 and len(kubelet.messages(X)) == 2)
        if has_bug:
            await kubelet.wait_for_list(X, unhealthy={"a"})
            await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
            with pytest.raises(LookupError, match="no plugin is connected"):
                kubelet.plugin(X)
        else:
            await kubelet.wait_for(lambda: kubelet.stream_count(X) == 1)
            new.offer(device("b"))
            await kubelet.wait_for_list(X, healthy={"b"})


async def test_the_bug_can_be_switched_off(kubelet_dir: Path) -> None:
    async with (
        KubeletStandIn(kubelet_dir, disconnect_bug=False) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a", socket="new.sock") as new,
    ):
        async with TinyPlugin(kubelet.plugins_dir, X, "a", socket="old.sock") as old:
            await old.register()
            await kubelet.wait_for_list(X, healthy={"a"})
            await new.register()
            await kubelet.wait_for(lambda: kubelet.stream_count(X) == 2)
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 1)
        assert kubelet.devices(X).healthy == {"a"}


async def test_a_failed_second_registration_leaves_phantom_devices_where_the_second_bug_is(kubelet_dir: Path) -> None:
    async with KubeletStandIn(kubelet_dir, dial_timeout=0.2) as kubelet:
        async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
            await plugin.register()
            await kubelet.wait_for_list(X, healthy={"a"})
            with pytest.raises(grpc.aio.AioRpcError):
                await plugin.register(endpoint="nobody.sock")
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
        assert kubelet.devices(X).healthy == {"a"}


async def test_until_says_what_it_missed(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        with pytest.raises(TimeoutError) as missed:
            await kubelet.wait_for_list(X, healthy={"a", "b"}, timeout=0.05)
        assert str(missed.value) == (
            "after 0.05 s: example.com/x is not healthy ['a', 'b'], but healthy ['a'], unhealthy [], "
            "with 1 streams and 1 calls of Register, 1 accepted"
        )


async def test_300_plugins_register_at_once(kubelet: KubeletStandIn) -> None:
    plugins = [TinyPlugin(kubelet.plugins_dir, f"example.com/x{n}", "a", socket=f"{n}.sock") for n in range(300)]
    try:
        await asyncio.gather(*(plugin.__aenter__() for plugin in plugins))
        await asyncio.gather(*(plugin.register() for plugin in plugins))
        await kubelet.wait_for(lambda: len(kubelet.node_status().allocatable) == 300)
    finally:
        await asyncio.gather(*(plugin.__aexit__() for plugin in plugins))
