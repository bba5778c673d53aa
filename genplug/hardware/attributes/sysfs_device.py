"""A device's place in /sys: its own directory there, and the directories above it.

The kernel links each node to its directory by its numbers (``/sys/dev/char/MAJOR:MINOR``). From a directory the way up
is its ``device`` link, which leaves out the directories between, else the parent it lies in, until ``/sys/devices``
(Documentation/admin-guide/sysfs-rules.rst).
"""

import re
from collections.abc import Iterable
from functools import cached_property

from attrs import define, field, frozen

from genplug.hardware.host import Host
from genplug.hardware.inventory import PathInfo
from genplug.spec.natural_sort import natural_sort_key

DEPENDS_ON_LISTING = "/"
"""Ends the path of a parent in ``depends`` whose names count, and not the parent itself."""

_TOPS = ("/sys/devices", "/sys", "/", "")
_MAX_STEPS = 64
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_VFIO = "/dev/vfio/"
_VFIO_GROUP = re.compile(r"/dev/vfio/(?:noiommu-)?(\d+)\Z")


@frozen
class AttributeValue:
    """An attribute's values, at least one, and where they were read: a path, or what else it was."""

    values: tuple[str, ...]
    origin: str


@define(eq=False, slots=False)
class SysfsDevice:
    """Where one candidate stands in /sys; ``directory`` is without symlinks, None where it has no place there.

    ``depends`` collects the paths whose change may change what was read (:class:`genplug.hardware.dependencies.Touch`).
    """

    path: str
    info: PathInfo
    host: Host
    directory: str | None
    depends: set[str] = field(factory=set)

    @property
    def is_somewhere(self) -> bool:
        """Whether there is anything in /sys to begin at: a directory, or the functions of a VFIO group."""
        return self.directory is not None or self.info.resolved.startswith(_VFIO)

    @cached_property
    def ancestors(self) -> tuple[str, ...]:
        """The device's directory and those above it, nearest first."""
        return self._from(self.directory)

    def _from(self, at: str | None) -> tuple[str, ...]:
        found: list[str] = []
        while at is not None and at not in _TOPS and at not in found and len(found) < _MAX_STEPS:
            found.append(at)
            at = self.host.resolve(f"{at}/device") or at.rpartition("/")[0]
        return tuple(found)

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """The directory of the nearest PCI function; of a VFIO group all its functions; none where there is none."""
        nearest = next((one for one in self.ancestors if _PCI_ADDRESS.match(one.rpartition("/")[2])), None)
        if nearest is not None:
            return (nearest,)
        if (group := _VFIO_GROUP.match(self.info.resolved)) is None:
            return ()
        parent = f"/sys/kernel/iommu_groups/{group[1]}/devices"
        found = (self.host.resolve(f"{parent}/{name}") for name in self.names(parent))
        return tuple(one for one in found if one is not None and _PCI_ADDRESS.match(one.rpartition("/")[2]))

    @property
    def ancestor_chains(self) -> tuple[tuple[str, ...], ...]:
        """The ways up on which the nearest is looked for: the device's own, then those of a group's functions."""
        others = (self._from(one) for one in self.functions if one not in self.ancestors)
        return (self.ancestors, *others)

    def nearest(self, name: str) -> AttributeValue | None:
        """Return the text of the nearest file of this name that says something."""
        for at in (at for way in self.ancestor_chains for at in way):
            if (fact := self.file(f"{at}/{name}")) is not None:
                return fact
        return None

    def file(self, path: str) -> AttributeValue | None:
        """Return the first line of a file."""
        text = self.host.read_text(path)
        if not text:
            return None
        self.depends.add(path)
        return AttributeValue((text.partition("\n")[0].strip(),), path)

    def link(self, path: str) -> AttributeValue | None:
        """Return the name of what a link leads to."""
        target = self.host.resolve(path)
        if target is None:
            return None
        self.depends.add(path)
        return AttributeValue((target.rpartition("/")[2],), path)

    def names(self, parent: str) -> tuple[str, ...]:
        """Return the names in a parent in natural order."""
        self.depends.add(parent + DEPENDS_ON_LISTING)
        return self.host.list_directory(parent)

    def read_from_functions(self, name: str) -> AttributeValue | None:
        """Return the text of a file of each PCI function."""
        return merge_attribute_values(self.file(f"{at}/{name}") for at in self.functions)


def merge_attribute_values(facts: Iterable[AttributeValue | None]) -> AttributeValue | None:
    """Return the values of several facts in natural order and without repeats, with the first one's origin."""
    known = [one for one in facts if one is not None]
    if len(known) <= 1:
        return known[0] if known else None
    values = dict.fromkeys(value for one in known for value in one.values)
    return AttributeValue(tuple(sorted(values, key=natural_sort_key)), known[0].origin)
