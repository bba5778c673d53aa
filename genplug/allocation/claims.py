"""Computes what the containers of a ResourceClaim get, or an error with the claim, the device and the reason.

Dynamic Resource Allocation (DRA): the scheduler has chosen devices by pool and name, and the kubelet asks the driver to
prepare them. Nothing but the present state decides: the claim as the API server has it, the offers of the resources,
the claims that are prepared, and the pods that use devices by the device plugin API. The fields of a claim are those of
``resource.k8s.io/v1`` (https://github.com/kubernetes/api/blob/master/resource/v1/types.go).
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from genplug.allocation.allocate import PathLookup, allocate_edits
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, ClaimError, ClaimErrorCode, DeviceHeldError
from genplug.allocation.holders import find_held_grants
from genplug.allocation.offer import Grant, ResourceOffer
from genplug.allocation.prestart import program_runs
from genplug.allocation.published import PublishedDevice, PublishedResource, Taint
from genplug.allocation.results import ClaimReference, ProgramRun
from genplug.health.verdict import DeviceHealth
from genplug.spec.limits import MAX_CLAIM_DEVICES

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_REQUEST, _DEVICE = re.compile(f"{_LABEL}(/{_LABEL})?"), re.compile(_LABEL)
_POOL = re.compile(r"[-a-z0-9./]{1,253}")
"""The names that the API server accepts. They become parts of messages and of the names of CDI devices."""
_MAX_NAME = 300
"""Characters of an invalid name in a message; longer than any valid name."""
_NOT_ALLOCATED = "the scheduler has not allocated it, or not any more; create the pod again"
_UNSCANNED = "its devices have not been scanned yet; the kubelet tries again"
_UNTIL_HEALTHY = "the kubelet tries again until it is healthy"
_EFFECTS = ("NoSchedule", "NoExecute")
"""The effects of taints that a claim has to tolerate; a taint with the effect ``None`` only informs."""


class Toleration(Struct, frozen=True, rename="camel"):
    """A toleration of taints (``DeviceToleration``); an empty key or effect stands for any."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Return whether it tolerates a taint, by the rules of the scheduler."""
        if self.effect not in ("", taint.effect) or self.key not in ("", taint.key):
            return False
        return self.operator == "Exists" or (self.operator in ("", "Equal") and self.value == taint.value)


class DeviceResult(Struct, frozen=True):
    """A device that the scheduler allocated to a request of a claim.

    ``request`` is ``name`` or, for an alternative of a request, ``name/alternative``. A request with admin access
    (``adminAccess``) gets devices that other claims use, for example to monitor them.
    """

    request: str
    pool: str
    device: str
    has_admin_access: bool = False
    tolerations: tuple[Toleration, ...] = ()


class DeviceHolding(Struct, frozen=True):
    """A device that a claim has exclusively, since it is prepared or while it is being prepared."""

    claim: ClaimReference
    pool: str
    device: str


class ClaimPool(Struct, frozen=True):
    """A pool of this node: the offer of a resource, and its devices as they are published.

    ``used`` has the pods that use grants by the device plugin API, as text by the ID of the grant. It has an entry only
    while the resource is moved from one API to the other. ``held`` has the claims that hold grants under the ID or the
    resource name of a former configuration, by the ID of the grant now.
    """

    offer: ResourceOffer
    published: PublishedResource
    used: Mapping[str, str] = {}
    held: Mapping[str, ClaimReference] = {}


class ClaimGrant(Struct, frozen=True):
    """A result of a claim and the grant of the offer that it stands for."""

    result: DeviceResult
    offer: ResourceOffer
    grant: Grant

    @property
    def resource(self) -> str:
        """The name of the resource."""
        return self.offer.resource.name


class DeviceEdits(Struct, frozen=True):
    """The edits of a container for a result of a claim: the nodes and mounts of its device, and variables.

    The variables have the values for all devices of the request: if CDI devices set the same variable, the container
    gets the value of the last of them.
    """

    grant: ClaimGrant
    edits: ContainerEdits


class _Opaque(Struct):
    driver: str


class _Configuration(Struct):
    source: str = ""
    opaque: _Opaque | None = None


class _Result(Struct, rename="camel"):
    request: str
    driver: str
    pool: str
    device: str
    admin_access: bool | None = None
    tolerations: tuple[Toleration, ...] | None = None


class _Devices(Struct):
    results: tuple[_Result, ...] | None = None
    config: tuple[_Configuration, ...] | None = None


class _Allocation(Struct):
    devices: _Devices = field(default_factory=_Devices)


class _Status(Struct):
    allocation: _Allocation | None = None


class _Metadata(Struct):
    uid: str


class _Claim(Struct):
    metadata: _Metadata
    status: _Status = field(default_factory=_Status)


def parse_results(document: object, claim: ClaimReference, driver: str) -> tuple[DeviceResult, ...]:
    """Return the devices of a driver in a ResourceClaim, which is the JSON of the API server; none without any.

    Raises:
        ClaimError: the document is not a claim, is another claim of that name, is not allocated, or has parameters for
            the driver.
    """
    try:
        parsed = msgspec.convert(document, _Claim)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        reason = f"expected a ResourceClaim of resource.k8s.io/v1 from the API server, found another document: {error}"
        raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason) from None
    if parsed.metadata.uid != claim.uid:
        reason = (
            f"expected the UID {claim.uid}, found {parsed.metadata.uid}: the claim was deleted and created again; "
            "delete the pod, which has the former claim"
        )
        raise ClaimError(ClaimErrorCode.REPLACED, claim, reason)
    if parsed.status.allocation is None:
        raise ClaimError(ClaimErrorCode.NOT_ALLOCATED, claim, _NOT_ALLOCATED)
    devices = parsed.status.allocation.devices
    results = [result for result in devices.results or () if result.driver == driver]
    if not results:
        return ()
    for configuration in devices.config or ():
        if configuration.opaque is not None and configuration.opaque.driver == driver:
            place = "its DeviceClass" if configuration.source == "FromClass" else "its spec"
            reason = f"{place} has parameters for the driver {driver}, which accepts none; remove them from 'config'"
            raise ClaimError(ClaimErrorCode.PARAMETERS, claim, reason)
    if len(results) > MAX_CLAIM_DEVICES:
        reason = (
            f"it has {len(results)} devices of the driver {driver}, and at most {MAX_CLAIM_DEVICES} are prepared; "
            "request fewer"
        )
        raise ClaimError(ClaimErrorCode.NOT_ALLOCATED, claim, reason)
    for result in results:
        for pattern, name in ((_REQUEST, result.request), (_POOL, result.pool), (_DEVICE, result.device)):
            if not pattern.fullmatch(name):
                reason = f"expected a name of a request, a pool or a device, found {name[:_MAX_NAME]!a}"
                raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason)
    return tuple(
        DeviceResult(result.request, result.pool, result.device, bool(result.admin_access), result.tolerations or ())
        for result in results
    )


def select_grants(
    claim: ClaimReference,
    results: Sequence[DeviceResult],
    pools: Mapping[str, ClaimPool],
    holdings: Iterable[DeviceHolding],
    *,
    is_scanned: bool = True,
) -> tuple[ClaimGrant, ...]:
    """Return the grants of the results of a claim, in their order.

    ``holdings`` are the devices of all claims that are prepared since the node started; those of ``claim`` itself do
    not count. It ``is_scanned`` if the pools of all resources are known. Devices of a pool of which the claim tolerates
    the taints may be unhealthy.

    Raises:
        ClaimError: a device is not on this node, is in use, or is unhealthy.
    """
    holders = {(held.pool, held.device): held.claim for held in holdings if not held.claim.is_same(claim)}
    taken: set[tuple[str, str]] = set()
    grants: list[ClaimGrant] = []
    for result in results:
        pool = pools.get(result.pool)
        if pool is None:
            cause = "its resource was removed or renamed; create the pod again" if is_scanned else _UNSCANNED
            reason = f"device {result.device}: this node has no pool {result.pool}; {cause}"
            raise ClaimError(ClaimErrorCode.UNKNOWN_DEVICE, claim, reason)
        grants.append(_select_grant(claim, result, pool))
        key = (result.pool, result.device)
        if result.has_admin_access:
            continue
        if (holder := holders.get(key)) is not None:
            raise _held_error(claim, holder, _describe(result, pool))
        if key in taken:
            reason = f"{_describe(result, pool)} is allocated to it twice, and cannot be shared; create the claim again"
            raise ClaimError(ClaimErrorCode.DEVICE_IN_USE, claim, reason)
        taken.add(key)
    return tuple(grants)


def find_former_holdings(
    offer: ResourceOffer, pool: str, pools: Iterable[str], holdings: Iterable[DeviceHolding]
) -> dict[str, ClaimReference]:
    """Return the claims that hold grants of an offer by a former configuration, by the ID of the grant.

    ``pool`` is the pool of the offer, and ``pools`` has those of all names of its resource: an alias can have been its
    name. A holding in ``pool`` with an ID of the offer is not from a former configuration.
    """
    names = {pool, *pools}
    former = {
        held.device: held.claim
        for held in holdings
        if held.pool in names and (held.pool != pool or held.device not in offer.grants)
    }
    return find_held_grants(offer, former)


def _held_error(claim: ClaimReference, holder: ClaimReference, what: str) -> DeviceHeldError:
    uid = f" (UID {holder.uid})" if holder.uid else ""
    reason = (
        f"{what} is still prepared for the ResourceClaim {holder}{uid}; it becomes free when the pod of that claim has "
        "ended"
    )
    return DeviceHeldError(claim, holder, reason)


def list_holdings(claim: ClaimReference, results: Iterable[DeviceResult]) -> tuple[DeviceHolding, ...]:
    """Return the devices that a claim with these results has exclusively."""
    return tuple(DeviceHolding(claim, result.pool, result.device) for result in results if not result.has_admin_access)


def build_claim_edits(claim: ClaimReference, grants: Sequence[ClaimGrant], host: PathLookup) -> tuple[DeviceEdits, ...]:
    """Return the edits of each grant of a claim, in their order, from what exists on the host now.

    Raises:
        ClaimError: a device or a mount source is missing or has changed, or devices of a request need the same
            container path.
    """
    edits: list[DeviceEdits] = []
    requests = _group_by_request(grants)
    environments: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
    try:
        for key, members in requests.items():
            offer, ids = _accept_tolerated(members), [member.grant.id for member in members]
            environments[key] = allocate_edits(offer, ids, host).env
        for member in grants:
            key = (member.result.request, member.result.pool)
            alone = allocate_edits(_accept_tolerated([member]), [member.grant.id], host)
            edits.append(DeviceEdits(member, replace(alone, env=environments[key], annotations=())))
    except AllocationError as error:
        raise ClaimError(ClaimErrorCode.EDITS, claim, str(error)) from None
    return tuple(edits)


def list_claim_programs(claim: ClaimReference, grants: Sequence[ClaimGrant]) -> tuple[ProgramRun, ...]:
    """Return the programs to run before the containers of a claim start (``preStart``), in the order of devices.

    No program runs for devices with admin access, because other containers use them: it could reset them.

    Raises:
        ClaimError: an argument has no value, or the policy forbids the program.
    """
    runs: dict[tuple[str, ...], ProgramRun] = {}
    try:
        exclusive = [grant for grant in grants if not grant.result.has_admin_access]
        for members in _group_by_request(exclusive).values():
            for run in program_runs(members[0].offer, [member.grant.id for member in members]):
                runs.setdefault(run.arguments, run)
    except AllocationError as error:
        raise ClaimError(ClaimErrorCode.PRE_START, claim, str(error)) from None
    return tuple(runs.values())


def _group_by_request(grants: Sequence[ClaimGrant]) -> dict[tuple[str, str], list[ClaimGrant]]:
    """Return the grants by request and pool: the devices of a request can be of several resources."""
    groups: dict[tuple[str, str], list[ClaimGrant]] = {}
    for grant in grants:
        groups.setdefault((grant.result.request, grant.result.pool), []).append(grant)
    return groups


def _select_grant(claim: ClaimReference, result: DeviceResult, pool: ClaimPool) -> ClaimGrant:
    published = _find_published(result.device, pool.published)
    grant = pool.offer.grants.get(result.device if published is None else published.device_id)
    what = _describe(result, pool)
    if grant is None:
        reason = (
            f"{what} is not on this node; it was removed from the hardware or the configuration; plug it in, "
            "or create the pod again"
        )
        raise ClaimError(ClaimErrorCode.UNKNOWN_DEVICE, claim, reason)
    if (user := pool.used.get(grant.id)) is not None and not result.has_admin_access:
        reason = f"{what} is in use by {user}, which got it by the device plugin API; it becomes free with that pod"
        raise ClaimError(ClaimErrorCode.DEVICE_IN_USE, claim, reason)
    holder = pool.held.get(grant.id)
    if holder is not None and not holder.is_same(claim) and not result.has_admin_access:
        raise _held_error(claim, holder, what)
    if not grant.healthy and not _is_tolerated(result, published):
        raise ClaimError(
            ClaimErrorCode.DEVICE_UNHEALTHY, claim, f"{what} is unhealthy: {grant.reason}; {_UNTIL_HEALTHY}"
        )
    if published is None and not result.has_admin_access:
        reasons = [left_out.reason for left_out in pool.published.left_out if left_out.device_id == grant.id]
        cause = reasons[0] if reasons else "it has another name now"
        reason = f"{what} is not published any more: {cause}; create the pod again"
        raise ClaimError(ClaimErrorCode.UNKNOWN_DEVICE, claim, reason)
    return ClaimGrant(result, pool.offer, grant)


def _find_published(name: str, published: PublishedResource) -> PublishedDevice | None:
    return next((device for device in published.devices if device.name == name), None)


def _is_tolerated(result: DeviceResult, published: PublishedDevice | None) -> bool:
    """Return whether a result may get its device although it is unhealthy."""
    if result.has_admin_access:
        return True
    taints = [taint for taint in published.taints if taint.effect in _EFFECTS] if published is not None else []
    return bool(taints) and all(
        any(toleration.tolerates(taint) for toleration in result.tolerations) for taint in taints
    )


def _accept_tolerated(members: Sequence[ClaimGrant]) -> ResourceOffer:
    """Return the offer of grants in which they are healthy: whether a claim may get them was decided before."""
    offer = members[0].offer
    unhealthy = {member.grant.id: _mark_healthy(member.grant) for member in members if not member.grant.healthy}
    return replace(offer, grants={**offer.grants, **unhealthy}) if unhealthy else offer


def _mark_healthy(grant: Grant) -> Grant:
    devices = (DeviceHealth(health.device, replace(health.verdict, healthy=True)) for health in grant.devices)
    return replace(grant, source=tuple(devices), healthy=True)


def _describe(result: DeviceResult, pool: ClaimPool) -> str:
    return f"device {result.device} of {pool.offer.resource.name}"
