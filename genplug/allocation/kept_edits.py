"""Keeps the container edits of an offer for requests that repeat.

An offer, the requested devices and what exists at their paths determine the edits (:mod:`genplug.allocation.allocate`).
A repeated request therefore only has to stat the same paths again.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.offer import ResourceOffer
from genplug.hardware.host import Host
from genplug.hardware.inventory import PathInfo

MAX_KEPT = 1024
"""Requests of an offer for a device whose edits are kept, and requests for several; the next discards all of these."""
MAX_KEPT_CHARACTERS = 2048
"""Characters of the texts of edits that are kept; edits can have MiB, and take 1 KiB of memory usually."""


class _Kept(Struct, frozen=True):
    edits: ContainerEdits
    found: dict[str, PathInfo | None]
    """What existed at each path that the edits depend on."""
    depends_on_dev_only: bool
    """Whether these are device nodes in the file system of ``/dev``, which always responds."""


class _StatRecorder:
    """Looks up paths on a host, and records what exists at them."""

    def __init__(self, host: Host) -> None:
        self.found: dict[str, PathInfo | None] = {}
        self.missing_reason = host.missing_reason
        self._stat, self._has_node = host.stat, host.has_node

    def stat(self, path: str) -> PathInfo | None:
        info = self.found[path] = self._stat(path)
        return info

    def has_node(self, info: PathInfo) -> bool:
        has_node = self._has_node(info)
        if has_node:
            self.found[info.resolved] = info
        return has_node


class KeptEdits:
    """The edits of earlier requests for devices of an offer. Any thread may use it."""

    def __init__(self) -> None:
        # Sets of devices seldom repeat: they do not replace the requests for a device.
        self._of_one: dict[tuple[str, ...], _Kept] = {}
        self._of_several: dict[tuple[str, ...], _Kept] = {}

    def allocate(self, offer: ResourceOffer, ids: Sequence[str], host: Host, *, is_complete: bool) -> ContainerEdits:
        """Return the result of :func:`allocate_edits`; the offer and the host are the same in all calls.

        Raises:
            AllocationError: the request fails.
        """
        key = tuple(ids)
        by_ids = self._select(key)
        kept = by_ids.get(key)
        if kept is not None and _is_unchanged(kept.found, host):
            return kept.edits
        recorder = _StatRecorder(host)
        edits = allocate_edits(offer, ids, recorder, is_complete=is_complete)
        if _count_characters(edits, recorder.found, key) <= MAX_KEPT_CHARACTERS:
            if len(by_ids) >= MAX_KEPT:
                by_ids.clear()
            found = recorder.found
            is_in_dev = all(info is not None and info.is_in_dev for info in found.values())
            by_ids[key] = _Kept(edits, found, is_in_dev and not is_complete and not edits.cdi_devices)
        return edits

    def depends_on_dev_only(self, ids: Sequence[str]) -> bool:
        """Return whether :meth:`allocate` is known to use only device nodes in the file system of ``/dev``."""
        kept = self._select(ids).get(tuple(ids))
        return kept is not None and kept.depends_on_dev_only

    def _select(self, ids: Sequence[str]) -> dict[tuple[str, ...], _Kept]:
        return self._of_one if len(ids) == 1 else self._of_several


def _is_unchanged(found: dict[str, PathInfo | None], host: Host) -> bool:
    """Return whether paths lead to what was found at them."""
    for path, info in found.items():
        is_known_node = info is not None and info.resolved == path and host.has_node(info)
        if not is_known_node and host.stat(path) != info:
            return False
    return True


def _count_characters(edits: ContainerEdits, *texts: Iterable[str]) -> int:
    pairs = (*edits.env, *edits.annotations, *((mount.host_path, mount.container_path) for mount in edits.mounts))
    nodes = ((node.host_path, node.container_path) for node in edits.nodes)
    return sum(len(text) for group in (*pairs, *nodes, edits.cdi_devices, *texts) for text in group)
