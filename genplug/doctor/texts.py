"""Parsers of the kernel's text files. Pure, so that tests can pass the files of other machines."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from genplug.doctor.facts import Mount
from genplug.spec.numbers import parse_natural

_ESCAPE = re.compile(r"\\([0-7]{3})")
INITIAL_UID_MAP = (0, 0, 4294967295)
"""The map of the initial user namespace (user_namespaces(7)): every user ID is mapped to itself."""
_MIN_MOUNT_FIELDS = 6


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return the mounts in the text of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""
    return tuple(_parse_mount_lines(text))


def _parse_mount_lines(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if not separator or len(fields) < _MIN_MOUNT_FIELDS:
            continue
        # A shared mount and a slave ("master:N") receive mounts; a private mount has neither field.
        receives = any(field.startswith(("shared:", "master:")) for field in fields[_MIN_MOUNT_FIELDS:])
        target = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        yield Mount(target, rest[0], frozenset(fields[5].split(",")), receives)


def find_mount(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Return the mount that a path is in; the last of several mounts at a place is the visible mount."""
    found = None
    for mount in mounts:
        is_inside = PurePosixPath(path).is_relative_to(mount.target)
        if is_inside and (found is None or len(mount.target) >= len(found.target)):
            found = mount
    return found


def is_initial_uid_map(text: str) -> bool:
    """Return whether the text of /proc/PID/uid_map is that of the initial user namespace."""
    return tuple(text.split()) == tuple(map(str, INITIAL_UID_MAP))


def parse_status(text: str) -> dict[str, str]:
    """Return the values of /proc/PID/status by their names."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def parse_capabilities(mask: str) -> frozenset[int]:
    """Return the numbers of the capabilities in a hexadecimal mask such as ``CapEff``."""
    bits = int(mask, 16)
    return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)


def parse_cgroups(text: str) -> dict[str, str]:
    """Return the cgroup of a process for each controller, that of version 2 under an empty name (cgroups(7))."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            paths[controller.removeprefix("name=")] = path
    return paths


def parse_limit(text: str, unlimited: int) -> int | None:
    """Return a limit of a cgroup, None if it is ``max`` or at least ``unlimited``, which version 1 writes for none."""
    number = parse_natural(text.strip())
    return number if number is not None and number < unlimited else None
