"""The CDI files of a node: written whole or not at all, restored if they were removed, removed when unused.

Container runtimes read the directory's ``*.json`` whenever it changes and whenever they miss a name
(docs/internals/kubelet-contract.md §8). The directory is used in threads only: it may be on a file system that does not
respond.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.cdi_spec import CdiDevice, file_name, is_ours, join_devices, render_device
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import Grant, ResourceOffer
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.spec.model import Resource
from genplug.spec.replacement import find_replacements, list_replaced

_LOCK_SECONDS = 1.0
_get_id, _get_definition = attrgetter("id"), attrgetter("definition")


class CdiUnwritableError(Exception):
    """A CDI file cannot be written; the text says which and what to do."""


class DefinedDevice(NamedTuple):
    """A device of a CDI file, and the grant that it was made for."""

    grant: Grant
    definition: CdiDevice


class CdiSpec(Struct, frozen=True):
    """The content of the file of a resource, made for the grants of an offer.

    ``devices`` has what the file defines by device ID, ``definitions`` the same in the order of the file.
    """

    resource: Resource
    grants: tuple[Grant, ...] = ()
    devices: Mapping[str, DefinedDevice] = {}
    definitions: tuple[CdiDevice, ...] = ()
    errors: Mapping[str, str] = {}
    """Why the file does not define a device that the offer has as healthy, by its ID."""

    @property
    def text(self) -> str | None:
        """The text of the file, None if it would not define any device."""
        return join_devices(self.resource.name, self.definitions)

    def defines(self, device_id: str, grant: Grant) -> bool:
        """Return whether the file defines a device as the hardware of a grant."""
        return device_id in self.devices and _hardware(self.devices[device_id].grant) == _hardware(grant)


def compose_spec(offer: ResourceOffer, previous: CdiSpec | None, host: Host) -> CdiSpec:
    """Return the content of the file for an offer.

    An unhealthy device keeps the definition that it had in ``previous``: a container may use it. So does a device whose
    node has changed since the scan. A grant that is the identical object in ``previous`` keeps its definition without
    further examination, unless it had an error.
    """
    known = previous or CdiSpec(offer.resource)
    has_same_rules = (known.resource.allocate, known.resource.policy) == (
        offer.resource.allocate,
        offer.resource.policy,
    )
    old = known.grants if has_same_rules else ()
    removed, added = list_replaced(old, offer.entries, find_replacements(old, offer.entries))
    retried = [offer.grants[device_id] for device_id in known.errors if device_id in offer.grants]
    devices = dict(known.devices)
    errors: dict[str, str] = {}
    for grant in removed if has_same_rules else known.grants:
        if grant.id not in offer.grants:
            devices.pop(grant.id, None)
    for grant in (*added, *retried):
        defined = known.devices.get(grant.id)
        is_same = defined is not None and has_same_rules and defined.grant.devices == grant.devices
        if is_same or not grant.healthy:
            continue
        try:
            edits = allocate_edits(offer, [grant.id], host)
        except (AllocationError, HangError) as error:
            # The node has changed since the scan. A scan finds the change, unless the node changes back before it.
            errors[grant.id] = str(error)
        else:
            devices[grant.id] = DefinedDevice(grant, render_device(offer.resource.name, grant.id, edits))
    listed = filter(None, map(devices.get, map(_get_id, offer.entries)))
    return CdiSpec(offer.resource, offer.entries, devices, tuple(map(_get_definition, listed)), errors)


def _hardware(grant: Grant) -> frozenset[tuple[str, str]]:
    """Return the device nodes of a grant: the path in the container, and the type and numbers of each."""
    devices = [health.device for health in grant.devices]
    nodes = (node for device in devices for node in (*device.nodes, *device.companions))
    return frozenset((node.container_path, node.info.describe_numbers()) for node in nodes)


class CdiWriter:
    """Writes and removes genplug's files in a directory of the host. All methods are for threads."""

    def __init__(self, directory: str, host: Host) -> None:
        self._host = host
        self._host_directory = directory
        self._lock = threading.Lock()
        self._written: dict[str, tuple[CdiSpec, int]] = {}
        """The content of each resource's file and its inode."""

    def written_spec(self, resource: str) -> CdiSpec | None:
        """Return the content that was written last for a resource; None if nothing was."""
        return self._written[resource][0] if resource in self._written else None

    def write(self, spec: CdiSpec) -> None:
        """Write the file of a resource, unless it has this text already.

        Raises:
            CdiUnwritableError: it cannot be written.
            HangError: the file system of the directory does not respond.
        """
        resource = spec.resource.name
        path = self._directory() / file_name(resource)
        written = self._written.get(resource)
        if written is not None and written[0].definitions == spec.definitions and _is_intact(path, written):
            self._written[resource] = (spec, written[1])
            return
        with self._replacing(path, resource):
            self._replace(path, spec)

    def restore(self, resource: str) -> CdiSpec | None:
        """Write the file of a resource again if it was removed; return its content, None if none was written.

        Raises:
            CdiUnwritableError: it cannot be written.
            HangError: the file system of the directory does not respond.
        """
        path = self._directory() / file_name(resource)
        if (written := self._written.get(resource)) is not None and not _is_intact(path, written):
            with self._replacing(path, resource):
                # The content may have been replaced by another thread, which must not be undone.
                if (spec := self.written_spec(resource)) is not None:
                    self._replace(path, spec)
        return self.written_spec(resource)

    @contextmanager
    def _replacing(self, path: Path, resource: str) -> Iterator[None]:
        """Replace files in one thread at a time, with the errors of :meth:`write`."""
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            raise HangError(f"the write of another file in {path.parent} does not return")
        try:
            yield
        except OSError as error:
            what = f"the CDI file {path} of {resource} cannot be written: {error.strerror}"
            advice = "let genplug write there (the chart's daemonset.cdiSpecDir), or write 'inject: nodes'"
            raise CdiUnwritableError(f"{what}; {advice}") from None
        finally:
            self._lock.release()

    def _replace(self, path: Path, spec: CdiSpec) -> None:
        if (text := spec.text) is not None:
            _replace(path, text)
        self._written[spec.resource.name] = (spec, _inode(path))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises:
            CdiUnwritableError: it cannot be removed.
            HangError: the file system of the directory does not respond.
        """
        path = self._directory() / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CdiUnwritableError(f"the unused CDI file {path} cannot be removed: {error.strerror}") from None

    def forget(self, resource: str) -> None:
        """Forget what was written for a resource."""
        self._written.pop(resource, None)

    def list_files(self) -> frozenset[str]:
        """Return the names of genplug's files; none if there is no directory.

        Raises:
            HangError: the file system of the directory does not respond.
        """
        try:
            names = os.listdir(self._directory())  # noqa: PTH208 - names, not paths
        except OSError:
            return frozenset()
        return frozenset(name for name in names if is_ours(name))

    def _directory(self) -> Path:
        # This records the directory, so that a hang of what follows is a hang of the directory.
        return self._host.process_path(self._host_directory)


def _is_intact(path: Path, written: tuple[CdiSpec, int]) -> bool:
    """Return whether the file is unchanged since it was written; a content without devices needs no file."""
    return not written[0].definitions or written[1] == _inode(path)


def _replace(path: Path, text: str) -> None:
    # Another suffix: a runtime that lists the directory meanwhile does not take it for a spec.
    new = path.with_suffix(".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
