"""The DRA half of the kubelet stand-in: the plugin watcher, and the checks of a driver's answers."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import mknod
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.api import genplug_pluginregistration_v1_pb2 as registration_pb
from genplug.kubelet.api.services import DRA_PLUGIN, DRA_PLUGIN_TYPE, PLUGIN_REGISTRATION
from genplug.testing.dra import DraError, DraKubelet, PodClaim

X = "driver.example.com"
LOOP_SECONDS = 0.01
CLAIM = PodClaim("claim-a", "uid-a", drivers=(X,))


class TinyDriver:
    """A minimal driver, written without genplug: a socket that serves the registration and the claims."""

    def __init__(
        self, socket: Path, *versions: str, name: str = X, kind: str = DRA_PLUGIN_TYPE, endpoint: str = ""
    ) -> None:
        self.info = registration_pb.PluginInfo(
            type=kind, name=name, endpoint=endpoint, supported_versions=versions or ["v1.DRAPlugin"]
        )
        self.statuses: list[registration_pb.RegistrationStatus] = []
        self.requests: list[list[str]] = []
        self.answer: dict[str, pb.NodePrepareResourceResponse] | None = None
        """The answer of the next calls, by UID; None prepares each claim of a request with a device."""
        unary = grpc.unary_unary_rpc_method_handler
        registration: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetInfo": unary(self._get_info),
            "NotifyRegistrationStatus": unary(self._notify, registration_pb.RegistrationStatus.FromString),
        }
        claims: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "NodePrepareResources": unary(self._prepare, pb.NodePrepareResourcesRequest.FromString),
            "NodeUnprepareResources": unary(self._unprepare, pb.NodeUnprepareResourcesRequest.FromString),
        }
        self._server = grpc.aio.server(
            handlers=[
                grpc.method_handlers_generic_handler(PLUGIN_REGISTRATION, registration),
                grpc.method_handlers_generic_handler(DRA_PLUGIN, claims),
            ]
        )
        self._server.add_insecure_port(f"unix:{socket}")

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _get_info(self, _request: bytes, _context: object) -> bytes:
        return self.info.SerializeToString()

    async def _notify(self, status: registration_pb.RegistrationStatus, _context: object) -> bytes:
        self.statuses.append(status)
        return b""

    async def _prepare(self, request: pb.NodePrepareResourcesRequest, _context: object) -> bytes:
        self.requests.append([claim.uid for claim in request.claims])
        answer = self.answer
        if answer is None:
            answer = {
                claim.uid: pb.NodePrepareResourceResponse(
                    devices=[
                        pb.Device(request_names=["a"], pool_name="p", device_name="d0", cdi_device_ids=["x.y/z=0"]),
                        pb.Device(pool_name="p", device_name="d1", cdi_device_ids=["x.y/z=1", "x.y/z=2"]),
                    ]
                )
                for claim in request.claims
            }
        return pb.NodePrepareResourcesResponse(claims=answer).SerializeToString()

    async def _unprepare(self, request: pb.NodeUnprepareResourcesRequest, _context: object) -> bytes:
        self.requests.append([f"-{claim.uid}" for claim in request.claims])
        uids = [claim.uid for claim in request.claims] if self.answer is None else list(self.answer)
        claims = {uid: pb.NodeUnprepareResourceResponse() for uid in uids}
        return pb.NodeUnprepareResourcesResponse(claims=claims).SerializeToString()


@asynccontextmanager
async def run_tiny_driver(kubelet: DraKubelet, socket: str = "x.sock", **options: Any) -> AsyncIterator[TinyDriver]:
    driver = TinyDriver(kubelet.registry / socket, *options.pop("versions", ()), **options)
    await driver.start()
    try:
        yield driver
    finally:
        await driver.stop()


@pytest.fixture
async def kubelet(kubelet_dir: Path) -> AsyncIterator[DraKubelet]:
    async with DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS) as kubelet:
        yield kubelet


@pytest.fixture
async def driver(kubelet: DraKubelet) -> AsyncIterator[TinyDriver]:
    """A driver that the kubelet has registered."""
    async with run_tiny_driver(kubelet) as driver:
        await kubelet.wait_registered(X)
        yield driver


async def test_driver_is_registered_on_the_registration_socket_without_an_endpoint(
    kubelet: DraKubelet, driver: TinyDriver
) -> None:
    [registration] = kubelet.registrations
    assert (registration.driver, registration.endpoint) == (X, str(kubelet.registry / "x.sock"))
    assert driver.statuses == [registration_pb.RegistrationStatus(plugin_registered=True)]


async def test_first_known_version_in_the_list_of_the_driver_is_used(kubelet: DraKubelet) -> None:
    async with run_tiny_driver(kubelet, versions=["v2.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAPlugin"]):
        assert (await kubelet.wait_registered(X)).service == "v1beta1.DRAPlugin"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kind": "CSIPlugin"}, "RegisterPlugin error -- no handler registered for plugin type: CSIPlugin at socket "),
        (
            {"versions": ["v1alpha4.DRAPlugin"]},
            'plugin (["v1alpha4.DRAPlugin"]) are supported by the kubelet (["v1.DRAPlugin" "v1beta1.DRAPlugin"])',
        ),
    ],
)
async def test_registration_that_is_not_valid_is_refused_and_tried_again(
    kubelet: DraKubelet, options: dict[str, Any], error: str
) -> None:
    async with run_tiny_driver(kubelet, **options) as driver:
        await kubelet.wait_for(lambda: len(kubelet.refused) >= 2)
        assert error in kubelet.refused[0].error
        assert kubelet.refused[1].time - kubelet.refused[0].time >= 0.5
        assert [status.plugin_registered for status in driver.statuses] == [False, False]


async def test_kubelet_of_an_older_version_has_no_handler(kubelet_dir: Path) -> None:
    async with DraKubelet(kubelet_dir, version=(1, 33), loop_seconds=LOOP_SECONDS) as kubelet, run_tiny_driver(kubelet):
        await kubelet.wait_for(lambda: bool(kubelet.refused))
        assert "no handler registered for plugin type: DRAPlugin" in kubelet.refused[0].error


async def test_second_registration_of_an_endpoint_is_refused_until_the_socket_is_created_again(
    kubelet: DraKubelet, driver: TinyDriver
) -> None:
    async with run_tiny_driver(kubelet, "y.sock", endpoint=str(kubelet.registry / "x.sock")) as second:
        await kubelet.wait_for(lambda: bool(kubelet.refused))
        assert "already registered for DRA driver plugin driver.example.com" in kubelet.refused[0].error
        assert [status.plugin_registered for status in second.statuses] == [False]
    async with run_tiny_driver(kubelet, "y.sock") as second:
        await kubelet.wait_for(lambda: bool(second.statuses))
        assert second.statuses[0].plugin_registered
    assert driver.statuses[0].plugin_registered


async def test_socket_in_a_directory_is_registered_and_hidden_files_are_ignored(kubelet: DraKubelet) -> None:
    directory = kubelet.registry / "sub"
    directory.mkdir()
    mknod(kubelet.registry / ".hidden.sock", stat.S_IFSOCK | 0o600)
    (kubelet.registry / "file.sock").write_text("")
    async with run_tiny_driver(kubelet, "sub/x.sock"):
        await kubelet.wait_registered(X)
    assert kubelet.refused == ()


async def test_socket_without_a_server_is_refused_without_a_status(
    kubelet: DraKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.testing.dra.plugin_manager._DIAL_SECONDS", 0.1)
    mknod(kubelet.registry / "dead.sock", stat.S_IFSOCK | 0o600)
    await kubelet.wait_for(lambda: bool(kubelet.refused))
    assert not kubelet.refused[0].is_sent


async def test_claims_of_a_pod_are_prepared_in_one_call_and_only_once(kubelet: DraKubelet, driver: TinyDriver) -> None:
    other = PodClaim("claim-b", "uid-b", drivers=(X,))
    await kubelet.prepare("first", CLAIM, other)
    await kubelet.prepare("second", CLAIM)
    assert driver.requests == [["uid-a", "uid-b"]]
    assert kubelet.cdi_devices(CLAIM) == ("x.y/z=0", "x.y/z=1", "x.y/z=2")
    assert kubelet.cdi_devices(CLAIM, "a") == ("x.y/z=0", "x.y/z=1", "x.y/z=2")
    assert kubelet.cdi_devices(CLAIM, "b") == ("x.y/z=1", "x.y/z=2")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({}, "NodePrepareResources skipped 1 ResourceClaims"),
        ({"other": ""}, "NodePrepareResources returned result for unknown claim UID other"),
        ({"uid-a": "broken"}, "NodePrepareResources failed for ResourceClaim claim-a: broken"),
    ],
)
async def test_answer_that_the_kubelet_does_not_accept_is_an_event_of_the_pod(
    kubelet: DraKubelet, driver: TinyDriver, answer: dict[str, str], error: str
) -> None:
    driver.answer = {uid: pb.NodePrepareResourceResponse(error=text) for uid, text in answer.items()}
    with pytest.raises(DraError, match=error):
        await kubelet.prepare("pod", CLAIM)
    assert kubelet.events == [f"Failed to prepare dynamic resources: prepare dynamic resources: {error}"]
    assert not kubelet.is_prepared(CLAIM)


async def test_pod_is_started_when_a_retry_succeeds(kubelet: DraKubelet, driver: TinyDriver) -> None:
    driver.answer = {}
    starting = asyncio.create_task(kubelet.start_pod("pod", CLAIM, retry_seconds=0.01))
    await kubelet.wait_for(lambda: len(kubelet.events) >= 2)
    driver.answer = None
    await starting
    assert kubelet.is_prepared(CLAIM)


async def test_pod_of_a_driver_that_is_not_registered_is_an_error(kubelet: DraKubelet) -> None:
    with pytest.raises(DraError, match=r"DRA driver driver\.example\.com is not registered"):
        await kubelet.prepare("pod", CLAIM)


async def test_claim_of_the_same_name_with_another_uid_waits_for_the_old_claim(
    kubelet: DraKubelet, driver: TinyDriver
) -> None:
    await kubelet.prepare("pod", CLAIM)
    replaced = PodClaim(CLAIM.name, "uid-new", drivers=(X,))
    with pytest.raises(DraError, match="old ResourceClaim with same name claim-a and different UID uid-a still exists"):
        await kubelet.prepare("other", replaced)
    await kubelet.unprepare("pod")
    await kubelet.prepare("other", replaced)
    assert driver.requests == [["uid-a"], ["-uid-a"], ["uid-new"]]


async def test_answer_of_unprepare_is_checked(kubelet: DraKubelet, driver: TinyDriver) -> None:
    await kubelet.prepare("pod", CLAIM)
    driver.answer = {}
    with pytest.raises(DraError, match="NodeUnprepareResources skipped 1 ResourceClaims"):
        await kubelet.unprepare("pod")
    assert kubelet.is_prepared(CLAIM)


async def test_restarted_kubelet_keeps_the_devices_and_prepares_again_for_another_pod(
    kubelet: DraKubelet, driver: TinyDriver
) -> None:
    await kubelet.prepare("pod", CLAIM)
    await kubelet.restart()
    assert len(kubelet.cdi_devices(CLAIM)) == 3
    await kubelet.wait_registered(X, times=2)
    assert driver.requests == [["uid-a"]]
    await kubelet.prepare("other", CLAIM)
    assert driver.requests == [["uid-a"], ["uid-a"]]


async def test_kubelet_that_lost_its_checkpoint_unprepares_nothing(kubelet: DraKubelet, driver: TinyDriver) -> None:
    await kubelet.prepare("pod", CLAIM)
    await kubelet.restart(lose_checkpoint=True)
    await kubelet.wait_registered(X, times=2)
    await kubelet.unprepare("pod")
    assert driver.requests == [["uid-a"]]


async def test_slices_are_wiped_at_the_start_and_after_a_driver_is_gone(kubelet_dir: Path) -> None:
    wiped: list[str | None] = []
    has_changed = asyncio.Event()

    async def wipe(driver: str | None) -> None:
        wiped.append(driver)
        has_changed.set()

    async with DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS, wipe=wipe, wiping_seconds=0.05) as kubelet:
        async with run_tiny_driver(kubelet):
            await kubelet.wait_registered(X)
            assert wiped == [None]
            has_changed.clear()
        await asyncio.wait_for(has_changed.wait(), 20)
        assert wiped == [None, X]
