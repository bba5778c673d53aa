"""Wake-up calls: a task sleeps until a time, or until it is woken."""

import asyncio
import time

from genplug.agent.wakeup import Wakeup


async def test_sleep_ends_at_its_time() -> None:
    began = time.monotonic()
    await Wakeup().sleep_until(began + 0.05)
    assert time.monotonic() - began >= 0.05


async def test_sleep_until_a_time_in_the_past_returns_at_once() -> None:
    async with asyncio.timeout(10):
        await Wakeup().sleep_until(0.0)


async def test_sleep_without_an_end_is_woken() -> None:
    wakeup = Wakeup()
    asyncio.get_running_loop().call_soon(wakeup.set)
    async with asyncio.timeout(10):
        await wakeup.sleep_until(float("inf"))


async def test_call_before_the_sleep_counts_once() -> None:
    wakeup = Wakeup()
    wakeup.set()
    async with asyncio.timeout(10):
        await wakeup.sleep_until(float("inf"))
    began = time.monotonic()
    await wakeup.sleep_until(began + 0.05)
    assert time.monotonic() - began >= 0.05
