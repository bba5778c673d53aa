"""Measures sizes beyond real nodes: many devices, many resources, many kubelet restarts."""

import asyncio
import time

from benchmarks.agent import agent, node
from benchmarks.figures import Samples
from benchmarks.latency import allocate_some, appear_and_vanish
from benchmarks.runs import Runs

_MS = 1000
_PAUSE = 0.2
_AFTERMATH = 5.0
"""Seconds after which all effects of a restart have ended; a server has half a second to drain."""


async def devices(runs: Runs) -> Samples:
    """10 000 devices in one resource."""
    async with node(1, 10_000) as big, agent(big) as process:
        taken = await big.listed(process.started)
        size = len(big.fake.kubelet.messages(big.resources[0])[-1].raw)
        samples = await allocate_some(big, "10000 devices: Allocate 1", runs.calls)
        appears, _ = await appear_and_vanish(big, max(runs.changes // 4, 1))
        held = process.footprint()
    return {
        "10000 devices: start to list": [_MS * taken],
        "10000 devices: list": [size],
        **samples,
        "10000 devices: node appears to list": appears,
        **{f"10000 devices: {name}": [value] for name, value in held.items()},
    }


async def resources(_runs: Runs) -> Samples:
    """300 resources of ten devices each in one process."""
    async with node(300, 10) as wide, agent(wide) as process:
        taken = await wide.listed(process.started)
        await asyncio.sleep(_AFTERMATH)
        held = process.footprint()
    return {
        "300 resources: start to list": [_MS * taken],
        **{f"300 resources: {name}": [value] for name, value in held.items()},
    }


async def restarts(runs: Runs) -> Samples:
    """Kubelet restarts that follow each other faster than an endpoint registers."""
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        # The first restart imports modules and opens files that are kept; these are not a leak.
        await busy.fake.kubelet.restart()
        await busy.listed(0)
        await asyncio.sleep(_AFTERMATH)
        before = process.footprint()
        for _ in range(runs.crashes):
            await busy.fake.kubelet.restart()
            started = time.monotonic()
            await asyncio.sleep(_PAUSE)
        taken = await busy.listed(started)
        await asyncio.sleep(_AFTERMATH)
        after = process.footprint()
    return {
        "50 kubelet restarts: last one to list": [_MS * taken],
        **{f"50 kubelet restarts: {name} gained": [value - before[name]] for name, value in after.items()},
    }
