"""The memory and processor time of an idle agent."""

import asyncio
import socket
import urllib.request

from benchmarks.agent import agent, node
from benchmarks.figures import Samples
from benchmarks.runs import Runs

_SCRAPES = 3


async def memory(runs: Runs) -> Samples:
    """10 resources, 1 000 devices; with the HTTP endpoints, after some scrapes."""
    samples: dict[str, list[float]] = {}
    async with node() as busy:
        for port in (None, free_port()) * runs.footprints:
            async with agent(busy, *(("--listen", f"127.0.0.1:{port}") if port else ())) as process:
                await busy.listed(process.started)
                for _ in range(_SCRAPES if port else 0):
                    await asyncio.to_thread(_scrape, port)
                await asyncio.sleep(runs.settle)
                held = process.footprint()
            for name, value in held.items():
                samples.setdefault(f"{name} with --listen" if port else name, []).append(value)
            await busy.fake.kubelet.restart()
    return samples


async def idle(runs: Runs) -> Samples:
    """Processor time and wake-ups of an idle agent with default settings."""
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        await asyncio.sleep(runs.settle)
        main = (process.proc / "task" / str(process.pid),)
        counts = {thread: process.wakeups([thread]) for thread in process.threads()}
        before = process.cpu_seconds(), process.wakeups(main)
        await asyncio.sleep(runs.idle)
        after = process.cpu_seconds(), process.wakeups(main)
        # Threads that end meanwhile take their counts with them.
        living = [thread for thread in counts if thread.exists()]
        all_wakeups = (process.wakeups(living) - sum(counts[thread] for thread in living)) / runs.idle
    cpu, main_wakeups = ((late - early) / runs.idle for early, late in zip(before, after, strict=True))
    return {
        "idle CPU": [100 * cpu],
        "idle wake-ups of the main thread": [main_wakeups],
        "idle wake-ups of all threads": [all_wakeups],
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _scrape(port: int | None) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        answer.read()
