"""Waiting for events in the log of an agent."""

import asyncio

import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode

CONFIG = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  example.com/x:
    devices:
      - glob: /dev/x*
"""


async def test_timeout_of_next_event_states_the_expected_event() -> None:
    with pytest.raises(TimeoutError, match=r"^after 0\.05 s: expected an event stopping, found: none$"):
        await next_event(asyncio.Queue(), Event.STOPPING, timeout=0.05)


async def test_timeout_of_next_event_states_the_events_that_were_logged_instead(node: FakeNode) -> None:
    async with node.run_agent(CONFIG) as agent:
        entries, others = record_events(agent), record_events(agent)
        await next_event(others, Event.LIST_SENT)
        with pytest.raises(TimeoutError) as missed:
            await next_event(entries, Event.LIST_SENT, "2 devices", timeout=0.05)
        assert "expected an event list_sent with '2 devices' in its text, found:\n" in str(missed.value)
        assert "\n  list_sent: example.com/x: " in str(missed.value)
