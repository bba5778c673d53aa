"""The uses of devices and claims in the answers of the pod-resources API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_claims_in_use, list_devices_in_use


@asynccontextmanager
async def serve_list(socket: Path, answer: bytes) -> AsyncIterator[None]:
    """Answer List with these bytes."""

    async def list_pods(_request: bytes, _context: Any) -> bytes:
        return answer

    handler = grpc.method_handlers_generic_handler(
        POD_RESOURCES, {"List": grpc.unary_unary_rpc_method_handler(list_pods)}
    )
    server = grpc.aio.server(handlers=[handler])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def test_devices_and_claims_of_all_containers_are_listed(tmp_path: Path) -> None:
    claim = pb.DynamicResource(claim_namespace="a", claim_name="first")
    other = pb.DynamicResource(claim_namespace="b", claim_name="second", claim_resources=[pb.ClaimResource()])
    devices = pb.ContainerDevices(resource_name="a.example/x", device_ids=["x0"])
    containers = [
        pb.ContainerResources(name="one", dynamic_resources=[claim, other], devices=[devices]),
        pb.ContainerResources(name="two", dynamic_resources=[claim]),
    ]
    response = pb.ListPodResourcesResponse(pod_resources=[pb.PodResources(name="pod", containers=containers)])
    socket = tmp_path / "s"
    async with serve_list(socket, response.SerializeToString()):
        assert await list_claims_in_use(socket) == {("a", "first"), ("b", "second")}
        assert await list_devices_in_use(socket) == {"a.example/x": {"x0"}}


async def test_answer_that_is_not_the_message_is_an_error(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    async with serve_list(socket, b"\xff"):
        for list_uses in (list_claims_in_use, list_devices_in_use):
            with pytest.raises(CallError, match="found 1 bytes that are not a message"):
                await list_uses(socket)


async def test_missing_socket_is_an_error_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="Check that --pod-resources-dir is the directory"):
        await list_claims_in_use(tmp_path / "s")
