"""Renders container edits as CDI specification files, and the CDI names that Allocate responses refer to. Pure.

There is one file for each resource and one CDI device for each device ID. Edits that depend on the set of devices
(environment, annotations) stay in the Allocate response. The file of a ResourceClaim
(:mod:`genplug.allocation.claim_cdi`) is rendered here too. See docs/internals/kubelet-contract.md §8 and the SPEC.md of
the Container Device Interface.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit

_TYPES = {"char": "c", "block": "b"}
_PREFIX, _SUFFIX = "genplug-", ".json"
_BASE_VERSION = "0.3.0"
_LATER_VERSION = "0.5.0"
"""The first version with ``hostPath`` of a device node and with device names that start with a digit."""
_GROUPS_VERSION = "0.7.0"
"""The first version with ``additionalGids``."""
_NO_DEVICES = "[]\n}"
"""The end of a file without devices."""
_get_text, _get_version = attrgetter("text"), attrgetter("version")
_MAX_FILE_NAME = 200
_OTHER = re.compile(r"[^-A-Za-z0-9_]+")
_MAX_CLASS = 63


def cdi_kind(resource: str) -> str:
    """Return the CDI kind, ``vendor/class``, of a resource.

    A vendor starts with a letter, a class has no dot before version 0.6.0, and podman 4.3 crashes on a class of one
    letter. If one of these rules changes the name, a hash is appended, so that two resources never share a kind.
    """
    vendor, name = resource.split("/")
    cdi_vendor = vendor if vendor[:1].isalpha() else f"x{vendor}"
    cdi_class = _OTHER.sub("-", name).strip("-_")
    cdi_class = cdi_class if cdi_class[:1].isalpha() else f"x{cdi_class}"
    if (cdi_vendor, cdi_class) != (vendor, name) or len(cdi_class) == 1:
        cdi_class = f"{cdi_class[: _MAX_CLASS - 7]}-{_hash(resource)}"
    return f"{cdi_vendor}/{cdi_class}"


def qualified_name(resource: str, device: str) -> str:
    """Return the qualified CDI name of a device."""
    return f"{cdi_kind(resource)}={_device_name(device)}"


def as_cdi_reference(edits: ContainerEdits, resource: str, ids: tuple[str, ...]) -> ContainerEdits:
    """Return edits that refer to the CDI devices instead of containing device nodes and mounts."""
    names = dict.fromkeys((*(qualified_name(resource, device) for device in ids), *edits.cdi_devices))
    return replace(edits, nodes=(), mounts=(), supplemental_groups=(), cdi_devices=tuple(names))


class CdiDevice(Struct, frozen=True, gc=False):
    """A device as a CDI file defines it: the JSON text, and the lowest version of the file that supports it."""

    text: str
    version: str


def render_device(resource: str, device: str, edits: ContainerEdits, *, has_environment: bool = False) -> CdiDevice:
    """Return the device of a CDI file with the edits of a device ID; with ``has_environment``, also their variables."""
    container_edits = _render_edits(edits)
    if has_environment and edits.env:
        container_edits["env"] = [f"{name}={value}" for name, value in edits.env]
    rendered = {
        "name": _device_name(device),
        "containerEdits": container_edits or _placeholder_edits(resource, device),
    }
    # JSON texts have no line breaks in strings: the others begin the lines, which are indented as in the file.
    text = json.dumps(rendered, indent=1).replace("\n", "\n  ")
    return CdiDevice(text, _version(device, edits))


def join_devices(resource: str, devices: Sequence[CdiDevice]) -> str | None:
    """Return the CDI file of a resource with some devices; None without devices."""
    if not devices:
        return None
    spec = {"cdiVersion": max(set(map(_get_version, devices))), "kind": cdi_kind(resource), "devices": []}
    texts = ",\n  ".join(map(_get_text, devices))
    return f"{json.dumps(spec, indent=1).removesuffix(_NO_DEVICES)}[\n  {texts}\n ]\n}}\n"


def spec_text(resource: str, devices: Mapping[str, ContainerEdits]) -> str | None:
    """Return the CDI file of a resource, given the edits of each device ID; None without devices."""
    return join_devices(resource, [render_device(resource, device, edits) for device, edits in devices.items()])


def file_name(resource: str) -> str:
    """Return the file name for a resource; names are unique because a domain contains no ``_``."""
    domain, name = resource.split("/")
    file = f"{_PREFIX}{domain}_{name}{_SUFFIX}"
    return file if len(file) <= _MAX_FILE_NAME else f"{_PREFIX}{_hash(resource)}{_SUFFIX}"


def is_ours(name: str) -> bool:
    """Return whether a file in the CDI directory was written by genplug."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def _device_name(device: str) -> str:
    return device if len(device) > 1 else f"{device}-{_hash(device)}"


def _version(device: str, edits: ContainerEdits) -> str:
    """Return the lowest version that supports a device: runtimes reject versions that they do not know."""
    if edits.supplemental_groups:
        return _GROUPS_VERSION
    has_host_path = any(node.host_path != node.container_path for node in edits.nodes)
    return _LATER_VERSION if has_host_path or device[:1].isdigit() else _BASE_VERSION


def _render_edits(edits: ContainerEdits) -> dict[str, Any]:
    rendered: dict[str, Any] = {}
    if edits.nodes:
        rendered["deviceNodes"] = [_render_node(node) for node in edits.nodes]
    if edits.mounts:
        rendered["mounts"] = [_render_mount(mount) for mount in edits.mounts]
    if edits.supplemental_groups:
        rendered["additionalGids"] = list(edits.supplemental_groups)
    return rendered


def _placeholder_edits(resource: str, device: str) -> dict[str, Any]:
    """Return edits for a device without any: runtimes reject a file with a device without containerEdits."""
    return {"env": [f"GENPLUG_CDI_DEVICE={qualified_name(resource, device)}"]}


def _render_node(node: NodeEdit) -> dict[str, Any]:
    """Return a device node with its type and numbers: the runtime then creates it without a stat of the host's node.

    Without them, the runtime would give the container whatever is at the path on the host when the container starts
    (container-device-interface, ``fillMissingInfo``). It uses ``hostPath`` for rootless containers and for containers
    with a user namespace, which cannot create device nodes.
    """
    rendered: dict[str, Any] = {"path": node.container_path}
    if node.host_path != node.container_path:
        rendered["hostPath"] = node.host_path
    if node.numbers is not None:
        kind, major, minor = node.numbers
        rendered |= {"type": _TYPES[kind], "major": major, "minor": minor}
    fields = {"fileMode": node.mode, "uid": node.owner, "gid": node.group}
    rendered |= {key: value for key, value in fields.items() if value is not None}
    return {**rendered, "permissions": node.permissions}


def _render_mount(mount: MountEdit) -> dict[str, Any]:
    options = ["ro" if mount.read_only else "rw", "nosuid", "nodev", "rbind", "rprivate"]
    return {"hostPath": mount.host_path, "containerPath": mount.container_path, "options": options}


def _hash(resource: str) -> str:
    digest = hashlib.blake2b(resource.encode(), digest_size=10).digest()
    return base64.b32encode(digest).decode().lower()[:6]
