"""The CDI files of a node: written whole or not at all, restored if they were removed, removed when unused.

Container runtimes read the directory's ``*.json`` whenever it changes and whenever they miss a name
(docs/internals/kubelet-contract.md §8). The directory is used in threads only: it may be on a file system that does not
respond.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.cdi_spec import file_name, is_ours, spec_text
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import Grant, ResourceOffer
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.spec.model import Resource

_LOCK_SECONDS = 1.0


class CdiUnwritableError(Exception):
    """A CDI file cannot be written; the text says which and what to do."""


@frozen
class CdiSpec:
    """The content of the file of a resource: what a container gets with each device, and the grant it was made for."""

    resource: Resource
    edits: Mapping[str, tuple[Grant, ContainerEdits]]
    text: str | None
    """None if the file would not define any device."""


def compose_spec(offer: ResourceOffer, previous: CdiSpec | None, host: Host) -> CdiSpec:
    """Return the content of the file for an offer.

    An unhealthy device keeps the definition that it had in ``previous``: a container may use it.
    """
    known_edits = previous.edits if previous is not None else {}
    has_same_rules = previous is not None and (previous.resource.allocate, previous.resource.policy) == (
        offer.resource.allocate,
        offer.resource.policy,
    )
    edits: dict[str, tuple[Grant, ContainerEdits]] = {}
    for device_id, grant in offer.grants.items():
        known = known_edits.get(device_id)
        is_same = known is not None and has_same_rules and known[0].devices == grant.devices
        if known is not None and (is_same or not grant.healthy):
            edits[device_id] = known
        elif grant.healthy:
            try:
                edits[device_id] = (grant, allocate_edits(offer, [device_id], host))
            except (AllocationError, HangError):
                # Allocate refuses the device until a scan finds what is wrong with it.
                continue
    name = offer.resource.name
    return CdiSpec(
        offer.resource, edits, spec_text(name, {device_id: found for device_id, (_, found) in edits.items()})
    )


class CdiWriter:
    """Writes and removes genplug's files in a directory of the host. All methods are for threads."""

    def __init__(self, directory: str, host: Host) -> None:
        self._host = host
        self._host_directory = directory
        self._lock = threading.Lock()
        self._written: dict[str, tuple[str, int]] = {}
        """The text and the inode of each file."""

    def write(self, resource: str, text: str) -> None:
        """Write the file of a resource, unless it has this text already.

        Raises:
            CdiUnwritableError: it cannot be written.
            HangError: the file system of the directory does not respond.
        """
        path = self._directory() / file_name(resource)
        if self._written.get(resource) == (text, _inode(path)):
            return
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            raise HangError(f"the write of another file in {path.parent} does not return")
        try:
            _replace(path, text)
        except OSError as error:
            what = f"the CDI file {path} of {resource} cannot be written: {error.strerror}"
            advice = "let genplug write there (the chart's daemonset.cdiSpecDir), or write 'inject: nodes'"
            raise CdiUnwritableError(f"{what}; {advice}") from None
        finally:
            self._lock.release()
        self._written[resource] = (text, _inode(path))

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
