"""The audit log of a real agent, with a kubelet stand-in on real sockets."""
# ruff: noqa: ASYNC240 - operations on files of the test do not wait

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from genplug.agent import Agent, audit_recorder, delayed_work
from genplug.audit import writer
from genplug.audit.limits import Limits
from genplug.cli.main import main
from genplug.kubelet.pod_resources import list_uses
from genplug.kubelet.reports import PodUses
from genplug.observe.events import Event, LogEvent
from genplug.testing.kubelet.checkpoint import FILE_NAME
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import start_agent
from tests.support.audit import read_documents
from tests.support.mounts import mount_hanging_files, mount_tmpfs
from tests.support.outputs import check_output
from tests.support.resources import X_CONFIG, XY_CONFIG, X, Y, build_config, build_x_config, plug_devices


def list_types(directory: Path) -> list[str]:
    return [document["type"] for document in read_documents(directory)]


async def wait_for_records(
    directory: Path, is_complete: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """Return the records of a log as soon as they meet a condition."""
    async with asyncio.timeout(10):
        while not is_complete(documents := read_documents(directory)):  # noqa: ASYNC110 - a thread writes the file
            await asyncio.sleep(0.02)
    return documents


def has(type_: str, count: int = 1) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda documents: sum(document["type"] == type_ for document in documents) >= count


def names(pod: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda documents: pod in json.dumps(documents)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@asynccontextmanager
async def run_audited(node: FakeNode, log: Path, config: str | None = None, **settings: Any) -> AsyncIterator[Agent]:
    """Run an agent that polls the kubelet ten times in a second."""
    fields = {"audit_dir": log, "node_name": "node-1", "drain_seconds": 0.1, "poll_seconds": 0.1} | settings
    async with node.run_agent(config, **fields) as agent:
        yield agent


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(log: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs ``genplug audit`` and returns the assignments that it prints."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        assert main(["audit", str(log), *arguments, "-o", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        check_output(document)
        return list(document["assignments"])

    return run


async def test_allocation_is_recorded_with_its_pod_hardware_and_configuration(node: FakeNode, log: Path) -> None:
    plug_devices(node, "x0")
    async with run_audited(node, log, X_CONFIG) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await wait_for_records(log, has("devicesAdded"))
        await node.kubelet.admit(X, 1, pod="web-0")
        documents = await wait_for_records(log, has("assigned"))
        assert agent.snapshot is not None
        sha256 = agent.snapshot.config.sha256
        await node.kubelet.remove_pod("web-0")
        documents = await wait_for_records(log, has("released"))
    for document in documents:
        check_output(document)
    by_type = {document["type"]: document for document in documents}
    assert by_type["configLoaded"]["added"] == [X]
    assert by_type["configLoaded"]["configSha256"] == sha256
    allocated, assigned, released = (by_type[name]["assignment"] for name in ("allocated", "assigned", "released"))
    assert allocated["ids"] == ["x0"]
    assert allocated["pod"] is None
    assert allocated["configSha256"] == sha256
    assert allocated["hardware"][0]["paths"] == ["/dev/x0"]
    assert allocated["hardware"][0]["numbers"] == ["char 240:0"]
    assert (assigned["namespace"], assigned["pod"], assigned["container"]) == ("default", "web-0", "main")
    assert {allocated["key"]} == {assigned["key"], released["key"]}
    assert by_type["released"]["reason"] == "podEnded"
    assert released["lastSeenAt"] <= by_type["released"]["endedBy"]
    assert [document["sequence"] for document in read_documents(log)] == list(range(1, len(list_types(log)) + 1))
    assert list_types(log)[0] == "started"
    assert list_types(log)[-1] == "stopped"


async def test_allocation_immediately_before_the_end_is_recorded_and_logged(
    node: FakeNode, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_work, "DELAY_SECONDS", 60.0)
    plug_devices(node, "x0")
    entries: list[LogEvent] = []
    async with run_audited(node, log, X_CONFIG, poll_seconds=60.0, drain_seconds=60.0) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await wait_for_records(log, has("devicesAdded"))
        agent.event_log.listen(entries.append)
        await node.kubelet.plugin(X).allocate([["x0"]])
        assert not has("allocated")(read_documents(log))
    assert "allocated" in list_types(log)
    assert Event.ALLOCATED in [entry.event for entry in entries]


async def test_day_with_restarts_answers_both_questions(
    node: FakeNode, log: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_recorder, "RESTART_GRACE_POLLS", 2)
    plug_devices(node, "x0", "y0")
    kubelet = node.kubelet
    async with run_audited(node, log, XY_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await kubelet.admit(X, 1, pod="a")
        await kubelet.admit(Y, 1, pod="stays")
        await wait_for_records(log, has("assigned", 2))
        # The restart of the kubelet keeps both pods.
        await kubelet.restart()
        await kubelet.wait_for_list(X, healthy={"x0"})
        await kubelet.wait_for_list(Y, healthy={"y0"})
        await wait_for_records(log, has("kubeletRestarted"))
        await kubelet.remove_pod("a")
        await wait_for_records(log, has("released"))
        await kubelet.admit(X, 1, pod="b")
        await wait_for_records(log, has("assigned", 3))
    # The pod ends while the agent does not run.
    await kubelet.remove_pod("b")
    async with run_audited(node, log):
        await kubelet.wait_for_list(X, healthy={"x0"})
        documents = await wait_for_records(log, has("released", 2))
        assert documents[-1]["reason"] == "agentNotRunning"
    # Which pods had the device?
    a, b = ask("--device", "x0")
    assert [(use["pod"], use["endReason"]) for use in (a, b)] == [("a", "podEnded"), ("b", "agentNotRunning")]
    assert a["allocatedAt"] <= a["lastSeenAt"] <= a["endedBy"] <= b["allocatedAt"]
    assert [use["pod"] for use in ask("--device", "x0", "--from", a["allocatedAt"], "--to", a["lastSeenAt"])] == ["a"]
    assert [use["pod"] for use in ask("--device", "x0", "--from", b["allocatedAt"])] == ["b"]
    # Which devices had the pod?
    [stays] = ask("--pod", "default/stays")
    assert (stays["ids"], stays["state"]) == (["y0"], "open")
    assert [hardware["paths"] for hardware in stays["hardware"]] == [["/dev/y0"]]
    assert [use["ids"] for use in ask("--pod", "default/a")] == [["x0"]]
    assert has("kubeletRestarted")(read_documents(log))


async def test_refused_configuration_and_edit_are_recorded_with_their_difference(node: FakeNode, log: Path) -> None:
    plug_devices(node, "x0", "y0")
    async with run_audited(node, log, X_CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.write_config("resources: [")
        [refused] = [d for d in await wait_for_records(log, has("configRefused")) if d["type"] == "configRefused"]
        node.write_config(build_config([X, Y]))
        await wait_for_records(log, has("configLoaded", 2))
        node.write_config(build_x_config("replicas: 2"))
        documents = await wait_for_records(log, has("configLoaded", 3))
    assert "genplug.yaml" in refused["errors"][0]
    assert refused["summary"].startswith("the configuration was rejected")
    first, second, third = (document for document in documents if document["type"] == "configLoaded")
    assert (first["added"], second["added"], second["changed"]) == ([X], [Y], {})
    assert (third["removed"], third["changed"]) == ([Y], {X: ["replicas"]})
    assert first["configSha256"] != second["configSha256"]
    assert first["policySha256"] == third["policySha256"]


async def test_refused_allocation_and_lost_device_are_recorded(node: FakeNode, log: Path) -> None:
    plug_devices(node, "x0")
    async with run_audited(node, log, X_CONFIG) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await wait_for_records(log, has("devicesAdded"))
        with pytest.raises(grpc.aio.AioRpcError):
            await node.kubelet.plugin(X).allocate([["missing"]])
        node.unplug("/dev/x0")
        documents = await wait_for_records(log, has("deviceUnhealthy"))
        assert agent.status.audit is not None
        assert agent.status.audit.lost == 0
    [refused] = [document for document in documents if document["type"] == "refused"]
    assert refused["ids"] == ["missing"]
    assert "missing" in refused["reason"]
    # A scan during the removal records its own reason before the next scan finds that the device is gone.
    unhealthy = next(document for document in documents if document["type"] == "deviceUnhealthy")
    assert (unhealthy["device"], unhealthy["probe"]) == ("x0", "presence")
    assert unhealthy["reason"].startswith("/dev/x0 is ")


async def test_crash_in_the_middle_of_a_record_loses_only_that_record(node: FakeNode, log: Path, ask: Ask) -> None:
    plug_devices(node, "x0", "y0")
    node.write_config(XY_CONFIG)
    await node.kubelet.start()
    async with start_agent(node, "--audit-dir", str(log)) as process:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        await node.kubelet.admit(X, 1, pod="a")
        await wait_for_records(log, has("assigned", 1))
        await node.kubelet.admit(Y, 1, pod="b")
        await wait_for_records(log, has("assigned", 2))
        process.kill()
        await process.wait()
    [file] = log.iterdir()
    # A busy machine may write further records before the process is killed: the record of pod b is the last here.
    content = file.read_bytes()
    os.truncate(file, content.index(b"\n", content.rindex(b'"assigned"')) - 8)
    await node.kubelet.remove_pod("a")
    async with run_audited(node, log):
        await wait_for_records(log, has("released", 2))
    sequences = [document["sequence"] for document in read_documents(log)]
    assert sequences == list(range(1, len(sequences) + 1))
    [a], [b] = ask("--pod", "default/a"), ask("--device", "y0", "--from", "2100-01-01")
    assert a["endReason"] == "agentNotRunning"
    assert (b["pod"], b["state"]) == ("b", "open")
    # The record that connected the allocation to its pod is torn.
    [allocated, _] = ask("--device", "y0")
    assert (allocated["pod"], allocated["endReason"]) == (None, "notIdentified")


async def test_new_file_begins_with_the_pods_that_use_devices(node: FakeNode, log: Path, ask: Ask) -> None:
    plug_devices(node, "x0", "y0")
    async with run_audited(node, log, XY_CONFIG, audit_limits=Limits(max_bytes=4000, keep=2)):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        await node.kubelet.admit(X, 1, pod="long")
        await wait_for_records(log, has("assigned"))
        for number in range(4):
            await node.kubelet.admit(Y, 1, pod=f"short-{number}")
            await wait_for_records(log, names(f"short-{number}"))
            await node.kubelet.remove_pod(f"short-{number}")
    files = sorted(path.name for path in log.iterdir())
    assert len(files) == 2
    assert files[0] > "audit-0000000000000001.jsonl"
    [use] = ask("--pod", "default/long")
    assert (use["ids"], use["state"]) == (["x0"], "open")
    assert use["allocatedAt"] < read_documents(log)[0]["time"]


async def test_lost_records_are_counted_and_the_pods_are_repeated_after_the_gap(
    node: FakeNode, log: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_AUDIT_QUEUE_BYTES", 2000)
    plug_devices(node, "x0", "y0")
    log.mkdir()
    log.chmod(0o777)
    async with run_audited(node, log, XY_CONFIG, audit_required=True) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.wait_for_list(Y, healthy={"y0"})
        await node.kubelet.admit(X, 1, pod="a")
        await next_event(entries, Event.AUDIT_UNWRITABLE, "chmod go-w")
        status = agent.status
        assert status.audit is not None
        assert status.audit.lost > 0
        assert [reason for reason in status.unready if reason.startswith("audit log: ")]
        assert "the audit log cannot be written" in status.public_unready
        log.chmod(0o700)
        await next_event(entries, Event.AUDIT_RECOVERED, "records were lost")
        assert agent.status.is_ready
        documents = await wait_for_records(log, has("assigned"))
    [gap] = [document for document in documents if document["type"] == "gap"]
    assert gap["lost"] > 0
    # The allocation is among the lost records.
    [repeated] = [document for document in documents if document.get("isContinued")]
    assert repeated["assignment"]["ids"] == ["x0"]
    assert repeated["sequence"] == gap["sequence"] + 1
    for document in documents:
        check_output(document)
    assert [use["pod"] for use in ask("--device", "x0")] == ["a"]


async def test_kubelet_that_does_not_know_its_pods_yet_ends_no_assignment(
    node: FakeNode, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_recorder, "RESTART_GRACE_POLLS", 1000)
    reports: asyncio.Queue[int] = asyncio.Queue()

    async def count_reports(socket: Path, deadline: float) -> PodUses:
        uses = await list_uses(socket, deadline)
        reports.put_nowait(len(uses.devices))
        return uses

    monkeypatch.setattr(audit_recorder, "list_uses", count_reports)
    plug_devices(node, "x0")
    async with run_audited(node, log, X_CONFIG):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.admit(X, 1, pod="a")
        await wait_for_records(log, has("assigned"))
        await node.kubelet.stop()
        (node.kubelet.plugins_dir / FILE_NAME).unlink()
        while not reports.empty():
            reports.get_nowait()
        await node.kubelet.start()
        async with asyncio.timeout(10):
            for _ in range(4):
                assert await reports.get() == 0
    assert not has("released")(read_documents(log))


@pytest.mark.root
async def test_full_disk_delays_no_allocation_and_no_readiness(node: FakeNode, log: Path) -> None:
    plug_devices(node, "x0", "y0")
    log.mkdir(mode=0o700)
    with mount_tmpfs(log, "size=64k,mode=0700"):
        async with run_audited(node, log, XY_CONFIG) as agent:
            entries = record_events(agent)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            await node.kubelet.wait_for_list(Y, healthy={"y0"})
            filler = log / "filler"
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(1 << 20))
            await node.kubelet.admit(X, 1, pod="a")
            for number in range(20):
                await node.kubelet.admit(Y, 1, pod=f"b-{number}")
                await node.kubelet.remove_pod(f"b-{number}")
            await next_event(entries, Event.AUDIT_UNWRITABLE, "No space left on device")
            assert agent.status.is_ready
            filler.unlink()
            await next_event(entries, Event.AUDIT_RECOVERED, "0 records were lost")
            documents = await wait_for_records(log, has("allocated", 21))
        sequences = [document["sequence"] for document in documents]
        assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.fuse
async def test_hanging_disk_delays_no_allocation_and_no_end_of_the_agent(
    node: FakeNode, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HANG_SECONDS", 0.2)
    plug_devices(node, "x0")
    with mount_hanging_files(log, "file") as files:
        files.hang_lookups()
        async with run_audited(node, log / "audit", X_CONFIG) as agent:
            entries = record_events(agent)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            await node.kubelet.admit(X, 1, pod="a")
            await next_event(entries, Event.AUDIT_UNWRITABLE, "has not returned within")
            assert agent.status.is_ready


async def test_agent_without_the_option_writes_and_polls_nothing(node: FakeNode, log: Path) -> None:
    plug_devices(node, "x0")
    async with node.run_agent(X_CONFIG, drain_seconds=0.05) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        await node.kubelet.admit(X, 1, pod="a")
        assert agent.status.audit is None
    assert not log.exists()
