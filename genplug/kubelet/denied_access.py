"""Describes why the system denies this process a file of the kubelet, and what to do."""

import errno
import os
import stat
from pathlib import Path

DENIALS = (errno.EACCES, errno.EPERM)
"""The errors of the system that mean that this process has no permission."""


_ALL_IDS = ["0", "0", str((1 << 32) - 1)]
"""The mapping of the initial user namespace: first ID inside, first ID outside, number of IDs."""


def describe_denied_access(path: Path) -> str:
    """Return the user of this process, the owner and mode of ``path``, and what to do.

    The files of the kubelet belong to root. connect(2) fails with EACCES if the process has no write permission to the
    socket, or no search permission to a directory in its path (man 2 connect). A process whose user owns the file can
    be denied by a security module or in a user namespace.
    """
    user = os.geteuid()
    denied, status = _stat_denied(path)
    if is_in_user_namespace():
        return (
            f"This process is in a user namespace, in which it has no rights to the files of root, such as {denied}. "
            "Run the pod without 'hostUsers: false', or the container as root instead of rootless"
        )
    text = f"This process has the user ID {user}"
    if status is None:
        return f"{text}. Run genplug as root"
    text += f"; {denied} has the owner {status.st_uid} and the mode {stat.S_IMODE(status.st_mode):04o}"
    if user == status.st_uid:
        return f"{text}. Check whether SELinux, AppArmor or a user namespace denies the access: run genplug doctor"
    return f"{text}. Run genplug as {'root' if status.st_uid == 0 else f'the user with the ID {status.st_uid}'}"


def _stat_denied(path: Path) -> tuple[Path, os.stat_result | None]:
    """Return the first file on the way to ``path`` that this process cannot search, otherwise ``path``."""
    for file in (*reversed(path.parents), path):
        try:
            status = file.stat()
        except OSError:
            return file, None
        if file == path or not os.access(file, os.X_OK):
            return file, status
    return path, None


def is_in_user_namespace(path: Path = Path("/proc/self/uid_map")) -> bool:
    """Return whether the user IDs of this process are not those of the host (user_namespaces(7)).

    A process in the initial user namespace has all IDs.
    """
    try:
        fields = path.read_text().split()
    except OSError:
        return False
    return fields != _ALL_IDS
