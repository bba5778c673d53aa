"""Sockets in the kubelet's directory: names used once, identity by inode, one process per directory, leftovers.

Facts: contract 1.5 (107 bytes, C-core unlinks its path at stop, umask), 2.6 and 3 (what the kubelet deletes at start).
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from attrs import frozen

KUBELET_SOCKET = "kubelet.sock"
SOCKET_PREFIX = "genplug-"
MAX_SOCKET_PATH_BYTES = 107
"""Bytes of a unix socket's path (``sun_path`` is 108 with its NUL; grpcio raises at 108)."""

_UNFIT = re.compile(r"[^a-z0-9]+")
_MAX_SLUG = 30


@frozen
class SocketIdentity:
    """Which file a path names: inode numbers are reused at once on some file systems, so its time counts too.

    ``changed`` is the modification time in nanoseconds: a socket gets it when it is bound and keeps it.
    """

    device: int
    inode: int
    changed: int


@frozen
class PluginDirListing:
    """One look at the kubelet's device-plugins directory.

    ``kubelet`` is kubelet.sock, None where there is none; ``own`` are the sockets with our prefix by name.
    """

    kubelet: SocketIdentity | None
    own: Mapping[str, SocketIdentity]


class PluginDirReplacedError(Exception):
    """The directory that this process holds is no longer at its path: a dead bind mount (contract 3, race 5)."""


class PluginDirUnusableError(Exception):
    """The directory is missing or cannot be read or written; the text says what to do about it."""


def stat_socket(path: Path) -> SocketIdentity | None:
    """Return which socket a path names; None where there is nothing or something else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return _identity(found) if stat.S_ISSOCK(found.st_mode) else None


def new_socket_name(resource: str, directory: Path) -> str:
    """Return a name for a new socket that was never used before and fits the directory's path.

    It starts with what a person can recognize of the resource, never with all of it (contract 1.5: 253 + 63 long).

    Raises:
        DirectoryUnusableError: the directory's own path is too long for any socket.
    """
    unique = f"{blake2b(resource.encode(), digest_size=4).hexdigest()}-{secrets.token_hex(4)}.sock"
    room = MAX_SOCKET_PATH_BYTES - len(os.fsencode(directory)) - 1 - len(SOCKET_PREFIX) - len(unique) - 1
    if room < -1:
        raise PluginDirUnusableError(
            f"{directory} is too long a path for a unix socket ({MAX_SOCKET_PATH_BYTES} bytes with the socket's name): "
            f"use a shorter --kubelet-dir"
        )
    slug = _UNFIT.sub("-", resource.lower()).strip("-")[: max(min(room, _MAX_SLUG), 0)].strip("-")
    return f"{SOCKET_PREFIX}{slug}-{unique}" if slug else f"{SOCKET_PREFIX}{unique}"


@contextmanager
def private_umask() -> Iterator[None]:
    """Let nobody but the owner at a socket bound inside (contract 10, test 14)."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class PluginDir:
    """The device-plugins directory, held by an open descriptor and, once locked, by this process alone.

    The lock is on the directory itself: the kubelet deletes every file in it when it starts, a lock file too.
    """

    def __init__(self, path: Path) -> None:
        """Open the directory.

        Raises:
            DirectoryUnusableError: it is missing, or is no directory.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PluginDirUnusableError(
                f"the kubelet's directory {path} cannot be opened ({error.strerror}): is a kubelet on this node, and "
                "is "
                f"its directory mounted where --kubelet-dir points?"
            ) from error

    def close(self) -> None:
        """Give the directory and its lock back."""
        os.close(self._descriptor)

    def lock(self) -> bool:
        """Take the directory for this process; say whether it worked."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def list_sockets(self) -> PluginDirListing:
        """Return what is in the directory now.

        Raises:
            PluginDirReplacedError: it was deleted or replaced on the host; only a new mount shows the new one.
        """
        self._check_alive()
        own: dict[str, SocketIdentity] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith(SOCKET_PREFIX) and (found := stat_socket(Path(entry.path))):
                    own[entry.name] = found
        return PluginDirListing(stat_socket(self.path / KUBELET_SOCKET), own)

    def check_writable(self) -> None:
        """Prove that sockets can be made here.

        Raises:
            DirectoryUnusableError: they cannot, with the kernel's reason.
        """
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PluginDirUnusableError(
                f"no socket can be made in {self.path}: it is read-only or this process (uid {os.geteuid()}) may not "
                f"write there. genplug must run as root with that directory mounted read-write"
            )

    def remove_leftovers(self) -> tuple[str, ...]:
        """Delete the sockets of a process that was killed, and return their names. Only with the lock held."""
        leftovers = tuple(sorted(self.list_sockets().own))
        for name in leftovers:
            (self.path / name).unlink(missing_ok=True)
        return leftovers

    def _check_alive(self) -> None:
        held = os.fstat(self._descriptor)
        try:
            named = self.path.stat()
        except OSError:
            named = None
        if held.st_nlink == 0 or named is None or (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
            raise PluginDirReplacedError(
                f"{self.path} was deleted or replaced on the host, and this process still sees the old one: "
                f"no kubelet will ever look here again. Ending, so that a new pod gets the new directory mounted"
            )


def _identity(found: os.stat_result) -> SocketIdentity:
    return SocketIdentity(found.st_dev, found.st_ino, found.st_mtime_ns)
