"""Finds the error of the system when a socket cannot be created, which gRPC does not report."""

import errno
import os
import socket
from pathlib import Path

from genplug.kubelet.denied_access import DENIALS, describe_denied_access
from genplug.kubelet.plugin_dir import private_umask

_HINTS = {
    errno.ENOSPC: "free space or inodes on its file system",
    errno.EDQUOT: "raise the quota of its file system",
    errno.EROFS: "its file system is read-only; mount it read-write",
    errno.EMFILE: "the limit of open files of the process is reached; raise RLIMIT_NOFILE of the agent",
    errno.ENFILE: "the limit of open files of the node is reached; raise the sysctl fs.file-max",
    errno.ENOMEM: "the node or the pod is out of memory; raise the memory limit of the pod",
}
"""What to do if a socket cannot be created, by the error of the system, except after a denied access."""


def bind_error(path: Path) -> OSError | None:
    """Return the error of the system when a socket is bound to a path; None if that succeeds. No file is left."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            with private_umask():
                probe.bind(os.fspath(path))
            path.unlink()
    except OSError as error:
        return error
    return None


def describe_bind_error(error: Exception, directory: Path, path: Path | None) -> str:
    """Return why gRPC cannot start a server on the socket at a path in a directory, and what to do.

    gRPC raises a RuntimeError without the error of the system, so the same call is made without gRPC.
    """
    if isinstance(error, RuntimeError) and path is not None:
        error = bind_error(path) or error
    if isinstance(error, OSError) and error.errno in DENIALS:
        return f"cannot create a socket in {directory}: {error.strerror}. {describe_denied_access(directory)}"
    if isinstance(error, OSError):
        hint = _HINTS.get(error.errno or 0, "check the file system of the directory")
        return f"cannot create a socket in {directory}: {error.strerror or error}; {hint}"
    return f"gRPC cannot start a server on a socket in {directory}"
