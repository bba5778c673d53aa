"""Files whose reads hang until a test releases them: a small FUSE file system. Requires root and /dev/fuse.

The module implements the kernel's protocol (``linux/fuse.h``), so no library has to be installed. A thread of this
process serves the file system. Therefore the process has to leave the context, which a test that fails or is
interrupted does. If the process is killed, readers in other processes get an error, but the mount remains. A killed
process does not end while one of its threads hangs in a read. ``umount -f -l`` on the directory solves both.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

MAX_HANG_SECONDS: Final = 30.0
"""Seconds after the first call of ``hang`` or ``hang_lookups`` after which everything fails with EIO."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MNT_FORCE, _MNT_DETACH = 1, 2

_VERSION = (7, 31)  # the version of Linux 5.4, which newer kernels support too
_MAX_WRITE = 4096  # no file is written, but the kernel accepts no smaller value
_REQUEST_SIZE = 8192  # the kernel refuses a smaller buffer
_FOPEN_DIRECT_IO, _FOPEN_NOFLUSH = 1, 32  # no page cache; no FLUSH request at close, which would fail after the end
_ROOT_NODE = 1

_IN_HEADER = struct.Struct("=IIQQIIIHH")  # len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
_OUT_HEADER = struct.Struct("=IiQ")  # len, error, unique
_READ_IN = struct.Struct("=QQI")  # fh, offset, size; the rest is not used
_INTERRUPT_IN = struct.Struct("=Q")  # unique
_INIT_OUT = struct.Struct("=IIIIHHI36x")  # major, minor, max_readahead, flags, two of background, max_write
_ATTR = struct.Struct("=QQQ QQQ III IIII 12x")  # ino, size, blocks, three times, their ns, mode, nlink, uid, gid
_ATTR_VALID = struct.Struct("=QII")  # seconds, ns, padding
_ENTRY_VALID = struct.Struct("=QQQQII")  # nodeid, generation, seconds of entry and attributes, their ns
_OPEN_OUT = struct.Struct("=QII")  # fh, flags, padding
_DIRENT = struct.Struct(
    "=QQII"
)  # ino, offset of the next entry, length of the name, type; then the name, padded to 8 bytes
_STATFS_OUT = struct.Struct("=QQQQQ III 28x")  # blocks, three times free, files, bsize, namelen, frsize


class _Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


class _Request(NamedTuple):
    unique: int
    node: int
    body: bytes


@dataclass
class _File:
    """A file; ``hanging`` are the offset and size of each read that hangs, by the number of its request.

    ``error`` is the error number with which reads fail, 0 if they succeed.
    """

    node: int
    content: bytes
    changed: int = field(default_factory=time.time_ns)
    hangs: bool = False
    error: int = 0
    hanging: dict[int, tuple[int, int]] = field(default_factory=dict)


class HangingFiles:
    """Read-only files with these contents in a directory, which is mounted while the context is open.

    Either the reads of single files hang or fail, or all stats and lookups hang. The kernel caches nothing, so the next
    read returns a changed content; inotify reports no event. All methods are thread-safe. Only the methods that wait
    block; a coroutine calls them with ``asyncio.to_thread``. At the end of the context, requests that hang fail with
    EIO.

    A process that waits can be killed, as one that waits for a network file system. With ``is_killable=False`` it
    cannot, as one that waits for a driver. After ``max_hang_seconds`` all requests fail with EIO, so that a test whose
    own event loop waits fails.
    """

    def __init__(
        self,
        directory: Path,
        contents: Mapping[str, str],
        *,
        is_killable: bool = True,
        max_hang_seconds: float | None = MAX_HANG_SECONDS,
    ) -> None:
        self._directory = directory.resolve()
        self._files = {
            name: _File(node, content.encode())
            for node, (name, content) in enumerate(contents.items(), start=_ROOT_NODE + 1)
        }
        self._by_node = {file.node: file for file in self._files.values()}
        self._changed = threading.Condition()
        self._is_ending = False
        self._is_killable = is_killable
        self._max_hang_seconds = max_hang_seconds
        self._limit: threading.Timer | None = None
        self._lookups_hang = False
        self._hanging_lookups: dict[int, tuple[int, _Request]] = {}
        self._kernel = -1
        self._thread = threading.Thread(target=self._serve, name=f"hanging files in {directory}", daemon=True)
        self._answers: dict[int, Callable[[_Request], bytes | None]] = {
            _Opcode.LOOKUP: self._look_up,
            _Opcode.FORGET: lambda _: None,
            _Opcode.GETATTR: lambda request: _ATTR_VALID.pack(0, 0, 0) + self._attributes(request.node),
            _Opcode.OPEN: lambda _: _OPEN_OUT.pack(0, _FOPEN_DIRECT_IO | _FOPEN_NOFLUSH, 0),
            _Opcode.READ: self._read,
            _Opcode.STATFS: lambda _: _STATFS_OUT.pack(0, 0, 0, len(self._files), 0, 4096, 255, 4096),
            _Opcode.RELEASE: lambda _: b"",
            _Opcode.INIT: lambda _: _INIT_OUT.pack(*_VERSION, 0, 0, 0, 0, _MAX_WRITE),
            _Opcode.OPENDIR: lambda _: _OPEN_OUT.pack(0, 0, 0),
            _Opcode.READDIR: self._read_directory,
            _Opcode.RELEASEDIR: lambda _: b"",
            _Opcode.INTERRUPT: self._interrupt,
            _Opcode.BATCH_FORGET: lambda _: None,
        }

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._kernel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._kernel},rootmode=40000,user_id=0,group_id=0".encode()
        flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        try:
            _check(_LIBC.mount(b"hanging-files", bytes(self._directory), b"fuse", flags, options), self._directory)
        except OSError:
            os.close(self._kernel)
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._end()
        # MNT_DETACH alone keeps the connection, and this thread, while a process has a file open. MNT_FORCE ends it.
        _check(_LIBC.umount2(bytes(self._directory), _MNT_FORCE | _MNT_DETACH), self._directory)
        self._thread.join()

    def _end(self) -> None:
        with self._changed:
            self._is_ending = True
            for file in self._files.values():
                self._answer_hanging(file)
            self._answer_hanging_lookups()

    def _start_limit(self) -> None:
        if self._limit is None and self._max_hang_seconds is not None:
            self._limit = threading.Timer(self._max_hang_seconds, self._end)
            self._limit.daemon = True
            self._limit.start()

    def hang(self, name: str) -> None:
        """Block all reads of a file from now on."""
        with self._changed:
            self._files[name].hangs = True
            self._start_limit()

    def release(self, name: str) -> None:
        """Answer the reads of a file that hang, with its present content, and later reads at once."""
        with self._changed:
            self._files[name].hangs = False
            self._answer_hanging(self._files[name])

    def fail(self, name: str, error: int = errno.EIO) -> None:
        """Make all reads of a file fail with an error number from now on; 0 ends the failures."""
        with self._changed:
            self._files[name].error = error

    def hang_lookups(self) -> None:
        """Block all stats and lookups from now on, like a network file system whose server is unreachable."""
        with self._changed:
            self._lookups_hang = True
            self._start_limit()

    def release_lookups(self) -> None:
        """Answer the stats and lookups that hang, and later requests at once."""
        with self._changed:
            self._lookups_hang = False
            self._answer_hanging_lookups()

    def wait_for_lookup(self, timeout: float = 30) -> None:
        """Block until a stat or a lookup hangs.

        Raises:
            TimeoutError: none hung within ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._hanging_lookups), timeout):
                raise TimeoutError(f"after {timeout} s: no stat or lookup in {self._directory} hangs")

    def write(self, name: str, content: str) -> None:
        """Change the content of a file."""
        with self._changed:
            self._files[name].content = content.encode()
            self._files[name].changed = time.time_ns()

    def wait_for_reader(self, name: str, timeout: float = 30) -> None:
        """Block until a read of a file hangs.

        Raises:
            TimeoutError: none hung within ``timeout`` seconds.
        """
        file = self._files[name]
        with self._changed:
            if not self._changed.wait_for(lambda: bool(file.hanging), timeout):
                raise TimeoutError(f"after {timeout} s: no read of {name} hangs")

    def _serve(self) -> None:
        try:
            while request := self._next():
                self._handle(*request)
        finally:
            os.close(self._kernel)

    def _next(self) -> tuple[int, _Request] | None:
        """Return the opcode and the next request of the kernel; None after the end of the mount."""
        while True:
            try:
                raw = os.read(self._kernel, _REQUEST_SIZE)
            except FileNotFoundError:  # the reader was interrupted before the request was read
                continue
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return None
                raise
            _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(raw)
            return opcode, _Request(unique, node, raw[_IN_HEADER.size :])

    def _handle(self, opcode: int, request: _Request) -> None:
        with self._changed:
            if self._lookups_hang and opcode in {_Opcode.LOOKUP, _Opcode.GETATTR} and not self._is_ending:
                self._hanging_lookups[request.unique] = (opcode, request)
                self._changed.notify_all()
                return
            if opcode not in self._answers:
                self._answer(request.unique, error=errno.ENOSYS)
                return
            try:
                answer = self._answers[opcode](request)
            except OSError as error:
                self._answer(request.unique, error=error.errno or errno.EIO)
                return
            if answer is not None:
                self._answer(request.unique, answer)

    def _answer(self, unique: int, payload: bytes = b"", error: int = 0) -> None:
        with suppress(FileNotFoundError):  # the reader no longer waits for the answer
            os.write(self._kernel, _OUT_HEADER.pack(_OUT_HEADER.size + len(payload), -error, unique) + payload)

    def _answer_hanging(self, file: _File) -> None:
        for unique, (offset, size) in file.hanging.items():
            if self._is_ending:
                self._answer(unique, error=errno.EIO)
            else:
                self._answer(unique, file.content[offset : offset + size])
        file.hanging.clear()

    def _answer_hanging_lookups(self) -> None:
        for unique, (opcode, request) in self._hanging_lookups.items():
            if self._is_ending:
                self._answer(unique, error=errno.EIO)
            else:
                self._handle(opcode, request)
        self._hanging_lookups.clear()

    def _read(self, request: _Request) -> bytes | None:
        file = self._by_node[request.node]
        _, offset, size = _READ_IN.unpack_from(request.body)
        if self._is_ending:
            raise OSError(errno.EIO, "the file system is being unmounted")
        if file.error:
            raise OSError(file.error, os.strerror(file.error))
        if not file.hangs:
            return file.content[offset : offset + size]
        file.hanging[request.unique] = (offset, size)
        self._changed.notify_all()
        return None

    def _interrupt(self, request: _Request) -> None:
        """Answer a request whose process has received a signal, which the kernel delivers only after the answer."""
        (unique,) = _INTERRUPT_IN.unpack_from(request.body)
        if not self._is_killable:
            return
        for file in self._files.values():
            if file.hanging.pop(unique, None):
                self._answer(unique, error=errno.EINTR)
        if self._hanging_lookups.pop(unique, None):
            self._answer(unique, error=errno.EINTR)

    def _look_up(self, request: _Request) -> bytes:
        file = self._files.get(os.fsdecode(request.body.rstrip(b"\0")))
        if file is None:
            raise OSError(errno.ENOENT, "no such file")
        return _ENTRY_VALID.pack(file.node, 0, 0, 0, 0, 0) + self._attributes(file.node)

    def _attributes(self, node: int) -> bytes:
        file = self._by_node.get(node)
        size, changed = (len(file.content), file.changed) if file else (0, 0)
        seconds, rest = divmod(changed, 1_000_000_000)
        mode, links = (stat.S_IFREG | 0o444, 1) if file else (stat.S_IFDIR | 0o555, 2)
        return _ATTR.pack(node, size, 0, seconds, seconds, seconds, rest, rest, rest, mode, links, 0, 0)

    def _read_directory(self, request: _Request) -> bytes:
        _, offset, size = _READ_IN.unpack_from(request.body)
        names = {".": _ROOT_NODE, "..": _ROOT_NODE} | {name: file.node for name, file in self._files.items()}
        listing = b""
        for location, (name, node) in list(enumerate(names.items(), start=1))[offset:]:
            raw = os.fsencode(name)
            kind = (stat.S_IFREG if node in self._by_node else stat.S_IFDIR) >> 12
            entry = _DIRENT.pack(node, location, len(raw), kind) + raw + b"\0" * (-len(raw) % 8)
            if len(listing) + len(entry) > size:
                break
            listing += entry
        return listing


def _check(result: int, path: Path) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
