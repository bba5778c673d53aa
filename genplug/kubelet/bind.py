"""Finds the error of the system when a socket cannot be created, which gRPC does not report."""

import os
import socket
from pathlib import Path

from genplug.kubelet.plugin_dir import private_umask


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
