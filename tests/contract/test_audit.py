"""The audit log of a real agent, with a kubelet stand-in on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from genplug.agent import Agent, audit_recorder
from genplug.testing.kubelet import AdmissionError
from genplug.testing.node.fake_node import FakeNode
from tests.support.audit import read_documents, read_intervals
from tests.support.outputs import check_output
from tests.support.resources import X_CONFIG, XY_CONFIG, X, Y, plug_devices


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


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@asynccontextmanager
async def run_audited(node: FakeNode, log: Path, config: str | None = None) -> AsyncIterator[Agent]:
    """Run an agent that polls the kubelet ten times in a second."""
    async with node.run_agent(config, audit_dir=log, node_name="node-1", drain_seconds=0.1, poll_seconds=0.1) as agent:
        yield agent


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


async def test_day_with_restarts_answers_both_questions(
    node: FakeNode, log: Path, monkeypatch: pytest.MonkeyPatch
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
        with pytest.raises(AdmissionError):
            await kubelet.admit(X, 2, pod="too-many")
        node.unplug("/dev/x0")
        await wait_for_records(log, has("deviceUnhealthy"))
    intervals = read_intervals(log)
    holders = {
        interval.assignment.container.pod: interval
        for interval in intervals
        if interval.assignment.container is not None
    }
    assert {pod: interval.assignment.ids for pod, interval in holders.items()} == {
        "a": ("x0",),
        "stays": ("y0",),
        "b": ("x0",),
    }
    assert len(intervals) == 3
    assert [pod for pod, interval in holders.items() if interval.ended_by is None] == ["stays"]
    a, b = holders["a"], holders["b"]
    assert a.ended_by is not None
    assert a.ended_by <= (b.began_after or 0)
    assert a.must_overlap(a.began_after, a.began_after)
    assert not b.may_overlap(None, a.ended_by)
