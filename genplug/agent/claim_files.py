"""The files of prepared claims: a record in the directory of the driver and a CDI file for each. For threads only.

A record outlives the process, because a kubelet does not prepare the claims of running pods again; it holds everything
that an answer and the CDI file consist of. A record of another boot holds no device: no container of it runs any more.
All writes are to another file that replaces the former, so a process may be killed at any moment.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.claim_cdi import claim_file_name, parse_claim_file_name
from genplug.allocation.claims import DeviceHolding
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError
from genplug.spec.limits import MAX_CLAIM_RECORD_BYTES, MAX_DAMAGED_RECORDS

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The file with a random ID of the present boot (proc_sys_kernel(5))."""
BAD = "bad"
"""The directory of damaged records in the directory of records."""
RECORD_VERSION = 1
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
"""Errors that concern the whole process, and say nothing about a file."""
_RECORD_SUFFIX, _NEW_SUFFIX = ".json", ".new"


class Step(StrEnum):
    """The moments of :meth:`ClaimFiles.write` and :meth:`ClaimFiles.remove` at which a process can be killed."""

    BEFORE_RECORD = "before_record"
    RECORD_WRITTEN = "record_written"
    """The new record is written, and does not replace the former yet."""
    RECORD_RENAMED = "record_renamed"
    CDI_WRITTEN = "cdi_written"
    CDI_RENAMED = "cdi_renamed"
    BEFORE_REMOVAL = "before_removal"
    CDI_REMOVED = "cdi_removed"
    RECORD_REMOVED = "record_removed"


class RecordedDevice(Struct, frozen=True, rename="camel"):
    """A device of a prepared claim: the result of its allocation, the name of its resource, and its CDI devices."""

    request: str
    pool: str
    device: str
    resource: str
    cdi_devices: tuple[str, ...]
    admin_access: bool = False


class ClaimRecord(Struct, frozen=True, rename="camel"):
    """The record of a prepared claim. ``cdi`` is the text of its CDI file, None without devices."""

    version: int
    boot_id: str
    claim: ClaimReference
    devices: tuple[RecordedDevice, ...]
    cdi: str | None

    @property
    def answer(self) -> tuple[ClaimDevice, ...]:
        """The devices for the kubelet, which knows a request by its name without the alternative."""
        return tuple(
            ClaimDevice((device.request.partition("/")[0],), device.pool, device.device, device.cdi_devices)
            for device in self.devices
        )

    @property
    def holdings(self) -> tuple[DeviceHolding, ...]:
        """The devices that the claim has exclusively."""
        return tuple(
            DeviceHolding(self.claim, device.pool, device.device) for device in self.devices if not device.admin_access
        )


class DamagedRecord(Struct, frozen=True):
    """A record that cannot be read: the UID of its claim, its present path, and the reason."""

    uid: str
    path: str
    reason: str


class StoredClaims(Struct, frozen=True):
    """The records of a directory by UID: those of this boot, those of other boots (``stale``), and damaged records."""

    records: Mapping[str, ClaimRecord] = {}
    stale: Mapping[str, ClaimRecord] = {}
    damaged: tuple[DamagedRecord, ...] = ()


class ClaimStorageError(Exception):
    """A file of a claim cannot be read, written or removed; the message says which and what to do."""


class _DamagedError(Exception):
    """A file is not a record; the message states why."""


class _Version(Struct):
    version: int


def read_boot_id(path: Path = BOOT_ID) -> str:
    """Return the ID of the present boot.

    Raises:
        ClaimStorageError: it cannot be read.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ClaimStorageError(f"the boot ID cannot be read from {path}: {error}; mount /proc") from None


def encode_record(record: ClaimRecord) -> bytes:
    """Return the content of the file of a record."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


class ClaimFiles:
    """The records in ``directory`` and the CDI files in ``cdi_directory``, a path of the host.

    ``at_step`` is called at each :class:`Step`, so that tests can kill the process there.
    """

    def __init__(  # noqa: PLR0913 - the two directories, and what their files depend on
        self,
        driver: str,
        directory: Path,
        cdi_directory: str,
        host: Host,
        boot_id: str,
        *,
        at_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self.driver = driver
        self.host = host
        self.boot_id = boot_id
        self._directory = directory
        self._host_cdi_directory = cdi_directory
        self._at_step = at_step
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def restore(self) -> StoredClaims:
        """Read all records.

        A damaged record is moved to the directory ``bad``, also if the system cannot read it.

        Raises:
            ClaimStorageError: the directory cannot be read, or the system has no descriptors or memory left.
        """
        with self._describing(f"the records of prepared claims in {self._directory} cannot be restored"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._read_records()

    def restore_all_cdi(self, stored: StoredClaims, *, keeps_unknown: bool = False) -> Mapping[str, str]:
        """Make the CDI files agree with the records of this boot; return the errors by the UID of a claim.

        A CDI file without a record that cannot be removed is left for the next process. If it ``keeps_unknown``, only
        the files of claims of other boots are removed.

        Raises:
            HangError: the file system of the CDI files does not respond.
        """
        errors: dict[str, str] = {}
        self._remove_cdi_files(stored.stale.keys().__contains__)
        if not keeps_unknown:
            self.remove_unknown_cdi(stored.records.keys())
        for uid, record in stored.records.items():
            try:
                with self._describing(f"the CDI file of the claim {record.claim} cannot be written"):
                    self._restore_cdi(record)
            except ClaimStorageError as error:
                errors[uid] = str(error)
        return errors

    def remove_unknown_cdi(self, known: Collection[str]) -> None:
        """Remove the CDI files of claims that are not ``known`` by their UIDs.

        The CDI file of a claim with a damaged record is kept, because a container of the claim may be restarted.

        Raises:
            HangError: the file system of the CDI files does not respond.
        """
        damaged: frozenset[str] = frozenset()
        with suppress(OSError):
            records = (*self._directory.glob(f"*{_RECORD_SUFFIX}"), *(self._directory / BAD).glob(f"*{_RECORD_SUFFIX}"))
            damaged = frozenset(path.stem for path in records)
        self._remove_cdi_files(lambda uid: uid not in known and uid not in damaged)

    def write(self, record: ClaimRecord) -> None:
        """Write the record of a claim, and then its CDI file.

        Raises:
            ClaimStorageError: one of them cannot be written.
            HangError: another write or removal for the claim does not return, or the file system does not respond.
        """
        path = self._directory / f"{record.claim.uid}{_RECORD_SUFFIX}"
        with self._using(record.claim.uid), self._describing(f"the record {path} or the CDI file cannot be written"):
            self._at_step(Step.BEFORE_RECORD)
            self._write_record(path, record)
            self._restore_cdi(record)

    def restore_cdi(self, record: ClaimRecord) -> None:
        """Write the CDI file of a record, unless it has its content, and the record if its file is missing.

        A removal that was given up because it hung can remove the files later.

        Raises:
            ClaimStorageError: one of them cannot be written.
            HangError: another write or removal for the claim does not return, or the file system does not respond.
        """
        path = self._directory / f"{record.claim.uid}{_RECORD_SUFFIX}"
        with self._using(record.claim.uid), self._describing(f"the record {path} or the CDI file cannot be written"):
            if not path.exists():
                self._write_record(path, record)
            self._restore_cdi(record)

    def remove(self, uid: str) -> None:
        """Remove the CDI file of a claim, and then its record, if they exist.

        Raises:
            ClaimStorageError: one of them cannot be removed.
            HangError: another write or removal for the claim does not return, or the file system does not respond.
        """
        record = self._directory / f"{uid}{_RECORD_SUFFIX}"
        with self._using(uid), self._describing(f"the record {record} or the CDI file cannot be removed"):
            self._at_step(Step.BEFORE_REMOVAL)
            self._cdi_path(uid).unlink(missing_ok=True)
            self._at_step(Step.CDI_REMOVED)
            if record.exists():
                record.unlink()
                _sync_directory(self._directory)
            self._at_step(Step.RECORD_REMOVED)

    def _read_records(self) -> StoredClaims:
        records: dict[str, ClaimRecord] = {}
        stale: dict[str, ClaimRecord] = {}
        damaged: list[DamagedRecord] = []
        for path in sorted(self._directory.iterdir()):
            if path.suffix == _NEW_SUFFIX:
                # A process was killed before the file replaced another. The next write replaces it also if it remains.
                with suppress(OSError):
                    path.unlink()
            elif path.suffix == _RECORD_SUFFIX:
                try:
                    record = _read_record(path)
                except _DamagedError as error:
                    damaged.append(DamagedRecord(path.stem, str(self._put_aside(path)), str(error)))
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        raise
                    reason = f"the system cannot read it: {error.strerror or error}"
                    damaged.append(DamagedRecord(path.stem, str(self._put_aside(path)), reason))
                else:
                    if record.boot_id == self.boot_id:
                        records[path.stem] = record
                    else:
                        # Its CDI file is removed, so that its text is not needed in memory.
                        stale[path.stem] = replace(record, cdi=None)
        return StoredClaims(records, stale, tuple(damaged))

    def _put_aside(self, path: Path) -> Path:
        """Move a damaged record to the directory of damaged records, and return its path then."""
        bad = self._directory / BAD
        moved = bad / path.name
        try:
            bad.mkdir(mode=0o700, exist_ok=True)
            path.replace(moved)
        except OSError:
            # Its claim is prepared from scratch also if the record remains here, for example on a full file system.
            return path
        with suppress(OSError):
            kept = sorted(bad.iterdir(), key=lambda file: file.lstat().st_mtime_ns)
            for file in kept[:-MAX_DAMAGED_RECORDS]:
                file.unlink()
        return moved

    def _remove_cdi_files(self, is_unused: Callable[[str], bool]) -> None:
        """Remove the CDI files of claims by their UIDs, and those of writes that were not finished."""
        with suppress(OSError):
            for path in sorted(self._cdi_directory().iterdir()):
                is_unfinished = path.suffix == _NEW_SUFFIX
                name = path.with_suffix(_RECORD_SUFFIX).name if is_unfinished else path.name
                uid = parse_claim_file_name(self.driver, name)
                if uid is not None and (is_unfinished or is_unused(uid)):
                    with suppress(OSError):
                        path.unlink()

    def _write_record(self, path: Path, record: ClaimRecord) -> None:
        self._replace(path, encode_record(record), Step.RECORD_WRITTEN, Step.RECORD_RENAMED)
        _sync_directory(self._directory)

    def _restore_cdi(self, record: ClaimRecord) -> None:
        path = self._cdi_path(record.claim.uid)
        if record.cdi is None:
            path.unlink(missing_ok=True)
            return
        content = record.cdi.encode()
        if not _has_content(path, content):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(path, content, Step.CDI_WRITTEN, Step.CDI_RENAMED)

    def _replace(self, path: Path, content: bytes, written: Step, renamed: Step) -> None:
        # Another suffix: a runtime that lists the directory meanwhile does not take it for a spec.
        new = path.with_suffix(_NEW_SUFFIX)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._at_step(written)
        new.replace(path)
        self._at_step(renamed)

    def _cdi_path(self, uid: str) -> Path:
        return self._cdi_directory() / claim_file_name(self.driver, uid)

    def _cdi_directory(self) -> Path:
        # This records the directory, so that a hang of what follows is a hang of the directory.
        return self.host.process_path(self._host_cdi_directory)

    @contextmanager
    def _using(self, uid: str) -> Iterator[None]:
        """Refuse a second use of the files of a claim while a thread that was given up uses them."""
        with self._lock:
            if uid in self._busy:
                raise HangError(f"another write of the files of the claim {uid} does not return")
            self._busy.add(uid)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(uid)

    @contextmanager
    def _describing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = f" ({error.filename})" if error.filename else ""
            advice = f"let genplug write to {self._directory} and to {self._host_cdi_directory}"
            raise ClaimStorageError(f"{what}: {error.strerror or error}{path}; {advice}") from None


def _read_record(path: Path) -> ClaimRecord:
    """Return the record in a file.

    Raises:
        _DamagedError: the file does not have a record of the claim of its name.
        OSError: the system cannot read the file.
    """
    content = _read_content(path)
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != RECORD_VERSION:
            raise _DamagedError(f"expected the version {RECORD_VERSION}, found {version}")
        record = msgspec.json.decode(content, type=ClaimRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _DamagedError(f"expected a record as JSON, found {len(content)} bytes: {error}") from None
    except RecursionError:
        raise _DamagedError("expected a record as JSON, found JSON with too many levels") from None
    if record.claim.uid != path.stem:
        raise _DamagedError(f"expected the record of the claim {path.stem}, found that of {record.claim.uid}")
    return record


def _read_content(path: Path) -> bytes:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _DamagedError("expected a regular file, found another type of file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        content = file.read(MAX_CLAIM_RECORD_BYTES + 1)
    if len(content) > MAX_CLAIM_RECORD_BYTES:
        raise _DamagedError(f"expected at most {MAX_CLAIM_RECORD_BYTES} bytes, found more")
    return content


def _has_content(path: Path, content: bytes) -> bool:
    with (
        suppress(OSError),
        os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
    ):
        return file.read(len(content) + 1) == content
    return False


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
