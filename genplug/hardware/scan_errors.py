"""The errors of file operations and searches that a scan cannot finish."""

import errno
import os

_SYSTEM_LIMITS = {
    errno.EMFILE: "the limit of open files of the process is reached; raise RLIMIT_NOFILE of the agent",
    errno.ENFILE: "the limit of open files of the node is reached; raise the sysctl fs.file-max",
    errno.ENOMEM: "the system has no memory left; raise the memory limit of the agent",
}


class HangError(Exception):
    """A file operation does not return, or a function has not finished in its time.

    The text is a clause that stays the same while the operation hangs. ``since`` is when the operation began (monotonic
    seconds), None where it is not known.
    """

    def __init__(self, reason: str, since: float | None = None) -> None:
        super().__init__(reason)
        self.since = since


class SearchLimitError(HangError):
    """A search for the paths that a glob matches exceeds a limit; the text is a clause with the limit."""


class SystemLimitError(HangError):
    """The system has no file descriptor or memory left: that a file cannot be accessed says nothing about the device.

    The text is a clause with the limit. A scan that is started again later can succeed.
    """


def raise_system_limit(error: OSError) -> None:
    """Raise a SystemLimitError if the error of a file operation is due to a limit of the system.

    Raises:
        SystemLimitError: the limit is reached.
    """
    if (reason := _SYSTEM_LIMITS.get(error.errno or 0)) is not None:
        raise SystemLimitError(f"{os.strerror(error.errno or 0)}: {reason}") from None
