"""ResourceClaims as the API server has them, and the pools whose devices they are allocated."""

from collections.abc import Mapping, Sequence
from typing import Any

from genplug.allocation.claims import ClaimPool
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.published import PublishedDevice, PublishedResource, Taint
from genplug.allocation.results import ClaimReference

DRIVER = "genplug.io"
POOL = "node-1/a.example/x"
GONE = Taint("genplug.io/unhealthy", "gone", "NoSchedule")


def refer(number: int, name: str | None = None, namespace: str = "default") -> ClaimReference:
    """Return a claim with a UID of its own."""
    return ClaimReference(namespace, name or f"claim-{number}", f"00000000-0000-4000-8000-{number:012d}")


def allocate_device(  # noqa: PLR0913 - the fields of a result
    device: str,
    request: str = "gpu",
    pool: str = POOL,
    driver: str = DRIVER,
    *,
    admin: bool = False,
    tolerations: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Return a result of an allocation."""
    result: dict[str, Any] = {"request": request, "driver": driver, "pool": pool, "device": device}
    if admin:
        result["adminAccess"] = True
    if tolerations:
        result["tolerations"] = [dict(toleration) for toleration in tolerations]
    return result


def build_claim(
    claim: ClaimReference, *results: dict[str, Any], config: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return the JSON of an allocated ResourceClaim."""
    devices: dict[str, Any] = {"results": list(results)}
    if config:
        devices["config"] = list(config)
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid, "resourceVersion": "1"},
        "spec": {"devices": {"requests": []}},
        "status": {"allocation": {"devices": devices}, "reservedFor": [{"resource": "pods", "name": "pod"}]},
    }


def build_pool(offer: ResourceOffer, used: Mapping[str, str] | None = None) -> ClaimPool:
    """Return the pool of an offer; unhealthy devices have a taint."""
    devices = tuple(
        PublishedDevice(grant.id, grant.id, {}, {}, () if grant.healthy else (GONE,)) for grant in offer.entries
    )
    return ClaimPool(offer, PublishedResource(offer.resource.name, devices), used or {})
