"""Read from the kubelet's pod-resources API which devices pods use (docs/internals/kubelet-contract.md §1.3)."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES, method_path
from genplug.kubelet.client import CallError, SocketMissingError, call
from genplug.kubelet.reports import ClaimedResource, ClaimUse, DeviceUse, PodUses

DEADLINE_SECONDS = 5.0


async def list_devices_in_use(socket: Path) -> Mapping[str, frozenset[str]]:
    """Return the IDs of the devices that pods use, by resource.

    Raises:
        CallError: the kubelet did not respond, or responded with an error or with bytes that are not the message.
    """
    used: dict[str, set[str]] = {}
    for use in await list_device_uses(socket, DEADLINE_SECONDS):
        used.setdefault(use.resource, set()).update(use.ids)
    return {resource: frozenset(ids) for resource, ids in used.items()}


async def list_claims_in_use(socket: Path) -> frozenset[tuple[str, str]]:
    """Return the namespace and the name of each ResourceClaim that a container uses.

    Raises:
        CallError: the kubelet did not respond, or responded with an error or with bytes that are not the message.
    """
    uses = await list_uses(socket, DEADLINE_SECONDS)
    return frozenset((use.namespace, use.claim) for use in uses.claims)


async def list_uses(socket: Path, deadline: float) -> PodUses:
    """Return the containers that use devices and those that use ResourceClaims, within a deadline (seconds).

    Raises:
        CallError: the kubelet did not respond, or responded with an error or with bytes that are not the message.
    """
    return _build_uses(_decode(await _call_list(socket, deadline), socket))


async def list_device_uses(socket: Path, deadline: float) -> tuple[DeviceUse, ...]:
    """Return the containers that use devices, each with the IDs of a resource, within a deadline (seconds).

    Raises:
        CallError: the kubelet did not respond, or responded with an error or with bytes that are not the message.
    """
    return _list_uses(_decode(await _call_list(socket, deadline), socket))


def decode_uses(content: bytes) -> PodUses:
    """Return the containers that use devices or ResourceClaims in the bytes of a ``ListPodResourcesResponse``.

    Raises:
        DecodeError: the bytes are not the message.
    """
    return _build_uses(pb.ListPodResourcesResponse.FromString(content))


def _build_uses(response: pb.ListPodResourcesResponse) -> PodUses:
    claims = (
        ClaimUse(
            claim.claim_namespace,
            claim.claim_name,
            pod.name,
            container.name,
            tuple(
                ClaimedResource(resource.driver_name, resource.pool_name, resource.device_name)
                for resource in claim.claim_resources
            ),
        )
        for pod in response.pod_resources
        for container in pod.containers
        for claim in container.dynamic_resources
    )
    return PodUses(_list_uses(response), tuple(claims))


def _list_uses(response: pb.ListPodResourcesResponse) -> tuple[DeviceUse, ...]:
    # The kubelet has an entry for each NUMA node of a device.
    ids: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for pod in response.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                key = (devices.resource_name, pod.namespace, pod.name, container.name)
                ids.setdefault(key, {}).update(dict.fromkeys(devices.device_ids))
    return tuple(DeviceUse(*key, tuple(found)) for key, found in ids.items())


async def _call_list(socket: Path, deadline: float) -> bytes:
    try:
        return await call(socket, method_path(POD_RESOURCES, "List"), b"", deadline=deadline)
    except SocketMissingError as error:
        raise CallError(
            f"{error}. Check that --pod-resources-dir is the directory pod-resources in the --root-dir of the kubelet "
            "(in the chart: daemonset.podResourcesDir)"
        ) from error


def _decode(content: bytes, socket: Path) -> pb.ListPodResourcesResponse:
    try:
        return pb.ListPodResourcesResponse.FromString(content)
    except DecodeError:
        text = f"expected a ListPodResourcesResponse from {socket}, found {len(content)} bytes that are not a message"
        raise CallError(text) from None
