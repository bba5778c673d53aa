"""The calls of DevicePlugin when the resource fails: what the kubelet receives and what the endpoint reports."""

import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.kubelet import servicer
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.reports import CallAnswered, InternalErrorCaught, Report
from genplug.kubelet.servicer import DevicePluginServicer, ResourceBackend
from genplug.kubelet.wire import encode_allocate_response
from genplug.spec.limits import MAX_RESPONSE_BYTES
from genplug.testing.kubelet import KubeletStandIn
from tests.support.endpoints import EndpointRun
from tests.support.one_device import OneDevice
from tests.support.work import count_lines

X = "example.com/x"


class Refusing(OneDevice):
    """A resource that refuses every allocation."""

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        raise AllocationError(AllocationErrorCode.NOT_FOUND, f"{X} has no device {ids[0]}")


class Generous(OneDevice):
    """A resource whose container edits are larger than the kubelet accepts."""

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        return ContainerEdits(env=tuple((f"NAME_{ids[0]}_{number}", "x" * (1 << 17)) for number in range(32)))


class Changing(OneDevice):
    """A resource with edits that a test replaces."""

    edits: Mapping[str, ContainerEdits] = {}

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        return self.edits[ids[0]]


@pytest.fixture
async def run(kubelet: KubeletStandIn) -> AsyncIterator[EndpointRun]:
    """An endpoint of a resource whose calls raise NotImplementedError."""
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")) as run:
        await kubelet.wait_for_list(X, healthy={"x0"})
        yield run


def call_reports(run: EndpointRun) -> list[Report]:
    return [report for report in run.reports if isinstance(report, CallAnswered | InternalErrorCaught)]


async def test_allocate_answers_internal_after_an_unexpected_exception(
    kubelet: KubeletStandIn, run: EndpointRun
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await kubelet.plugin(X).allocate([["x0"], ["x0"]])
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert str(failed.value.details()).startswith(f"{X}: genplug failed in Allocate: NotImplementedError(")
    caught, answered = call_reports(run)
    assert isinstance(caught, InternalErrorCaught)
    assert (caught.operation, type(caught.error)) == ("Allocate", NotImplementedError)
    assert isinstance(answered, CallAnswered)
    assert (answered.method, answered.ids, answered.error) == ("Allocate", ("x0",), failed.value.details())


async def test_response_that_the_kubelet_would_refuse_is_an_error_with_the_limit(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, Generous("x0")):
        await kubelet.wait_for_list(X, healthy={"x0"})
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await kubelet.plugin(X).allocate([["x0"]])
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"the kubelet accepts at most {MAX_RESPONSE_BYTES}" in str(failed.value.details())


async def test_pre_start_container_answers_internal_after_an_unexpected_exception(
    kubelet: KubeletStandIn, run: EndpointRun
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await kubelet.plugin(X).pre_start_container(["x0"])
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert str(failed.value.details()).startswith(f"{X}: genplug failed in PreStartContainer: NotImplementedError(")
    caught, answered = call_reports(run)
    assert isinstance(caught, InternalErrorCaught)
    assert caught.operation == "PreStartContainer"
    assert isinstance(answered, CallAnswered)
    assert (answered.method, answered.ids, answered.error) == ("PreStartContainer", ("x0",), failed.value.details())


async def test_get_preferred_allocation_states_no_preference_after_an_unexpected_exception(
    kubelet: KubeletStandIn, run: EndpointRun
) -> None:
    response = await kubelet.plugin(X).get_preferred_allocation(["x0"], [], 1)
    assert [list(container.deviceIDs) for container in response.container_responses] == [[]]
    [caught] = call_reports(run)
    assert isinstance(caught, InternalErrorCaught)
    assert caught.operation == "GetPreferredAllocation"


async def test_allocate_answers_the_status_of_an_allocation_error(kubelet: KubeletStandIn) -> None:
    async with EndpointRun(kubelet.plugins_dir, X, Refusing("x0")) as run:
        await kubelet.wait_for_list(X, healthy={"x0"})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await kubelet.plugin(X).allocate([["x9"]])
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.NOT_FOUND, f"{X} has no device x9")
    [answered] = call_reports(run)
    assert isinstance(answered, CallAnswered)
    assert answered.error == f"{X} has no device x9"


def name_edits(*ids: str, value: str = "1") -> dict[str, ContainerEdits]:
    return {device_id: ContainerEdits(env=((f"NAME_{device_id}", value),)) for device_id in ids}


def build_handler(backend: Changing) -> Callable[..., bytes]:
    """Return the handler of Allocate requests for containers with these devices."""
    servicer = DevicePluginServicer(X, LatestValue[ResourceBackend](backend), lambda _: None, lambda _: None)
    details: Any = SimpleNamespace(method=method_path(DEVICE_PLUGIN, "Allocate"))
    handler: Any = servicer.service(details)

    def allocate(*ids: str) -> bytes:
        containers = [pb.ContainerAllocateRequest(devices_ids=[device_id]) for device_id in ids]
        request = pb.AllocateRequest(container_requests=containers).SerializeToString()
        try:
            handler.unary_unary(request, None).send(None)
        except StopIteration as returned:
            return bytes(returned.value)
        raise AssertionError("the handler waits")

    return allocate


def test_repeated_request_has_the_response_with_its_present_edits() -> None:
    backend = Changing("x0")
    allocate = build_handler(backend)
    for edits in (name_edits("x0", "x1"), name_edits("x0", "x1", value="2")):
        backend.edits = edits
        first, _ = count_lines(lambda: allocate("x0", "x1"))
        repeated, response = count_lines(lambda: allocate("x0", "x1"))
        assert response == encode_allocate_response([edits["x0"], edits["x1"]])
        assert repeated < first
    backend.edits = {**backend.edits, **name_edits("x1", value="3")}
    assert allocate("x0", "x1") == encode_allocate_response([backend.edits["x0"], backend.edits["x1"]])


@pytest.mark.parametrize(("limit", "value"), [("MAX_KEPT_REQUESTS", 1), ("MAX_KEPT_BYTES", 40)])
def test_kept_responses_are_limited(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(servicer, limit, value)
    backend = Changing("x0")
    backend.edits = name_edits("x0", "x1", value="v" * 40)
    allocate = build_handler(backend)
    first, _ = count_lines(lambda: allocate("x0"))
    allocate("x1")
    again, _ = count_lines(lambda: allocate("x0"))
    assert again >= first


def list_servicers() -> list[DevicePluginServicer]:
    return [each for each in gc.get_objects() if isinstance(each, DevicePluginServicer)]


async def test_servicer_is_in_no_cycle_of_references_after_its_server_has_stopped(kubelet: KubeletStandIn) -> None:
    earlier = list_servicers()
    call: Any = SimpleNamespace(method=method_path(DEVICE_PLUGIN, "Allocate"))
    async with EndpointRun(kubelet.plugins_dir, X, OneDevice("x0")):
        await kubelet.wait_for_list(X, healthy={"x0"})
        (own,) = (each for each in list_servicers() if all(each is not known for known in earlier))
        assert own.service(call) is not None
    assert own.service(call) is None
