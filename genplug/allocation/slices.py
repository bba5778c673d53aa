"""The ResourceSlices that a node should have: pools, names, chunks, and the JSON of a slice. Pure.

There is one pool for each resource of a node, because nearly every resource then has one slice: a change is one write,
and the pool is never incomplete. The rules of the names and the limits are those of ``resource.k8s.io/v1``
(k8s.io/api, resource/v1/types.go; k8s.io/kubernetes, pkg/apis/resource/validation/validation.go).
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from genplug.allocation.published import AttributeValue, PublishedDevice, PublishedResource, Version
from genplug.spec.quantity import read_quantity

API_VERSION = "resource.k8s.io/v1"
KIND = "ResourceSlice"

DEVICES_PER_SLICE = 64
"""The devices of a slice. A slice whose devices have taints has at most 64; taints must not change the chunks."""

_MAX_NAME_CHARACTERS = 253
"""Characters of the name of an object and of a pool (DNS subdomain)."""
_MAX_LABEL_CHARACTERS = 63
_HASH_CHARACTERS = 6
"""Characters of the hash of a resource, as in device IDs: the resources of a node must differ."""
_LONG_HASH_CHARACTERS = 12
"""Characters of the hash of a pool or node, which must differ from those of all nodes of the cluster."""
_PLAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_RESERVED_END = re.compile(r"-[a-z2-7]{6}\Z")
_OTHER = re.compile(r"[^a-z0-9]+")


class SliceScope(Struct, frozen=True):
    """The driver and the node of slices. ``node_uid`` is the UID of the Node object, which owns the slices."""

    driver: str
    node: str
    node_uid: str


class WantedSlice(Struct, frozen=True):
    """A slice of a pool. ``content`` is the digest of the devices, for comparisons with actual slices."""

    name: str
    devices: tuple[PublishedDevice, ...]
    content: str


class WantedPool(Struct, frozen=True):
    """The slices of a resource. A resource without devices has no slices."""

    name: str
    resource: str
    slices: tuple[WantedSlice, ...]


class ActualSlice(Struct, frozen=True):
    """A slice of the API server, as far as :mod:`genplug.allocation.slice_plan` compares it.

    ``content`` is the digest of its devices, as of a :class:`WantedSlice`, and ``owners`` has the UIDs of its owners.
    ``writer`` is the field manager that has written the slice last, for messages. ``devices`` and ``tainted`` count its
    devices and those of them with taints, for the status.
    """

    name: str
    uid: str
    resource_version: str
    driver: str
    node: str
    pool: str
    generation: int
    count: int
    content: str
    owners: tuple[str, ...]
    writer: str = ""
    devices: int = 0
    tainted: int = 0


def build_pool(published: PublishedResource, scope: SliceScope, previous: WantedPool | None = None) -> WantedPool:
    """Return the wanted slices of a resource; ``previous`` and its slices are returned again if they are equal."""
    name = pool_name(scope.node, published.resource)
    known = {} if previous is None or previous.name != name else {part.name: part for part in previous.slices}
    slices = []
    for number, start in enumerate(range(0, len(published.devices), DEVICES_PER_SLICE)):
        devices = published.devices[start : start + DEVICES_PER_SLICE]
        title = slice_name(scope, name, number)
        part = known.get(title)
        if part is None or not _are_equal(part.devices, devices):
            part = WantedSlice(title, devices, digest_devices([device_document(device) for device in devices]))
        slices.append(part)
    pool = WantedPool(name, published.resource, tuple(slices))
    return previous if previous == pool else pool


def pool_name(node: str, resource: str) -> str:
    """Return the name of the pool of a resource on a node, ``<node>/<domain>/<name>``: one name for the whole cluster.

    The name of the resource is changed to a DNS label. If that changes it, a hash keeps it different from those of all
    other resources. The name of the node is shortened if the pool would have more than 253 characters.
    """
    domain, name = resource.split("/")
    rest = f"/{domain}/{_label(name, resource)}"
    return f"{_shorten(node, _MAX_NAME_CHARACTERS - len(rest))}{rest}"


def slice_name(scope: SliceScope, pool: str, number: int) -> str:
    """Return the name of a slice, ``<driver>-<node>-<hash of the pool>-<number>``.

    The name is fixed, so that a creation can be repeated. The scheduler reads the slices of a pool in order of their
    names, and the number has three digits: the order of the slices is the order of the devices.
    """
    rest = f"-{_hash(pool, _LONG_HASH_CHARACTERS)}-{number:03d}"
    node = _shorten(scope.node, _MAX_NAME_CHARACTERS - len(scope.driver) - 1 - len(rest))
    return f"{scope.driver}-{node}{rest}"


def slice_document(  # noqa: PLR0913 - the fields of the slice that are not in the scope
    scope: SliceScope,
    pool: WantedPool,
    part: WantedSlice,
    generation: int,
    *,
    uid: str = "",
    resource_version: str = "",
) -> dict[str, Any]:
    """Return the JSON of a slice; ``uid`` and ``resource_version`` are those of the slice that an update replaces."""
    metadata: dict[str, Any] = {
        "name": part.name,
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": scope.node, "uid": scope.node_uid, "controller": True}
        ],
    }
    if uid:
        metadata |= {"uid": uid, "resourceVersion": resource_version}
    spec = {
        "driver": scope.driver,
        "nodeName": scope.node,
        "pool": {"name": pool.name, "generation": generation, "resourceSliceCount": len(pool.slices)},
        "devices": [device_document(device) for device in part.devices],
    }
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def device_document(device: PublishedDevice) -> dict[str, Any]:
    """Return the JSON of a device of a slice."""
    document: dict[str, Any] = {"name": device.name}
    if device.attributes:
        document["attributes"] = {name: _attribute_document(value) for name, value in device.attributes.items()}
    if device.capacity:
        document["capacity"] = {name: {"value": value} for name, value in device.capacity.items()}
    if device.taints:
        document["taints"] = [
            {"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in device.taints
        ]
    return document


def read_slice(document: Mapping[str, Any]) -> ActualSlice:
    """Return a slice from its JSON.

    Raises:
        ValueError: the document is not a ResourceSlice.
    """
    try:
        metadata, spec = document["metadata"], document["spec"]
        pool, devices = spec["pool"], spec.get("devices") or ()
        return ActualSlice(
            name=str(metadata["name"]),
            uid=str(metadata["uid"]),
            resource_version=str(metadata["resourceVersion"]),
            driver=str(spec["driver"]),
            node=str(spec.get("nodeName") or ""),
            pool=str(pool["name"]),
            generation=int(pool["generation"]),
            count=int(pool["resourceSliceCount"]),
            content=_digest_spec(spec),
            owners=tuple(str(owner["uid"]) for owner in metadata.get("ownerReferences") or ()),
            writer=_last_writer(metadata.get("managedFields") or ()),
            devices=len(devices),
            tainted=sum(bool(device.get("taints")) for device in devices),
        )
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a {KIND} of {API_VERSION}, found an object without {error}") from error


def digest_devices(devices: Sequence[Mapping[str, Any]]) -> str:
    """Return a digest of the JSON of devices, which is equal if the API server would not distinguish them.

    The API server adds the time to taints, and writes quantities in another form. All other fields count, also those
    that genplug never sets: another client can have set them.
    """
    text = json.dumps([_normalize_device(device) for device in devices], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest_spec(spec: Mapping[str, Any]) -> str:
    """Return the digest of the devices of a slice; it differs from those of all wanted slices with other fields."""
    others = {name: value for name, value in spec.items() if name not in {"driver", "nodeName", "pool", "devices"}}
    digest = digest_devices(spec.get("devices") or ())
    return digest if not any(others.values()) else f"{digest} with {', '.join(sorted(others))}"


def _normalize_device(device: Mapping[str, Any]) -> dict[str, Any]:
    normal = {name: value for name, value in device.items() if value}
    if "capacity" in normal:
        normal["capacity"] = {name: _normalize_capacity(value) for name, value in normal["capacity"].items()}
    if "taints" in normal:
        normal["taints"] = [
            {name: value for name, value in taint.items() if name != "timeAdded" and value}
            for taint in normal["taints"]
        ]
    return normal


def _normalize_capacity(capacity: Mapping[str, Any]) -> dict[str, Any]:
    value = read_quantity(str(capacity.get("value")))
    return {**capacity, "value": str(capacity.get("value") if value is None else value)}


def _attribute_document(value: AttributeValue) -> dict[str, str | bool | int]:
    # A bool is an int in Python, so that it is examined first.
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": value}
    if isinstance(value, Version):
        return {"version": value.text}
    return {"string": value}


def _last_writer(managed_fields: Sequence[Mapping[str, Any]]) -> str:
    """Return the field manager with the latest time, the last of several within a second."""
    by_time = sorted(managed_fields, key=lambda entry: str(entry.get("time") or ""))
    return str(by_time[-1].get("manager") or "") if by_time else ""


def _are_equal(previous: Sequence[PublishedDevice], devices: Sequence[PublishedDevice]) -> bool:
    """Return whether devices are equal, with the types of their attributes: in Python, True equals 1."""
    return previous == devices and all(
        old is new or _attribute_types(old) == _attribute_types(new) for old, new in zip(previous, devices, strict=True)
    )


def _attribute_types(device: PublishedDevice) -> dict[str, type]:
    return {name: type(value) for name, value in device.attributes.items()}


def _label(name: str, resource: str) -> str:
    """Return the name of a resource as a DNS label; labels that end like a hash always have one."""
    if _PLAIN.match(name) and len(name) <= _MAX_LABEL_CHARACTERS and not _RESERVED_END.search(name):
        return name
    label = _OTHER.sub("-", name.lower())[: _MAX_LABEL_CHARACTERS - _HASH_CHARACTERS - 1].rstrip("-")
    return f"{label}-{_hash(resource, _HASH_CHARACTERS)}"


def _shorten(node: str, max_characters: int) -> str:
    """Return the name of a node with at most a number of characters, with a hash if it is shortened."""
    if len(node) <= max_characters:
        return node
    kept = node[: max_characters - _LONG_HASH_CHARACTERS - 1].rstrip("-.")
    return f"{kept}-{_hash(node, _LONG_HASH_CHARACTERS)}"


def _hash(text: str, characters: int) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=20).digest()
    return base64.b32encode(digest).decode().lower()[:characters]
