"""Which devices pods use, asked of the kubelet's pod-resources API (contract 1.3). Nothing is kept."""

from collections.abc import Mapping
from pathlib import Path

import grpc

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES
from genplug.kubelet.registration import CHANNEL_OPTIONS, in_words

DEADLINE = 5.0
_MOST_BYTES = 16 << 20
"""Answers of large nodes exceed gRPC's 4 MiB (contract 1.3)."""


class PodResourcesError(Exception):
    """The kubelet could not be asked; the text says why."""


async def devices_in_use(socket: Path) -> Mapping[str, frozenset[str]]:
    """Return the device IDs that pods hold, by resource.

    Raises:
        PodResourcesError: the socket is not there or the call failed.
    """
    options = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", _MOST_BYTES))
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
        call = channel.unary_unary(f"/{POD_RESOURCES}/List")
        try:
            answer = pb.ListPodResourcesResponse.FromString(await call(b"", timeout=DEADLINE))
        except grpc.aio.AioRpcError as error:
            raise PodResourcesError(f"pod-resources at {socket}: {in_words(error)}") from error
    used: dict[str, set[str]] = {}
    for pod in answer.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                used.setdefault(devices.resource_name, set()).update(devices.device_ids)
    return {resource: frozenset(ids) for resource, ids in used.items()}
