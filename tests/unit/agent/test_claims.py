"""Claims of a node: what is prepared, what survives a process and a boot, and when a device becomes free."""

import asyncio
import errno
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.agent import claim_inputs, claim_ledger, claim_record_builder, forgotten_claims
from genplug.agent import claims as claims_module
from genplug.agent.claim_files import ClaimStorageError, Step
from genplug.agent.claims import Claims
from genplug.agent.forgotten_claims import FORGET_SECONDS
from genplug.allocation.claims import DeviceHolding
from genplug.allocation.errors import ClaimError, ClaimErrorCode, DeviceHeldError
from genplug.allocation.results import ClaimDevice, ClaimReference
from genplug.kubelet.reports import ClaimCdiUnwritable, ClaimForgotten, RecordDamaged
from genplug.spec.globs import Glob
from genplug.spec.model import AllocateSpec, PreStartSpec
from genplug.spec.policy import Policy
from genplug.spec.template import Template
from tests.support.allocation import DeviceTree, build_resource
from tests.support.claim_node import ClaimNode, answer, name_cdi
from tests.support.claims import DRIVER, POOL, allocate_device, refer
from tests.support.hardware import LOCATION, open_tree

ONE, TWO = refer(1), refer(2)


@pytest.fixture
def tree() -> Iterator[DeviceTree]:
    with open_tree(DeviceTree) as tree:
        yield tree


@pytest.fixture
def node(tree: DeviceTree) -> ClaimNode:
    return ClaimNode(tree)


def run_program(tree: DeviceTree, script: str) -> PreStartSpec:
    """Return the specification of a program that is a shell script."""
    program = tree.root / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return PreStartSpec(LOCATION, (Template.parse(str(program)), Template.parse("${name}")), 10.0)


async def refuse(claims: Claims, claim: ClaimReference) -> ClaimError:
    with pytest.raises(ClaimError) as refused:
        await claims.prepare(claim)
    return refused.value


async def test_prepared_claim_has_a_record_and_a_cdi_file(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0", "x1")
    assert await claims.prepare(ONE) == answer(ONE, "x0", "x1")
    assert node.files == node.paths(ONE)
    record = json.loads(node.record(ONE).read_text())
    assert (record["version"], record["bootId"], record["claim"]["uid"]) == (1, node.boot, ONE.uid)
    assert record["cdi"] == node.cdi_file(ONE).read_text()
    assert {path.stat().st_mode & 0o777 for path in (node.record(ONE), node.cdi_file(ONE))} == {0o600}
    assert claims.holdings == (DeviceHolding(ONE, POOL, "x0"), DeviceHolding(ONE, POOL, "x1"))


async def test_alternative_of_a_request_is_answered_with_the_name_of_the_request(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, allocate_device("x0", "gpu/small"))
    [device] = await claims.prepare(ONE)
    assert device == ClaimDevice(("gpu",), POOL, "x0", (name_cdi(ONE, "x0", "gpu-small"),))


async def test_claim_without_devices_of_the_driver_has_no_files(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, allocate_device("y0", driver="other.example"))
    assert await claims.prepare(ONE) == ()
    assert node.files == []


async def test_repeated_prepare_is_answered_without_the_api_server(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    first = await claims.prepare(ONE)
    node.documents = None
    assert await claims.prepare(ONE) == first
    assert node.reads == [ONE.name]


async def test_missing_or_changed_cdi_file_is_written_again(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    await claims.prepare(ONE)
    text = node.cdi_file(ONE).read_text()
    node.cdi_file(ONE).unlink()
    await claims.prepare(ONE)
    assert node.cdi_file(ONE).read_text() == text
    node.cdi_file(ONE).write_text("{}")
    await claims.prepare(ONE)
    assert node.cdi_file(ONE).read_text() == text


async def test_unprepared_claim_has_no_files_and_holds_nothing(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x0")
    await claims.prepare(ONE)
    await claims.unprepare(ONE)
    assert (node.files, claims.holdings) == ([], ())
    assert await claims.prepare(TWO) == answer(TWO, "x0")


async def test_unknown_claim_is_unprepared_with_success(node: ClaimNode) -> None:
    claims = await node.start()
    await claims.unprepare(ONE)
    await claims.unprepare(ClaimReference("default", "a", "../../etc/passwd"))


async def test_uid_that_is_not_a_name_of_a_file_is_refused(node: ClaimNode) -> None:
    claims = await node.start()
    error = await refuse(claims, ClaimReference("default", "a", "../a"))
    assert "expected a UID of letters, digits and '-', found '../a'" in str(error)
    assert node.reads == []


async def test_device_of_a_prepared_claim_is_refused_to_another(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x1", "x0")
    await claims.prepare(ONE)
    error = await refuse(claims, TWO)
    assert isinstance(error, DeviceHeldError)
    assert error.holder == ONE
    assert node.files == node.paths(ONE)


async def test_device_is_given_to_one_of_two_claims_that_are_prepared_at_the_same_time(
    tree: DeviceTree, node: ClaimNode
) -> None:
    node.resource = replace(node.resource, pre_start=run_program(tree, "sleep 0.05"), policy=_ALLOW_PROGRAMS)
    node.scan()
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x0")
    results = await asyncio.gather(claims.prepare(ONE), claims.prepare(TWO), return_exceptions=True)
    assert sorted(isinstance(result, ClaimError) for result in results) == [False, True]
    assert len(node.files) == 2


async def test_claim_that_the_api_server_does_not_have_is_refused(node: ClaimNode) -> None:
    claims = await node.start()
    error = await refuse(claims, ONE)
    assert str(error) == "ResourceClaim default/claim-1: it does not exist any more; delete the pod"
    assert error.code is ClaimErrorCode.REPLACED


async def test_api_server_that_does_not_respond_is_the_error(node: ClaimNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_inputs, "READ_SECONDS", 0.02)
    claims = await node.start()
    node.documents = None
    error = await refuse(claims, ONE)
    assert str(error) == "ResourceClaim default/claim-1: it cannot be read from the API server: connection refused"
    node.hold.clear()
    error = await refuse(claims, ONE)
    assert "the API server has not returned it within 0.02 s" in str(error)
    assert error.code is ClaimErrorCode.UNREADABLE


async def test_device_node_that_disappeared_is_the_error_and_the_device_is_free(
    tree: DeviceTree, node: ClaimNode
) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    tree.unplug("/dev/x0")
    error = await refuse(claims, ONE)
    assert "a.example/x device x0 cannot be allocated to a container: /dev/x0 does not exist" in str(error)
    assert (node.files, claims.holdings) == ([], ())


async def test_cdi_device_that_no_file_defines_is_the_error(tree: DeviceTree, node: ClaimNode) -> None:
    allocate = AllocateSpec(cdi_devices=(Template.parse("other.example/part=${name}"),))
    node.resource = replace(build_resource(), allocate=allocate)
    node.scan()
    claims = await node.start()
    node.allocate(ONE, "x0")
    tree.make_directory("/var/run/cdi")
    assert "defines other.example/part=x0" in str(await refuse(claims, ONE))
    edits = {"containerEdits": {"env": ["A=b"]}}
    spec = {"cdiVersion": "0.5.0", "kind": "other.example/part", "devices": [{"name": "x0"} | edits]}
    tree.write("/var/run/cdi/other.json", json.dumps(spec))
    [device] = await claims.prepare(ONE)
    assert device.cdi_devices == (name_cdi(ONE, "x0"), "other.example/part=x0")


_ALLOW_PROGRAMS = Policy(programs=(Glob.parse("/**"),))


async def test_program_runs_once_for_each_device_before_the_record(tree: DeviceTree, node: ClaimNode) -> None:
    runs = tree.root / "runs"
    script = f"echo $1 $(ls {node.records} | wc -l) >> {runs}"
    node.resource = replace(node.resource, pre_start=run_program(tree, script), policy=_ALLOW_PROGRAMS)
    node.scan()
    claims = await node.start()
    node.allocate(ONE, "x0", "x1")
    for _ in range(3):
        await claims.prepare(ONE)
    assert sorted(runs.read_text().splitlines()) == ["x0 0", "x1 0"]


async def test_calls_for_a_claim_run_one_after_the_other(tree: DeviceTree, node: ClaimNode) -> None:
    runs = tree.root / "runs"
    pre_start = run_program(tree, f"echo $1 >> {runs}")
    node.resource = replace(node.resource, pre_start=pre_start, policy=_ALLOW_PROGRAMS)
    node.scan()
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.hold.clear()
    calls = [asyncio.create_task(claims.prepare(ONE)) for _ in range(3)]
    await node.reading.wait_for(lambda: bool(node.reads), 20)
    removal = asyncio.create_task(claims.unprepare(ONE))
    node.hold.set()
    assert await asyncio.gather(*calls) == [answer(ONE, "x0")] * 3
    await removal
    assert runs.read_text() == "x0\n"
    assert (node.files, node.reads) == ([], [ONE.name])


async def test_failed_program_is_the_error_and_the_device_is_free(tree: DeviceTree, node: ClaimNode) -> None:
    pre_start = run_program(tree, "echo it is broken; exit 3")
    node.resource = replace(node.resource, pre_start=pre_start, policy=_ALLOW_PROGRAMS)
    node.scan()
    claims = await node.start()
    node.allocate(ONE, "x0")
    error = await refuse(claims, ONE)
    assert "exited with status 3: it is broken" in str(error)
    assert error.code is ClaimErrorCode.PRE_START
    assert (node.files, claims.holdings) == ([], ())


async def test_record_that_cannot_be_written_is_the_error_and_the_device_stays_reserved(
    node: ClaimNode,
) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x0")
    node.record(ONE).mkdir()
    error = await refuse(claims, ONE)
    assert f"the record {node.record(ONE)} or the CDI file cannot be written: Is a directory" in str(error)
    assert error.code is ClaimErrorCode.STORAGE
    # The record of a write that failed can exist.
    assert isinstance(await refuse(claims, TWO), DeviceHeldError)
    node.record(ONE).rmdir()
    assert await claims.prepare(ONE) == answer(ONE, "x0")


async def test_record_of_a_failed_attempt_keeps_its_device_after_another_failure(
    tree: DeviceTree, node: ClaimNode
) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x0")
    node.cdi_file(ONE).mkdir(parents=True)
    assert (await refuse(claims, ONE)).code is ClaimErrorCode.STORAGE
    assert node.record(ONE).exists()
    tree.unplug("/dev/x0")
    assert (await refuse(claims, ONE)).code is ClaimErrorCode.EDITS
    tree.plug("/dev/x0")
    assert isinstance(await refuse(claims, TWO), DeviceHeldError)
    node.cdi_file(ONE).rmdir()
    assert await claims.prepare(ONE) == answer(ONE, "x0")


async def test_device_of_a_failed_write_is_free_after_unprepare(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x0")
    node.record(ONE).mkdir()
    await refuse(claims, ONE)
    node.record(ONE).rmdir()
    await claims.unprepare(ONE)
    assert await claims.prepare(TWO) == answer(TWO, "x0")


async def test_cdi_file_that_cannot_be_removed_keeps_the_claim(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    await claims.prepare(ONE)
    node.cdi_file(ONE).unlink()
    node.cdi_file(ONE).mkdir()
    with pytest.raises(ClaimError, match="cannot be removed: Is a directory"):
        await claims.unprepare(ONE)
    assert claims.holdings == (DeviceHolding(ONE, POOL, "x0"),)
    node.cdi_file(ONE).rmdir()
    await claims.unprepare(ONE)
    assert node.files == []


async def test_files_that_are_too_large_are_refused_with_the_limit(
    node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    monkeypatch.setattr(claim_record_builder, "MAX_CLAIM_CDI_BYTES", 10)
    assert "its CDI file would have" in str(await refuse(claims, ONE))
    monkeypatch.undo()
    monkeypatch.setattr(claim_record_builder, "MAX_CLAIM_RECORD_BYTES", 10)
    assert "and the maximum is 10; shorten 'env' and 'mounts'" in str(await refuse(claims, ONE))
    monkeypatch.undo()
    monkeypatch.setattr(claims_module, "MAX_PREPARED_CLAIMS", 0)
    assert "0 claims are prepared on this node, which is the maximum" in str(await refuse(claims, ONE))
    assert node.files == []


async def test_text_of_all_claims_in_memory_is_limited(node: ClaimNode, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x1")
    await claims.prepare(ONE)
    text = claims.records[ONE.uid].cdi
    assert text is not None
    monkeypatch.setattr(claim_ledger, "MAX_CLAIM_MEMORY_BYTES", 2 * sys.getsizeof(text) - 1)
    error = await refuse(claims, TWO)
    assert error.code is ClaimErrorCode.STORAGE
    assert f"1 claims on this node have {sys.getsizeof(text)} bytes, and with this claim more than" in str(error)
    assert node.files == node.paths(ONE)
    await claims.unprepare(ONE)
    assert await claims.prepare(TWO) == answer(TWO, "x1")


async def test_claims_that_are_prepared_at_the_same_time_count_for_the_limit_of_memory(
    tree: DeviceTree, node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    await claims.prepare(ONE)
    size = sys.getsizeof(claims.records[ONE.uid].cdi)
    await claims.unprepare(ONE)
    gate = tree.root / "gate"
    program = run_program(tree, f"while [ ! -e {gate} ]; do sleep 0.01; done")
    node.resource = replace(node.resource, pre_start=program, policy=_ALLOW_PROGRAMS)
    node.scan()
    node.allocate(TWO, "x1")
    monkeypatch.setattr(claim_ledger, "MAX_CLAIM_MEMORY_BYTES", 2 * size - 1)
    first = asyncio.create_task(claims.prepare(ONE))
    second = asyncio.create_task(claims.prepare(TWO))
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED, timeout=30)
    gate.touch()
    [refused] = done
    assert f"more than the maximum of {2 * size - 1}" in str(refused.exception())
    [prepared] = {first, second} - done
    assert len(await prepared) == 1


async def test_write_that_hangs_is_the_error_and_is_not_overtaken(
    node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "WRITE_SECONDS", 0.05)
    released = threading.Event()

    def hang(step: Step) -> None:
        if step is Step.RECORD_WRITTEN and not released.is_set():
            released.wait(20)

    claims = await node.start(hang)
    node.allocate(ONE, "x0")
    node.allocate(TWO, "x0")
    assert "has not returned within 0.05 s" in str(await refuse(claims, ONE))
    assert isinstance(await refuse(claims, TWO), DeviceHeldError)
    with pytest.raises(ClaimError, match="another write of the files of the claim"):
        await claims.unprepare(ONE)
    released.set()
    monkeypatch.undo()
    while True:
        try:
            await claims.unprepare(ONE)
        except ClaimError:
            await asyncio.sleep(0.001)
        else:
            break
    assert node.files == []


async def test_removal_that_ends_after_its_deadline_leaves_a_prepared_claim_its_record(
    node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, released, removed = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

    def hang(step: Step) -> None:
        if step is Step.BEFORE_REMOVAL:
            released.wait(20)
        elif step is Step.RECORD_REMOVED:
            loop.call_soon_threadsafe(removed.set)

    claims = await node.start(hang)
    node.allocate(ONE, "x0")
    await claims.prepare(ONE)
    monkeypatch.setattr(claims_module, "WRITE_SECONDS", 0.05)
    with pytest.raises(ClaimError, match=r"has not returned within 0\.05 s"):
        await claims.unprepare(ONE)
    released.set()
    monkeypatch.undo()
    await asyncio.wait_for(removed.wait(), 20)
    assert node.files == []
    while True:
        try:
            assert await claims.prepare(ONE) == answer(ONE, "x0")
        except ClaimError:
            # The thread of the removal has not ended yet.
            await asyncio.sleep(0.001)
        else:
            break
    assert node.files == node.paths(ONE)
    assert (await node.start()).holdings == claims.holdings


async def test_next_process_answers_from_the_record(node: ClaimNode) -> None:
    first = await node.start()
    node.allocate(ONE, "x0")
    prepared = await first.prepare(ONE)
    second = await node.start()
    node.documents = None
    assert await second.prepare(ONE) == prepared
    assert second.holdings == (DeviceHolding(ONE, POOL, "x0"),)


async def test_start_restores_cdi_files_and_removes_those_without_a_record(node: ClaimNode) -> None:
    first = await node.start()
    node.allocate(ONE, "x0")
    await first.prepare(ONE)
    text = node.cdi_file(ONE).read_text()
    node.cdi_file(ONE).unlink()
    for name in (
        f"dra_{DRIVER}_unknown.json",
        f"dra_{DRIVER}_unknown.new",
        "dra_other.example_u.json",
        "genplug-a.json",
    ):
        (node.cdi / name).write_text("{}")
    (node.records / "half.new").write_text("{")
    await node.start()
    assert node.cdi_file(ONE).read_text() == text
    assert node.files == sorted(
        [*node.paths(ONE), "var/run/cdi/dra_other.example_u.json", "var/run/cdi/genplug-a.json"]
    )


async def test_record_of_another_boot_holds_nothing_and_goes_with_unprepare(node: ClaimNode) -> None:
    first = await node.start()
    node.allocate(ONE, "x0")
    await first.prepare(ONE)
    node.boot = "another"
    second = await node.start()
    assert node.files == [str(node.record(ONE).relative_to(node.tree.root))]
    node.allocate(TWO, "x0")
    assert await second.prepare(TWO) == answer(TWO, "x0")
    await second.unprepare(ONE)
    assert node.files == node.paths(TWO)


async def test_record_of_another_boot_is_removed_when_its_claim_is_gone(node: ClaimNode) -> None:
    first = await node.start()
    await first.prepare(node.allocate(ONE, "x0"))
    await first.prepare(node.allocate(TWO, "x1"))
    node.boot = "another"
    second = await node.start()
    documents, node.documents = node.documents, None
    await second.remove_stale()
    assert len(node.files) == 2
    assert documents is not None
    node.documents = {key: document for key, document in documents.items() if key[1] == TWO.name}
    await second.remove_stale()
    assert node.files == [str(node.record(TWO).relative_to(node.tree.root))]


def write_damaged(path: Path, kind: str) -> None:
    content = path.read_bytes()
    changed = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "version": content.replace(b'"version": 1', b'"version": 2'),
        "large": content + b" " * (10 << 20),
        "other claim": content.replace(ONE.uid.encode(), TWO.uid.encode()),
        "levels": b"[" * 100_000,
        "not UTF-8": content.replace(b"claim-1", b"claim-\xff"),
    }[kind]
    assert changed != content
    path.write_bytes(changed)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "expected a record as JSON"),
        ("half", "expected a record as JSON"),
        ("version", "expected the version 1, found 2"),
        ("large", "expected at most 8388608 bytes, found more"),
        ("other claim", f"expected the record of the claim {ONE.uid}, found that of {TWO.uid}"),
        ("levels", "expected a record as JSON"),
        ("not UTF-8", "expected a record as JSON"),
    ],
)
async def test_damaged_record_is_put_aside_and_only_its_claim_is_prepared_again(
    node: ClaimNode, kind: str, reason: str
) -> None:
    """DRA point 14."""
    first = await node.start()
    for number in range(1, 5):
        await first.prepare(node.allocate(refer(number), f"x{number - 1}"))
    write_damaged(node.record(ONE), kind)
    second = await node.start()
    [report] = node.reports
    assert isinstance(report, RecordDamaged)
    assert (report.uid, report.path) == (ONE.uid, str(node.record(ONE, bad=True)))
    assert reason in report.reason
    assert second.damaged == 1
    assert node.record(ONE, bad=True).exists()
    # A container of the claim may be restarted.
    assert node.cdi_file(ONE).exists()
    node.reads.clear()
    for number in range(1, 5):
        await second.prepare(refer(number))
    assert node.reads == [ONE.name]


def break_open(monkeypatch: pytest.MonkeyPatch, broken: Path, code: int) -> None:
    """Raise an error of the system when a file is opened, from now on."""
    open_file = os.open

    def open_or_fail(path: str | Path, *arguments: int) -> int:
        if Path(path) == broken:
            raise OSError(code, os.strerror(code), str(path))
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", open_or_fail)


async def test_record_that_the_system_cannot_read_is_put_aside(
    node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DRA point 14."""
    first = await node.start()
    await first.prepare(node.allocate(ONE, "x0"))
    await first.prepare(node.allocate(TWO, "x1"))
    break_open(monkeypatch, node.record(ONE), errno.EIO)
    second = await node.start()
    assert (second.damaged, second.holdings) == (1, (DeviceHolding(TWO, POOL, "x1"),))
    [report] = node.reports
    assert isinstance(report, RecordDamaged)
    assert (report.path, report.reason) == (
        str(node.record(ONE, bad=True)),
        "the system cannot read it: Input/output error",
    )
    assert node.cdi_file(ONE).exists()


async def test_process_without_descriptors_puts_no_record_aside(
    node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await node.start()
    await first.prepare(node.allocate(ONE, "x0"))
    break_open(monkeypatch, node.record(ONE), errno.EMFILE)
    with pytest.raises(ClaimStorageError, match="Too many open files"):
        await node.start()
    assert node.files == node.paths(ONE)


async def test_cdi_file_that_cannot_be_written_at_the_start_is_written_later(
    node: ClaimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await node.start()
    await first.prepare(node.allocate(ONE, "x0"))
    await first.prepare(node.allocate(TWO, "x1"))
    for claim in (ONE, TWO):
        node.cdi_file(claim).unlink()
    node.cdi_file(ONE).mkdir()
    monkeypatch.setattr(claims_module, "CHECK_SECONDS", 0.02)
    loop, written = asyncio.get_running_loop(), asyncio.Event()

    def notify(step: Step) -> None:
        if step is Step.CDI_RENAMED:
            loop.call_soon_threadsafe(written.set)

    second = await node.start(notify)
    written.clear()
    assert node.cdi_file(TWO).is_file()
    assert len(second.holdings) == 2
    [report] = node.reports
    assert isinstance(report, ClaimCdiUnwritable)
    assert report.error.startswith(f"the CDI file of the claim {ONE} cannot be written: Is a directory")
    running = asyncio.create_task(second.run())
    node.cdi_file(ONE).rmdir()
    async with asyncio.timeout(30):
        await written.wait()
    running.cancel()
    assert node.cdi_file(ONE).is_file()
    assert len(node.reports) == 1


async def test_file_of_another_type_is_put_aside(node: ClaimNode) -> None:
    await node.start()
    node.record(ONE).symlink_to("/etc/passwd")
    claims = await node.start()
    assert claims.damaged == 1
    assert node.record(ONE, bad=True).is_symlink()


async def test_damaged_record_that_cannot_be_moved_concerns_only_its_claim(node: ClaimNode) -> None:
    """DRA point 14."""
    first = await node.start()
    await first.prepare(node.allocate(ONE, "x0"))
    await first.prepare(node.allocate(TWO, "x1"))
    node.record(ONE).write_text("")
    (node.records / "bad").write_text("")
    (node.records / "a.new").mkdir()
    second = await node.start()
    [report] = node.reports
    assert isinstance(report, RecordDamaged)
    assert report.path == str(node.record(ONE))
    assert second.holdings == (DeviceHolding(TWO, POOL, "x1"),)
    assert await second.prepare(ONE) == answer(ONE, "x0")
    assert len((await node.start()).holdings) == 2


async def test_number_of_damaged_records_is_limited(node: ClaimNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.agent.claim_files.MAX_DAMAGED_RECORDS", 2)
    await node.start()
    for number in range(4):
        node.record(refer(number)).write_text("")
        await node.start()
    assert sorted(path.stem for path in (node.records / "bad").iterdir()) == [refer(2).uid, refer(3).uid]


async def conflict(node: ClaimNode) -> Claims:
    """Return claims of which one that the kubelet has forgotten holds the device of another."""
    claims = await node.start()
    await claims.prepare(node.allocate(ONE, "x0"))
    assert node.documents is not None
    del node.documents[ONE.namespace, ONE.name]
    node.allocate(TWO, "x0")
    await refuse(claims, TWO)
    return claims


async def test_device_of_a_forgotten_claim_is_free_after_180_s_and_not_before(node: ClaimNode) -> None:
    """DRA point 14."""
    claims = await conflict(node)
    for node.time in (0.0, 60.0, FORGET_SECONDS - 0.1):
        await claims.check_holders()
        await refuse(claims, TWO)
    node.time = FORGET_SECONDS
    await claims.check_holders()
    assert node.reports == [ClaimForgotten(DRIVER, ONE, ("x0",))]
    assert await claims.prepare(TWO) == answer(TWO, "x0")
    assert node.files == node.paths(TWO)


@pytest.mark.parametrize("sign", ["claim", "container", "no API server", "no kubelet"])
async def test_sign_of_a_forgotten_claim_starts_the_time_again(node: ClaimNode, sign: str) -> None:
    claims = await conflict(node)
    await claims.check_holders()
    node.time = 100.0
    documents = node.documents
    assert documents is not None
    if sign == "claim":
        node.allocate(ONE, "x0")
    elif sign == "container":
        node.uses = frozenset({(ONE.namespace, ONE.name)})
    elif sign == "no API server":
        node.documents = None
    else:
        node.uses = None
    await claims.check_holders()
    documents.pop((ONE.namespace, ONE.name), None)
    node.documents, node.uses = documents, frozenset()
    for node.time in (110.0, 200.0, 110.0 + FORGET_SECONDS - 0.1):
        await refuse(claims, TWO)
        await claims.check_holders()
    assert node.reports == []
    node.time = 110.0 + FORGET_SECONDS
    await claims.check_holders()
    assert node.reports == [ClaimForgotten(DRIVER, ONE, ("x0",))]


async def test_claim_whose_allocation_was_withdrawn_is_forgotten(node: ClaimNode) -> None:
    claims = await conflict(node)
    node.allocate(ONE, "x3")
    await claims.check_holders()
    node.time = FORGET_SECONDS
    await claims.check_holders()
    assert node.reports == [ClaimForgotten(DRIVER, ONE, ("x0",))]


async def test_claim_that_is_prepared_again_during_the_check_is_kept(node: ClaimNode) -> None:
    claims = await conflict(node)
    await claims.check_holders()
    node.time = FORGET_SECONDS
    node.hold.clear()
    count = len(node.reads)
    check = asyncio.create_task(claims.check_holders())
    await node.reading.wait_for(lambda: len(node.reads) > count, 20)
    # The check has begun with the former record, and its answer is that the claim does not exist.
    await claims.unprepare(ONE)
    documents, node.documents = node.documents, {}
    node.hold.set()
    await check
    node.documents = documents
    assert node.reports == []
    assert await claims.prepare(TWO) == answer(TWO, "x0")


async def test_task_checks_the_holder_after_a_conflict(node: ClaimNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten_claims, "FORGET_SECONDS", 0.0)
    claims = await node.start()
    await claims.prepare(node.allocate(ONE, "x0"))
    assert node.documents is not None
    del node.documents[ONE.namespace, ONE.name]
    node.allocate(TWO, "x0")
    task = asyncio.create_task(claims.run())
    try:
        await refuse(claims, TWO)
        await node.reading.wait_for(lambda: node.reads[-1:] == [ONE.name], 20)
        await node.reading.wait_for(lambda: bool(node.reports), 20)
        assert await claims.prepare(TWO) == answer(TWO, "x0")
    finally:
        task.cancel()


async def test_kubelet_is_asked_for_the_use_of_devices_before_a_claim_gets_one(node: ClaimNode) -> None:
    claims = await node.start()
    node.allocate(ONE, "x0")
    node.refreshed_pools = None
    error = await refuse(claims, ONE)
    assert error.code is ClaimErrorCode.DEVICE_IN_USE
    assert "the devices that pods use by the device plugin API are unknown: the kubelet does not respond" in str(error)
    node.refreshed_pools = {POOL: replace(node.pools[POOL], used={"x0": "the pod default/a"})}
    assert "x0 of a.example/x is in use by the pod default/a" in str(await refuse(claims, ONE))
    assert (node.files, claims.holdings) == ([], ())
