"""Read from the kubelet's pod-resources API which devices pods use (docs/internals/kubelet-contract.md §1.3)."""

from collections.abc import Mapping
from pathlib import Path

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES, method_path
from genplug.kubelet.client import CallError, SocketMissingError, call

DEADLINE_SECONDS = 5.0


async def list_devices_in_use(socket: Path) -> Mapping[str, frozenset[str]]:
    """Return the IDs of the devices that pods use, by resource.

    Raises:
        CallError: the kubelet did not respond, or responded with an error.
    """
    try:
        content = await call(socket, method_path(POD_RESOURCES, "List"), b"", deadline=DEADLINE_SECONDS)
    except SocketMissingError as error:
        raise CallError(
            f"{error}. Check that --pod-resources-dir is the directory pod-resources in the --root-dir of the kubelet "
            "(in the chart: daemonset.podResourcesDir)"
        ) from error
    used: dict[str, set[str]] = {}
    for pod in pb.ListPodResourcesResponse.FromString(content).pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                used.setdefault(devices.resource_name, set()).update(devices.device_ids)
    return {resource: frozenset(ids) for resource, ids in used.items()}
