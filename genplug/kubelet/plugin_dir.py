"""The kubelet's device-plugins directory: socket names, the identity of sockets, the lock, and leftover sockets.

Sources: docs/internals/kubelet-contract.md §1.5 (107 bytes, C-core unlinks its path when it stops, umask), §2.6 and §3
(which files the kubelet deletes when it starts).
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from msgspec import Struct

from genplug.kubelet.denied_access import DENIALS, describe_denied_access

KUBELET_SOCKET = "kubelet.sock"
SOCKET_PREFIX = "genplug-"
MAX_SOCKET_PATH_BYTES = 107
"""Maximum length of the path of a Unix socket: ``sun_path`` has 108 bytes with its NUL; grpcio raises at 108."""

_HINTS = {
    errno.EMFILE: "The limit of open files of the process is reached; raise RLIMIT_NOFILE of the agent",
    errno.ENFILE: "The limit of open files of the node is reached; raise the sysctl fs.file-max",
    errno.ENOMEM: "The node or the pod is out of memory; raise the memory limit of the pod",
}
"""What to do after an error of the system, except after a denied access."""

_NOT_IN_SLUG = re.compile(r"[^a-z0-9]+")
_MAX_SLUG_CHARACTERS = 30


class SocketIdentity(Struct, frozen=True):
    """The file that a path names: device number, inode number, and modification time in nanoseconds.

    Some file systems reuse inode numbers at once. Two such files differ in the modification time, which is the time at
    which the socket was bound.
    """

    device: int
    inode: int
    modified: int


class PluginDirListing(Struct, frozen=True):
    """The sockets in the device-plugins directory at one moment.

    ``kubelet`` is kubelet.sock, None if it does not exist. ``own`` are the sockets with genplug's prefix, by name.
    """

    kubelet: SocketIdentity | None
    own: Mapping[str, SocketIdentity]

    def __str__(self) -> str:
        """Return for example ``kubelet.sock, genplug-a.sock``, or ``no sockets``."""
        names = ([KUBELET_SOCKET] if self.kubelet is not None else []) + sorted(self.own)
        return ", ".join(names) or "no sockets"


class PluginDirReplacedError(Exception):
    """The path no longer names the directory that this process holds: its bind mount is dead (§3, race 5)."""


class PluginDirUnusableError(Exception):
    """The directory is missing, or this process cannot read or write it; the message states what to do."""


def stat_socket(path: Path | os.DirEntry[str]) -> SocketIdentity | None:
    """Return the identity of the socket at a path; None if there is no file or another type of file.

    Raises:
        OSError: the system cannot answer, for example because the directory cannot be read.
    """
    try:
        status = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return SocketIdentity(status.st_dev, status.st_ino, status.st_mtime_ns) if stat.S_ISSOCK(status.st_mode) else None


def new_socket_name(resource: str, directory: Path) -> str:
    """Return a socket name that was never used before and fits the length of the directory's path.

    The name begins with a part of the resource name, for people. It does not contain all of it, because a resource name
    can have 253 + 63 characters (§1.5).

    Raises:
        PluginDirUnusableError: the path of the directory is too long for any socket.
    """
    unique = f"{blake2b(resource.encode(), digest_size=4).hexdigest()}-{os.urandom(4).hex()}.sock"
    room = MAX_SOCKET_PATH_BYTES - len(os.fsencode(directory)) - 1 - len(SOCKET_PREFIX) - len(unique) - 1
    if room < -1:
        raise PluginDirUnusableError(
            f"the path {directory} is too long: with the name of a socket it exceeds the {MAX_SOCKET_PATH_BYTES} bytes "
            "that the path of a Unix socket can have; use a shorter --device-plugins-dir"
        )
    slug = _NOT_IN_SLUG.sub("-", resource.lower()).strip("-")[: max(min(room, _MAX_SLUG_CHARACTERS), 0)].strip("-")
    return f"{SOCKET_PREFIX}{slug}-{unique}" if slug else f"{SOCKET_PREFIX}{unique}"


@contextmanager
def private_umask() -> Iterator[None]:
    """Give only the owner access to sockets that are bound inside the context (§10, point 14)."""
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)


class PluginDir:
    """The device-plugins directory, held by an open descriptor and, once locked, used by this process only.

    The lock is on the directory itself, because the kubelet deletes all files in it when it starts (§3): it would
    delete a lock file too.
    """

    def __init__(self, path: Path) -> None:
        """Open the directory.

        Raises:
            PluginDirUnusableError: the path does not name a directory, or it cannot be opened.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            hint = (
                "Check that a kubelet runs on this node and that --device-plugins-dir is the directory of its socket "
                "(in the chart: daemonset.devicePluginsDir)"
            )
            raise PluginDirUnusableError(_describe_error("open", path, error, hint)) from error

    def close(self) -> None:
        """Release the lock and close the directory. A second call has no effect.

        A thread that hangs in a system call keeps the descriptors of an exited process open, and with them its locks.
        Therefore the lock is released explicitly.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def lock(self) -> bool:
        """Lock the directory for this process; return whether that succeeded."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def list_sockets(self) -> PluginDirListing:
        """Return the sockets that are in the directory now.

        Raises:
            PluginDirReplacedError: the directory was deleted or replaced on the host; only a new mount shows the new
                directory.
            PluginDirUnusableError: the directory cannot be listed now.
        """
        try:
            self._check_not_replaced()
            own: dict[str, SocketIdentity] = {}
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.startswith(SOCKET_PREFIX) and (identity := stat_socket(entry)):
                        own[entry.name] = identity
            return PluginDirListing(stat_socket(self.path / KUBELET_SOCKET), own)
        except OSError as error:
            hint = (
                "Check that a kubelet runs on this node and that its directory is mounted at the path in --kubelet-dir"
            )
            raise PluginDirUnusableError(_describe_error("list", self.path, error, hint)) from error

    def check_writable(self) -> None:
        """Check that this process can create sockets in the directory.

        Raises:
            PluginDirUnusableError: it cannot.
        """
        if not os.access(self.path, os.W_OK | os.X_OK):
            is_read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
            reason = (
                f"{os.strerror(errno.EROFS)}. Mount the directory read-write"
                if is_read_only
                else f"{os.strerror(errno.EACCES)}. {describe_denied_access(self.path)}"
            )
            raise PluginDirUnusableError(f"cannot create sockets in {self.path}: {reason}")

    def remove_leftovers(self) -> tuple[str, ...]:
        """Delete the sockets of a process that was killed, and return their names. Requires the lock."""
        leftovers = tuple(sorted(self.list_sockets().own))
        for name in leftovers:
            (self.path / name).unlink(missing_ok=True)
        return leftovers

    def _check_not_replaced(self) -> None:
        held = os.fstat(self._descriptor)
        try:
            named = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            named = None
        if held.st_nlink == 0 or named is None or (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
            raise PluginDirReplacedError(
                f"{self.path} was deleted or replaced on the host, but this process still has the previous directory "
                "mounted, which no kubelet uses. The process ends, so that a new container gets the new directory"
            )


def _describe_error(operation: str, path: Path, error: OSError, other_hint: str) -> str:
    hint = describe_denied_access(path) if error.errno in DENIALS else _HINTS.get(error.errno or 0, other_hint)
    return f"cannot {operation} the kubelet's directory {path}: {error.strerror}. {hint}"
