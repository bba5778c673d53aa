"""The driver of Dynamic Resource Allocation at a kubelet stand-in: its sockets, its registration, and its answers."""

import asyncio
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from genplug.allocation.errors import ClaimErrorCode
from genplug.kubelet import driver as driver_module
from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.driver import MAX_ERROR_CHARACTERS, retry_seconds
from genplug.kubelet.reports import (
    ClaimAnswered,
    DriverNotServing,
    DriverRefused,
    DriverRegistered,
    InternalErrorCaught,
)
from genplug.testing.dra import DraError, DraKubelet
from tests.support.claims import DRIVER, refer
from tests.support.drivers import AnsweringBackend, DriverRun, refuse_claim, run_driver, use_claim
from tests.support.http2_peer import END_HEADERS, HEADERS, PREFACE, SETTINGS, build_frame, build_headers

LOOP_SECONDS = 0.01


def remove_socket(path: Path) -> None:
    path.unlink()


@pytest.fixture
def kubelet_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
async def kubelet(kubelet_dir: Path) -> AsyncIterator[DraKubelet]:
    async with DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS) as kubelet:
        yield kubelet


@pytest.fixture
async def run(kubelet: DraKubelet, kubelet_dir: Path) -> AsyncIterator[DriverRun]:
    """A driver that the kubelet has registered."""
    async with run_driver(kubelet_dir) as run:
        await kubelet.wait_registered(DRIVER)
        yield run


async def test_driver_is_registered_with_its_name_and_the_path_of_its_service(
    kubelet: DraKubelet, run: DriverRun
) -> None:
    await run.wait_for(lambda: run.driver.status.is_registered)
    [registration] = kubelet.registrations
    assert (registration.driver, registration.endpoint, registration.service) == (
        DRIVER,
        str(run.service),
        "v1.DRAPlugin",
    )
    assert run.driver.status.registrations == 1
    assert run.driver.status.error == ""
    assert run.reports == [DriverRegistered(DRIVER)]


async def test_sockets_are_accessible_to_their_owner_only_with_any_umask(
    kubelet: DraKubelet, kubelet_dir: Path
) -> None:
    previous = os.umask(0)
    try:
        async with run_driver(kubelet_dir) as run:
            await kubelet.wait_registered(DRIVER)
            modes = {stat.S_IMODE(path.stat().st_mode) for path in (run.service, run.registration)}
    finally:
        os.umask(previous)
    assert modes == {0o700}


async def test_sockets_of_a_killed_driver_are_replaced(kubelet: DraKubelet, kubelet_dir: Path) -> None:
    paths = (kubelet_dir / "plugins" / DRIVER / "dra.sock", kubelet.registry / f"{DRIVER}-reg.sock")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, stat.S_IFSOCK | 0o600)
    async with run_driver(kubelet_dir):
        await kubelet.wait_registered(DRIVER)
    assert not any(path.exists() for path in paths)


async def test_driver_that_returns_on_the_same_path_is_registered_again(kubelet: DraKubelet, kubelet_dir: Path) -> None:
    async with run_driver(kubelet_dir):
        await kubelet.wait_registered(DRIVER)
    await kubelet.wait_for(lambda: not kubelet.is_connected(DRIVER))
    async with run_driver(kubelet_dir):
        await kubelet.wait_registered(DRIVER, times=2)
        await kubelet.prepare("pod", use_claim(1))


async def test_restarted_kubelet_registers_the_driver_again(kubelet: DraKubelet, run: DriverRun) -> None:
    await kubelet.restart()
    await kubelet.wait_registered(DRIVER, times=2)
    await run.wait_for(lambda: run.driver.status.registrations == 2)
    assert [registration.start for registration in kubelet.registrations] == [1, 2]


async def test_refused_registration_is_tried_again_on_a_new_socket(
    kubelet: DraKubelet, kubelet_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "FIRST_RETRY_SECONDS", 0.01)
    kubelet.refuse_registration("the endpoint is in use")
    async with run_driver(kubelet_dir) as run:
        await kubelet.wait_for(lambda: len(kubelet.refused) >= 2)
        await run.wait_for(lambda: len(run.reports_of(DriverRefused)) >= 2)
        assert not run.driver.status.is_registered
        assert "refuses to register it: RegisterPlugin error -- plugin registration failed with err: the endpoint" in (
            run.driver.status.error
        )
        kubelet.refuse_registration("")
        await kubelet.wait_registered(DRIVER)
        await run.wait_for(lambda: run.driver.status.is_registered)
        kubelet.refuse_registration("the endpoint is in use again")
        await kubelet.restart()
        await run.wait_for(lambda: "again" in run.driver.status.error)
    pauses = [report.retry_seconds for report in run.reports if isinstance(report, DriverRefused)]
    assert pauses[1] >= 0.02
    assert pauses[-1] <= 0.0125


async def test_kubelet_without_a_handler_for_drivers_is_reported(kubelet_dir: Path) -> None:
    async with DraKubelet(kubelet_dir, version=(1, 30), loop_seconds=LOOP_SECONDS), run_driver(kubelet_dir) as run:
        await run.wait_for(lambda: bool(run.reports_of(DriverRefused)))
        assert "no handler registered for plugin type: DRAPlugin" in run.driver.status.error


def test_pause_after_refusals_doubles_to_a_minute() -> None:
    assert [retry_seconds(refusals, 0.0) for refusals in (1, 2, 3, 6, 7, 1000)] == [1, 2, 4, 32, 60, 60]
    assert retry_seconds(1, 0.999) == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize("name", ["service", "registration"])
async def test_socket_that_another_program_removed_is_created_again(
    kubelet: DraKubelet, kubelet_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(driver_module, "CHECK_SECONDS", 0.05)
    async with run_driver(kubelet_dir) as run:
        await run.wait_for(lambda: run.driver.status.is_registered)
        remove_socket(getattr(run, name))
        await kubelet.wait_registered(DRIVER, times=2)
        await run.wait_for(lambda: run.driver.status.registrations == 2)
        error = "another program removed a socket of the driver; the driver creates it again"
        assert run.reports == [DriverRegistered(DRIVER), DriverNotServing(DRIVER, error, 0.0), DriverRegistered(DRIVER)]
        await kubelet.prepare("pod", use_claim(1))


@pytest.mark.parametrize("name", ["service", "registration"])
async def test_socket_whose_server_a_method_name_that_is_not_utf8_ends_is_created_again(
    kubelet: DraKubelet, kubelet_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # The server of gRPC ends with a UnicodeDecodeError and removes its socket (grpcio, aio/server.pyx.pxi).
    monkeypatch.setattr(driver_module, "CHECK_SECONDS", 0.05)
    async with run_driver(kubelet_dir) as run:
        await run.wait_for(lambda: run.driver.status.is_registered)
        _, writer = await asyncio.open_unix_connection(getattr(run, name))
        headers = build_frame(HEADERS, END_HEADERS, 1, build_headers("/\udcff/NodePrepareResources"))
        writer.write(PREFACE + build_frame(SETTINGS, 0, 0, b"") + headers)
        await kubelet.wait_registered(DRIVER, times=2)
        await kubelet.prepare("pod", use_claim(1))
        writer.close()


async def test_missing_registry_is_reported_until_it_exists(kubelet_dir: Path) -> None:
    async with run_driver(kubelet_dir) as run:
        await run.wait_for(lambda: bool(run.reports_of(DriverNotServing)))
        assert f"the directory {kubelet_dir}/plugins_registry does not exist" in run.driver.status.error
        assert not run.driver.status.is_serving
        async with DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS) as kubelet:
            await kubelet.wait_registered(DRIVER)
            assert run.driver.status.is_serving
    assert len(run.reports_of(DriverNotServing)) == 1


async def test_path_that_is_too_long_for_a_socket_is_an_error(kubelet_dir: Path) -> None:
    directory = kubelet_dir / ("d" * 90)
    directory.mkdir()
    async with run_driver(directory) as run:
        await run.wait_for(lambda: bool(run.reports_of(DriverNotServing)))
        assert "is too long: a socket's path has at most 107 bytes" in run.driver.status.error


async def test_claims_of_a_call_are_prepared_at_the_same_time(kubelet: DraKubelet, run: DriverRun) -> None:
    claims = [use_claim(number) for number in range(5)]
    run.backend.open.clear()
    preparing = asyncio.create_task(kubelet.prepare("pod", *claims))
    await run.backend.reached.wait_for(lambda: len(run.backend.calls) == 5, 20)
    run.backend.open.set()
    await preparing
    assert [kubelet.cdi_devices(claim) for claim in claims] == [(f"genplug.io/claim={claim.uid}",) for claim in claims]
    [device] = kubelet.devices(claims[0])
    assert (device.requests, device.device) == (("gpu",), "device-of-claim-0")


async def test_number_of_claims_that_are_prepared_at_the_same_time_is_limited(
    kubelet: DraKubelet, kubelet_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "MAX_CONCURRENT_CLAIMS", 2)
    async with run_driver(kubelet_dir) as run:
        await kubelet.wait_registered(DRIVER)
        run.backend.open.clear()
        preparing = asyncio.create_task(kubelet.prepare("pod", *(use_claim(number) for number in range(5))))
        await run.backend.reached.wait_for(lambda: len(run.backend.calls) >= 2, 20)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(run.backend.calls) == 2
        run.backend.open.set()
        await preparing
        assert len(run.backend.calls) == 5


async def test_error_of_a_claim_is_that_of_the_pod_and_other_claims_are_prepared(
    kubelet: DraKubelet, run: DriverRun
) -> None:
    run.backend.errors["claim-2"] = refuse_claim(2, "device x0 is unhealthy: it is hot")
    with pytest.raises(DraError) as failed:
        await kubelet.prepare("pod", use_claim(1), use_claim(2))
    assert str(failed.value) == (
        "Failed to prepare dynamic resources: prepare dynamic resources: NodePrepareResources failed for "
        "ResourceClaim claim-2: ResourceClaim default/claim-2: device x0 is unhealthy: it is hot"
    )
    answered = [report for report in run.reports if isinstance(report, ClaimAnswered)]
    assert [(report.claim, report.code, bool(report.error)) for report in answered] == [
        (refer(1), None, False),
        (refer(2), ClaimErrorCode.DEVICE_UNHEALTHY, True),
    ]
    del run.backend.errors["claim-2"]
    await kubelet.prepare("pod", use_claim(1), use_claim(2))
    assert kubelet.is_prepared(use_claim(2))


async def test_repeated_claim_in_a_call_is_answered_once(kubelet: DraKubelet, run: DriverRun) -> None:
    claim = pb.Claim(namespace="default", name="claim-1", uid=refer(1).uid)
    answer = await kubelet.plugin(DRIVER).prepare([claim, claim])
    assert list(answer.claims) == [refer(1).uid]
    assert run.backend.calls == [("prepare", "claim-1")]


async def test_claim_is_unprepared_after_its_last_pod(kubelet: DraKubelet, run: DriverRun) -> None:
    claim = use_claim(1)
    await kubelet.prepare("first", claim)
    await kubelet.prepare("second", claim)
    await kubelet.unprepare("first")
    await kubelet.unprepare("second")
    assert run.backend.calls == [("prepare", "claim-1"), ("unprepare", "claim-1")]
    assert not kubelet.is_prepared(claim)


async def test_failed_unprepare_keeps_the_pod_and_is_repeated(kubelet: DraKubelet, run: DriverRun) -> None:
    await kubelet.prepare("pod", use_claim(1))
    run.backend.errors["claim-1"] = refuse_claim(1, "its record cannot be removed")
    with pytest.raises(
        DraError, match="NodeUnprepareResources failed for ResourceClaim claim-1: ResourceClaim default"
    ):
        await kubelet.unprepare("pod")
    run.backend.errors.clear()
    await kubelet.unprepare("pod")
    assert [method for method, _ in run.backend.calls] == ["prepare", "unprepare", "unprepare"]


async def test_call_that_the_kubelet_ended_is_not_started_twice(kubelet_dir: Path) -> None:
    async with (
        DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS, call_seconds=0.2) as kubelet,
        run_driver(kubelet_dir) as run,
    ):
        await kubelet.wait_registered(DRIVER)
        run.backend.open.clear()
        for _ in range(2):
            with pytest.raises(DraError, match="code = DeadlineExceeded"):
                await kubelet.prepare("pod", use_claim(1))
        run.backend.open.set()
        await kubelet.prepare("pod", use_claim(1))
        assert run.backend.calls[:1] == [("prepare", "claim-1")]
        assert len(run.backend.calls) <= 2


async def test_calls_for_a_claim_that_the_kubelet_ended_are_done_in_their_order(kubelet_dir: Path) -> None:
    """A prepared claim must not be answered by a call from before an unprepare that still waits."""
    async with DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS) as kubelet, run_driver(kubelet_dir) as run:
        await kubelet.wait_registered(DRIVER)
        run.backend.open.clear()
        plugin, claim = kubelet.plugin(DRIVER), pb.Claim(namespace="default", name="claim-1", uid=refer(1).uid)
        calls = []
        for method in (plugin.prepare, plugin.unprepare, plugin.prepare):
            calls.append(asyncio.create_task(method([claim])))
            await run.backend.reached.wait_for(lambda: len(run.backend.calls) == len(calls), 20)
        run.backend.open.set()
        await asyncio.gather(*calls)
        assert [method for method, _ in run.backend.calls] == ["prepare", "unprepare", "prepare"]


async def test_claim_that_takes_too_long_is_answered_before_the_kubelet_gives_up(
    kubelet: DraKubelet, run: DriverRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "ANSWER_SECONDS", 0.05)
    run.backend.open.clear()
    with pytest.raises(DraError, match="ResourceClaim default/claim-1: NodePrepareResources took longer than 0"):
        await kubelet.prepare("pod", use_claim(1))
    [report] = run.reports_of(ClaimAnswered)
    assert isinstance(report, ClaimAnswered)
    assert report.code is ClaimErrorCode.TIMEOUT
    run.backend.open.set()


async def test_defect_is_reported_and_the_error_of_the_claim(kubelet: DraKubelet, run: DriverRun) -> None:
    run.backend.errors["claim-1"] = ValueError("a defect")
    with pytest.raises(DraError, match=r"genplug failed in NodePrepareResources: ValueError\('a defect'\)"):
        await kubelet.prepare("pod", use_claim(1), use_claim(2))
    [caught] = run.reports_of(InternalErrorCaught)
    assert isinstance(caught, InternalErrorCaught)
    assert caught.resource == DRIVER


async def test_long_error_is_cut_and_invalid_characters_are_replaced(kubelet: DraKubelet, run: DriverRun) -> None:
    run.backend.errors["claim-1"] = refuse_claim(1, "\udcff" + "x" * 2000)
    answer = await kubelet.plugin(DRIVER).prepare([pb.Claim(namespace="default", name="claim-1", uid=refer(1).uid)])
    error = answer.claims[refer(1).uid].error
    assert len(error) == MAX_ERROR_CHARACTERS
    assert error.startswith("ResourceClaim default/claim-1: ?xxx")
    assert error.endswith("x…")


@pytest.mark.usefixtures("run")
async def test_answer_that_the_kubelet_would_not_accept_is_an_error_with_the_limit(
    kubelet: DraKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "MAX_RESPONSE_BYTES", 100)
    with pytest.raises(DraError, match=r"code = ResourceExhausted desc = genplug.io: the answer for 1 ResourceClaims"):
        await kubelet.prepare("pod", use_claim(1))


async def test_unknown_methods_and_malformed_requests_are_errors(kubelet: DraKubelet, run: DriverRun) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await kubelet.plugin(DRIVER).call_method("NoSuchCall")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError):
        await kubelet.plugin(DRIVER).call_method("NodePrepareResources", b"\xff")
    await kubelet.prepare("pod", use_claim(1))
    assert run.driver.status.is_serving


async def test_claims_that_are_being_prepared_end_with_the_driver(kubelet_dir: Path) -> None:
    async with DraKubelet(kubelet_dir, loop_seconds=LOOP_SECONDS) as kubelet:
        async with run_driver(kubelet_dir) as run:
            await kubelet.wait_registered(DRIVER)
            run.backend.open.clear()
            preparing = asyncio.create_task(kubelet.prepare("pod", use_claim(1)))
            await run.backend.reached.wait_for(lambda: bool(run.backend.calls), 20)
        with pytest.raises(DraError, match="ResourceClaim default/claim-1: genplug is being stopped"):
            await preparing
    assert run.driver.status.error == "the driver has stopped"


async def test_driver_that_is_canceled_again_while_it_ends_removes_its_sockets(
    kubelet: DraKubelet, kubelet_dir: Path
) -> None:
    run = DriverRun(kubelet_dir, AnsweringBackend())
    running = asyncio.create_task(run.driver.run())
    await kubelet.wait_registered(DRIVER)
    run.backend.open.clear()
    preparing = asyncio.create_task(kubelet.prepare("pod", use_claim(1)))
    await run.backend.reached.wait_for(lambda: bool(run.backend.calls), 20)
    for _ in range(2):
        # The driver waits a moment for the claim.
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(DraError):
        await preparing
    assert not any(path.exists() for path in (run.service, run.registration))
    assert run.driver.status.error == "the driver has stopped"


async def test_socket_path_that_is_a_directory_is_an_error(kubelet: DraKubelet, kubelet_dir: Path) -> None:
    (kubelet.registry / f"{DRIVER}-reg.sock").mkdir()
    async with run_driver(kubelet_dir) as run:
        await run.wait_for(lambda: bool(run.reports_of(DriverNotServing)))
        assert run.driver.status.error == (
            f"cannot create a socket in {kubelet.registry}: Address already in use; check the file system of the "
            "directory"
        )
