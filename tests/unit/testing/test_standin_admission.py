"""Admission of containers by the stand-in, its errors, and the pod-resources API."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api import genplug_podresources_v1_pb2 as pods
from genplug.kubelet.api.services import POD_RESOURCES, method_path
from genplug.testing.kubelet import AdmissionError, KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin, build_device

Response = TypeVar("Response", bound=Message)

X = "example.com/x"


@pytest.fixture
async def plugin(kubelet: KubeletStandIn) -> AsyncIterator[TinyPlugin]:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b", "c") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b", "c"})
        yield plugin


async def test_admission_allocates_free_devices_with_one_container_request(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    allocation = await kubelet.admit(X, 2, pod="p")
    [request] = plugin.find_requests(pb.AllocateRequest)

    assert [sorted(container.devices_ids) for container in request.container_requests] == [list(allocation.ids)]
    assert allocation.response.envs == {"IDS": ",".join(allocation.ids)}
    assert len((await kubelet.admit(X, pod="q")).ids) == 1
    assert kubelet.node_status().allocatable == {X: 3}


async def test_order_of_devices_depends_on_the_seed(kubelet_dir: Path) -> None:
    async def order(seed: int) -> list[str]:
        async with (
            KubeletStandIn(kubelet_dir / str(seed), seed=seed) as kubelet,
            TinyPlugin(kubelet.plugins_dir, X, *"abcdefgh") as plugin,
        ):
            await plugin.register()
            await kubelet.wait_for_list(X)
            await kubelet.admit(X, 8)
            [request] = plugin.find_requests(pb.AllocateRequest)
            return list(request.container_requests[0].devices_ids)

    first, second = await order(1), await order(2)
    assert sorted(first) == sorted(second) == list("abcdefgh")
    assert first != second


@pytest.mark.usefixtures("plugin")
async def test_pod_is_rejected_with_the_kubelets_message_when_devices_are_too_few(kubelet: KubeletStandIn) -> None:
    await kubelet.admit(X, 2, pod="p")
    with pytest.raises(AdmissionError) as rejected:
        await kubelet.admit(X, 2, pod="q")

    assert rejected.value.reason == "UnexpectedAdmissionError"
    assert str(rejected.value) == (
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for example.com/x. "
        "Requested: 2, Available: 1, which is unexpected"
    )
    await kubelet.remove_pod("p")
    assert len((await kubelet.admit(X, 2, pod="q")).ids) == 2


@pytest.mark.usefixtures("plugin")
async def test_admission_with_ids_chooses_among_these_devices(kubelet: KubeletStandIn) -> None:
    assert (await kubelet.admit(X, pod="p", ids={"b"})).ids == ("b",)
    with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
        await kubelet.admit(X, pod="q", ids={"b"})


async def test_pod_is_rejected_when_the_resource_is_unknown_or_unhealthy(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    with pytest.raises(AdmissionError, match="due to cannot allocate unregistered device"):
        await kubelet.admit("example.com/z")
    plugin.set_devices(build_device("a", healthy=False))
    await kubelet.wait_for_list(X, unhealthy={"a"})
    with pytest.raises(AdmissionError, match="no healthy devices present; cannot allocate unhealthy devices"):
        await kubelet.admit(X)


async def test_container_admitted_again_keeps_its_devices_while_they_are_healthy(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    held = await kubelet.admit(X, 2, pod="p")
    assert await kubelet.admit(X, 2, pod="p") == held
    assert plugin.methods.count("Allocate") == 1
    with pytest.raises(AdmissionError) as changed:
        await kubelet.admit(X, 1, pod="p")
    assert changed.value.cause == 'pod "p" container "main" changed request for resource "example.com/x" from 2 to 1'

    plugin.set_devices(*(build_device(name, healthy=name not in held.ids) for name in "abc"))
    await kubelet.wait_for_list(X, unhealthy=held.ids)
    with pytest.raises(AdmissionError, match="previously allocated devices are no longer healthy"):
        await kubelet.admit(X, 2, pod="p")


async def test_pod_is_rejected_with_the_plugins_error_and_its_devices_are_freed(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    plugin.error = "a is broken"
    with pytest.raises(AdmissionError) as rejected:
        await kubelet.admit(X, 3)
    assert str(rejected.value) == (
        "Pod was rejected: Allocate failed due to rpc error: code = FailedPrecondition desc = a is broken, "
        "which is unexpected"
    )
    plugin.error = ""
    assert (await kubelet.admit(X, 3)).ids == ("a", "b", "c")


async def test_response_without_containers_keeps_devices_in_use_until_a_pod_is_removed(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    plugin.has_container_responses = False
    with pytest.raises(AdmissionError, match="no containers return in allocation response"):
        await kubelet.admit(X, 3)
    plugin.has_container_responses = True
    with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
        await kubelet.admit(X)
    await kubelet.remove_pod("any other")
    assert len((await kubelet.admit(X)).ids) == 1


async def test_messages_of_kubelets_up_to_1_24_are_older(kubelet_dir: Path) -> None:
    async with KubeletStandIn(kubelet_dir, version=(1, 24)) as kubelet:
        with pytest.raises(AdmissionError) as rejected:
            await kubelet.admit(X)
        assert str(rejected.value) == (
            "Pod Allocate failed due to can't allocate unregistered device example.com/x, which is unexpected"
        )


async def test_preferred_devices_are_chosen_and_unknown_ids_are_ignored(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, *"abcd", get_preferred_allocation_available=True) as plugin:
        plugin.preferred = ["c", "unknown", "b"]
        await plugin.register()
        await kubelet.wait_for_list(X)
        allocation = await kubelet.admit(X, 3)

        [request] = plugin.find_requests(pb.PreferredAllocationRequest)
        [container] = request.container_requests
        assert sorted(container.available_deviceIDs) == ["a", "b", "c", "d"]
        assert list(container.must_include_deviceIDs) == []
        assert container.allocation_size == 3
        assert {"b", "c"} < set(allocation.ids)


async def test_failed_get_preferred_allocation_rejects_the_pod(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", get_preferred_allocation_available=True) as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X)
        plugin.error = "no preference"
        with pytest.raises(AdmissionError) as rejected:
            await kubelet.admit(X)
        assert rejected.value.cause == (
            "device plugin GetPreferredAllocation rpc failed with err: "
            "rpc error: code = FailedPrecondition desc = no preference"
        )
        assert "Allocate" not in plugin.methods


async def test_failed_pre_start_container_fails_the_container_after_its_admission(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", pre_start_required=True) as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X)
        await kubelet.admit(X, pod="p")
        assert plugin.methods[-2:] == ["Allocate", "PreStartContainer"]
        [request] = plugin.find_requests(pb.PreStartContainerRequest)
        assert list(request.devices_ids) == ["a"]

        plugin.error = "cannot reset a"
        with pytest.raises(AdmissionError) as failed:
            await kubelet.admit(X, pod="p")
        assert failed.value.reason == "CreateContainerConfigError"
        assert str(failed.value) == (
            "Error: device plugin PreStartContainer rpc failed with err: "
            "rpc error: code = FailedPrecondition desc = cannot reset a"
        )


async def test_pod_resources_returns_pods_and_healthy_devices(kubelet: KubeletStandIn, plugin: TinyPlugin) -> None:
    plugin.set_devices(build_device("a", 0, 1), build_device("b"), build_device("c", healthy=False))
    await kubelet.wait_for_list(X, healthy={"a", "b"})
    await kubelet.admit(X, pod="p", container="first", ids={"a"})
    await kubelet.admit(X, pod="p", container="second", ids={"b"})

    def devices(parts: Iterable[pods.ContainerDevices]) -> list[tuple[str, list[str], list[int]]]:
        return [
            (part.resource_name, list(part.device_ids), [node.ID for node in part.topology.nodes]) for part in parts
        ]

    async with grpc.aio.insecure_channel(f"unix:{kubelet.pod_resources_socket}") as channel:

        async def call(method: str, request: Message, response: type[Response]) -> Response:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            unary = channel.unary_unary(method_path(POD_RESOURCES, method))
            return response.FromString(await unary(request.SerializeToString()))

        listed = await call("List", pods.ListPodResourcesRequest(), pods.ListPodResourcesResponse)
        [pod] = listed.pod_resources
        assert (pod.name, pod.namespace) == ("p", "default")
        assert {container.name: devices(container.devices) for container in pod.containers} == {
            "first": [(X, ["a"], [0]), (X, ["a"], [1])],
            "second": [(X, ["b"], [])],
        }
        request = pods.GetPodResourcesRequest(pod_name="p", pod_namespace="default")
        assert (await call("Get", request, pods.GetPodResourcesResponse)).pod_resources == pod

        allocatable = await call(
            "GetAllocatableResources", pods.AllocatableResourcesRequest(), pods.AllocatableResourcesResponse
        )
        assert devices(allocatable.devices) == [(X, ["a"], [0]), (X, ["a"], [1]), (X, ["b"], [])]

        await kubelet.remove_pod("p")
        assert not (await call("List", pods.ListPodResourcesRequest(), pods.ListPodResourcesResponse)).pod_resources
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await call("Get", request, pods.GetPodResourcesResponse)
        assert unknown.value.details() == "pod p in namespace default not found"
