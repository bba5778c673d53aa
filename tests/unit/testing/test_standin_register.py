"""Registration of plugins by the stand-in: the order of calls, errors, and the versions of the kubelet."""

import asyncio
from pathlib import Path

import grpc
import pytest

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet import KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin, build_device

X = "example.com/x"


async def test_kubelet_reads_options_before_register_returns_and_the_list_after_it(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        devices = await kubelet.wait_for_list(X, healthy={"a", "b"})

        assert plugin.methods[:1] == ["GetDevicePluginOptions"]
        assert sorted(plugin.methods[1:]) == ["(registered)", "ListAndWatch"]
        assert devices["a"].healthy
        assert devices["a"].numa == ()
        assert [registration.endpoint for registration in kubelet.registrations] == ["tiny.sock"]


async def test_kubelet_uses_the_options_of_the_plugin_instead_of_those_in_register(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register(options=pb.DevicePluginOptions(pre_start_required=True))
        assert not (await kubelet.wait_registered(X)).pre_start_required


async def test_each_list_replaces_the_previous_list(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b"})
        plugin.set_devices(build_device("b", healthy=False), build_device("c", 0, 1))
        devices = await kubelet.wait_for_list(X, healthy={"c"}, unhealthy={"b"})

        assert devices["c"].numa == (0, 1)
        assert [sorted(message.devices) for message in kubelet.messages(X)] == [["a", "b"], ["b", "c"]]
        first, second = kubelet.messages(X)
        assert first.time < second.time
        assert kubelet.node_status().capacity == {X: 2}
        assert kubelet.node_status().allocatable == {X: 1}


async def test_devices_are_unhealthy_after_the_stream_and_no_other_stream_is_opened(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        kubelet.cancel_stream(X)
        await kubelet.wait_for_list(X, healthy=(), unhealthy={"a"})
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)

        assert plugin.methods.count("ListAndWatch") == 1
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
async def test_register_of_an_invalid_request_fails_with_the_kubelets_message(
    kubelet: KubeletStandIn, resource: str, version: str, text: str
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, resource) as plugin:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plugin.register(version=version)

        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNKNOWN, text)
        assert [attempt.resource for attempt in kubelet.attempts] == [resource]
        assert kubelet.registrations == ()
        assert plugin.calls == []


@pytest.mark.parametrize("resource", ["foo/bar", "a.io/X_y.z", "a" * 244 + "/x"])
async def test_register_accepts_unusual_valid_names(kubelet: KubeletStandIn, resource: str) -> None:
    async with TinyPlugin(kubelet.plugins_dir, resource, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(resource, healthy={"a"})


async def test_register_of_an_endpoint_without_a_server_fails_with_gos_message(kubelet_dir: Path) -> None:
    async with (
        KubeletStandIn(kubelet_dir, dial_timeout=0.2) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a") as plugin,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plugin.register(endpoint="missing.sock")
        assert refused.value.details() == "failed to dial device plugin: context deadline exceeded"
        assert X not in kubelet.node_status().capacity


async def test_register_fails_when_the_plugin_does_not_return_its_options(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        plugin.error = "not ready"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plugin.register()
        assert refused.value.details() == (
            "failed to get device plugin options: rpc error: code = FailedPrecondition desc = not ready"
        )
        assert kubelet.stream_count(X) == 0


async def test_kubelet_up_to_1_24_answers_before_it_dials_and_uses_the_options_of_the_request(
    kubelet_dir: Path,
) -> None:
    async with (
        KubeletStandIn(kubelet_dir, version=(1, 24), dial_timeout=0.2) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a", pre_start_required=True) as plugin,
    ):
        await plugin.register(endpoint="missing.sock")
        assert (await kubelet.wait_registered(X)).pre_start_required
        assert kubelet.stream_count(X) == 0

        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        # The order of the response to Register and of the ListAndWatch call after it is not defined.
        assert sorted(plugin.methods) == ["(registered)", "(registered)", "ListAndWatch"]


@pytest.mark.parametrize(("version", "has_bug"), [((1, 24), False), ((1, 25), True), ((1, 35), True), ((1, 36), False)])
async def test_end_of_an_old_stream_closes_the_new_client_in_versions_with_the_bug(
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
            new.set_devices(build_device("b"))
            await kubelet.wait_for_list(X, healthy={"b"})


async def test_new_client_survives_the_end_of_the_old_stream_without_the_bug(kubelet_dir: Path) -> None:
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


async def test_failed_second_registration_leaves_devices_healthy_after_the_stream_ends(kubelet_dir: Path) -> None:
    async with KubeletStandIn(kubelet_dir, dial_timeout=0.2) as kubelet:
        async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
            await plugin.register()
            await kubelet.wait_for_list(X, healthy={"a"})
            with pytest.raises(grpc.aio.AioRpcError):
                await plugin.register(endpoint="missing.sock")
        await kubelet.wait_for(lambda: kubelet.stream_count(X) == 0)
        assert kubelet.devices(X).healthy == {"a"}


async def test_endpoint_allocates_after_a_failed_second_registration(kubelet_dir: Path) -> None:
    async with (
        KubeletStandIn(kubelet_dir, dial_timeout=0.2) as kubelet,
        TinyPlugin(kubelet.plugins_dir, X, "a") as plugin,
    ):
        with pytest.raises(LookupError, match=r"no plugin has registered example\.com/x"):
            kubelet.endpoint(X)
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        with pytest.raises(grpc.aio.AioRpcError):
            await plugin.register(endpoint="missing.sock")
        with pytest.raises(LookupError):
            kubelet.plugin(X)
        assert kubelet.devices(X).healthy == {"a"}
        assert len((await kubelet.endpoint(X).allocate([["a"]])).container_responses) == 1


async def test_timeout_of_wait_for_list_states_expected_and_found_devices(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        with pytest.raises(TimeoutError) as missed:
            await kubelet.wait_for_list(X, healthy={"a", "b"}, timeout=0.05)
        assert str(missed.value) == (
            "after 0.05 s: example.com/x: expected healthy ['a', 'b']; found healthy ['a'], unhealthy []. "
            "Register calls: 1, accepted: 1, open streams: 1"
        )


async def test_kubelet_accepts_300_registrations_at_the_same_time(kubelet: KubeletStandIn) -> None:
    plugins = [TinyPlugin(kubelet.plugins_dir, f"example.com/x{n}", "a", socket=f"{n}.sock") for n in range(300)]
    try:
        await asyncio.gather(*(plugin.__aenter__() for plugin in plugins))
        await asyncio.gather(*(plugin.register() for plugin in plugins))
        await kubelet.wait_for(lambda: len(kubelet.node_status().allocatable) == 300)
    finally:
        await asyncio.gather(*(plugin.__aexit__() for plugin in plugins))


async def test_timeout_of_wait_for_states_the_kubelets_state(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X)
        await kubelet.admit(X)
        with pytest.raises(TimeoutError) as missed:
            await kubelet.wait_for(lambda: False, timeout=0.05)
        state = f"<KubeletStandIn 1.32, running, start 1; {X}: 2 healthy, 0 unhealthy, 1 in use, streams: 1>"
        assert str(missed.value) == f"after 0.05 s: {state}"
        kubelet.cancel_stream(X)
        await kubelet.wait_disconnected(X)
    await kubelet.wait_for_list(X, unhealthy={"a", "b"})
    assert repr(kubelet) == state.replace("2 healthy, 0 unhealthy, 1 in use, streams: 1", STOPPED)


STOPPED = "0 healthy, 2 unhealthy, 1 in use, stopped, streams: 0"


async def test_repr_of_a_kubelet_with_many_resources_is_short(kubelet_dir: Path) -> None:
    kubelet = KubeletStandIn(kubelet_dir, version=(1, 24))
    assert repr(kubelet) == "<KubeletStandIn 1.24, stopped>"
    async with kubelet:
        for number in range(7):
            async with TinyPlugin(kubelet.plugins_dir, f"example.com/x{number}", "a") as plugin:
                await plugin.register()
                await kubelet.wait_for_list(plugin.resource)
        assert repr(kubelet).endswith("; 2 more resources>")
