"""Paths of the host below the root of a process, such as ``/host``."""

from pathlib import PurePath


class OutsideRootError(ValueError):
    """A path is not below the root."""


def strip_root(path: str | PurePath, root: str | PurePath) -> str:
    """Return the path of the host for a path of this process.

    With the root ``/host``, the path of the host for ``/host/dev/kvm`` is ``/dev/kvm``. The components of the paths are
    compared. Resolve symlinks and ``..`` before the call.

    Raises:
        OutsideRootError: the path is not below the root.
    """
    try:
        below = PurePath(path).relative_to(root)
    except ValueError:
        raise OutsideRootError(f"expected a path below {root}, found {path}") from None
    return f"/{below}" if below.parts else "/"
