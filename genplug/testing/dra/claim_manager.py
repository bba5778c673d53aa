"""The DRA manager of a kubelet, as a driver observes it: it prepares and unprepares the claims of pods.

Source: ``pkg/kubelet/cm/dra`` of Kubernetes 1.37.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from msgspec import Struct, field

from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.testing.dra.driver_client import DriverClient
from genplug.testing.dra.records import DraError, PodClaim, PreparedDevice
from genplug.testing.kubelet.plugin_client import format_go_error

ClaimUse: TypeAlias = tuple[str, str, str, tuple[tuple[str, str, str], ...]]
"""A pod, the namespace and the name of a claim, and its devices: the driver, the pool and the name of each."""


class _ClaimInfo(Struct):
    claim: PodClaim
    pods: set[str] = field(default_factory=set)
    devices: dict[str, tuple[PreparedDevice, ...]] = field(default_factory=dict)
    is_prepared: bool = False


class ClaimManager:
    """The claims of the pods of a kubelet.

    ``get_client`` returns the connection to a driver, and raises LookupError for a driver that is not registered. A
    call may take ``call_seconds``. ``on_change`` is called after the claims of a pod were prepared.
    """

    def __init__(
        self, get_client: Callable[[str], DriverClient], call_seconds: float, on_change: Callable[[], None]
    ) -> None:
        self._get_client, self._call_seconds, self._on_change = get_client, call_seconds, on_change
        self._claims: dict[tuple[str, str], _ClaimInfo] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def restore(self) -> None:
        """Keep of the claims what the checkpoint has: their pods and devices, but not whether they are prepared."""
        for info in self._claims.values():
            info.is_prepared = False

    def clear(self) -> None:
        """Forget all claims."""
        self._claims.clear()

    async def prepare(self, pod: str, claims: Sequence[PodClaim]) -> None:
        """Prepare the claims of a pod, with one call for each driver.

        Raises:
            DraError: a claim was not prepared.
        """
        try:
            await self._prepare(pod, claims)
        except _ManagerError as error:
            raise DraError(f"Failed to prepare dynamic resources: prepare dynamic resources: {error}") from None

    async def unprepare(self, pod: str) -> None:
        """Unprepare the claims of a pod that has ended, unless another pod uses them.

        Raises:
            DraError: a claim was not unprepared. The pod would stay in the phase Terminating, and the kubelet retry.
        """
        batches: dict[str, list[PodClaim]] = {}
        ended: list[_ClaimInfo] = []
        for info in self._claims.values():
            if pod not in info.pods:
                continue
            if len(info.pods) > 1:
                info.pods.discard(pod)
                continue
            ended.append(info)
            for driver in info.claim.drivers:
                batches.setdefault(driver, []).append(info.claim)
        try:
            for driver, batch in batches.items():
                answer = await self._call(driver, "NodeUnprepareResources", batch)
                _check_answer("NodeUnprepareResources", batch, {uid: each.error for uid, each in answer.claims.items()})
        except _ManagerError as error:
            raise DraError(f"unprepare dynamic resources: {error}") from None
        for info in ended:
            self._claims.pop((info.claim.namespace, info.claim.name), None)

    def devices(self, claim: PodClaim) -> tuple[PreparedDevice, ...]:
        """Return the devices of a claim as the kubelet knows them; a restart of the kubelet keeps them."""
        info = self._claims.get((claim.namespace, claim.name))
        return () if info is None else tuple(device for devices in info.devices.values() for device in devices)

    def cdi_devices(self, claim: PodClaim, request: str = "") -> tuple[str, ...]:
        """Return the names of the CDI devices of a container that uses a claim, or one request of it."""
        return tuple(
            name
            for device in self.devices(claim)
            if not request or not device.requests or request in device.requests
            for name in device.cdi_devices
        )

    @property
    def uses(self) -> tuple[ClaimUse, ...]:
        """The pods whose claims were prepared, each with the namespace and the name of a claim, and its devices.

        A device is its driver, its pool and its name.
        """
        return tuple(
            (
                pod,
                info.claim.namespace,
                info.claim.name,
                tuple(
                    (driver, device.pool, device.device)
                    for driver, devices in info.devices.items()
                    for device in devices
                ),
            )
            for info in self._claims.values()
            if info.devices
            for pod in sorted(info.pods)
        )

    def is_prepared(self, claim: PodClaim) -> bool:
        """Return whether the kubelet would not call NodePrepareResources for another pod with the claim."""
        info = self._claims.get((claim.namespace, claim.name))
        return info is not None and info.is_prepared

    async def _prepare(self, pod: str, claims: Sequence[PodClaim]) -> None:
        for claim in claims:
            for driver in claim.drivers:
                self._find_client(driver)
        batches: dict[str, list[PodClaim]] = {}
        prepared: list[_ClaimInfo] = []
        for claim in claims:
            info = self._claims.setdefault((claim.namespace, claim.name), _ClaimInfo(claim))
            if info.claim.uid != claim.uid:
                raise _ManagerError(
                    f"old ResourceClaim with same name {claim.name} and different UID {info.claim.uid} still exists "
                    "(previous pod force-deleted?!)"
                )
            info.pods.add(pod)
            if info.is_prepared:
                continue
            prepared.append(info)
            for driver in claim.drivers:
                batches.setdefault(driver, []).append(claim)
        for driver, batch in batches.items():
            answer = await self._call(driver, "NodePrepareResources", batch)
            _check_answer("NodePrepareResources", batch, {uid: each.error for uid, each in answer.claims.items()})
            for claim in batch:
                self._claims[claim.namespace, claim.name].devices[driver] = tuple(
                    PreparedDevice(
                        tuple(device.request_names),
                        device.pool_name,
                        device.device_name,
                        tuple(device.cdi_device_ids),
                    )
                    for device in answer.claims[claim.uid].devices
                )
        for info in prepared:
            info.is_prepared = True
        self._on_change()

    async def _call(self, driver: str, method: str, batch: Sequence[PodClaim]) -> Any:  # noqa: ANN401 - two messages
        claims = [pb.Claim(namespace=claim.namespace, uid=claim.uid, name=claim.name) for claim in batch]
        client = self._find_client(driver)
        call = client.prepare if method == "NodePrepareResources" else client.unprepare
        try:
            return await call(claims, self._call_seconds)
        except grpc.aio.AioRpcError as error:
            raise _ManagerError(f"{method}: {format_go_error(error)}") from error
        except asyncio.CancelledError:
            # gRPC raises the same error for a call that the driver canceled and for a canceled task.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise _ManagerError(f"{method}: rpc error: code = Canceled desc = CANCELLED") from None
        except DecodeError as error:
            raise _ManagerError(f"{method}: rpc error: code = Internal desc = grpc: failed to unmarshal") from error

    def _find_client(self, driver: str) -> DriverClient:
        try:
            return self._get_client(driver)
        except LookupError as error:
            raise _ManagerError(str(error.args[0])) from None


class _ManagerError(Exception):
    """An error of the DRA manager; the message is the kubelet's."""


def _check_answer(method: str, batch: Iterable[PodClaim], errors: Mapping[str, str]) -> None:
    """Check the answer of a driver, whose errors are by UID, as the kubelet does."""
    names = {claim.uid: claim.name for claim in batch}
    for uid, error in errors.items():
        if uid not in names:
            raise _ManagerError(f"{method} returned result for unknown claim UID {uid}")
        if error:
            raise _ManagerError(f"{method} failed for ResourceClaim {names[uid]}: {error}")
    if skipped := len(names) - len(errors):
        raise _ManagerError(f"{method} skipped {skipped} ResourceClaims")
