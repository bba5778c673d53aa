"""The status of Dynamic Resource Allocation as a frozen value: driver, publication and prepared claims."""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from genplug.kubelet.reports import ClaimUse, DeviceUse
from genplug.observe.text import format_time


class DeviceNote(Struct, frozen=True):
    """A device ID and a text: why the device is not published, or who holds it."""

    id: str
    text: str


class PublishedStatus(Struct, frozen=True):
    """A published resource.

    ``left_out`` has the devices that are not published, with the reasons. ``withheld`` has those of them that pods hold
    by the device plugin API, with the pods. ``refusal`` is the reason if the API server refuses the ResourceSlices.
    """

    resource: str
    pool: str
    slices: int
    devices: int
    tainted: int
    left_out: tuple[DeviceNote, ...] = ()
    withheld: tuple[DeviceNote, ...] = ()
    refusal: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for this resource."""
        return {
            "resource": self.resource,
            "pool": self.pool,
            "slices": self.slices,
            "devices": self.devices,
            "tainted": self.tainted,
            "leftOut": [{"id": note.id, "reason": note.text} for note in self.left_out],
            "withheld": [{"id": note.id, "holder": note.text} for note in self.withheld],
            "refusal": self.refusal,
        }


class ClaimedDevice(Struct, frozen=True):
    """A device of a prepared claim."""

    request: str
    resource: str
    id: str
    has_admin_access: bool = False


class ClaimStatus(Struct, frozen=True):
    """A prepared ResourceClaim. ``pods`` are the names of the pods that use it, None if they are not known."""

    namespace: str
    name: str
    uid: str
    devices: tuple[ClaimedDevice, ...]
    pods: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for this claim."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "devices": [
                {
                    "request": device.request,
                    "resource": device.resource,
                    "id": device.id,
                    "adminAccess": device.has_admin_access,
                }
                for device in self.devices
            ],
            "pods": None if self.pods is None else list(self.pods),
        }


class DraStatus(Struct, frozen=True):
    """The driver at the kubelet, the publisher of ResourceSlices, and the claims.

    ``registered_at`` is the time of the last registration in seconds since the epoch, None while the driver is not
    registered; ``error`` states why it is not. ``phase`` is the state of the publisher, ``publish_error`` its last
    error, empty after a success, and ``retry_seconds`` the time until it tries again. ``damaged`` counts the damaged
    records of claims since the start.
    """

    driver: str
    is_registered: bool
    registered_at: float | None
    error: str
    phase: str
    publish_error: str
    retry_seconds: float
    keeps_taints: bool
    resources: tuple[PublishedStatus, ...]
    claims: tuple[ClaimStatus, ...]
    damaged: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """The errors that an operator should know, in addition to those of the readiness."""
        found = []
        if self.error:
            found.append(f"the driver {self.driver} is not registered: {self.error}")
        if self.publish_error:
            found.append(f"ResourceSlices: {self.publish_error}")
        if not self.keeps_taints:
            found.append("the API server does not keep taints, so unhealthy devices are not published")
        if self.damaged:
            found.append(f"{self.damaged} damaged records of claims; see the event record_bad in the log")
        return tuple(found)

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for Dynamic Resource Allocation."""
        return {
            "driver": self.driver,
            "registered": self.is_registered,
            "registeredSince": None if self.registered_at is None else format_time(self.registered_at),
            "error": self.error,
            "publisher": {
                "phase": self.phase,
                "error": self.publish_error,
                "retrySeconds": round(self.retry_seconds, 1),
                "keepsTaints": self.keeps_taints,
            },
            "resources": [resource.as_json() for resource in self.resources],
            "claims": [claim.as_json() for claim in self.claims],
            "damagedRecords": self.damaged,
        }

    def with_uses(self, uses: Iterable[ClaimUse]) -> "DraStatus":
        """Return the status with the pods that use the claims, None for claims with the same name."""
        pods: dict[tuple[str, str], dict[str, None]] = {}
        for use in uses:
            pods.setdefault((use.namespace, use.claim), {})[use.pod] = None
        unique = self._find_unique_claims()
        claims = (
            replace(claim, pods=tuple(pods.get(key, ())) if key in unique else None)
            for claim in self.claims
            for key in [(claim.namespace, claim.name)]
        )
        return replace(self, claims=tuple(claims))

    def list_device_uses(self, uses: Iterable[ClaimUse]) -> Mapping[str, tuple[DeviceUse, ...]]:
        """Return the containers that use the devices of claims, by resource, without claims of the same name."""
        claims = self._find_unique_claims()
        found: dict[str, list[DeviceUse]] = {}
        for use in uses:
            ids: dict[str, list[str]] = {}
            claim = claims.get((use.namespace, use.claim))
            for device in claim.devices if claim is not None else ():
                ids.setdefault(device.resource, []).append(device.id)
            for resource, used in ids.items():
                found.setdefault(resource, []).append(
                    DeviceUse(resource, use.namespace, use.pod, use.container, tuple(used))
                )
        return {resource: tuple(device_uses) for resource, device_uses in found.items()}

    def _find_unique_claims(self) -> Mapping[tuple[str, str], ClaimStatus]:
        """Return the claims by namespace and name.

        The kubelet reports the name of a claim, which a claim that was created again can share with a claim that is
        still prepared. Such claims are left out, because the devices of their pods are not known.
        """
        names = Counter((claim.namespace, claim.name) for claim in self.claims)
        return {key: claim for claim in self.claims if names[key := (claim.namespace, claim.name)] == 1}
