"""The sources of facts about claims: the API server, the kubelet, and the pools of this node."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from genplug.allocation.claims import ClaimPool, DeviceHolding
from genplug.allocation.errors import ClaimError, ClaimErrorCode
from genplug.allocation.results import ClaimReference

READ_SECONDS = 10.0
"""Seconds after which the API server counts as not responding; the kubelet tries again."""


class ClaimReadError(Exception):
    """A ResourceClaim cannot be read from the API server; the message states why."""


class ClaimSource(Protocol):
    """Reads ResourceClaims from the API server."""

    async def __call__(self, namespace: str, name: str) -> Mapping[str, object] | None:
        """Return the JSON of a ResourceClaim; None if it does not exist.

        Raises:
            ClaimReadError: the API server does not respond, or refuses the request.
        """
        ...


class ClaimUses(Protocol):
    """Reads from the kubelet which claims containers use."""

    async def __call__(self) -> frozenset[tuple[str, str]]:
        """Return the namespace and the name of each claim that a container uses.

        Raises:
            CallError: the kubelet does not respond.
        """
        ...


class ClaimInputs(Struct, frozen=True):
    """The sources of facts about claims. ``pools`` returns the present pools of this node by name.

    ``is_scanned`` returns whether all pools are known. ``refresh`` reads from the kubelet which devices
    pods use by the device plugin API, so that the pools have them; it raises CallError if the kubelet does not respond.
    ``on_reserved`` gets the name of a resource and the IDs of its devices that a claim is being prepared for.
    ``unrecorded`` returns the devices of claims whose records were lost, which have no UID.
    """

    source: ClaimSource
    uses: ClaimUses
    pools: Callable[[], Mapping[str, ClaimPool]]
    refresh: Callable[[], Awaitable[None]]
    is_scanned: Callable[[], bool] = lambda: True
    on_reserved: Callable[[str, Iterable[str]], None] = lambda _resource, _ids: None
    unrecorded: Callable[[], tuple[DeviceHolding, ...]] = tuple


async def read_claim(source: ClaimSource, claim: ClaimReference) -> Mapping[str, object]:
    """Return the JSON of a ResourceClaim.

    Raises:
        ClaimError: the claim does not exist, or cannot be read.
    """
    try:
        async with asyncio.timeout(READ_SECONDS):
            document = await source(claim.namespace, claim.name)
    except TimeoutError:
        reason = f"the API server has not returned it within {READ_SECONDS:g} s; the kubelet tries again"
        raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason) from None
    except ClaimReadError as error:
        reason = f"it cannot be read from the API server: {error}"
        raise ClaimError(ClaimErrorCode.UNREADABLE, claim, reason) from None
    if document is None:
        raise ClaimError(ClaimErrorCode.REPLACED, claim, "it does not exist any more; delete the pod")
    return document
