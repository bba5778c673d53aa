"""Admit containers: choose devices and call the plugin, as a kubelet without a topology manager does.

Source: docs/internals/kubelet-contract.md §5.2 and §5.3.
"""

import random

import grpc
from msgspec import Struct

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.device_manager import DeviceManager, DeviceManagerError, Request
from genplug.testing.kubelet.plugin_client import PluginClient, format_go_error
from genplug.testing.kubelet.records import AdmissionError, Allocation

LAST_WITH_OLD_MESSAGES = (1, 24)
"""The last version of Kubernetes with the older messages."""


class Endpoint(Struct, frozen=True):
    """The connection to the plugin of a resource, and the options that the kubelet read when it connected."""

    client: PluginClient
    options: pb.DevicePluginOptions


async def allocate_devices(
    request: Request, device_manager: DeviceManager, endpoint: Endpoint | None, shuffle: random.Random
) -> Allocation:
    """Choose devices, call Allocate and store the response; a container that has its devices keeps them.

    Raises:
        DeviceManagerError: there are too few devices, or the plugin refused the call.
    """
    available = device_manager.list_available(request)
    if not available:
        return device_manager.allocations[request.key]
    if endpoint is None:
        raise DeviceManagerError(f"unknown Device Plugin {request.resource}")
    ids = await _choose_devices(request, available, endpoint, shuffle)
    device_manager.mark_in_use(request.resource, ids)
    try:
        response = await endpoint.client.allocate([ids])
    except grpc.aio.AioRpcError as error:
        device_manager.release()
        raise DeviceManagerError(format_go_error(error)) from error
    if not response.container_responses:
        # As in the kubelet, the devices remain in use until a pod is removed (§5.3).
        raise DeviceManagerError(f"no containers return in allocation response {response}")
    allocated = tuple(sorted(ids))
    numa = tuple(device_manager.numa_nodes(request.resource, device_id) for device_id in allocated)
    allocation = Allocation(*request.key, allocated, numa, response.container_responses[0])
    device_manager.add_allocation(allocation)
    return allocation


async def call_pre_start(allocation: Allocation, endpoint: Endpoint) -> None:
    """Call PreStartContainer, as the kubelet does before each start of a container.

    Raises:
        AdmissionError: the call failed. The pod remains admitted; a kubelet would retry.
    """
    try:
        await endpoint.client.pre_start_container(allocation.ids)
    except grpc.aio.AioRpcError as error:
        cause = f"device plugin PreStartContainer rpc failed with err: {format_go_error(error)}"
        raise AdmissionError("CreateContainerConfigError", f"Error: {cause}", cause) from error


def admission_error(error: DeviceManagerError, version: tuple[int, int]) -> AdmissionError:
    """Return the status of a pod whose devices cannot be allocated."""
    prefix = "Pod" if version <= LAST_WITH_OLD_MESSAGES else "Pod was rejected:"
    message = f"{prefix} Allocate failed due to {error}, which is unexpected"
    return AdmissionError("UnexpectedAdmissionError", message, str(error))


async def _choose_devices(
    request: Request, available: list[str], endpoint: Endpoint, shuffle: random.Random
) -> list[str]:
    """Return the preferred devices of the plugin, and any other devices for the rest (§5.2, step 5).

    The order of the result and of the request is random, like that of a set in Go.
    """
    if not endpoint.options.get_preferred_allocation_available:
        return shuffle.sample(available, request.count)
    shuffle.shuffle(available)
    try:
        response = await endpoint.client.get_preferred_allocation(available, (), request.count)
    except grpc.aio.AioRpcError as error:
        raise DeviceManagerError(
            f"device plugin GetPreferredAllocation rpc failed with err: {format_go_error(error)}"
        ) from error
    preferred = set(response.container_responses[0].deviceIDs) if response.container_responses else set()
    ranked = sorted(available, key=lambda device_id: device_id not in preferred)
    return ranked[: request.count]
