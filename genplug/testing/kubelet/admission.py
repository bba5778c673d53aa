"""How a kubelet chooses devices and asks the plugin for them (contract 5.2, 5.3), without a topology manager."""

import random

import grpc
from attrs import frozen

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.device_manager import DeviceManager, DeviceManagerError, Request
from genplug.testing.kubelet.plugin_client import PluginClient, go_error
from genplug.testing.kubelet.records import AdmissionError, Allocation

LAST_OLD_TEXTS = (1, 24)
"""The last version with the older wording."""


@frozen
class Endpoint:
    """What the kubelet goes by for a resource: the connection, and the options it read when it was made."""

    client: PluginClient
    options: pb.DevicePluginOptions


async def allocate_devices(
    request: Request, device_manager: DeviceManager, endpoint: Endpoint | None, shuffle: random.Random
) -> Allocation:
    """Choose devices, call Allocate and remember the answer; a container that holds its devices keeps them.

    Raises:
        DeviceManagerError: there are too few, or the plugin refused.
    """
    available = device_manager.list_available(request)
    if not available:
        return device_manager.allocations[request.key]
    if endpoint is None:
        raise DeviceManagerError(f"unknown Device Plugin {request.resource}")
    ids = await _choose_devices(request, available, endpoint, shuffle)
    device_manager.mark_in_use(request.resource, ids)
    try:
        answer = await endpoint.client.allocate([ids])
    except grpc.aio.AioRpcError as error:
        device_manager.release()
        raise DeviceManagerError(go_error(error)) from error
    if not answer.container_responses:
        # The devices stay taken until a pod is removed: so does the kubelet (contract 5.3).
        raise DeviceManagerError(f"no containers return in allocation response {answer}")
    numa = {one: device_manager.numa_nodes(request.resource, one) for one in ids}
    kept = tuple(sorted(ids))
    allocation = Allocation(*request.key, kept, tuple(numa[one] for one in kept), answer.container_responses[0])
    device_manager.add_allocation(allocation)
    return allocation


async def call_pre_start(allocation: Allocation, endpoint: Endpoint) -> None:
    """Call PreStartContainer, as before every start of a container.

    Raises:
        AdmissionError: it failed; the pod stays admitted and the kubelet would try again.
    """
    try:
        await endpoint.client.pre_start_container(allocation.ids)
    except grpc.aio.AioRpcError as error:
        cause = f"device plugin PreStartContainer rpc failed with err: {go_error(error)}"
        raise AdmissionError("CreateContainerConfigError", f"Error: {cause}", cause) from error


def admission_error(error: DeviceManagerError, version: tuple[int, int]) -> AdmissionError:
    """Return what a pod's status says when the device manager cannot serve it."""
    prefix = "Pod" if version <= LAST_OLD_TEXTS else "Pod was rejected:"
    message = f"{prefix} Allocate failed due to {error}, which is unexpected"
    return AdmissionError("UnexpectedAdmissionError", message, str(error))


async def _choose_devices(
    request: Request, available: list[str], endpoint: Endpoint, shuffle: random.Random
) -> list[str]:
    """Take what the plugin prefers of the available devices, and any others for the rest (contract 5.2, step 5).

    Like a set in Go, the choice and everything sent has no order that means anything.
    """
    if not endpoint.options.get_preferred_allocation_available:
        return shuffle.sample(available, request.count)
    shuffle.shuffle(available)
    try:
        answer = await endpoint.client.get_preferred_allocation(available, (), request.count)
    except grpc.aio.AioRpcError as error:
        raise DeviceManagerError(
            f"device plugin GetPreferredAllocation rpc failed with err: {go_error(error)}"
        ) from error
    preferred = set(answer.container_responses[0].deviceIDs) if answer.container_responses else set()
    ranked = sorted(available, key=lambda one: one not in preferred)
    return ranked[: request.count]
