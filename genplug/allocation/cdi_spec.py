"""CDI: container edits as a file that container runtimes read, and the names by which an answer asks for them. Pure.

One file for each resource, one CDI device for each device ID. What depends on the set of devices (environment,
annotations) stays in the answer to Allocate. Facts: contract 8; the specification's versions in its SPEC.md.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit

_PREFIX, _SUFFIX = "genplug-", ".json"
_BASE_VERSION = "0.3.0"
_LATER_VERSION = "0.5.0"
"""Has ``hostPath`` of a node, and device names that begin with a digit."""
_MAX_FILE_NAME = 200
_OTHER = re.compile(r"[^-A-Za-z0-9_]+")
_MAX_CLASS = 63


def cdi_kind(resource: str) -> str:
    """Return the CDI kind, ``vendor/class``, that stands for a resource.

    A vendor begins with a letter, a class has no dot before 0.6.0, and a runtime of before 2023 ends on a name of one
    letter (podman 4.3). A hash follows where one of these changed something, so that no two resources have one kind.
    """
    vendor, _, name = resource.partition("/")
    made_vendor = vendor if vendor[:1].isalpha() else f"x{vendor}"
    made_class = _OTHER.sub("-", name).strip("-_")
    made_class = made_class if made_class[:1].isalpha() else f"x{made_class}"
    if (made_vendor, made_class) != (vendor, name) or len(made_class) == 1:
        made_class = f"{made_class[: _MAX_CLASS - 7]}-{_hash(resource)}"
    return f"{made_vendor}/{made_class}"


def qualified_name(resource: str, device: str) -> str:
    """Return the name by which a runtime knows a device of ours."""
    return f"{cdi_kind(resource)}={_device_name(device)}"


def as_cdi_reference(edits: ContainerEdits, resource: str, ids: tuple[str, ...]) -> ContainerEdits:
    """Return what an answer says where nodes and mounts are in the CDI file."""
    names = dict.fromkeys((*(qualified_name(resource, one) for one in ids), *edits.cdi_devices))
    return evolve(edits, nodes=(), mounts=(), cdi_devices=tuple(names))


def spec_text(resource: str, devices: Mapping[str, ContainerEdits]) -> str | None:
    """Return the text of a resource's file, given what a container gets with each of its devices; None without any."""
    if not devices:
        return None
    spec = {
        "cdiVersion": _version(devices),
        "kind": cdi_kind(resource),
        "devices": [
            {"name": _device_name(one), "containerEdits": _edits(edits) or _nothing(resource, one)}
            for one, edits in devices.items()
        ],
    }
    return json.dumps(spec, indent=1) + "\n"


def file_name(resource: str) -> str:
    """Return what a resource's file is called; ``_`` is in no domain, so no two names meet."""
    domain, _, name = resource.partition("/")
    made = f"{_PREFIX}{domain}_{name}{_SUFFIX}"
    return made if len(made) <= _MAX_FILE_NAME else f"{_PREFIX}{_hash(resource)}{_SUFFIX}"


def is_ours(name: str) -> bool:
    """Say whether a file of the runtime's directory was written by genplug."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def _device_name(device: str) -> str:
    return device if len(device) > 1 else f"{device}-{_hash(device)}"


def _version(devices: Mapping[str, ContainerEdits]) -> str:
    """Return the lowest version that says all this: a runtime refuses versions that it does not know."""
    has_host_path = any(node.host_path != node.container_path for edits in devices.values() for node in edits.nodes)
    return _LATER_VERSION if has_host_path or any(one[:1].isdigit() for one in devices) else _BASE_VERSION


def _edits(edits: ContainerEdits) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if edits.nodes:
        said["deviceNodes"] = [_node(node) for node in edits.nodes]
    if edits.mounts:
        said["mounts"] = [_mount(mount) for mount in edits.mounts]
    return said


def _nothing(resource: str, device: str) -> dict[str, Any]:
    """Return edits that do no harm: for a device without any, runtimes refuse the whole file."""
    return {"env": [f"GENPLUG_CDI_DEVICE={qualified_name(resource, device)}"]}


def _node(node: NodeEdit) -> dict[str, str]:
    other = {"hostPath": node.host_path} if node.host_path != node.container_path else {}
    return {"path": node.container_path, **other, "permissions": node.permissions}


def _mount(mount: MountEdit) -> dict[str, Any]:
    options = ["ro" if mount.read_only else "rw", "nosuid", "nodev", "rbind", "rprivate"]
    return {"hostPath": mount.host_path, "containerPath": mount.container_path, "options": options}


def _hash(resource: str) -> str:
    digest = hashlib.blake2b(resource.encode(), digest_size=10).digest()
    return base64.b32encode(digest).decode().lower()[:6]
