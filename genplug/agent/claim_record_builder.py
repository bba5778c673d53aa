"""Builds the record of a claim from its granted devices, with their container edits and the text of the CDI file."""

from collections.abc import Sequence

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.claim_files import RECORD_VERSION, ClaimFiles, ClaimRecord, RecordedDevice, encode_record
from genplug.allocation.claim_cdi import ClaimCdi, render_claim
from genplug.allocation.claims import ClaimGrant, DeviceEdits, build_claim_edits
from genplug.allocation.errors import ClaimError, ClaimErrorCode
from genplug.allocation.results import ClaimReference
from genplug.hardware.cdi_files import read_cdi_devices
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.hung_paths import HangError
from genplug.spec.limits import MAX_CLAIM_CDI_BYTES, MAX_CLAIM_RECORD_BYTES

EDIT_SECONDS = 2.0
"""Seconds after which the examination of device nodes and mount sources counts as hanging."""


class ClaimRecordBuilder:
    """Builds records for the driver and the boot of ``files``. Blocking operations run in the threads of ``calls``."""

    def __init__(self, files: ClaimFiles, calls: BlockingCalls) -> None:
        self._driver, self._boot_id, self._host = files.driver, files.boot_id, files.host
        self._calls = calls

    async def build(self, claim: ClaimReference, grants: Sequence[ClaimGrant]) -> ClaimRecord:
        """Return the record of a claim that gets these devices.

        Raises:
            ClaimError: a device cannot be given to a container, or the record or the CDI file would be too large.
        """
        edits = await self._build_edits(claim, grants)
        return self._build_record(claim, edits, render_claim(self._driver, claim.uid, edits))

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
        record = ClaimRecord(RECORD_VERSION, self._boot_id, claim, devices, rendered.text)
        sizes = (
            ("CDI file", len((rendered.text or "").encode()), MAX_CLAIM_CDI_BYTES),
            ("record", len(encode_record(record)), MAX_CLAIM_RECORD_BYTES),
        )
        for what, size, limit in sizes:
            if size > limit:
                reason = f"its {what} would have {size} bytes, and the maximum is {limit}; shorten 'env' and 'mounts'"
                raise ClaimError(ClaimErrorCode.EDITS, claim, reason)
        return record
