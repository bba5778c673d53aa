"""Lines of allocations: their order, and when they are logged."""

import asyncio

from genplug.agent.allocation_log import MAX_WAITING, AllocationLog
from genplug.kubelet.reports import CallAnswered
from genplug.observe.events import EventLog, LogEvent

X = "a.io/x"


class Log:
    """The log of allocations, and the devices of the lines that it has logged."""

    def __init__(self) -> None:
        event_log = EventLog()
        event_log.listen(self._on_event)
        self.lines: list[object] = []
        self.allocations = AllocationLog(event_log)
        self.arrived = asyncio.Event()

    def add(self, *devices: str) -> None:
        for device in devices:
            self.allocations.add(CallAnswered(X, "Allocate", (device,), 0.001))

    def _on_event(self, entry: LogEvent) -> None:
        self.lines.append(entry.facts["devices"])
        self.arrived.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.lines) < count:
                self.arrived.clear()
                await self.arrived.wait()


async def test_allocations_are_logged_later_in_their_order() -> None:
    log = Log()
    names = [f"x{number}" for number in range(40)]
    log.add(*names)
    assert log.lines == []
    await log.wait_for(40)
    assert log.lines == [(name,) for name in names]
    log.add("x40")
    await log.wait_for(41)


async def test_turn_of_the_event_loop_logs_a_limited_number_of_lines() -> None:
    log = Log()
    log.add(*(f"x{number}" for number in range(40)))
    counts = set()
    async with asyncio.timeout(10):
        while len(log.lines) < 40:
            await asyncio.sleep(0)
            counts.add(len(log.lines))
    assert counts == {0, 16, 32, 40}


async def test_flush_logs_all_allocations_at_once() -> None:
    log = Log()
    log.add("x0", "x1")
    log.allocations.flush()
    assert log.lines == [("x0",), ("x1",)]
    log.add("x2")
    await log.wait_for(3)


async def test_number_of_waiting_allocations_is_limited() -> None:
    log = Log()
    log.add(*["x"] * MAX_WAITING)
    assert log.lines == []
    log.add("x")
    assert len(log.lines) == MAX_WAITING + 1
