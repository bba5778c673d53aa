"""Which files of the host attributes and probes may read: globs over paths, with places that a glob must name.

The rules are compared with the path as written and with the path without symlinks.
"""

import itertools
import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import force_setattr

from genplug.spec.globs import Glob, Segment
from genplug.struct_values import compare_without, hide_in_repr

DEFAULT_READ_GLOBS = (
    "/sys/**",
    # The firmware of QuickAssist devices shows its state in debugfs only.
    "/sys/kernel/debug/qat_*/heartbeat/status",
    "/proc/driver/**",
    "/run/udev/data/**",
)
"""The files that describe devices: sysfs, the directories of drivers in procfs, and the database of udev."""

_PRIVATE_PLACES = re.compile(
    r"/sys/kernel/(?:debug|tracing|security|config|notes|vmcoreinfo|boot_params|fadump[^/]*)(?:/|\Z)"
    # The device tree describes devices, except for the arguments and the seeds that the boot loader adds.
    r"|/sys/firmware/(?:devicetree/base/chosen|(?!devicetree(?:/|\Z))[^/]+)(?:/|\Z)"
    r"|/sys/module/[^/]+/(?:sections|notes)(?:/|\Z)"
    r"|/sys/fs/[^/]+(?:/|\Z)"
    # Dumps of the memory of a device (Documentation/ABI/testing/sysfs-devices-coredump, drivers/gpu/drm/i915).
    r"|/sys/(?:[^/]+/)*(?:devcoredump|drm/card\d+/error)(?:/|\Z)"
    # Parts of a non-volatile memory (Documentation/ABI/testing/sysfs-nvmem-cells).
    r"|/sys/(?:[^/]+/)*cells/[^/]+@[^/]+(?:/|\Z)"
    r"|/proc/(?:kcore|kmsg|vmcore|keys|key-users|kallsyms|kpage[a-z]+|\d+|self|thread-self)(?:/|\Z)"
)
"""Debugging interfaces, firmware settings, memory addresses, crash logs, memory contents, and states of processes."""
_PRIVATE_NAME = re.compile(
    r"[^/]*(?:passw(?:or)?d|passphrase|secret|private|credential)[^/]*|key|psk|tls_key|nvmem|nvram|optrom|fw_dump",
    re.ASCII,
)
"""Files with secrets: passwords of iSCSI sessions, secrets and keys of NVMe over Fabrics, keys of Thunderbolt; and the
contents of memories: fuses, flash memories and CMOS (Documentation/ABI/stable/sysfs-bus-nvmem), firmware of adapters.
"""


@compare_without("_trees")
@hide_in_repr("_trees")
class ReadRules(Struct, frozen=True):
    """Globs over the paths that may be read.

    A glob matches a private place only if its part without wildcards reaches into the place, and a file with a private
    name only if its last name has no wildcard: ``/sys/**`` matches neither ``/sys/kernel/debug/x`` nor ``password``.
    """

    globs: tuple[Glob, ...]
    _trees: tuple[str, ...] = ()
    """The directories below which everything matches, with a slash at the end: a fast path."""

    def __post_init__(self) -> None:
        force_setattr(self, "_trees", list_trees(self.globs))

    def allows(self, path: str) -> bool:
        """Return whether an absolute path may be read; the caller also checks the path without symlinks."""
        path = _normalize(path)
        if ".." in path.split("/"):
            return False
        if not _is_private(path):
            return self._matches(path)
        return any(
            glob.matches(path) and any(_names_private_place(segments) for segments in glob) for glob in self.globs
        )

    def names(self, path: str) -> bool:
        """Return whether a result may contain the name of a path: a glob matches it, and it is in no private place.

        A file with a private name may be named, and must not be read.
        """
        path = _normalize(path)
        if _PRIVATE_PLACES.match(path) is not None:
            return self.allows(path)
        return self._matches(path)

    def _matches(self, path: str) -> bool:
        return path.startswith(self._trees) or any(glob.matches(path) for glob in self.globs)

    def may_allow_match(self, glob: Glob) -> bool:
        """Return whether each alternative of a glob may match a path that may be read.

        A search for another glob would reveal which files exist.
        """
        return all(
            self.allows(path) if is_literal else self.may_allow_below(path)
            for path, is_literal in map(literal_path, glob.alternatives)
        )

    def may_allow_below(self, directory: str) -> bool:
        """Return whether a path below a directory may be allowed."""
        is_private = _PRIVATE_PLACES.match(f"{_normalize(directory)}/") is not None
        return any(
            glob.may_match_below(directory)
            and (not is_private or any(_names_private_place(segments) for segments in glob))
            for glob in self.globs
        )


@lru_cache(maxsize=64)
def parse_read_rules(texts: tuple[str, ...]) -> ReadRules:
    """Return the rules of globs; the globs are valid."""
    return ReadRules(tuple(map(Glob.parse, texts)))


def list_trees(globs: Iterable[Glob]) -> tuple[str, ...]:
    """Return the directories below which one of the globs matches everything, with a slash at the end."""
    trees = (literal_path(segments[:-1]) for glob in globs for segments in glob if segments[-1].is_any_depth)
    return tuple(f"{path}/" for path, is_literal in trees if is_literal)


def literal_directory(text: str) -> str:
    """Return the directory that a path or glob begins with, from the text before its first wildcard."""
    literal = re.split(r"[*?\[{]", text, maxsplit=1)[0]
    return literal.rpartition("/")[0]


def literal_path(segments: tuple[Segment, ...]) -> tuple[str, bool]:
    """Return the names before the first wildcard as a path, and whether there is no wildcard."""
    names = [segment.text for segment in itertools.takewhile(lambda segment: segment.is_literal, segments)]
    return f"/{'/'.join(names)}" if names else "", len(names) == len(segments)


def _normalize(path: str) -> str:
    """Return an absolute path without repeated slashes, ``.`` and a slash at the end: other names of one file."""
    if "//" not in path and "/." not in path and not path.endswith("/"):
        return path
    return f"/{'/'.join(name for name in path.split('/') if name not in {'', '.'})}"


def _is_private(path: str) -> bool:
    return _PRIVATE_PLACES.match(path) is not None or _PRIVATE_NAME.fullmatch(path.rpartition("/")[2]) is not None


def _names_private_place(segments: tuple[Segment, ...]) -> bool:
    last = segments[-1]
    is_named = last.is_literal and _PRIVATE_NAME.fullmatch(last.text) is not None
    return is_named or _PRIVATE_PLACES.match(f"{literal_path(segments)[0]}/") is not None


DEFAULT_READ_RULES = parse_read_rules(DEFAULT_READ_GLOBS)
