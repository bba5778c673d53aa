"""Prepares and unprepares the ResourceClaims of this node, and keeps what it has prepared in files.

The claim is read from the API server, its devices are checked against the offers of this node and against the other
prepared claims (:mod:`genplug.allocation.claims`), the programs of ``preStart`` run, and the record and the CDI file
are written before the kubelet gets an answer. A claim that is prepared already is answered from its record, without the
API server.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.claim_files import ClaimFiles, ClaimRecord, ClaimStorageError
from genplug.agent.claim_inputs import ClaimInputs, read_claim
from genplug.agent.claim_ledger import ClaimLedger
from genplug.agent.claim_record_builder import ClaimRecordBuilder
from genplug.agent.forgotten_claims import ForgottenClaims
from genplug.allocation.claims import ClaimGrant, DeviceHolding, list_claim_programs, parse_results, select_grants
from genplug.allocation.errors import AllocationError, ClaimError, ClaimErrorCode, DeviceHeldError
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.hardware.hung_paths import HangError
from genplug.kubelet.client import CallError
from genplug.kubelet.prestart_runner import run_programs
from genplug.kubelet.reports import ClaimCdiUnwritable, ClaimForgotten, DriverReporter, RecordDamaged
from genplug.spec.limits import MAX_PREPARED_CLAIMS

WRITE_SECONDS = 5.0
"""Seconds after which a write or removal counts as hanging. It includes an fsync."""
RESTORE_SECONDS = 30.0
"""Seconds after which reading all records counts as hanging."""
CHECK_SECONDS = 10.0
"""Seconds between two searches for forgotten claims, and between two writes of a missing CDI file."""
STALE_SECONDS = 3600.0
"""Seconds between two removals of the records of other boots whose claims do not exist any more."""
_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,62}")
"""A UID, which becomes a part of file names and of names of CDI devices."""

Result = TypeVar("Result")


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
        self._inputs = inputs
        self._report = report
        self._clock = clock
        self._ledger = ClaimLedger()
        self._builder = ClaimRecordBuilder(files, calls)
        self._forgotten = ForgottenClaims(files.driver, self._ledger.records, inputs, clock)
        self._without_cdi: set[str] = set()
        """The UIDs of prepared claims whose CDI file could not be written."""
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def __repr__(self) -> str:
        prepared, stale = len(self._ledger.records), len(self._ledger.stale)
        return f"<Claims [{prepared} prepared, {stale} of other boots, {self.damaged} damaged]>"

    @property
    def records(self) -> Mapping[str, ClaimRecord]:
        """The records of the claims that are prepared, by UID."""
        return self._ledger.records

    @property
    def holdings(self) -> tuple[DeviceHolding, ...]:
        """The devices that prepared claims, and those that are being prepared, have exclusively."""
        return self._ledger.holdings

    @property
    def devices(self) -> Mapping[str, frozenset[str]]:
        """The IDs of the devices of prepared claims, and of those that are being prepared, by resource."""
        return self._ledger.devices

    @property
    def is_empty(self) -> bool:
        """Whether no claim is prepared or being prepared, and there is no record of another boot."""
        return self._ledger.is_empty

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """The namespaces and names of the claims that have a record, also of another boot."""
        return self._ledger.names

    async def restore(self, *, keeps_unknown: bool = False) -> None:
        """Read the records of an earlier process, and make the CDI files agree with them.

        It ``keeps_unknown`` if CDI files without a record remain until :meth:`remove_unknown_cdi`. If a CDI file cannot
        be written or removed, :meth:`run` tries again.

        Raises:
            ClaimStorageError: the records cannot be read.
            HangError: their file system does not respond.
        """
        stored = await self._calls.run(self._files.restore, RESTORE_SECONDS, "the read of the records of claims")
        self._ledger.restore(stored.records, stored.stale)
        for record in stored.damaged:
            self.damaged += 1
            self._report(RecordDamaged(self._driver, record.uid, record.path, record.reason))
        try:
            what = "the write of the CDI files of claims"
            restore = partial(self._files.restore_all_cdi, stored, keeps_unknown=keeps_unknown)
            errors = await self._calls.run(restore, RESTORE_SECONDS, what)
        except HangError as error:
            errors = dict.fromkeys(self.records, str(error))
        self._report_cdi_errors(errors)

    async def remove_unknown_cdi(self) -> None:
        """Remove the CDI files without a record; those that cannot be removed are left for the next process."""
        with suppress(HangError):
            what = "the removal of CDI files without a record"
            remove = partial(self._files.remove_unknown_cdi, frozenset(self.records))
            await self._calls.run(remove, WRITE_SECONDS, what)

    async def restore_cdi(self) -> None:
        """Write the CDI files that could not be written at the start."""
        errors: dict[str, str] = {}
        for uid in sorted(self._without_cdi):
            async with self._locked(uid):
                if (record := self.records.get(uid)) is not None:
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
            is_idle = self._forgotten.is_empty and not self._without_cdi
            wait = max(due - self._clock(), 0.0) if is_idle else CHECK_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._forgotten.has_new.wait()
            self._forgotten.has_new.clear()
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
            if (record := self.records.get(claim.uid)) is not None:
                await self._use_files(claim, partial(self._files.restore_cdi, record))
                return record.answer
            results = parse_results(await read_claim(self._inputs.source, claim), claim, self._driver)
            if not results:
                return ()
            if len(self.records) >= MAX_PREPARED_CLAIMS:
                reason = f"{len(self.records)} claims are prepared on this node, which is the maximum; end other pods"
                raise ClaimError(ClaimErrorCode.STORAGE, claim, reason)
            await self._refresh_uses(claim)
            try:
                is_scanned = self._inputs.is_scanned()
                holdings = (*self.holdings, *self._inputs.unrecorded())
                grants = select_grants(claim, results, self._inputs.pools(), holdings, is_scanned=is_scanned)
            except DeviceHeldError as error:
                self._forgotten.suspect(error.holder)
                raise
            # A record of an earlier attempt can exist whose CDI file could not be written.
            may_have_files = self._ledger.is_reserved(claim.uid)
            # Before the next await, so that no other claim and no other resource gets the devices meanwhile.
            for resource, ids in self._ledger.reserve(claim, results, grants).items():
                self._inputs.on_reserved(resource, ids)
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
        async for record in self._forgotten.find():
            if await self._remove_record(record, self._ledger.records):
                devices = tuple(device.device for device in record.devices)
                self._report(ClaimForgotten(self._driver, record.claim, devices))

    async def remove_stale(self) -> None:
        """Remove the records of other boots whose claims do not exist any more."""
        for record in list(self._ledger.stale.values()):
            if await self._forgotten.is_gone(record):
                await self._remove_record(record, self._ledger.stale)

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
        self._ledger.remove(claim.uid)

    async def _prepare_grants(
        self, claim: ClaimReference, grants: Sequence[ClaimGrant], *, may_have_files: bool
    ) -> Sequence[ClaimDevice]:
        """Prepare a claim whose devices are reserved for it; end the reservation unless its files may exist."""
        try:
            record = await self._builder.build(claim, grants)
            # Before the next await, so that its text counts for other claims.
            self._ledger.add_unwritten(record)
            try:
                await run_programs(list_claim_programs(claim, grants))
            except AllocationError as error:
                raise ClaimError(ClaimErrorCode.PRE_START, claim, str(error)) from None
            may_have_files = True
            await self._use_files(claim, partial(self._files.write, record))
            may_have_files = False
            self._ledger.add_written(record)
        finally:
            self._ledger.end_preparation(claim.uid, keeps_reservation=may_have_files)
        return record.answer

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
