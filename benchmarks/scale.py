"""Measures sizes beyond real nodes: many devices, many resources, many kubelet restarts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import quantiles

from benchmarks.agent import Agent, Node, agent, node
from benchmarks.figures import Samples
from benchmarks.latency import allocate_some, appear_and_vanish
from benchmarks.runs import Runs

_MS = 1000
_AFTERMATH = 5.0
"""Seconds after which all effects of a restart have ended; a server has half a second to drain."""


@asynccontextmanager
async def _start_repeatedly(measured: Node, starts: int) -> AsyncIterator[tuple[Agent, list[float]]]:
    """Start agents one after the other; yield the last of them with the times from each start to the lists (ms)."""
    times: list[float] = []
    for _ in range(starts - 1):
        async with agent(measured) as process:
            times.append(_MS * await measured.listed(process.started))
        # The kubelet keeps the lists of an agent until it starts again.
        await measured.fake.kubelet.restart()
    async with agent(measured) as process:
        times.append(_MS * await measured.listed(process.started))
        yield process, times


async def devices(runs: Runs) -> Samples:
    """10 000 devices in one resource."""
    async with node(1, 10_000) as big, _start_repeatedly(big, runs.large_starts) as (process, starts):
        await asyncio.sleep(runs.settle)
        held = process.footprint()
        size = len(big.fake.kubelet.messages(big.resources[0])[-1].raw)
        changes = await appear_and_vanish(big, process, runs.large_changes)
        samples = await allocate_some(big, "10000 devices: Allocate 1", runs.calls)
    async with node(1, 1000) as small, agent(small) as process:
        await small.listed(process.started)
        await asyncio.sleep(runs.settle)
        gained = held["anonymous memory"] - process.footprint()["anonymous memory"]
    return {
        "10000 devices: start to list": starts,
        "10000 devices: list": [size],
        **samples,
        "10000 devices: node appears to list": changes.appears,
        "10000 devices: node vanishes to list": changes.vanishes,
        "10000 devices: processor time of a change": changes.cpu,
        **{f"10000 devices: {name}": [value] for name, value in held.items()},
        "10000 devices: anonymous memory per device": [1024 * gained / 9000],
    }


async def resources(runs: Runs) -> Samples:
    """300 resources of ten devices each in one process."""
    async with node(300, 10) as wide, _start_repeatedly(wide, runs.large_starts) as (process, starts):
        await asyncio.sleep(_AFTERMATH)
        held = process.footprint()
        changes = await appear_and_vanish(wide, process, runs.large_changes)
    return {
        "300 resources: start to list": starts,
        "300 resources: node appears to list": changes.appears,
        "300 resources: node vanishes to list": changes.vanishes,
        "300 resources: processor time of a change": changes.cpu,
        **{f"300 resources: {name}": [value] for name, value in held.items()},
    }


async def restarts(runs: Runs) -> Samples:
    """Kubelet restarts, each as soon as all resources are listed: what the agent keeps of them."""
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        # The first restart imports modules and opens files that are kept; these are not a leak.
        await busy.fake.kubelet.restart()
        await busy.listed(0)
        await asyncio.sleep(_AFTERMATH)
        before = process.footprint()
        taken = []
        for _ in range(runs.crashes):
            started = time.monotonic()
            await busy.fake.kubelet.restart()
            taken.append(_MS * await busy.listed(started))
        await asyncio.sleep(_AFTERMATH)
        after = process.footprint()
    cuts = quantiles(taken, n=100)
    return {
        "1000 kubelet restarts: restart to list, p50": [cuts[49]],
        "1000 kubelet restarts: restart to list, p99": [cuts[98]],
        "1000 kubelet restarts: restart to list, worst": [max(taken)],
        **{f"1000 kubelet restarts: {name} gained": [value - before[name]] for name, value in after.items()},
    }
