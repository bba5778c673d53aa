"""Reads for the status which containers use which devices, when a client requests the status."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_uses
from genplug.kubelet.reports import ClaimUse, DeviceUse
from genplug.observe.status import ResourceStatus

if TYPE_CHECKING:
    from genplug.observe.dra_status import DraStatus

MAX_AGE_SECONDS = 1.0
"""Age up to which a response of the kubelet is used again, so that clients cannot overload the kubelet."""
DEADLINE_SECONDS = 1.0


class DeviceUsage:
    """The last response of the pod-resources API of the kubelet."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._uses: dict[str, tuple[DeviceUse, ...]] | None = None
        self._claims: tuple[ClaimUse, ...] = ()
        self._requested_at = float("-inf")
        self._lock = asyncio.Lock()

    def expire(self) -> None:
        """Do not use the last response again: devices have been allocated since."""
        self._requested_at = float("-inf")

    async def refresh(self) -> None:
        """Read the use of devices again, unless it was read a moment ago; without a response, it is not known.

        Calls at the same time share a response.
        """
        async with self._lock:
            if time.monotonic() - self._requested_at >= MAX_AGE_SECONDS:
                await self._read()

    async def _read(self) -> None:
        self._requested_at = time.monotonic()
        try:
            uses = await list_uses(self._socket, DEADLINE_SECONDS)
        except CallError:
            self._uses = None
            return
        by_resource: dict[str, tuple[DeviceUse, ...]] = {}
        for use in uses.devices:
            by_resource[use.resource] = (*by_resource.get(use.resource, ()), use)
        self._uses, self._claims = by_resource, uses.claims

    def apply(self, resources: Iterable[ResourceStatus], dra: "DraStatus | None" = None) -> tuple[ResourceStatus, ...]:
        """Return the status of resources with the containers that use their devices, also by claims."""
        uses = self._uses
        if uses is None:
            return tuple(resources)
        claims = dra.list_device_uses(self._claims) if dra is not None else {}
        return tuple(
            replace(
                resource,
                in_use=(*uses.get(resource.name, ()), *claims.get(resource.name, ())),
                kept_for_pods=_count_pods(uses.get(resource.name, ())) if resource.has_kept_endpoint else None,
            )
            for resource in resources
        )

    def apply_claims(self, dra: "DraStatus | None") -> "DraStatus | None":
        """Return the status of Dynamic Resource Allocation with the pods that use claims."""
        return dra.with_uses(self._claims) if dra is not None and self._uses is not None else dra


def _count_pods(uses: Iterable[DeviceUse]) -> int:
    return len({(use.namespace, use.pod) for use in uses})
