"""The limits of the files of the audit log. An agent without an audit log imports no other module of the package."""

from enum import StrEnum

from msgspec import Struct


class Sync(StrEnum):
    """When records are written to the disk, so that a power failure does not lose them (``--audit-fsync``)."""

    NEVER = "never"
    INTERVAL = "interval"
    ALWAYS = "always"


class Limits(Struct, frozen=True):
    """The limits of the files, and when they are synced.

    A new file begins after ``max_bytes``. ``keep`` is the number of files, and ``max_age`` (seconds) the age of the
    last write of a file after which it is deleted.
    """

    max_bytes: int = 10 << 20
    max_age: float = 90 * 86400.0
    keep: int = 10
    sync: Sync = Sync.INTERVAL


DEFAULT_LIMITS = Limits()
