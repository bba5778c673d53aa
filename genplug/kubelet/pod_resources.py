"""Which devices pods use, asked of the kubelet's pod-resources API (contract 1.3). Nothing is kept."""

from collections.abc import Mapping
from pathlib import Path

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES, method_path
from genplug.kubelet.client import call

DEADLINE_SECONDS = 5.0


async def list_devices_in_use(socket: Path) -> Mapping[str, frozenset[str]]:
    """Return the device IDs that pods hold, by resource.

    Raises:
        CallError: the kubelet could not be asked.
    """
    answer = pb.ListPodResourcesResponse.FromString(
        await call(socket, method_path(POD_RESOURCES, "List"), b"", deadline=DEADLINE_SECONDS)
    )
    used: dict[str, set[str]] = {}
    for pod in answer.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                used.setdefault(devices.resource_name, set()).update(devices.device_ids)
    return {resource: frozenset(ids) for resource, ids in used.items()}
