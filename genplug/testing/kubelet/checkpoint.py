"""The kubelet's ``kubelet_internal_checkpoint``: allocations and known resources, as JSON (contract 3).

Written as a temporary file and a rename with every list and every allocation, like the real one, so that a plugin's
watch on the directory sees the same noise. Each part is rendered once, when it changes. What is left out: the checksum
(always 0) and the fsync.
"""

import base64
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.records import Allocation

FILE_NAME = "kubelet_internal_checkpoint"

_NO_NUMA = "-1"


@frozen
class Restored:
    """What a checkpoint held."""

    resources: tuple[str, ...] = ()
    allocations: tuple[Allocation, ...] = ()


class Checkpoint:
    """The checkpoint file of one directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._registered: dict[str, str] = {}
        self._entries: dict[tuple[str, str, str], str] = {}

    def set_devices(self, resource: str, healthy: Iterable[str]) -> None:
        """Note a resource's healthy devices."""
        self._registered[resource] = f"{json.dumps(resource)}:{json.dumps(sorted(healthy))}"

    def set_allocations(self, allocations: Iterable[Allocation]) -> None:
        """Note which allocations there are."""
        self._entries = {
            key: self._entries.get(key) or _encode_allocation(one)
            for one in allocations
            for key in [(one.pod, one.container, one.resource)]
        }

    def write(self) -> None:
        """Write the file; a directory that is gone is nothing to fail over."""
        data = f'{{"PodDeviceEntries":[{",".join(self._entries.values())}],'
        data += f'"RegisteredDevices":{{{",".join(self._registered.values())}}}}}'
        temporary = self._path.with_name(f".{secrets.randbelow(10**9)}")
        try:
            temporary.write_text(f'{{"Data":{data},"Checksum":0}}')
            temporary.rename(self._path)
        except FileNotFoundError:
            return

    def read(self) -> Restored:
        """Return what the file says, nothing if it is missing or broken: the kubelet starts all the same."""
        try:
            data = json.loads(self._path.read_text())["Data"]
            allocations = tuple(_decode_allocation(entry) for entry in data["PodDeviceEntries"])
            return Restored(tuple(data["RegisteredDevices"]), allocations)
        except (OSError, ValueError, KeyError, TypeError):
            return Restored()


def _encode_allocation(one: Allocation) -> str:
    by_numa: dict[str, list[str]] = {}
    for device_id, nodes in zip(one.ids, one.numa, strict=True):
        for node in nodes or (_NO_NUMA,):
            by_numa.setdefault(str(node), []).append(device_id)
    return json.dumps(
        {
            "PodUID": one.pod,
            "ContainerName": one.container,
            "ResourceName": one.resource,
            "DeviceIDs": by_numa,
            "AllocResp": base64.b64encode(one.response.SerializeToString(deterministic=True)).decode(),
        }
    )


def _decode_allocation(entry: dict[str, object]) -> Allocation:
    by_numa = entry["DeviceIDs"]
    if not isinstance(by_numa, dict):
        raise TypeError(f"DeviceIDs is {by_numa!r}")
    numa: dict[str, tuple[int, ...]] = {}
    for node, ids in by_numa.items():
        for device_id in ids:
            numa[device_id] = numa.get(device_id, ()) + (() if node == _NO_NUMA else (int(node),))
    return Allocation(
        pod=str(entry["PodUID"]),
        container=str(entry["ContainerName"]),
        resource=str(entry["ResourceName"]),
        ids=tuple(sorted(numa)),
        numa=tuple(numa[one] for one in sorted(numa)),
        response=pb.ContainerAllocateResponse.FromString(base64.b64decode(str(entry["AllocResp"]))),
    )
