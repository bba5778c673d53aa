"""Prepares and unprepares the ResourceClaims of this node, and keeps what it has prepared in files.

The claim is read from the API server, its devices are checked against the offers of this node and against the other
prepared claims (:mod:`genplug.allocation.claims`), the programs of ``preStart`` run, and the record and the CDI file
are written before the kubelet gets an answer. A claim that is prepared already is answered from its record, without the
API server.
"""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol, TypeVar

from msgspec import Struct

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.claim_files import (
    RECORD_VERSION,
    ClaimFiles,
    ClaimRecord,
    ClaimStorageError,
    RecordedDevice,
    encode_record,
)
from genplug.allocation.claim_cdi import ClaimCdi, render_claim
from genplug.allocation.claims import (
    ClaimGrant,
    ClaimPool,
    DeviceEdits,
    DeviceHolding,
    DeviceResult,
    build_claim_edits,
    list_claim_programs,
    list_holdings,
    parse_results,
    select_grants,
)
from genplug.allocation.errors import AllocationError, ClaimError, ClaimErrorCode, DeviceHeldError
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.hardware.cdi_files import read_cdi_devices
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.hung_paths import HangError
from genplug.kubelet.client import CallError
from genplug.kubelet.prestart_runner import run_programs
from genplug.kubelet.reports import ClaimCdiUnwritable, ClaimForgotten, DriverReporter, RecordDamaged
from genplug.spec.limits import (
    MAX_CLAIM_CDI_BYTES,
    MAX_CLAIM_MEMORY_BYTES,
    MAX_CLAIM_RECORD_BYTES,
    MAX_PREPARED_CLAIMS,
)

READ_SECONDS = 10.0
"""Seconds after which the API server counts as not responding; the kubelet tries again."""
EDIT_SECONDS = 2.0
"""Seconds after which the examination of device nodes and mount sources counts as hanging."""
WRITE_SECONDS = 5.0
"""Seconds after which a write or removal counts as hanging. It includes an fsync."""
RESTORE_SECONDS = 30.0
"""Seconds after which reading all records counts as hanging."""
FORGET_SECONDS = 180.0
"""Seconds for which the kubelet and the API server must not know a claim whose device another claim needs.

A kubelet unprepares the claims of pods that are gone every 60 s. A pod that was deleted by force is unknown to both
while it still runs.
"""
CHECK_SECONDS = 10.0
"""Seconds between two checks of such a claim."""
STALE_SECONDS = 3600.0
"""Seconds between two removals of the records of other boots whose claims do not exist any more."""
_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,62}")
"""A UID, which becomes a part of file names and of names of CDI devices."""

Result = TypeVar("Result")


class ClaimReadError(Exception):
    """A ResourceClaim cannot be read from the API server; the message states why."""


class ClaimSource(Protocol):
    """Reads ResourceClaims from the API server."""

    async def __call__(self, namespace: str, name: str) -> Mapping[str, object] | None:
        """Return the JSON of a ResourceClaim; None if it does not exist.

        Raises:
            ClaimReadError: the API server does not respond, or refuses the request.
        """
        ...


class ClaimUses(Protocol):
    """Reads from the kubelet which claims containers use."""

    async def __call__(self) -> frozenset[tuple[str, str]]:
        """Return the namespace and the name of each claim that a container uses.

        Raises:
            CallError: the kubelet does not respond.
        """
        ...


class ClaimInputs(Struct, frozen=True):
    """The sources of facts about claims. ``pools`` returns the present pools of this node by name.

    ``is_scanned`` returns whether all pools are known. ``refresh`` reads from the kubelet which devices
    pods use by the device plugin API, so that the pools have them; it raises CallError if the kubelet does not respond.
    ``on_reserved`` gets the name of a resource and the IDs of its devices that a claim is being prepared for.
    ``unrecorded`` returns the devices of claims whose records were lost, which have no UID.
    """

    source: ClaimSource
    uses: ClaimUses
    pools: Callable[[], Mapping[str, ClaimPool]]
    refresh: Callable[[], Awaitable[None]]
    is_scanned: Callable[[], bool] = lambda: True
    on_reserved: Callable[[str, Iterable[str]], None] = lambda _resource, _ids: None
    unrecorded: Callable[[], tuple[DeviceHolding, ...]] = tuple


class _Reservation(Struct, frozen=True):
    """The devices of a claim: those that it has exclusively, and all of them by resource."""

    holdings: tuple[DeviceHolding, ...]
    devices: Mapping[str, tuple[str, ...]]


class Claims:
    """The claims of this node that are prepared, or are being prepared, for one driver.

    :meth:`restore` has to return before the first call of the kubelet; :meth:`run` does the work that no call of the
    kubelet causes. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        files: ClaimFiles,
        calls: BlockingCalls,
        inputs: ClaimInputs,
        report: DriverReporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.damaged = 0
        """The number of damaged records that were found."""
        self._driver = files.driver
        self._files = files
        self._calls = calls
        self._host = files.host
        self._inputs = inputs
        self._report = report
        self._clock = clock
        self._records: dict[str, ClaimRecord] = {}
        self._stale: dict[str, ClaimRecord] = {}
        self._reserved: dict[str, _Reservation] = {}
        """The devices of claims that are being prepared, or whose record could perhaps not be written."""
        self._unwritten: dict[str, ClaimRecord] = {}
        """The records of claims that are being prepared."""
        self._suspects: dict[str, float | None] = {}
        """The claims that hold a device which another needs, with the time since which they are not known."""
        self._without_cdi: set[str] = set()
        """The UIDs of prepared claims whose CDI file could not be written."""
        self._has_suspects = asyncio.Event()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def __repr__(self) -> str:
        return f"<Claims [{len(self._records)} prepared, {len(self._stale)} of other boots, {self.damaged} damaged]>"

    @property
    def records(self) -> Mapping[str, ClaimRecord]:
        """The records of the claims that are prepared, by UID."""
        return self._records

    @property
    def holdings(self) -> tuple[DeviceHolding, ...]:
        """The devices that prepared claims, and those that are being prepared, have exclusively."""
        held = [record.holdings for uid, record in self._records.items() if uid not in self._reserved]
        reserved = [reservation.holdings for reservation in self._reserved.values()]
        return tuple(holding for holdings in (*held, *reserved) for holding in holdings)

    @property
    def devices(self) -> Mapping[str, frozenset[str]]:
        """The IDs of the devices of prepared claims, and of those that are being prepared, by resource."""
        held: dict[str, set[str]] = {}
        for record in self._records.values():
            for device in record.devices:
                held.setdefault(device.resource, set()).add(device.device)
        for reservation in self._reserved.values():
            for resource, ids in reservation.devices.items():
                held.setdefault(resource, set()).update(ids)
        return {resource: frozenset(ids) for resource, ids in held.items()}

    @property
    def is_empty(self) -> bool:
        """Whether no claim is prepared or being prepared, and there is no record of another boot."""
        return not (self._records or self._stale or self._reserved)

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """The namespaces and names of the claims that have a record, also of another boot."""
        records = (*self._records.values(), *self._stale.values())
        return frozenset((record.claim.namespace, record.claim.name) for record in records)

    async def restore(self, *, keeps_unknown: bool = False) -> None:
        """Read the records of an earlier process, and make the CDI files agree with them.

        It ``keeps_unknown`` if CDI files without a record remain until :meth:`remove_unknown_cdi`. If a CDI file cannot
        be written or removed, :meth:`run` tries again.

        Raises:
            ClaimStorageError: the records cannot be read.
            HangError: their file system does not respond.
        """
        stored = await self._calls.run(self._files.restore, RESTORE_SECONDS, "the read of the records of claims")
        self._records, self._stale = dict(stored.records), dict(stored.stale)
        for record in stored.damaged:
            self.damaged += 1
            self._report(RecordDamaged(self._driver, record.uid, record.path, record.reason))
        try:
            what = "the write of the CDI files of claims"
            restore = partial(self._files.restore_all_cdi, stored, keeps_unknown=keeps_unknown)
            errors = await self._calls.run(restore, RESTORE_SECONDS, what)
        except HangError as error:
            errors = dict.fromkeys(self._records, str(error))
        self._report_cdi_errors(errors)

    async def remove_unknown_cdi(self) -> None:
        """Remove the CDI files without a record; those that cannot be removed are left for the next process."""
        with suppress(HangError):
            what = "the removal of CDI files without a record"
            remove = partial(self._files.remove_unknown_cdi, frozenset(self._records))
            await self._calls.run(remove, WRITE_SECONDS, what)

    async def restore_cdi(self) -> None:
        """Write the CDI files that could not be written at the start."""
        errors: dict[str, str] = {}
        for uid in sorted(self._without_cdi):
            async with self._locked(uid):
                if (record := self._records.get(uid)) is not None:
                    try:
                        await self._use_files(record.claim, partial(self._files.restore_cdi, record))
                    except ClaimError as error:
                        errors[uid] = str(error)
        self._report_cdi_errors(errors)

    def _report_cdi_errors(self, errors: Mapping[str, str]) -> None:
        """Report errors of claims that had no error before."""
        for uid in errors.keys() - self._without_cdi:
            self._report(ClaimCdiUnwritable(self._driver, errors[uid], CHECK_SECONDS))
        self._without_cdi = set(errors)

    async def run(self) -> None:
        """Free devices of forgotten claims, remove old records and restore CDI files, until cancelled."""
        due = self._clock() + STALE_SECONDS
        while True:
            wait = CHECK_SECONDS if self._suspects or self._without_cdi else max(due - self._clock(), 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._has_suspects.wait()
            self._has_suspects.clear()
            await self.check_holders()
            if self._without_cdi:
                await self.restore_cdi()
            if self._clock() >= due:
                due = self._clock() + STALE_SECONDS
                await self.remove_stale()

    async def prepare(self, claim: ClaimReference) -> Sequence[ClaimDevice]:
        """Return the devices of a claim that is prepared now, or was before.

        Raises:
            ClaimError: the claim cannot be prepared.
        """
        if not _UID.fullmatch(claim.uid):
            reason = f"expected a UID of letters, digits and '-', found {claim.uid!r}"
            raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason)
        async with self._locked(claim.uid):
            if (record := self._records.get(claim.uid)) is not None:
                await self._use_files(claim, partial(self._files.restore_cdi, record))
                return record.answer
            results = parse_results(await self._read(claim), claim, self._driver)
            if not results:
                return ()
            if len(self._records) >= MAX_PREPARED_CLAIMS:
                reason = f"{len(self._records)} claims are prepared on this node, which is the maximum; end other pods"
                raise ClaimError(ClaimErrorCode.STORAGE, claim, reason)
            await self._refresh_uses(claim)
            try:
                is_scanned = self._inputs.is_scanned()
                holdings = (*self.holdings, *self._inputs.unrecorded())
                grants = select_grants(claim, results, self._inputs.pools(), holdings, is_scanned=is_scanned)
            except DeviceHeldError as error:
                self._suspect(error.holder)
                raise
            # A record of an earlier attempt can exist whose CDI file could not be written.
            may_have_files = claim.uid in self._reserved
            # Before the next await, so that no other claim and no other resource gets the devices meanwhile.
            self._reserve(claim, results, grants)
            return await self._prepare_grants(claim, grants, may_have_files=may_have_files)

    async def unprepare(self, claim: ClaimReference) -> None:
        """Remove what was prepared for a claim; succeed if nothing was.

        Raises:
            ClaimError: a file cannot be removed.
        """
        if _UID.fullmatch(claim.uid):
            async with self._locked(claim.uid):
                await self._remove(claim)

    async def check_holders(self) -> None:
        """Unprepare the claims that hold a device which another claim needs, and that have been forgotten for long."""
        for uid in list(self._suspects):
            record = self._records.get(uid)
            if record is None or not await self._is_forgotten(record):
                # It is known: the time starts again with the next conflict.
                self._suspects.pop(uid, None)
                continue
            since = self._suspects[uid]
            if since is None:
                since = self._suspects[uid] = self._clock()
            if self._clock() - since < FORGET_SECONDS:
                continue
            self._suspects.pop(uid)
            if await self._remove_record(record, self._records):
                devices = tuple(device.device for device in record.devices)
                self._report(ClaimForgotten(self._driver, record.claim, devices))

    async def remove_stale(self) -> None:
        """Remove the records of other boots whose claims do not exist any more."""
        for record in list(self._stale.values()):
            if await self._is_gone(record):
                await self._remove_record(record, self._stale)

    async def _remove_record(self, record: ClaimRecord, records: Mapping[str, ClaimRecord]) -> bool:
        """Remove a record if it is still one of these, and return whether it was removed.

        A removal that fails is tried again with the next check.
        """
        claim = record.claim
        async with self._locked(claim.uid):
            if records.get(claim.uid) is not record:
                # The kubelet has unprepared or prepared the claim meanwhile.
                return False
            try:
                await self._remove(claim)
            except ClaimError:
                return False
        return True

    async def _remove(self, claim: ClaimReference) -> None:
        """Remove the files of a claim, and forget it."""
        await self._use_files(claim, partial(self._files.remove, claim.uid))
        for known in (self._records, self._stale, self._reserved):
            known.pop(claim.uid, None)

    def _reserve(self, claim: ClaimReference, results: Sequence[DeviceResult], grants: Sequence[ClaimGrant]) -> None:
        devices: dict[str, list[str]] = {}
        for grant in grants:
            devices.setdefault(grant.resource, []).append(grant.grant.id)
        reserved = {resource: tuple(ids) for resource, ids in devices.items()}
        self._reserved[claim.uid] = _Reservation(list_holdings(claim, results), reserved)
        for resource, ids in reserved.items():
            self._inputs.on_reserved(resource, ids)

    async def _prepare_grants(
        self, claim: ClaimReference, grants: Sequence[ClaimGrant], *, may_have_files: bool
    ) -> Sequence[ClaimDevice]:
        """Prepare a claim whose devices are reserved for it; end the reservation unless its files may exist."""
        try:
            edits = await self._build_edits(claim, grants)
            rendered = render_claim(self._driver, claim.uid, edits)
            record = self._build_record(claim, edits, rendered)
            self._check_memory(record)
            # Before the next await, so that its text counts for other claims.
            self._unwritten[claim.uid] = record
            try:
                await run_programs(list_claim_programs(claim, grants))
            except AllocationError as error:
                raise ClaimError(ClaimErrorCode.PRE_START, claim, str(error)) from None
            may_have_files = True
            await self._use_files(claim, partial(self._files.write, record))
            may_have_files = False
            self._records[claim.uid] = record
            self._stale.pop(claim.uid, None)
        finally:
            self._unwritten.pop(claim.uid, None)
            if not may_have_files:
                self._reserved.pop(claim.uid, None)
        return record.answer

    async def _build_edits(self, claim: ClaimReference, grants: Sequence[ClaimGrant]) -> tuple[DeviceEdits, ...]:
        def build() -> tuple[DeviceEdits, ...]:
            edits = build_claim_edits(claim, grants, self._host)
            self._check_cdi_devices(claim, edits)
            return edits

        try:
            return await self._calls.run(build, EDIT_SECONDS, f"the examination of the devices of {claim}")
        except HangError as error:
            reason = f"{error}; is the file system mounted and its server reachable?"
            raise ClaimError(ClaimErrorCode.EDITS, claim, reason) from None

    def _check_cdi_devices(self, claim: ClaimReference, edits: Sequence[DeviceEdits]) -> None:
        """Check that the container runtime finds the CDI devices of other programs."""
        names = dict.fromkeys(name for device in edits for name in device.edits.cdi_devices)
        if not names:
            return
        devices = read_cdi_devices(self._host, Dependencies())
        for name in names:
            if reason := devices.undefined_reason(name):
                raise ClaimError(ClaimErrorCode.EDITS, claim, reason)

    def _build_record(self, claim: ClaimReference, edits: Sequence[DeviceEdits], rendered: ClaimCdi) -> ClaimRecord:
        results = [(device.grant.result, device.grant.resource) for device in edits]
        devices = tuple(
            RecordedDevice(result.request, result.pool, result.device, resource, names, result.has_admin_access)
            for (result, resource), names in zip(results, rendered.names, strict=True)
        )
        record = ClaimRecord(RECORD_VERSION, self._files.boot_id, claim, devices, rendered.text)
        sizes = (
            ("CDI file", len((rendered.text or "").encode()), MAX_CLAIM_CDI_BYTES),
            ("record", len(encode_record(record)), MAX_CLAIM_RECORD_BYTES),
        )
        for what, size, limit in sizes:
            if size > limit:
                reason = f"its {what} would have {size} bytes, and the maximum is {limit}; shorten 'env' and 'mounts'"
                raise ClaimError(ClaimErrorCode.EDITS, claim, reason)
        return record

    def _check_memory(self, record: ClaimRecord) -> None:
        """Check that the texts of the CDI files of all claims may be kept in memory."""
        texts = (known.cdi for records in (self._records, self._unwritten) for known in records.values())
        kept_bytes = sum(map(sys.getsizeof, filter(None, texts)))
        if record.cdi is not None and kept_bytes + sys.getsizeof(record.cdi) > MAX_CLAIM_MEMORY_BYTES:
            reason = (
                f"the CDI files of {len(self._records)} claims on this node have {kept_bytes} bytes, and with this "
                f"claim more than the maximum of {MAX_CLAIM_MEMORY_BYTES}; shorten 'env' and 'mounts', or end pods"
            )
            raise ClaimError(ClaimErrorCode.STORAGE, record.claim, reason)

    async def _read(self, claim: ClaimReference) -> Mapping[str, object]:
        try:
            async with asyncio.timeout(READ_SECONDS):
                document = await self._inputs.source(claim.namespace, claim.name)
        except TimeoutError:
            reason = f"the API server has not returned it within {READ_SECONDS:g} s; the kubelet tries again"
            raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason) from None
        except ClaimReadError as error:
            reason = f"it cannot be read from the API server: {error}"
            raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason) from None
        if document is None:
            raise ClaimError(ClaimErrorCode.REPLACED, claim, "it does not exist any more; delete the pod")
        return document

    async def _refresh_uses(self, claim: ClaimReference) -> None:
        try:
            await self._inputs.refresh()
        except CallError as error:
            reason = f"the devices that pods use by the device plugin API are unknown: {error}; the kubelet tries again"
            raise ClaimError(ClaimErrorCode.DEVICE_IN_USE, claim, reason) from None

    async def _use_files(self, claim: ClaimReference, function: Callable[[], Result]) -> Result:
        try:
            return await self._calls.run(function, WRITE_SECONDS, f"the write of the files of {claim}")
        except (ClaimStorageError, HangError) as error:
            raise ClaimError(ClaimErrorCode.STORAGE, claim, str(error)) from None

    def _suspect(self, holder: ClaimReference) -> None:
        """Check whether a claim that holds a device which another needs has been forgotten."""
        if holder.uid in self._records and holder.uid not in self._suspects:
            self._suspects[holder.uid] = None
            self._has_suspects.set()

    async def _is_forgotten(self, record: ClaimRecord) -> bool:
        """Return whether neither the API server nor the kubelet knows a claim; False without an answer of one."""
        if not await self._is_gone(record):
            return False
        try:
            return (record.claim.namespace, record.claim.name) not in await self._inputs.uses()
        except CallError:
            return False

    async def _is_gone(self, record: ClaimRecord) -> bool:
        """Return whether the API server does not have a claim with these devices; False without an answer."""
        try:
            results = parse_results(await self._read(record.claim), record.claim, self._driver)
        except ClaimError as error:
            return error.code in (ClaimErrorCode.REPLACED, ClaimErrorCode.NOT_ALLOCATED)
        held = {(device.pool, device.device) for device in record.devices}
        return held.isdisjoint((result.pool, result.device) for result in results)

    @asynccontextmanager
    async def _locked(self, uid: str) -> AsyncIterator[None]:
        """Wait until no other call for the claim with a UID runs, and keep others from running in the context."""
        lock, users = self._locks.get(uid, (asyncio.Lock(), 0))
        self._locks[uid] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[uid]
            if users == 1:
                del self._locks[uid]
            else:
                self._locks[uid] = (lock, users - 1)
