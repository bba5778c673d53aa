"""Writes the files of a node that configurations and their probes read into an archive.

This module does not know the files of attributes and probes: it runs discovery, and the probes that only read files, on
a host that records each access, and writes the recorded files.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from genplug.capture import archive as archives
from genplug.hardware.cdi_files import list_cdi_files, reduce_cdi_file
from genplug.hardware.discovery import discover
from genplug.hardware.explain import explain
from genplug.hardware.file_tree import MAX_TEXT_BYTES, Access, AccessRecorder, FileTree
from genplug.hardware.host import CAPTURE_MARK, DEFAULT_CDI_DIRS, STAND_INS_MARKER, Host
from genplug.health.binding import bind_probes
from genplug.health.probe_kind import Effect
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.record.drivers import KERNEL_RELEASE_FILE, describe_devices, describe_drivers
from genplug.spec.limits import MAX_CDI_FILE_BYTES
from genplug.spec.model import Config
from genplug.spec.read_rules import ReadRules

if TYPE_CHECKING:
    from tarfile import TarInfo

_UDEV_DATABASE = "/run/udev/data/"
_NOT_HARDWARE = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages", "/dev/fd")  # noqa: S108 - to leave it out
"""Names under /dev that belong to processes and not to hardware."""


class TooLargeError(Exception):
    """A configuration reads more than an archive may contain; the text has a hint."""


class Capture(Struct, frozen=True):
    """An archive: its bytes and the number of its members.

    ``unreadable`` are the files whose text could not be read, ``omitted`` those that the configuration reads but whose
    text is left out because they do not belong to the kernel or udev.
    """

    content: bytes
    members: int
    unreadable: tuple[str, ...]
    omitted: tuple[str, ...] = ()


class AccessLog(Struct, frozen=True):
    """The recorded accesses. Calling it records an access. Paths are resolved, except their last name."""

    paths: set[str] = field(default_factory=set)
    listings: set[str] = field(default_factory=set)
    reads: dict[str, int] = {}
    """The files that were read, each with the maximum number of bytes that were read."""
    cdi_files: set[str] = field(default_factory=set)
    """The CDI files that were read."""
    on_access: AccessRecorder | None = None

    def __call__(self, access: Access, path: str) -> None:
        """Record an access."""
        if access is Access.NONE:
            return
        self.paths.add(path)
        if access is Access.LIST:
            self.listings.add(path)
        elif access is Access.READ:
            self.reads[path] = MAX_TEXT_BYTES
        if self.on_access is not None:
            self.on_access(access, path)


class _RecordingReader(CachedFileReader, frozen=True):
    """Records the number of bytes of a file that a probe reads, which may be smaller than that of a text."""

    limits: dict[str, int] = field(default_factory=dict)

    def read_bytes(self, path: str, max_bytes: int, rules: ReadRules | None = None) -> bytes:
        """Return the first bytes of a regular file."""
        resolved = self.host.resolve_file(path)
        self.limits[resolved] = max(self.limits.get(resolved, 0), max_bytes)
        return super().read_bytes(path, max_bytes, rules)


def capture(
    configs: Iterable[Config],
    root: Path,
    *,
    node_name: str | None,
    cdi_dirs: tuple[str, ...] = DEFAULT_CDI_DIRS,
    on_access: AccessRecorder | None = None,
) -> Capture:
    """Return an archive of the files that the configurations read under ``root``.

    ``cdi_dirs`` are the directories from which the container runtime reads CDI files. ``on_access`` is called with each
    access, to show progress.

    Raises:
        TooLargeError: the files exceed the limits of an archive.
    """
    accesses = record_accesses(configs, root, node_name=node_name, cdi_dirs=cdi_dirs, on_access=on_access)
    unreadable: list[str] = []
    content, members = _pack(_list_members(accesses, root, unreadable))
    omitted = sorted(
        path
        for path in accesses.reads.keys() - accesses.cdi_files
        if not _is_of_kernel(path) and not path.startswith("/dev/")
    )
    return Capture(content, members, tuple(unreadable), tuple(omitted))


def record_accesses(
    configs: Iterable[Config],
    root: Path,
    *,
    node_name: str | None,
    cdi_dirs: tuple[str, ...] = DEFAULT_CDI_DIRS,
    on_access: AccessRecorder | None = None,
) -> AccessLog:
    """Return the paths that the configurations and their probes access."""
    accesses, by_probes = AccessLog(on_access=on_access), AccessLog(on_access=on_access)
    host = Host.at(root, node_name=node_name, recorder=accesses, cdi_dirs=cdi_dirs)
    reader = _RecordingReader(Host.at(root, node_name=node_name, recorder=by_probes))
    for config in configs:
        # `genplug plan --explain` also reads the attributes of conditions that discovery does not reach.
        inventory = discover(config, host)
        for _ in explain(inventory, host):
            pass
        # `genplug record` reads the versions of drivers and firmware.
        describe_drivers(describe_devices(inventory, host), host)
        host.read_text(KERNEL_RELEASE_FILE)
        for name, devices in inventory.devices.items():
            for bound in bind_probes(inventory.resources[name], devices):
                polling = bound.kind.polling
                if bound.request is not None and polling is not None and polling.effect is Effect.READ:
                    run_request(bound.request, reader, bound.timing.timeout)
    accesses.paths.update(by_probes.paths)
    accesses.listings.update(by_probes.listings)
    for path in by_probes.reads.keys() - accesses.reads.keys():
        accesses.reads[path] = reader.limits.get(path, MAX_TEXT_BYTES)
    accesses.cdi_files.update(accesses.reads.keys() & list_cdi_files(Host.at(root, cdi_dirs=cdi_dirs)))
    return accesses


def _list_members(accesses: AccessLog, root: Path, unreadable: list[str]) -> "Iterator[tuple[TarInfo, bytes]]":
    """Yield the members of an archive and their bytes, a directory before its entries."""
    from tarfile import TarInfo  # noqa: PLC0415 - imported for an archive only

    host, tree = Host.at(root), FileTree(os.fspath(root).rstrip("/"))
    paths = accesses.paths | set(_list_dev(tree))
    # Names are data too: attributes are made of them.
    paths |= {f"{at}/{entry.name}" for at in accesses.listings if _is_of_kernel(at) for entry in tree.entries(at)}
    paths |= {str(parent) for path in paths for parent in Path(path).parents}
    directories = {""}
    marker = TarInfo(STAND_INS_MARKER)
    marker.size = len(CAPTURE_MARK)
    yield marker, CAPTURE_MARK.encode()
    for path in sorted(paths - {"/"}):
        # The tree can change while it is read.
        if path.rpartition("/")[0] not in directories:
            continue
        try:
            mode = os.lstat(tree.prefix + path).st_mode
        except (OSError, ValueError):
            continue
        member, content = TarInfo(path.lstrip("/")), b""
        try:
            content = _fill_member(member, mode, path, host, tree, accesses)
        except PermissionError:
            # The existence of the file counts, even if it cannot be read.
            unreadable.append(path)
        except OSError:
            pass
        if member.isdir():
            directories.add(path)
        member.size = len(content)
        yield member, content


def _list_dev(tree: FileTree) -> Iterator[str]:
    waiting = ["/dev"]
    while waiting:
        for entry in tree.entries(at := waiting.pop()):
            if (path := f"{at}/{entry.name}") not in _NOT_HARDWARE:
                yield path
                waiting += [path] if entry.is_directory else []


def _fill_member(  # noqa: PLR0913, PLR0917 - the properties of a path
    member: "TarInfo", mode: int, path: str, host: Host, tree: FileTree, accesses: AccessLog
) -> bytes:
    """Set the type of a member to that of a path, and return its bytes.

    Raises:
        OSError: the bytes cannot be read.
    """
    from tarfile import DIRTYPE, SYMTYPE  # noqa: PLC0415 - imported for an archive only

    if stat.S_ISLNK(mode):
        member.linkname, member.type = tree.target(path), SYMTYPE
    elif stat.S_ISDIR(mode):
        member.type, member.mode = DIRTYPE, 0o755
    elif stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        member.pax_headers = {archives.KIND: "socket" if stat.S_ISSOCK(mode) else "fifo"}
    elif (info := host.stat(path)) is not None and info.is_device:
        return f"{info.describe_numbers()}\n".encode()
    elif path in accesses.reads and _is_of_kernel(path):
        # Only the bytes that were read: a read of a whole configuration space can disturb a device.
        return tree.read(path, accesses.reads[path])
    elif path in accesses.cdi_files:
        return reduce_cdi_file(tree.read(path, MAX_CDI_FILE_BYTES))
    return b""


def _is_of_kernel(path: str) -> bool:
    """Return whether a path describes the machine; a path in /proc of a process could contain its environment.

    The database of udev has what udev read from the devices (udev(7)).
    """
    top, _, rest = path.lstrip("/").partition("/")
    return top == "sys" or (top == "proc" and not rest[:1].isdecimal()) or path.startswith(_UDEV_DATABASE)


def _pack(members: "Iterable[tuple[TarInfo, bytes]]") -> tuple[bytes, int]:
    """Return an archive that depends on its members only, and the number of members.

    Raises:
        TooLargeError: the files exceed the limits of an archive.
    """
    import tarfile  # noqa: PLC0415 - imported for an archive only
    from gzip import GzipFile  # noqa: PLC0415 - as above
    from io import BytesIO  # noqa: PLC0415 - as above

    count, buffer = 0, BytesIO()
    with (
        GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
    ):
        for count, (member, content) in enumerate(members, 1):
            archive.addfile(member, BytesIO(content))
            if count > archives.MAX_MEMBERS or archive.offset > archives.MAX_BYTES:
                raise TooLargeError(
                    f"the configuration reads more than an archive may hold ({archives.MAX_MEMBERS} paths, "
                    f"{archives.MAX_BYTES >> 20} MiB); the last path is {member.name!r}; "
                    "pass a --config with narrower globs"
                )
    return buffer.getvalue(), count


def write_file(content: bytes, path: Path) -> None:
    """Write a file for its owner only; if the write fails, the previous file remains.

    Raises:
        OSError: the file cannot be written.
    """
    from tempfile import NamedTemporaryFile  # noqa: PLC0415 - imported for an archive only

    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
