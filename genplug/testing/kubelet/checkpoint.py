"""The kubelet's file ``kubelet_internal_checkpoint``: allocations and known resources as JSON.

Source: docs/internals/kubelet-contract.md §3. As in the kubelet, each list and each allocation replaces the file by a
rename, so a plugin that watches the directory gets the same events. Each part is encoded once, when it changes. Unlike
in the kubelet, the checksum is always 0, and the file is not synced to disk.
"""

import base64
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.records import Allocation

FILE_NAME = "kubelet_internal_checkpoint"

_NO_NUMA = "-1"


class Restored(Struct, frozen=True):
    """The content of a checkpoint."""

    resources: tuple[str, ...] = ()
    allocations: tuple[Allocation, ...] = ()


class Checkpoint:
    """The checkpoint file in a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._registered: dict[str, str] = {}
        self._entries: dict[tuple[str, str, str], str] = {}

    def set_devices(self, resource: str, healthy: Iterable[str]) -> None:
        """Set the healthy devices of a resource."""
        self._registered[resource] = f"{json.dumps(resource)}:{json.dumps(sorted(healthy))}"

    def set_allocations(self, allocations: Iterable[Allocation]) -> None:
        """Set the allocations."""
        self._entries = {
            key: self._entries.get(key) or _encode_allocation(allocation)
            for allocation in allocations
            for key in [(allocation.pod, allocation.container, allocation.resource)]
        }

    def write(self) -> None:
        """Write the file, if that is possible: a kubelet that cannot write it logs that and continues."""
        data = f'{{"PodDeviceEntries":[{",".join(self._entries.values())}],'
        data += f'"RegisteredDevices":{{{",".join(self._registered.values())}}}}}'
        temporary = self._path.with_name(f".{secrets.randbelow(10**9)}")
        try:
            temporary.write_text(f'{{"Data":{data},"Checksum":0}}')
            temporary.rename(self._path)
        except OSError:
            return

    def read(self) -> Restored:
        """Return the content of the file, empty if it is missing or corrupt: a kubelet starts in this case too."""
        try:
            data = json.loads(self._path.read_text())["Data"]
            allocations = tuple(_decode_allocation(entry) for entry in data["PodDeviceEntries"])
            return Restored(tuple(data["RegisteredDevices"]), allocations)
        except (OSError, ValueError, KeyError, TypeError):
            return Restored()


def _encode_allocation(allocation: Allocation) -> str:
    by_numa: dict[str, list[str]] = {}
    for device_id, nodes in zip(allocation.ids, allocation.numa, strict=True):
        for node in nodes or (_NO_NUMA,):
            by_numa.setdefault(str(node), []).append(device_id)
    return json.dumps(
        {
            "PodUID": allocation.pod,
            "ContainerName": allocation.container,
            "ResourceName": allocation.resource,
            "DeviceIDs": by_numa,
            "AllocResp": base64.b64encode(allocation.response.SerializeToString(deterministic=True)).decode(),
        }
    )


def _decode_allocation(entry: dict[str, object]) -> Allocation:
    by_numa = entry["DeviceIDs"]
    if not isinstance(by_numa, dict):
        raise TypeError(f"expected a mapping in DeviceIDs, found {by_numa!r}")
    numa: dict[str, tuple[int, ...]] = {}
    for node, ids in by_numa.items():
        for device_id in ids:
            numa[device_id] = numa.get(device_id, ()) + (() if node == _NO_NUMA else (int(node),))
    return Allocation(
        pod=str(entry["PodUID"]),
        container=str(entry["ContainerName"]),
        resource=str(entry["ResourceName"]),
        ids=tuple(sorted(numa)),
        numa=tuple(numa[device_id] for device_id in sorted(numa)),
        response=pb.ContainerAllocateResponse.FromString(base64.b64decode(str(entry["AllocResp"]))),
    )
