"""Claims of Dynamic Resource Allocation from the kubelet's calls to the files, over the sockets of a driver."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.agent.claims import Claims
from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.driver import Driver
from genplug.kubelet.reports import ClaimForgotten, RecordDamaged
from genplug.spec.globs import Glob
from genplug.spec.model import PreStartSpec
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from genplug.testing.dra import DraError, DraKubelet, PodClaim
from tests.support.allocation import DeviceTree
from tests.support.claim_node import ClaimNode, name_cdi
from tests.support.claims import DRIVER, refer
from tests.support.drivers import use_claim
from tests.support.hardware import LOCATION, open_tree

ONE, TWO = refer(1), refer(2)


@pytest.fixture
def node() -> Iterator[ClaimNode]:
    with open_tree(DeviceTree) as tree:
        yield ClaimNode(tree)


@pytest.fixture
async def kubelet(node: ClaimNode) -> AsyncIterator[DraKubelet]:
    async with DraKubelet(node.tree.root, loop_seconds=0.01) as kubelet:
        yield kubelet


@asynccontextmanager
async def run_process(node: ClaimNode, kubelet: DraKubelet) -> AsyncIterator[Claims]:
    """Run what an agent runs for claims: their files are restored before the sockets are created."""
    claims = await node.start()
    driver = Driver(DRIVER, node.tree.root, claims, lambda _: None)
    times = len(kubelet.registrations)
    task = asyncio.create_task(driver.run())
    try:
        await kubelet.wait_registered(DRIVER, times + 1)
        yield claims
    finally:
        driver.stop()
        await asyncio.wait_for(task, 20)


def build_claim_message(number: int) -> pb.Claim:
    claim = refer(number)
    return pb.Claim(namespace=claim.namespace, name=claim.name, uid=claim.uid)


async def test_repeated_prepare_changes_nothing(node: ClaimNode, kubelet: DraKubelet) -> None:
    """DRA point 8."""
    runs = node.tree.root / "runs"
    program = node.tree.root / "program"
    program.write_text(f"#!/bin/sh\necho run >> {runs}\n")
    program.chmod(0o755)
    pre_start = PreStartSpec(LOCATION, (Template.parse(str(program)),), 10.0)
    node.resource = replace(node.resource, pre_start=pre_start, policy=Policy(programs=(Glob.parse("/**"),)))
    node.scan()
    async with run_process(node, kubelet):
        node.allocate(ONE, "x0")
        contents = set()
        for _ in range(100):
            answer = await kubelet.plugin(DRIVER).prepare([build_claim_message(1)])
            contents.add(answer.SerializeToString(deterministic=True))
            contents.add(node.cdi_file(ONE).read_bytes())
        assert len(contents) == 2
        assert node.files == node.paths(ONE)
        assert runs.read_text() == "run\n"


async def test_bad_claim_of_a_batch_is_the_only_error(node: ClaimNode, kubelet: DraKubelet) -> None:
    """DRA point 8."""
    for number in range(32):
        node.tree.plug(f"/dev/x{number}")
    node.scan()
    async with run_process(node, kubelet):
        for number in range(32):
            node.allocate(refer(number), f"x{number}" if number != 7 else "x99")
        answer = await kubelet.plugin(DRIVER).prepare([build_claim_message(number) for number in range(32)])
        errors = {uid: result.error for uid, result in answer.claims.items() if result.error}
        assert errors == {
            refer(7).uid: (
                "ResourceClaim default/claim-7: device x99 of a.example/x is not on this node; it was removed from "
                "the hardware or the configuration; plug it in, or create the pod again"
            )
        }
        assert sum(len(result.devices) for result in answer.claims.values()) == 31
        assert node.files == node.paths(*(refer(number) for number in range(32) if number != 7))


async def test_claims_of_another_boot_are_prepared_from_scratch(node: ClaimNode, kubelet: DraKubelet) -> None:
    """DRA point 13."""
    async with run_process(node, kubelet) as claims:
        await kubelet.prepare("pod", use_claim_on(node, 1, "x0"))
        assert len(claims.holdings) == 1
    [before] = json.loads(node.cdi_file(ONE).read_text())["devices"]
    await kubelet.stop()
    node.boot = "another"
    node.tree.plug("/dev/x0", "240:77")
    node.scan()
    claims = await node.start()
    # Before the driver has a socket.
    assert not node.cdi_file(ONE).exists()
    assert claims.holdings == ()
    await kubelet.start()
    async with run_process(node, kubelet):
        await kubelet.prepare("pod", use_claim(1))
        [after] = json.loads(node.cdi_file(ONE).read_text())["devices"]
    assert before["containerEdits"]["deviceNodes"][0]["minor"] != 77
    assert after["containerEdits"]["deviceNodes"][0]["minor"] == 77


async def test_damaged_record_delays_no_other_claim(node: ClaimNode, kubelet: DraKubelet) -> None:
    """DRA point 14."""
    async with run_process(node, kubelet):
        for number in range(1, 5):
            await kubelet.prepare(f"pod-{number}", use_claim_on(node, number, f"x{number - 1}"))
    node.record(ONE).write_bytes(b" " * (10 << 20))
    await kubelet.restart()
    async with run_process(node, kubelet):
        assert [type(report) for report in node.reports] == [RecordDamaged]
        node.documents = None
        for number in range(2, 5):
            await kubelet.prepare(f"other-pod-{number}", use_claim(number))
        with pytest.raises(DraError, match="it cannot be read from the API server"):
            await kubelet.prepare("other-pod-1", use_claim(1))
        node.documents = {}
        node.allocate(ONE, "x0")
        await kubelet.prepare("other-pod-1", use_claim(1))
        assert node.record(ONE).exists()


async def test_device_of_a_force_deleted_pod_is_refused_until_its_claim_is_unprepared(
    node: ClaimNode, kubelet: DraKubelet
) -> None:
    async with run_process(node, kubelet):
        await kubelet.prepare("deleted", use_claim_on(node, 1, "x0"))
        second = use_claim_on(node, 2, "x0")
        with pytest.raises(DraError, match=f"still prepared for the ResourceClaim default/claim-1 \\(UID {ONE.uid}"):
            await kubelet.prepare("next", second)
        await kubelet.unprepare("deleted")
        await kubelet.prepare("next", second)
        assert kubelet.cdi_devices(second) == (name_cdi(TWO, "x0"),)


async def test_device_of_a_claim_that_the_kubelet_has_forgotten_is_given_again_after_180_s(
    node: ClaimNode, kubelet: DraKubelet
) -> None:
    """DRA point 14."""
    async with run_process(node, kubelet) as claims:
        await kubelet.prepare("old", use_claim_on(node, 1, "x0"))
        await kubelet.restart(lose_checkpoint=True)
        await kubelet.wait_registered(DRIVER, 2)
        node.documents = {}
        second = use_claim_on(node, 2, "x0")
        for node.time in (0.0, 100.0, 179.0):
            with pytest.raises(DraError, match="still prepared for the ResourceClaim default/claim-1"):
                await kubelet.prepare("new", second)
            await claims.check_holders()
        node.time = 180.0
        await claims.check_holders()
        assert node.reports == [ClaimForgotten(DRIVER, ONE, ("x0",))]
        await kubelet.prepare("new", second)


async def test_containers_keep_their_cdi_devices_over_restarts_of_kubelet_and_driver(
    node: ClaimNode, kubelet: DraKubelet
) -> None:
    claim = use_claim_on(node, 1, "x0", "x1")
    async with run_process(node, kubelet):
        await kubelet.prepare("pod", claim)
        names = kubelet.cdi_devices(claim)
    content = node.cdi_file(ONE).read_bytes()
    remove(node.cdi_file(ONE))
    await kubelet.restart()
    node.documents = None
    async with run_process(node, kubelet):
        assert kubelet.cdi_devices(claim) == names == (name_cdi(ONE, "x0"), name_cdi(ONE, "x1"))
        assert node.cdi_file(ONE).read_bytes() == content
        await kubelet.unprepare("pod")
        assert node.files == []


def use_claim_on(node: ClaimNode, number: int, *devices: str) -> PodClaim:
    """Allocate devices to a claim, and return it as a pod uses it."""
    node.allocate(refer(number), *devices)
    return use_claim(number)


def remove(path: Path) -> None:
    path.unlink()
