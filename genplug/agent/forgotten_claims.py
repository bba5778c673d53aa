"""Finds claims that hold a device which another claim needs, and that the API server and the kubelet do not know."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from genplug.agent.claim_files import ClaimRecord
from genplug.agent.claim_inputs import ClaimInputs, read_claim
from genplug.allocation.claims import parse_results
from genplug.allocation.errors import ClaimError, ClaimErrorCode
from genplug.allocation.results import ClaimReference
from genplug.kubelet.client import CallError

FORGET_SECONDS = 180.0
"""Seconds for which the kubelet and the API server must not know a claim whose device another claim needs.

A kubelet unprepares the claims of pods that are gone every 60 s. A pod that was deleted by force is unknown to both
while it still runs.
"""


class ForgottenClaims:
    """The claims among ``records`` that may be forgotten, because they hold a device which another claim needs.

    ``clock`` returns monotonic seconds.
    """

    def __init__(
        self, driver: str, records: Mapping[str, ClaimRecord], inputs: ClaimInputs, clock: Callable[[], float]
    ) -> None:
        self._driver, self._records, self._inputs, self._clock = driver, records, inputs, clock
        self._suspects: dict[str, float | None] = {}
        """The UIDs of the claims, with the time since which they are not known."""
        self.has_new = asyncio.Event()
        """Set when a claim may be forgotten that was not examined before."""

    @property
    def is_empty(self) -> bool:
        """Whether no claim is suspected to be forgotten."""
        return not self._suspects

    def suspect(self, holder: ClaimReference) -> None:
        """Check whether a claim that holds a device which another needs has been forgotten."""
        if holder.uid in self._records and holder.uid not in self._suspects:
            self._suspects[holder.uid] = None
            self.has_new.set()

    async def find(self) -> AsyncIterator[ClaimRecord]:
        """Yield the records of the claims that have been forgotten for long."""
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
            yield record

    async def is_gone(self, record: ClaimRecord) -> bool:
        """Return whether the API server does not have a claim with these devices; False without an answer."""
        try:
            results = parse_results(await read_claim(self._inputs.source, record.claim), record.claim, self._driver)
        except ClaimError as error:
            return error.code in (ClaimErrorCode.REPLACED, ClaimErrorCode.NOT_ALLOCATED)
        held = {(device.pool, device.device) for device in record.devices}
        return held.isdisjoint((result.pool, result.device) for result in results)

    async def _is_forgotten(self, record: ClaimRecord) -> bool:
        """Return whether neither the API server nor the kubelet knows a claim; False without an answer of one."""
        if not await self.is_gone(record):
            return False
        try:
            return (record.claim.namespace, record.claim.name) not in await self._inputs.uses()
        except CallError:
            return False
