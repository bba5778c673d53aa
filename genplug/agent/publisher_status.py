"""Builds the status of the publisher, for ``/status``, from its state."""

from msgspec import Struct

from genplug.agent.publisher_state import Phase, PublisherState, Seconds
from genplug.allocation.slices import WantedPool


class PoolStatus(Struct, frozen=True):
    """A published resource, for the status: its slices and devices at the API server.

    ``refusal`` is the reason if the API server refuses its slices.
    """

    resource: str
    pool: str
    slices: int
    devices: int
    tainted: int
    refusal: str = ""


class PublisherStatus(Struct, frozen=True):
    """The publisher, for the status. ``retry_seconds`` is the time until the next request after an error."""

    phase: Phase
    error: str
    retry_seconds: Seconds
    keeps_taints: bool
    pools: tuple[PoolStatus, ...]


def build_status(state: PublisherState, now: Seconds) -> PublisherStatus:
    """Return the status of the publisher."""
    pools = tuple(_build_pool_status(state, pool) for pool in state.pools or ())
    error, retry_at = state.error, state.retry_at
    # The reason is the rights, a webhook or the API server: the status has it like an error of all requests.
    refused = next((refusal for refusal in state.refusals.values() if refusal.pool is None), None)
    if refused is not None and not error:
        error, retry_at = refused.reason, refused.until
    retry_seconds = max(retry_at - now, 0.0) if error else 0.0
    return PublisherStatus(state.phase, error, retry_seconds, state.keeps_taints, pools)


def _build_pool_status(state: PublisherState, pool: WantedPool) -> PoolStatus:
    """Return the slices that the API server has, or had when they were known last."""
    refusal = state.refusals.get(pool.name)
    reason = "" if refusal is None else refusal.reason
    if state.actual is not None:
        found = [part for part in state.actual.values() if part.pool == pool.name]
        devices, tainted = sum(part.devices for part in found), sum(part.tainted for part in found)
        return PoolStatus(pool.resource, pool.name, len(found), devices, tainted, reason)
    published = next((known for known in state.published or () if known.name == pool.name), None)
    slices = () if published is None else published.slices
    content = [device for part in slices for device in part.devices]
    tainted = sum(bool(device.taints) for device in content)
    return PoolStatus(pool.resource, pool.name, len(slices), len(content), tainted, reason)
