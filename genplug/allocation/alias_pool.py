"""Tracks devices with several resource names (``aliases``): in use under one name, withheld under the others. Pure.

Usage is known from Allocate requests and from the pod-resources API of the kubelet. Times are monotonic seconds. The
kubelet does not know that two names mean one device, so a withheld grant is listed as Unhealthy.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.offer import ResourceOffer


class Holding(Struct, frozen=True):
    """A grant in use under one name: since when, and whether pod-resources has confirmed it.

    ``misses`` is the number of polls since then that did not have it. ``kubelet`` identifies the process of the kubelet
    that has confirmed it, None if that is not known.
    """

    since: float
    is_confirmed: bool
    misses: int = 0
    kubelet: Hashable = None


Pool: TypeAlias = Mapping[tuple[str, str], Holding]
"""The grants of a pool in use, by resource name and grant ID."""


def record_allocation(pool: Pool, name: str, ids: Iterable[str], now: float) -> Pool:
    """Return the pool after an Allocate response."""
    added = {(name, grant): Holding(now, is_confirmed=False) for grant in ids if (name, grant) not in pool}
    return {**pool, **added}


def record_usage(  # noqa: PLR0913, PLR0917 - the data of a poll and the two limits
    pool: Pool,
    names: Iterable[str],
    used: Mapping[str, Iterable[str]],
    now: float,
    grace: float,
    max_misses: int | None,
    kubelet: Hashable = None,
) -> Pool:
    """Return the pool updated with pod-resources data: ``used`` has the devices in use by resource name.

    An allocation is kept unconfirmed for ``grace`` seconds, because its pod may still be in admission. A confirmed
    holding ends with the ``max_misses``-th poll in succession without it: a kubelet that has started reports only
    static pods until it has listed the pods of the API server (pkg/kubelet/config/apiserver.go). None counts no miss.
    If the same process of the kubelet has confirmed the holding, which ``kubelet`` identifies, the pod has ended.
    """
    holdings = {
        (name, grant): Holding(
            pool[name, grant].since if (name, grant) in pool else now, is_confirmed=True, kubelet=kubelet
        )
        for name in names
        for grant in used.get(name, ())
    }
    unconfirmed = {
        key: holding for key, holding in pool.items() if not holding.is_confirmed and now < holding.since + grace
    }
    missed = {
        key: holding if max_misses is None else replace(holding, misses=holding.misses + 1)
        for key, holding in pool.items()
        if holding.is_confirmed
        and (kubelet is None or holding.kubelet != kubelet)
        and (max_misses is None or holding.misses + 1 < max_misses)
    }
    return {**missed, **unconfirmed, **holdings}


def without_held(offer: ResourceOffer, pool: Pool | None) -> ResourceOffer:
    """Return an offer in which grants in use under other names are unhealthy; a pool of None is not known yet."""
    if pool is None:
        reason = "the resource has several names, and the kubelet has not reported yet which devices pods use"
        return offer.mark_unhealthy(dict.fromkeys(offer.grants, reason))
    own = offer.resource.name
    others = {grant: name for name, grant in pool if name != own and (own, grant) not in pool}
    reasons = {grant: f"a pod uses it as {name}" for grant, name in others.items() if grant in offer.grants}
    return offer.mark_unhealthy(reasons)
