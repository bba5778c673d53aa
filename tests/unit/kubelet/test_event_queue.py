"""The queue of the events of an endpoint."""

import time

from genplug.kubelet.endpoint_events import OptionsChanged, StreamClosed, StreamOpened, TimePassed
from genplug.kubelet.event_queue import EventQueue


async def test_queue_returns_events_in_order_until_it_is_closed() -> None:
    events = EventQueue()
    events.put(StreamOpened(), 1)
    events.put(OptionsChanged())
    events.close()
    assert [await events.get(1, None) for _ in range(3)] == [StreamOpened(), OptionsChanged(), None]


async def test_queue_drops_events_of_other_generations() -> None:
    events = EventQueue()
    events.put(StreamOpened(), 1)
    events.put(StreamClosed(), 1)
    events.put(OptionsChanged())
    assert await events.get(2, None) == OptionsChanged()


async def test_queue_returns_time_passed_when_no_event_happens_by_the_due_time() -> None:
    events = EventQueue()
    events.put(StreamOpened(), 1)
    due = time.monotonic() + 0.05
    assert await events.get(2, due) == TimePassed()
    assert time.monotonic() >= due


async def test_queue_prefers_an_event_to_a_due_time_that_has_passed() -> None:
    events = EventQueue()
    events.put(StreamOpened(), 1)
    assert await events.get(1, time.monotonic() - 1) == StreamOpened()
