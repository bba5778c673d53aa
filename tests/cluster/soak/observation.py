"""Reads the state of a node: objects of the API server, lists of the kubelet, and devices of running containers."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from tests.cluster.cluster import NAMESPACE, Cluster
from tests.cluster.node import Node

_CONTAINER = re.compile(r"/([0-9a-f]{64})$", re.MULTILINE)


class LiveContainer(Struct, frozen=True):
    """A container with a process. ``devices`` are the device nodes in its ``/dev`` with their numbers."""

    process: int
    devices: Mapping[str, int]


class Observation(Struct, frozen=True):
    """The state of a node at about one moment."""

    node: dict[str, Any]
    pods: Mapping[str, dict[str, Any]]
    """The pods of the soak by name."""
    agents: list[dict[str, Any]]
    live: Mapping[str, LiveContainer]
    """The containers on the node by ID."""
    allocatable: Mapping[str, set[str]]
    """The healthy devices of the kubelet by resource."""
    allocated: Mapping[tuple[str, str], Mapping[str, set[str]]]
    """The devices of each pod and container by resource, from the pod-resources API."""
    checkpoint: Mapping[tuple[str, str], Mapping[str, set[str]]]
    """The same by UID of the pod and container, from the checkpoint of the kubelet."""
    sockets: set[str]


def observe(cluster: Cluster) -> Observation:
    """Return the state of the node.

    Raises:
        grpc.RpcError: The kubelet does not respond.
        subprocess.CalledProcessError: The API server does not respond.
    """
    items = cluster.get("nodes,pods", "--all-namespaces")["items"]
    [node] = [item for item in items if item["kind"] == "Node" and item["metadata"]["name"] == Node.name]
    pods = [item for item in items if item["kind"] == "Pod"]
    directory = cluster.machine.kubelet / "device-plugins"
    return Observation(
        node,
        {pod["metadata"]["name"]: pod for pod in pods if pod["metadata"]["namespace"] == "default"},
        [pod for pod in pods if pod["metadata"]["namespace"] == NAMESPACE],
        list_live_containers(cluster),
        cluster.node.list_allocatable_devices(),
        _list_allocated(cluster.node),
        _read_checkpoint(directory / "kubelet_internal_checkpoint"),
        {path.name for path in directory.glob("*.sock")} - {"kubelet.sock"},
    )


def list_live_containers(cluster: Cluster) -> dict[str, LiveContainer]:
    """Return the containers that have processes, by ID."""
    found: dict[str, LiveContainer] = {}
    for process in _list_descendants(cluster.machine.first_process):
        try:
            match = _CONTAINER.search(Path(f"/proc/{process}/cgroup").read_text())
            if match is not None and match[1] not in found:
                found[match[1]] = LiveContainer(process, _list_devices(Path(f"/proc/{process}/root/dev")))
        except OSError:
            # The process has ended.
            continue
    return found


def find_agent_process(cluster: Cluster) -> int:
    """Return the process ID of the agent: the first process of its container.

    Raises:
        LookupError: no agent is running.
    """
    for agent in cluster.get_agents():
        for status in agent["status"].get("containerStatuses", ()):
            container = list_live_containers(cluster).get(status.get("containerID", "").rpartition("/")[2])
            if container is not None:
                return container.process
    raise LookupError("expected a running agent, found none")


def _list_devices(directory: Path) -> dict[str, int]:
    devices = {}
    for path in directory.iterdir():
        if path.name.startswith(("motor", "lidar", "fuse")):
            status = path.lstat()
            if stat.S_ISCHR(status.st_mode):
                devices[path.name] = status.st_rdev
    return devices


def _list_descendants(process: int) -> Iterator[int]:
    """Yield the descendants of a process, parents first: the first process of a container is before its children."""
    pending = [process]
    while pending:
        parent = pending.pop(0)
        try:
            tasks = os.listdir(f"/proc/{parent}/task")  # noqa: PTH208 - names, not paths
            for task in tasks:
                pending += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
        except OSError:
            continue
        yield parent


def _list_allocated(node: Node) -> dict[tuple[str, str], dict[str, set[str]]]:
    response = pb.ListPodResourcesResponse.FromString(node.call_pod_resources("List"))
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for pod in response.pod_resources:
        for container in pod.containers:
            for devices in container.devices:
                by_resource = found.setdefault((pod.name, container.name), {})
                by_resource.setdefault(devices.resource_name, set()).update(devices.device_ids)
    return found


def _read_checkpoint(path: Path) -> dict[tuple[str, str], dict[str, set[str]]]:
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for entry in json.loads(path.read_text())["Data"]["PodDeviceEntries"] or ():
        devices = {device for group in entry["DeviceIDs"].values() for device in group}
        found.setdefault((entry["PodUID"], entry["ContainerName"]), {})[entry["ResourceName"]] = devices
    return found
