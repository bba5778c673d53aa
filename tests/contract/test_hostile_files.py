"""A file that exceeds a limit is rejected by a running agent, which keeps the last valid configuration."""

import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.large_files import FILES, HEAD
from tests.support.loop import MAX_BLOCKED_SECONDS, measured_loop

X = "example.com/x"
CONFIG = f"{CONFIG_HEADER}resources:\n  {X}:\n    devices: [{{glob: '/dev/x*'}}]\n"
LIMIT_WORDS = ("more than", "at most", "at least")
HOSTILE = {
    "replace": HEAD
    + "resources:\n  a.io/x:\n    devices: [{glob: /dev/x0, with: ['${name"
    + "|replace:x:xxxxxxxxxx" * 9
    + "}']}]\n",
    "period": CONFIG + "    health: {periodSeconds: 1e-310, probes: [{file: {path: /x, equals: 1}}]}\n",
    **{
        name: FILES[name]().fill() for name in ("alternatives", "tokens", "small_resources", "wrong_keys", "attributes")
    },
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_file_over_a_limit_is_rejected_while_the_last_valid_one_is_active(node: FakeNode, name: str) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG) as agent:
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        events = record_events(agent)
        async with measured_loop() as lateness:
            node.write_config(HOSTILE[name])
            rejected = await next_event(events, Event.CONFIG_INVALID)
            # On a busy machine, the check takes longer than the agent waits; its result counts nevertheless.
            while "has not returned" in rejected.text:
                rejected = await next_event(events, Event.CONFIG_INVALID)
            node.plug("/dev/x1")
            await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        assert any(words in rejected.text for words in LIMIT_WORDS)
        assert lateness.blocked < MAX_BLOCKED_SECONDS
        assert any(words in agent.status.config.error for words in LIMIT_WORDS)
        node.write_config(CONFIG.replace("/dev/x*", "/dev/x1"))
        await node.kubelet.wait_for_list(X, healthy={"x1"})
