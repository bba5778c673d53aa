"""The devices that claims of this node hold: those of prepared claims, and those of claims that are being prepared."""

import sys
from collections.abc import Mapping, Sequence

from msgspec import Struct

from genplug.agent.claim_files import ClaimRecord
from genplug.allocation.claims import ClaimGrant, DeviceHolding, DeviceResult, list_holdings
from genplug.allocation.errors import ClaimError, ClaimErrorCode
from genplug.allocation.results import ClaimReference
from genplug.spec.limits import MAX_CLAIM_MEMORY_BYTES


class _Reservation(Struct, frozen=True):
    """The devices of a claim: those that it has exclusively, and all of them by resource."""

    holdings: tuple[DeviceHolding, ...]
    devices: Mapping[str, tuple[str, ...]]


class ClaimLedger:
    """The records of claims, by UID, and the reservations of devices for claims that are being prepared."""

    def __init__(self) -> None:
        self.records: dict[str, ClaimRecord] = {}
        """The records of prepared claims."""
        self.stale: dict[str, ClaimRecord] = {}
        """The records of other boots."""
        self._reserved: dict[str, _Reservation] = {}
        """The devices of claims that are being prepared, or whose record could perhaps not be written."""
        self._unwritten: dict[str, ClaimRecord] = {}
        """The records of claims that are being prepared."""

    def restore(self, records: Mapping[str, ClaimRecord], stale: Mapping[str, ClaimRecord]) -> None:
        """Replace the records by those of an earlier process."""
        for known, restored in ((self.records, records), (self.stale, stale)):
            known.clear()
            known.update(restored)

    @property
    def holdings(self) -> tuple[DeviceHolding, ...]:
        """The devices that prepared claims, and those that are being prepared, have exclusively."""
        held = [record.holdings for uid, record in self.records.items() if uid not in self._reserved]
        reserved = [reservation.holdings for reservation in self._reserved.values()]
        return tuple(holding for holdings in (*held, *reserved) for holding in holdings)

    @property
    def devices(self) -> Mapping[str, frozenset[str]]:
        """The IDs of the devices of prepared claims, and of those that are being prepared, by resource."""
        held: dict[str, set[str]] = {}
        for record in self.records.values():
            for device in record.devices:
                held.setdefault(device.resource, set()).add(device.device)
        for reservation in self._reserved.values():
            for resource, ids in reservation.devices.items():
                held.setdefault(resource, set()).update(ids)
        return {resource: frozenset(ids) for resource, ids in held.items()}

    @property
    def is_empty(self) -> bool:
        """Whether no claim is prepared or being prepared, and there is no record of another boot."""
        return not (self.records or self.stale or self._reserved)

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """The namespaces and names of the claims that have a record, also of another boot."""
        records = (*self.records.values(), *self.stale.values())
        return frozenset((record.claim.namespace, record.claim.name) for record in records)

    def is_reserved(self, uid: str) -> bool:
        """Return whether devices are reserved for a claim."""
        return uid in self._reserved

    def reserve(
        self, claim: ClaimReference, results: Sequence[DeviceResult], grants: Sequence[ClaimGrant]
    ) -> Mapping[str, tuple[str, ...]]:
        """Reserve the devices of a claim; return the IDs of all of them by resource."""
        devices: dict[str, list[str]] = {}
        for grant in grants:
            devices.setdefault(grant.resource, []).append(grant.grant.id)
        reserved = {resource: tuple(ids) for resource, ids in devices.items()}
        self._reserved[claim.uid] = _Reservation(list_holdings(claim, results), reserved)
        return reserved

    def add_unwritten(self, record: ClaimRecord) -> None:
        """Keep a record that is not written yet, so that its text counts for other claims.

        Raises:
            ClaimError: the texts of the CDI files of all claims would need too much memory.
        """
        self._check_memory(record)
        self._unwritten[record.claim.uid] = record

    def add_written(self, record: ClaimRecord) -> None:
        """Keep a record that is written: its claim is prepared."""
        self.records[record.claim.uid] = record
        self.stale.pop(record.claim.uid, None)

    def end_preparation(self, uid: str, *, keeps_reservation: bool) -> None:
        """Forget the record that is not written, and the reservation unless the files of the claim may exist."""
        self._unwritten.pop(uid, None)
        if not keeps_reservation:
            self._reserved.pop(uid, None)

    def remove(self, uid: str) -> None:
        """Forget a claim and its devices."""
        for known in (self.records, self.stale, self._reserved):
            known.pop(uid, None)

    def _check_memory(self, record: ClaimRecord) -> None:
        """Check that the texts of the CDI files of all claims may be kept in memory."""
        texts = (known.cdi for records in (self.records, self._unwritten) for known in records.values())
        kept_bytes = sum(map(sys.getsizeof, filter(None, texts)))
        if record.cdi is not None and kept_bytes + sys.getsizeof(record.cdi) > MAX_CLAIM_MEMORY_BYTES:
            reason = (
                f"the CDI files of {len(self.records)} claims on this node have {kept_bytes} bytes, and with this "
                f"claim more than the maximum of {MAX_CLAIM_MEMORY_BYTES}; shorten 'env' and 'mounts', or end pods"
            )
            raise ClaimError(ClaimErrorCode.STORAGE, record.claim, reason)
