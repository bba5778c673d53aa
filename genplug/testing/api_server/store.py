"""The objects of the stand-in: writes with preconditions, resource versions, and the changes for watches."""

import copy
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from genplug.testing.api_server.kinds import SLICES, Kind, Target, read_field
from genplug.testing.api_server.statuses import ApiStatusError, already_exists, conflict, expired, invalid, not_found
from genplug.testing.api_server.validation import validate_slice

Document = dict[str, Any]

_FIRST_VERSION = 1000
_MAX_CHANGES = 10_000
"""Changes that are kept for watches; an older resource version is expired."""
_BINARY = re.compile(r"(\d+)([KMGTP])i")
_NEXT = {"K": "M", "M": "G", "G": "T", "T": "P", "P": "E"}


class Selector(Struct, frozen=True):
    """The objects of a list or watch. ``fields`` has the values of the field selector by path."""

    target: Target
    fields: Mapping[str, str] = {}

    def matches(self, kind: Kind, document: Mapping[str, Any]) -> bool:
        """Return whether an object is selected."""
        return (
            kind == self.target.kind
            and self.target.namespace in ("", document["metadata"].get("namespace"))
            and all(read_field(document, path) == value for path, value in self.fields.items())
        )


class Change(Struct, frozen=True):
    """A change of an object: ``ADDED``, ``MODIFIED`` or ``DELETED``."""

    version: int
    type: str
    kind: Kind
    document: Document


class Store:
    """The objects by kind, namespace and name. Documents that the store returns are not to be changed."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self.version = _FIRST_VERSION
        self.oldest = _FIRST_VERSION
        """The resource version from which watches can start."""
        self.keeps_taints = True
        self.changes: list[Change] = []
        self._objects: dict[Target, Document] = {}
        self._notify = notify

    def select(self, selector: Selector) -> list[Document]:
        """Return the selected objects, in order of namespace and name."""
        targets = sorted(
            (target for target, document in self._objects.items() if selector.matches(target.kind, document)),
            key=lambda target: (target.namespace, target.name),
        )
        return [self._objects[target] for target in targets]

    def get(self, target: Target) -> Document:
        """Return an object.

        Raises:
            ApiStatusError: it does not exist.
        """
        if target not in self._objects:
            raise not_found(target.kind, target.name)
        return self._objects[target]

    def changes_after(self, version: int) -> list[Change]:
        """Return the changes after a resource version.

        Raises:
            ApiStatusError: changes after this version are not known any more.
        """
        if version < self.oldest:
            raise expired(version, self.oldest)
        return [change for change in self.changes if change.version > version]

    def expire(self) -> None:
        """Forget all changes, as a compaction of etcd does."""
        self.oldest = self.version
        self.changes.clear()
        self._notify()

    def create(self, target: Target, document: Document, manager: str, *, is_dry_run: bool = False) -> Document:
        """Create an object; return it with the fields that the server sets.

        Raises:
            ApiStatusError: the name exists, or a field is invalid.
        """
        _check_type(target.kind, document)
        created = self._prepare(target.kind, document)
        metadata = created["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        target = Target(target.kind, target.namespace, str(metadata.get("name") or ""))
        if target in self._objects:
            raise already_exists(target.kind, target.name)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 1}
        if target.namespace:
            metadata["namespace"] = target.namespace
        self._validate(target, created, None)
        metadata["managedFields"] = _manage([], target.kind, manager)
        if not is_dry_run:
            self._put(target, created, "ADDED")
        return created

    def update(self, target: Target, document: Document, manager: str, *, is_dry_run: bool = False) -> Document:
        """Replace an object; return it with the fields that the server sets. An equal object remains unchanged.

        Raises:
            ApiStatusError: it does not exist, the document is of another object or kind, a precondition does not hold,
                or a field is invalid.
        """
        _check_type(target.kind, document)
        _check_name(target, document)
        previous = self.get(target)
        before = previous["metadata"]
        updated = self._prepare(target.kind, document)
        metadata = updated["metadata"]
        _check_preconditions(target, before, metadata.get("uid"), metadata.get("resourceVersion"))
        for name in ("uid", "creationTimestamp", "namespace", "generation", "managedFields", "resourceVersion"):
            metadata.pop(name, None)
            if name in before:
                metadata[name] = copy.deepcopy(before[name])
        _keep_times(previous, updated)
        if updated == previous:
            return previous
        self._validate(target, updated, previous)
        if updated.get("spec") != previous.get("spec"):
            metadata["generation"] = before.get("generation", 1) + 1
        metadata["managedFields"] = _manage(before.get("managedFields") or [], target.kind, manager)
        if not is_dry_run:
            self._put(target, updated, "MODIFIED")
        return updated

    def delete(self, target: Target, uid: str | None = None, resource_version: str | None = None) -> Document:
        """Delete an object; return its last state.

        Raises:
            ApiStatusError: it does not exist, or a precondition does not hold.
        """
        document = self.get(target)
        _check_preconditions(target, document["metadata"], uid, resource_version)
        del self._objects[target]
        self.version += 1
        last = copy.deepcopy(document)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._record(Change(self.version, "DELETED", target.kind, last))
        return document

    def delete_all(self, selector: Selector) -> list[Document]:
        """Delete the selected objects; return their last states."""
        selected = self.select(selector)
        for document in selected:
            metadata = document["metadata"]
            self.delete(Target(selector.target.kind, metadata.get("namespace", ""), metadata["name"]))
        return selected

    def _put(self, target: Target, document: Document, change: str) -> None:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        self._objects[target] = document
        self._record(Change(self.version, change, target.kind, document))

    def _record(self, change: Change) -> None:
        self.changes.append(change)
        if len(self.changes) > _MAX_CHANGES:
            self.oldest = self.changes.pop(0).version
        self._notify()

    def _prepare(self, kind: Kind, document: Document) -> Document:
        """Return a copy with the fields that the server sets or drops in the spec."""
        prepared = copy.deepcopy(document) | {"kind": kind.kind, "apiVersion": kind.api_version}
        prepared.setdefault("metadata", {})
        if kind == SLICES:
            for device in (prepared.get("spec") or {}).get("devices") or ():
                if not self.keeps_taints:
                    device.pop("taints", None)
                for taint in device.get("taints") or ():
                    taint.setdefault("timeAdded", _now())
                for capacity in (device.get("capacity") or {}).values():
                    capacity["value"] = _canonicalize(str(capacity.get("value")))
        return prepared

    def _validate(self, target: Target, document: Document, previous: Document | None) -> None:
        if target.kind == SLICES and (causes := validate_slice(document, previous)):
            raise invalid(target.kind, target.name, causes)
        if not target.name:
            raise invalid(target.kind, "", [("metadata.name", "Required value: name or generateName is required")])


def _check_type(kind: Kind, document: Mapping[str, Any]) -> None:
    """Raise an error for a document of another kind or version; the server sets fields that are missing."""
    version, name = document.get("apiVersion") or kind.api_version, document.get("kind") or kind.kind
    if version != kind.api_version:
        text = f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        raise ApiStatusError(400, text)
    if name != kind.kind:
        raise ApiStatusError(400, f"the kind in the data ({name}) does not match the expected kind ({kind.kind})")


def _check_name(target: Target, document: Mapping[str, Any]) -> None:
    """Raise an error for a document of another object than that of the URL (k8s.io/apiserver, handlers/rest.go)."""
    metadata = document.get("metadata") or {}
    name, namespace = metadata.get("name") or "", metadata.get("namespace") or target.namespace
    if not name:
        text = f"the name of the object ({target.name} based on URL) was undeterminable: name must be provided"
        raise ApiStatusError(400, text)
    if name != target.name:
        text = f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        raise ApiStatusError(400, text)
    if namespace != target.namespace:
        text = "the namespace of the provided object does not match the namespace sent on the request"
        raise ApiStatusError(400, text)


def _check_preconditions(
    target: Target, metadata: Mapping[str, Any], uid: str | None, resource_version: str | None
) -> None:
    if uid and uid != metadata["uid"]:
        text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
        raise conflict(target.kind, target.name, text)
    if resource_version and resource_version != metadata["resourceVersion"]:
        raise conflict(target.kind, target.name)


def _keep_times(previous: Document, updated: Document) -> None:
    """Keep the times of the taints that an update does not change."""
    devices = {device.get("name"): device for device in (previous.get("spec") or {}).get("devices") or ()}
    for device in (updated.get("spec") or {}).get("devices") or ():
        times = {
            (taint.get("key"), taint.get("effect")): taint["timeAdded"]
            for taint in devices.get(device.get("name"), {}).get("taints") or ()
        }
        for taint in device.get("taints") or ():
            taint["timeAdded"] = times.get((taint.get("key"), taint.get("effect")), taint["timeAdded"])


def _manage(fields: list[Document], kind: Kind, manager: str) -> list[Document]:
    entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": kind.api_version,
        "time": _now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": {},
    }
    return [*(field for field in fields if field["manager"] != manager), entry]


def _canonicalize(value: str) -> str:
    """Return a quantity as the server writes it: with the largest binary suffix that leaves a whole number."""
    match = _BINARY.fullmatch(value)
    if match and match[2] in _NEXT and int(match[1]) % 1024 == 0 and int(match[1]):
        return _canonicalize(f"{int(match[1]) // 1024}{_NEXT[match[2]]}i")
    return value


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
