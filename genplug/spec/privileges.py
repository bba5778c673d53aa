"""The needs of a configuration: the privileges that the agent has to have for it, as values.

A probe kind describes what it needs as :class:`ProbeNeed`; ``genplug.config.privileges`` finds the needs of a whole
configuration, each with the location of the key that causes it.
"""

import re
from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from genplug.spec.location import SourceLocation

VISIBLE_PATHS = ("/dev", "/sys", "/proc/driver", "/proc/devices", "/run/udev/data")
"""Paths of the host that every pod of the chart mounts below ``/host``."""
_DEVICE_CGROUP_PATHS = ("/sys/class/kfd", "/sys/devices/virtual/kfd")
"""Files that the kernel shows only to processes that may open a device node: ``kfd_devcgroup_check_permission`` in
drivers/gpu/drm/amd/amdkfd/kfd_topology.c checks the render node."""
_NOT_LITERAL = re.compile(r"[*?\[{$]")


class NeedKind(StrEnum):
    """A thing that a configuration needs. The value is the name in JSON documents."""

    DEVICE_ACCESS = "deviceAccess"
    """The right to open device nodes, which the device cgroup of an unprivileged container denies."""
    KERNEL_LOG = "kernelLog"
    """Reading the kernel log: the capability SYSLOG."""
    UEVENTS = "uevents"
    """Receiving events of the kernel's devices: a netlink socket, in the user namespace of the host."""
    HOST_PATH = "hostPath"
    """A path of the host that is not in :data:`VISIBLE_PATHS`; the subject is the path."""
    CDI_SPEC_DIR = "cdiSpecDir"
    """A writable directory for CDI files."""
    DRA_DRIVER = "draDriver"
    """Serving devices by Dynamic Resource Allocation: directories of the kubelet, and access to the API server."""
    CDI_SEARCH_DIRS = "cdiSearchDirs"
    """The directories of the CDI files of other programs."""
    PROGRAM = "program"
    """A program in the container of the agent; the subject is its path."""
    NETWORK = "network"
    """Connections by TCP; the subject is the URL or the port."""


class ProbeNeed(Struct, frozen=True):
    """A need of a probe: its kind, its reason as a predicate whose subject is the probe, and its subject."""

    kind: NeedKind
    reason: str
    subject: str = ""


class Need(Struct, frozen=True):
    """A need of a configuration, and the key that causes it.

    ``reason`` is a clause. ``location`` and ``width`` (characters) are those of the key or value in the file.
    ``key_path`` is the path of the key, and ``resource`` the name of its resource.
    """

    kind: NeedKind
    subject: str
    reason: str
    location: SourceLocation
    width: int
    key_path: str
    resource: str


def find_hidden_path(path: str) -> str:
    """Return the directory or file that a template or glob needs and that the chart does not mount, or an empty string.

    The part before a wildcard or reference decides. If there is no such part, the path is not known, and the result is
    empty.
    """
    found = _NOT_LITERAL.search(path)
    literal = path if found is None else path[: path.rfind("/", 0, found.start()) + 1]
    literal = f"/{literal.strip('/')}"
    return "" if literal == "/" or is_below(literal, VISIBLE_PATHS) else literal


def find_read_needs(path: str) -> Iterator[ProbeNeed]:
    """Yield the needs of reading a file; the path is a template or glob."""
    if hidden := find_hidden_path(path):
        yield ProbeNeed(NeedKind.HOST_PATH, f"reads {path}", hidden)
    if is_below(path, _DEVICE_CGROUP_PATHS):
        reason = f"reads {path}, which the kernel shows only to processes that may open the render node"
        yield ProbeNeed(NeedKind.DEVICE_ACCESS, reason)


def is_below(path: str, directories: tuple[str, ...]) -> bool:
    """Return whether a path is one of the directories or in one of them."""
    return any(f"{path}/".startswith(f"{directory.removesuffix('/')}/") for directory in directories)
