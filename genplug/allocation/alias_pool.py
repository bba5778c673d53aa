"""Pools: devices under several names (``aliases``). What a pod has under one name is withheld under the others. Pure.

Who has what is known by the answers to Allocate and by what the kubelet's pod-resources API tells; times are monotonic
seconds. The kubelet knows nothing of names that mean one device, so the withheld grant is shown Unhealthy there.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attrs import frozen

from genplug.allocation.offer import ResourceOffer


@frozen
class Holding:
    """A grant under one name: since when, and whether a pod has been seen to have it."""

    since: float
    seen: bool


Pool: TypeAlias = Mapping[tuple[str, str], Holding]
"""What pods have of one pool: by name of the resource and ID of the grant."""


def record_allocation(pool: Pool, name: str, ids: Iterable[str], now: float) -> Pool:
    """Return the pool after an answer to Allocate."""
    return {**pool, **{(name, one): Holding(now, seen=False) for one in ids if (name, one) not in pool}}


def record_usage(pool: Pool, names: Iterable[str], used: Mapping[str, Iterable[str]], now: float, grace: float) -> Pool:
    """Return the pool after a look at the devices that pods use, by resource.

    For ``grace`` seconds after an answer its pod need not be seen yet: it is being admitted.
    """
    holdings = {
        (name, one): Holding(pool[name, one].since if (name, one) in pool else now, seen=True)
        for name in names
        for one in used.get(name, ())
    }
    awaited = {key: one for key, one in pool.items() if not one.seen and now < one.since + grace}
    return {**awaited, **holdings}


def without_held(offer: ResourceOffer, pool: Pool | None) -> ResourceOffer:
    """Return an offer without what pods have under other names; None for a pool of which nothing is known yet."""
    if pool is None:
        reason = "it has several names, and the kubelet has not told yet under which of them pods have devices"
        return offer.mark_unhealthy(dict.fromkeys(offer.grants, reason))
    own = offer.resource.name
    others = {one: name for name, one in pool if name != own and (own, one) not in pool}
    return offer.mark_unhealthy({one: f"a pod has it as {name}" for one, name in others.items() if one in offer.grants})
