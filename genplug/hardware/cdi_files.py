"""The CDI devices that the files of other programs define, as the container runtime of the node would find them.

The rules are those of the package ``cdi`` of container-device-interface v1.1.0, which containerd, CRI-O and podman use:

- ``spec-dirs.go``: the runtime reads the files ``*.json`` and ``*.yaml`` in its directories, not in subdirectories.
- ``cache.go``: of two definitions of a device, that of the later directory counts; two in one directory are a conflict,
  which makes the device unknown, also if a later directory defines it.
- ``spec.go``: a file with an error defines no device.

The files are those of other programs: their number, size and depth are bounded, and an invalid file is an error of this
file only.
"""

import errno
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

import yaml
from msgspec import Struct

from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import Host, printable
from genplug.hardware.inventory import Kind
from genplug.spec.limits import MAX_CDI_BYTES, MAX_CDI_DEPTH, MAX_CDI_FILE_BYTES, MAX_CDI_FILES
from genplug.spec.names import cdi_device_error

_Event: TypeAlias = Any
"""A PyYAML event: an alias, a scalar, or the start or end of a list or mapping; the classes share no typed base."""
_STARTS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_ENDS = (yaml.MappingEndEvent, yaml.SequenceEndEvent)

SUFFIXES = (".json", ".yaml")
_VERSION = re.compile(r"v?\d+\.\d+\.\d+")
_MAX_SHOWN = 3
"""Names or errors in a message."""
_MAX_CACHED_FILES = 256


class InvalidCdiFileError(Exception):
    """A CDI file with an error; the text is a clause that follows the name of the file."""


class CdiFile(Struct, frozen=True):
    """The qualified names of the devices that a CDI file defines, or its error as a clause that follows its name."""

    devices: frozenset[str] = frozenset()
    error: str = ""


_LOCK = threading.Lock()
_PARSED: dict[bytes, CdiFile] = {}
"""Results by the digest of the content, the oldest first. Scans of several resources read the same files."""


class _Read(Struct, frozen=True):
    """The result of a file with certain times, and when a file with these times was found first (monotonic seconds).

    With ``is_final``, the content was read ``_SETTLED_SECONDS`` later: a change after that has another time.
    """

    file: CdiFile
    found_at: float
    is_final: bool


_READ: dict[tuple[int, ...], _Read] = {}
"""Results by the device, inode, size and times of the file. Each allocation with CDI examines all files."""
_SETTLED_SECONDS = 2.0
"""Two changes within this time can have the same time: a file system rounds it to a tick of the kernel."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class CdiDevices(Struct, frozen=True):
    """The CDI devices of a node.

    - ``directories``: the directories that the runtime reads, as configured, by increasing priority.
    - ``files``: the file that defines each device.
    - ``conflicts``: two files that define the same device.
    - ``errors``: why a file defines no device.
    - ``is_visible``: whether this process sees any of the directories.
    """

    directories: tuple[str, ...]
    files: Mapping[str, str] = {}
    conflicts: Mapping[str, tuple[str, ...]] = {}
    errors: Mapping[str, str] = {}
    is_visible: bool = True

    def undefined_reason(self, name: str) -> str:
        """Return why the container runtime does not find a CDI device, as a sentence; empty if it is defined."""
        if name in self.conflicts:
            first, second = self.conflicts[name]
            return f"{first} and {second} both define the CDI device {name}; remove it from one of the files"
        if name in self.files:
            return ""
        directories = " and ".join(self.directories) or "any directory"
        if not self.is_visible:
            return (
                f"the CDI device {name} cannot be looked up: genplug does not see {directories}; create a directory "
                "and its CDI files, or mount it into the pod of genplug (in the chart: daemonset.cdiSearchDirs)"
            )
        reason = f"no CDI file in {directories} defines {name}"
        kind = name.partition("=")[0]
        others = sorted(other.partition("=")[2] for other in self.files if other.startswith(f"{kind}="))
        if others:
            reason += f"; the devices of {kind} are {_shorten(others)}"
        if self.errors:
            reason += f"; invalid files: {_shorten([f'{path} {error}' for path, error in self.errors.items()])}"
        return reason

    def other_definition(self, name: str, file: str) -> str:
        """Return the path of a file that keeps the runtime from using the definition in ``file``, a name; or empty.

        ``file`` is in one of the directories. A definition in a directory before the last is assumed to be before it.
        """
        paths = self.conflicts.get(name, ())
        if not paths and name in self.files and self.files[name].startswith(f"{self.directories[-1]}/"):
            paths = (self.files[name],)
        return next((path for path in paths if not path.endswith(f"/{file}")), "")


def read_cdi_devices(host: Host, dependencies: Dependencies) -> CdiDevices:
    """Return the CDI devices of a node, and add what the result depends on to ``dependencies``.

    Raises:
        HangError: a file operation on a directory or a file does not return.
    """
    found: list[tuple[int, str, CdiFile]] = []
    read_bytes, is_visible = 0, False
    for priority, directory in enumerate(host.cdi_dirs):
        info = host.stat_tracked(directory, dependencies)
        if info is None or info.kind is not Kind.DIRECTORY:
            continue
        is_visible = True
        dependencies.add_any(info.resolved)
        names = [name for name in host.list_directory(directory) if name.endswith(SUFFIXES)]
        for number, name in enumerate(names):
            path = f"{directory}/{name}"
            if number >= MAX_CDI_FILES:
                text = f"is not read: the directory has more than {MAX_CDI_FILES} files"
                found.append((priority, path, CdiFile(error=text)))
                break
            try:
                size, file = _read_file(path, host, MAX_CDI_BYTES - read_bytes)
            except InvalidCdiFileError as error:
                size, file = 0, CdiFile(error=str(error))
            except OSError as error:
                # ENOENT: it was removed after the directory was listed.
                if error.errno in {errno.ENOENT, errno.EISDIR}:
                    continue
                size, file = 0, CdiFile(error=f"cannot be read: {os.strerror(error.errno or 0)}")
            read_bytes += size
            found.append((priority, path, file))
    return _combine_files(host.cdi_dirs, tuple(found), is_visible=is_visible)


@lru_cache(maxsize=1)
def _combine_files(
    directories: tuple[str, ...], found: tuple[tuple[int, str, CdiFile], ...], *, is_visible: bool
) -> CdiDevices:
    """Return the devices of files, which are given with the priority of the directory and the path of each."""
    files: dict[str, str] = {}
    priorities: dict[str, int] = {}
    conflicts: dict[str, tuple[str, ...]] = {}
    for priority, path, file in found:
        for device in file.devices:
            if priorities.get(device) == priority:
                conflicts.setdefault(device, (files[device], path))
            files[device], priorities[device] = path, priority
    errors = {printable(path): file.error for _, path, file in found if file.error}
    return CdiDevices(directories, files, conflicts, errors, is_visible)


def list_cdi_files(host: Host) -> frozenset[str]:
    """Return the paths of the CDI files of a node, with symlinks resolved."""
    files: set[str] = set()
    for directory in host.cdi_dirs:
        for name in host.list_directory(directory):
            if name.endswith(SUFFIXES):
                with suppress(OSError):
                    files.add(host.resolve_file(f"{directory}/{name}"))
    return frozenset(files)


def _read_file(path: str, host: Host, max_bytes: int) -> tuple[int, CdiFile]:
    """Return the size of a file (bytes) and its devices; a file that was read before is not read again.

    Raises:
        InvalidCdiFileError: the file is too large.
        OSError: it cannot be read.
    """
    limit = min(MAX_CDI_FILE_BYTES, max_bytes)
    now = time.monotonic()
    resolved, status = host.stat_file(path)
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    previous = _READ.get(identity)
    if previous is not None and previous.is_final and status.st_size <= limit:
        host.record_read(resolved)
        return status.st_size, previous.file
    content = host.read_bytes(resolved, limit + 1)
    if len(content) <= limit:
        file = parse_cdi_file(content)
        if len(content) == status.st_size:
            found_at = now if previous is None else previous.found_at
            _keep(_READ, identity, _Read(file, found_at, is_final=now - found_at >= _SETTLED_SECONDS))
        return len(content), file
    if limit == MAX_CDI_FILE_BYTES:
        raise InvalidCdiFileError(f"is larger than {MAX_CDI_FILE_BYTES >> 20} MiB, the maximum")
    raise InvalidCdiFileError(f"is not read: with it, the CDI files exceed {MAX_CDI_BYTES >> 20} MiB, the maximum")


def parse_cdi_file(content: bytes) -> CdiFile:
    """Return the devices of a CDI file, or its error. Pure; the results for the last contents are kept."""
    digest = blake2b(content, digest_size=16).digest()
    with _LOCK:
        known = _PARSED.get(digest)
    if known is None:
        try:
            known = CdiFile(_parse(content))
        except InvalidCdiFileError as error:
            known = CdiFile(error=str(error))
        _keep(_PARSED, digest, known)
    return known


def _keep(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    with _LOCK:
        cache.pop(key, None)
        while len(cache) >= _MAX_CACHED_FILES:
            del cache[next(iter(cache))]
        cache[key] = value


def reduce_cdi_file(content: bytes) -> bytes:
    """Return a CDI file that defines the same devices and contains nothing else, for an archive; empty if invalid."""
    devices = parse_cdi_file(content).devices
    if not devices:
        return b""
    kind = next(iter(devices)).partition("=")[0]
    names = sorted(device.partition("=")[2] for device in devices)
    # A device without edits would be an error.
    devices_of_kind = [{"name": name, "containerEdits": {"env": ["GENPLUG_CAPTURE=1"]}} for name in names]
    spec = {"cdiVersion": "0.6.0", "kind": kind, "devices": devices_of_kind}
    return f"{json.dumps(spec)}\n".encode()


def _parse(content: bytes) -> frozenset[str]:
    """Return the qualified names of the devices of a file, which is YAML for the runtime, whatever its suffix.

    Raises:
        InvalidCdiFileError: the runtime would not accept the file.
    """
    try:
        # Events, because a composed document recurses for each level and repeats what aliases refer to.
        kind, names = _read_document(iter(yaml.parse(content.decode(), yaml.CBaseLoader)))
    except UnicodeDecodeError:
        raise InvalidCdiFileError("is not a text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "invalid text"
        raise InvalidCdiFileError(f"is neither JSON nor YAML: {problem}{where}") from None
    if not names:
        raise InvalidCdiFileError("has no devices")
    for name in names:
        if error_of_name := cdi_device_error(f"{kind}={name}"):
            raise InvalidCdiFileError(f"has the invalid name {f'{kind}={name}'[:100]!r}: {error_of_name}")
    if len(set(names)) < len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise InvalidCdiFileError(f"has the device {repeated!r} twice")
    return frozenset(f"{kind}={name}" for name in names)


def _read_document(events: Iterator[_Event]) -> tuple[str, list[str]]:
    """Return the kind and the names of the devices in the first document of a file."""
    event = next(events)
    while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
        event = next(events)
    if not isinstance(event, yaml.MappingStartEvent):
        raise InvalidCdiFileError("is empty, or is not a mapping")
    texts: dict[str, str] = {}
    names: list[str] = []
    for key, value in _read_entries(events):
        if key == "devices" and isinstance(value, yaml.SequenceStartEvent):
            names = [_read_device(item, events) for item in _read_items(events)]
        elif key in {"cdiVersion", "kind"} and isinstance(value, yaml.ScalarEvent):
            texts[key] = value.value
        else:
            _skip(value, events)
    if not _VERSION.fullmatch(texts.get("cdiVersion", "")):
        raise InvalidCdiFileError("has no valid 'cdiVersion', for example 0.6.0")
    if "kind" not in texts:
        raise InvalidCdiFileError("has no 'kind'")
    return texts["kind"], names


def _read_device(event: _Event, events: Iterator[_Event]) -> str:
    """Return the name of a device, whose first event is ``event``."""
    if not isinstance(event, yaml.MappingStartEvent):
        raise InvalidCdiFileError("has an entry of 'devices' that is not a mapping")
    name, has_edits = "", False
    for key, value in _read_entries(events):
        if key == "name" and isinstance(value, yaml.ScalarEvent):
            name = value.value
        elif key == "containerEdits" and isinstance(value, yaml.MappingStartEvent):
            has_edits = _skip(value, events) > 0
        else:
            _skip(value, events)
    if not has_edits:
        raise InvalidCdiFileError(f"has the device {name[:100]!r} without 'containerEdits'")
    return name


def _read_entries(events: Iterator[_Event]) -> Iterator[tuple[str, _Event]]:
    """Yield the keys of a mapping, each with the first event of its value, which the caller has to read."""
    keys: set[str] = set()
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise InvalidCdiFileError("has a key that is not a string")
        if event.value in keys:
            raise InvalidCdiFileError(f"has the key {event.value[:100]!r} twice")
        keys.add(event.value)
        yield event.value, next(events)


def _read_items(events: Iterator[_Event]) -> Iterator[_Event]:
    """Yield the first event of each item of a list; the caller has to read the rest of the item."""
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        yield event


def _skip(event: _Event, events: Iterator[_Event]) -> int:
    """Read the rest of a value, and return the number of its events without its start and end."""
    depth, number = int(isinstance(event, _STARTS)), -1
    while depth:
        event = next(events)
        number += 1
        depth += isinstance(event, _STARTS) - isinstance(event, _ENDS)
        if depth > MAX_CDI_DEPTH:
            raise InvalidCdiFileError(f"is nested more than {MAX_CDI_DEPTH} levels deep")
    return max(number, 0)


def _shorten(texts: Iterable[str]) -> str:
    """Return the first texts, separated by commas, and the number of the others."""
    found = list(texts)
    more = f" and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
    return f"{', '.join(found[:_MAX_SHOWN])}{more}"
