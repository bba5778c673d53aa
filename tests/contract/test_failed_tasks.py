"""A task of the agent that fails is reported, makes the agent not ready, and works again after its restart."""

import asyncio

import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.http import get

X = "example.com/x"
CONFIG = (
    f"{CONFIG_HEADER}resources:\n  {X}:\n    devices: [{{glob: '/dev/x*'}}]\n"
    "    health: {periodSeconds: 0.1, failureThreshold: 1, successThreshold: 1, "
    "probes: [{file: {path: '/sys/${name}', equals: ok}}]}\n"
)
TASKS = {
    "configuration reloader": "configuration reloader",
    "device scanner": "device scanner",
    "device watches": "device watches",
    "reconciler": "reconciler",
    "probe monitor": "probes",
}
"""The asyncio task that runs each supervised task."""


def fail_task(name: str) -> None:
    """Raise an error in a task at the place where it waits."""
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == name]
    task._fut_waiter.set_exception(ValueError("a bug"))  # type: ignore[attr-defined] # noqa: SLF001


@pytest.mark.parametrize("name", TASKS)
async def test_failed_task_is_reported_and_works_again(
    node: FakeNode, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genplug.agent.supervision.STEADY_SECONDS", 0.5)
    node.plug("/dev/x0")
    node.write("/sys/x0", "ok")
    node.write("/sys/x1", "ok")
    async with node.run_agent(CONFIG, listen=("127.0.0.1", 0)) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        events = record_events(agent)
        fail_task(TASKS[name])
        logged = await next_event(events, Event.INTERNAL_ERROR)
        failure = f"the {name} failed and is started again"
        assert failure in logged.text
        code, text = await get(agent, "/readyz?verbose")
        assert code == 503
        assert failure in text
        await next_event(events, Event.SYSTEM_RECOVERED, name)
        # It does its work: a new device, a probe result, and a new configuration reach the kubelet.
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        node.write("/sys/x0", "bad")
        await node.kubelet.wait_for_list(X, healthy={"x1"}, unhealthy={"x0"})
        node.write_config(CONFIG.replace("equals: ok", "equals: bad"))
        await node.kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        assert (await get(agent, "/readyz"))[0] == 200
