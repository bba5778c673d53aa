"""The directory of a device in /sys, and the directories above it.

The kernel links each device node to its directory by the device numbers (``/sys/dev/char/MAJOR:MINOR``).
From a directory the next one up is the target of its ``device`` link, which skips the directories between, else the
parent directory, until ``/sys/devices`` (Documentation/admin-guide/sysfs-rules.rst).
"""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    # The decoder of the configuration imports every family for the names of its attributes, but reads nothing.
    from genplug.hardware.host import Host
    from genplug.hardware.inventory import PathInfo
    from genplug.spec.policy import Policy

DEPENDS_ON_LISTING = "/"
"""Ends a path in ``depends`` that stands for the names in a directory, and not for the directory itself."""

_TOP_DIRECTORIES = ("/sys/devices", "/sys", "/", "")
_MAX_ANCESTORS = 64
_MAX_REFUSALS = 100
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
VFIO = "/dev/vfio/"
_VFIO_GROUP = re.compile(r"/dev/vfio/(?:noiommu-)?(\d+)\Z")


class AttributeValue(Struct, frozen=True):
    """The values of an attribute, at least one, and their origin: a path, or a description."""

    values: tuple[str, ...]
    origin: str


class SysfsDevice(Struct, eq=False, dict=True):
    """A candidate as /sys shows it; ``directory`` is without symlinks, None if the candidate is not in /sys.

    ``depends`` collects the paths whose change may change what was read
    (:class:`genplug.hardware.dependencies.ChangeSet`).
    """

    path: str
    info: "PathInfo"
    host: "Host"
    directory: str | None
    policy: "Policy"
    depends: set[str] = field(default_factory=set)
    refusals: list[str] = []
    """The reads that the policy refused, each as a sentence."""

    @property
    def is_in_sysfs(self) -> bool:
        """Whether there is a directory, or the functions of a VFIO group, from which attributes can be read."""
        return self.directory is not None or self.info.resolved.startswith(VFIO)

    @cached_property
    def ancestors(self) -> tuple[str, ...]:
        """The directory of the device and those above it, nearest first."""
        return self._list_ancestors(self.directory)

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """The directory of the nearest PCI function; for a VFIO group those of all its functions; else nothing."""
        nearest = next((path for path in self.ancestors if _is_function(path)), None)
        if nearest is not None:
            return (nearest,)
        if (group := _VFIO_GROUP.match(self.info.resolved)) is None:
            return ()
        parent = f"/sys/kernel/iommu_groups/{group[1]}/devices"
        found = (self.host.resolve(f"{parent}/{name}") for name in self.names(parent))
        return tuple(path for path in found if path is not None and _is_function(path))

    @property
    def ancestor_chains(self) -> tuple[tuple[str, ...], ...]:
        """The chains of directories to search: that of the device, then those of the functions of a VFIO group."""
        others = (self._list_ancestors(path) for path in self.functions if path not in self.ancestors)
        return (self.ancestors, *others)

    def nearest(self, name: str) -> AttributeValue | None:
        """Return the first line of the nearest file of this name that is not empty."""
        for path in (path for chain in self.ancestor_chains for path in chain):
            if (value := self.file(f"{path}/{name}")) is not None:
                return value
        return None

    def file(self, path: str) -> AttributeValue | None:
        """Return the first line of a file, None if it is empty or cannot be read."""
        text = self.read_text(path)
        if not text:
            return None
        self.depends.add(path)
        return AttributeValue((text.partition("\n")[0].strip(),), path)

    def link(self, path: str) -> AttributeValue | None:
        """Return the last name in the target of a symlink to a directory."""
        target = self.resolve(path)
        if target is None:
            return None
        self.depends.add(path)
        return AttributeValue((target.rpartition("/")[2],), path)

    def read_text(self, path: str) -> str | None:
        """Return the text of a file, None if it cannot or must not be read."""
        return self.host.read_text(path, self._allows)

    def resolve(self, path: str) -> str | None:
        """Return the resolved path of a directory, None if there is none or its name must not be read."""
        directory = self.host.resolve(path)
        return directory if directory is None or self._allows(directory) else None

    def _allows(self, resolved: str) -> bool:
        if self.policy.read.allows(resolved):
            return True
        self.refuse(resolved, self.policy.read_error(resolved))
        return False

    def refuse(self, path: str, error: str) -> None:
        """Record that a path is not read because of an error of the policy."""
        if len(self.refusals) < _MAX_REFUSALS:
            self.refusals.append(f"reading {path} is {error}")

    def names(self, directory: str) -> tuple[str, ...]:
        """Return the names in a directory in natural order."""
        self.depends.add(directory + DEPENDS_ON_LISTING)
        return self.host.list_directory(directory)

    def read_from_functions(self, name: str) -> AttributeValue | None:
        """Return the first line of a file of each PCI function."""
        return merge_attribute_values(self.file(f"{path}/{name}") for path in self.functions)

    def _list_ancestors(self, path: str | None) -> tuple[str, ...]:
        found: list[str] = []
        while path is not None and path not in _TOP_DIRECTORIES and path not in found and len(found) < _MAX_ANCESTORS:
            found.append(path)
            path = self.host.resolve(f"{path}/device") or path.rpartition("/")[0]
        return tuple(found)


def merge_attribute_values(values: Iterable[AttributeValue | None]) -> AttributeValue | None:
    """Return several values as one, in their order and with repeats, with the origin of the first.

    The values of two attributes at the same position belong to the same function, interface or adapter.
    """
    existing = [value for value in values if value is not None]
    if len(existing) <= 1:
        return existing[0] if existing else None
    return AttributeValue(tuple(text for value in existing for text in value.values), existing[0].origin)


def _is_function(path: str) -> bool:
    return _PCI_ADDRESS.match(path.rpartition("/")[2]) is not None
