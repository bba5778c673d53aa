"""How the stand-in admits containers, in which words it does not, and what pod-resources says of them."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api import genplug_podresources_v1_pb2 as pods
from genplug.kubelet.api.services import POD_RESOURCES
from genplug.testing.kubelet.records import AdmissionError
from genplug.testing.kubelet.stand_in import KubeletStandIn
from tests.support.tiny_plugin import TinyPlugin, device

Answer = TypeVar("Answer", bound=Message)

X = "example.com/x"


@pytest.fixture
async def plugin(kubelet: KubeletStandIn) -> AsyncIterator[TinyPlugin]:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b", "c") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b", "c"})
        yield plugin


async def test_a_container_gets_free_devices_by_one_call_with_one_container(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    allocation = await kubelet.admit(X, 2, pod="p")
    (request,) = [one for one in plugin.requests if isinstance(one, pb.AllocateRequest)]

    assert [sorted(one.devices_ids) for one in request.container_requests] == [list(allocation.ids)]
    assert allocation.response.envs == {"IDS": ",".join(allocation.ids)}
    assert len((await kubelet.admit(X, pod="q")).ids) == 1
    assert kubelet.node_status().allocatable == {X: 3}


async def test_devices_come_in_an_order_that_the_seed_decides(kubelet_dir: Path) -> None:
    async def order(seed: int) -> list[str]:
        async with (
            KubeletStandIn(kubelet_dir / str(seed), seed=seed) as kubelet,
            TinyPlugin(kubelet.plugins_dir, X, *"abcdefgh") as plugin,
        ):
            await plugin.register()
            await kubelet.wait_for_list(X)
            await kubelet.admit(X, 8)
            return list(plugin.requests[-1].container_requests[0].devices_ids)

    first, second = await order(1), await order(2)
    assert sorted(first) == sorted(second) == list("abcdefgh")
    assert first != second


@pytest.mark.usefixtures("plugin")
async def test_too_few_devices_reject_the_pod_in_the_kubelets_words(kubelet: KubeletStandIn) -> None:
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
async def test_chosen_ids_narrow_the_choice(kubelet: KubeletStandIn) -> None:
    assert (await kubelet.admit(X, pod="p", ids={"b"})).ids == ("b",)
    with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
        await kubelet.admit(X, pod="q", ids={"b"})


async def test_unknown_and_unhealthy_resources_have_texts_of_their_own(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    with pytest.raises(AdmissionError, match="due to cannot allocate unregistered device"):
        await kubelet.admit("example.com/z")
    plugin.offer(device("a", healthy=False))
    await kubelet.wait_for_list(X, unhealthy={"a"})
    with pytest.raises(AdmissionError, match="no healthy devices present; cannot allocate unhealthy devices"):
        await kubelet.admit(X)


async def test_a_container_admitted_again_keeps_its_devices_while_they_are_healthy(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    held = await kubelet.admit(X, 2, pod="p")
    assert await kubelet.admit(X, 2, pod="p") == held
    assert plugin.names.count("Allocate") == 1
    with pytest.raises(AdmissionError) as changed:
        await kubelet.admit(X, 1, pod="p")
    assert changed.value.cause == 'pod "p" container "main" changed request for resource "example.com/x" from 2 to 1'

    plugin.offer(*(device(one, healthy=one not in held.ids) for one in "abc"))
    await kubelet.wait_for_list(X, unhealthy=held.ids)
    with pytest.raises(AdmissionError, match="previously allocated devices are no longer healthy"):
        await kubelet.admit(X, 2, pod="p")


async def test_the_plugins_refusal_reaches_the_pod_and_frees_the_devices(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    plugin.refusal = "a is broken"
    with pytest.raises(AdmissionError) as rejected:
        await kubelet.admit(X, 3)
    assert str(rejected.value) == (
        "Pod was rejected: Allocate failed due to rpc error: code = FailedPrecondition desc = a is broken, "
        "which is unexpected"
    )
    plugin.refusal = ""
    assert (await kubelet.admit(X, 3)).ids == ("a", "b", "c")


async def test_an_answer_without_containers_keeps_the_devices_until_a_pod_is_removed(
    kubelet: KubeletStandIn, plugin: TinyPlugin
) -> None:
    plugin.answers_containers = False
    with pytest.raises(AdmissionError, match="no containers return in allocation response"):
        await kubelet.admit(X, 3)
    plugin.answers_containers = True
    with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
        await kubelet.admit(X)
    await kubelet.remove_pod("any other")
    assert len((await kubelet.admit(X)).ids) == 1


async def test_until_1_24_the_words_are_older(kubelet_dir: Path) -> None:
    async with KubeletStandIn(kubelet_dir, version=(1, 24)) as kubelet:
        with pytest.raises(AdmissionError) as rejected:
            await kubelet.admit(X)
        assert str(rejected.value) == (
            "Pod Allocate failed due to can't allocate unregistered device example.com/x, which is unexpected"
        )


async def test_a_plugin_with_the_option_is_asked_what_it_prefers_and_nonsense_in_it_is_ignored(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, *"abcd", get_preferred_allocation_available=True) as plugin:
        plugin.preferred = ["c", "nonsense", "b"]
        await plugin.register()
        await kubelet.wait_for_list(X)
        allocation = await kubelet.admit(X, 3)

        (request,) = [one for one in plugin.requests if isinstance(one, pb.PreferredAllocationRequest)]
        (asked,) = request.container_requests
        assert sorted(asked.available_deviceIDs) == ["a", "b", "c", "d"]
        assert list(asked.must_include_deviceIDs) == []
        assert asked.allocation_size == 3
        assert {"b", "c"} < set(allocation.ids)


async def test_a_failing_pre_start_call_fails_the_container_and_not_its_admission(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", pre_start_required=True) as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X)
        await kubelet.admit(X, pod="p")
        assert plugin.names[-2:] == ["Allocate", "PreStartContainer"]
        assert list(plugin.requests[-1].devices_ids) == ["a"]

        plugin.refusal = "cannot reset a"
        with pytest.raises(AdmissionError) as failed:
            await kubelet.admit(X, pod="p")
        assert failed.value.reason == "CreateContainerConfigError"
        assert str(failed.value) == (
            "Error: device plugin PreStartContainer rpc failed with err: "
            "rpc error: code = FailedPrecondition desc = cannot reset a"
        )


async def test_pod_resources_tells_of_pods_and_of_healthy_devices(kubelet: KubeletStandIn, plugin: TinyPlugin) -> None:
    plugin.offer(device("a", 0, 1), device("b"), device("c", healthy=False))
    await kubelet.wait_for_list(X, healthy={"a", "b"})
    await kubelet.admit(X, pod="p", container="one", ids={"a"})
    await kubelet.admit(X, pod="p", container="two", ids={"b"})

    def devices(parts: Iterable[pods.ContainerDevices]) -> list[tuple[str, list[str], list[int]]]:
        return [(one.resource_name, list(one.device_ids), [node.ID for node in one.topology.nodes]) for one in parts]

    async with grpc.aio.insecure_channel(f"unix:{kubelet.pod_resources_socket}") as channel:

        async def call(method: str, request: Message, answer: type[Answer]) -> Answer:
            raw = await channel.unary_unary(f"/{POD_RESOURCES}/{method}")(request.SerializeToString())
            return answer.FromString(raw)

        listed = await call("List", pods.ListPodResourcesRequest(), pods.ListPodResourcesResponse)
        (pod,) = listed.pod_resources
        assert (pod.name, pod.namespace) == ("p", "default")
        assert {one.name: devices(one.devices) for one in pod.containers} == {
            "one": [(X, ["a"], [0]), (X, ["a"], [1])],
            "two": [(X, ["b"], [])],
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
