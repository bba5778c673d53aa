"""The offer of a configuration on a node, as frozen values that can be compared."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from genplug.allocation.container_edits import ContainerEdits


class PlannedDevice(Struct, frozen=True):
    """A device of a plan.

    - ``paths``: the paths of its candidates.
    - ``hardware``: what it is, independent of its ID: numbers of device nodes, and paths without symlinks.
    - ``edits``: what a container receives with this device alone, as name and value.
    - ``problem``: why a container cannot receive it, empty if it can.
    """

    id: str
    paths: tuple[str, ...]
    hardware: frozenset[str]
    edits: Mapping[str, str] = {}
    problem: str = ""


class PlannedResource(Struct, frozen=True):
    """A resource of a plan.

    - ``settings``: its keys in the configuration with defaults and later files applied, as decoded from YAML.
    - ``devices``: its devices by ID.
    - ``grants``: the devices (IDs) of each entry in the list for the kubelet, by the ID of the entry.
    - ``note``: why it has no devices, or fewer than the node has.
    """

    name: str
    settings: Mapping[str, Any] = {}
    aliases: tuple[str, ...] = ()
    devices: Mapping[str, PlannedDevice] = {}
    grants: Mapping[str, tuple[str, ...]] = {}
    note: str = ""


class Plan(Struct, frozen=True):
    """The offer of a configuration on a node, or without a node only its resources and their settings.

    ``remarks`` are warnings and conflicts: a key that is equal in two plans for the same remark, and the text.
    """

    resources: Mapping[str, PlannedResource] = {}
    has_node: bool = True
    remarks: Mapping[str, str] = {}

    def find_resource(self, name: str) -> PlannedResource | None:
        """Return the resource with a name or an alias, or None."""
        found = self.resources.get(name)
        return found or next((resource for resource in self.resources.values() if name in resource.aliases), None)


def describe_edits(edits: ContainerEdits) -> dict[str, str]:
    """Return container edits as name and value, in their order."""
    found: dict[str, str] = {f"env {name}": value for name, value in edits.env}
    for node in edits.nodes:
        access = {"owner": node.owner, "group": node.group, "mode": node.mode and f"{node.mode:#o}"}
        extra = "".join(f" {name}={value}" for name, value in access.items() if value is not None)
        found[f"device {node.container_path}"] = f"{node.host_path} ({node.permissions}){extra}"
    for mount in edits.mounts:
        found[f"mount {mount.container_path}"] = f"{mount.host_path} ({'ro' if mount.read_only else 'rw'})"
    found |= {f"annotation {key}": value for key, value in edits.annotations}
    found |= {f"CDI device {name}": "" for name in edits.cdi_devices}
    return found | {f"supplemental group {group}": "" for group in edits.supplemental_groups}
