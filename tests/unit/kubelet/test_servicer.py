"""The calls of DevicePlugin when the resource fails: what the kubelet receives and what the endpoint reports."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.kubelet.reports import CallAnswered, InternalErrorCaught, Report
from genplug.spec.limits import MAX_RESPONSE_BYTES
from genplug.testing.kubelet import KubeletStandIn
from tests.support.endpoints import EndpointRun
from tests.support.one_device import OneDevice

X = "example.com/x"


class Refusing(OneDevice):
    """A resource that refuses every allocation."""

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        raise AllocationError(AllocationErrorCode.NOT_FOUND, f"{X} has no device {ids[0]}")


class Generous(OneDevice):
    """A resource whose container edits are larger than the kubelet accepts."""

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        return ContainerEdits(env=tuple((f"NAME_{ids[0]}_{number}", "x" * (1 << 17)) for number in range(32)))


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
