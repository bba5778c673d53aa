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
    samples: dict[str, list[float]] = {}
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        await asyncio.sleep(runs.settle)
        main = process.proc / "task" / str(process.pid)
        for _ in range(runs.idles):
            before = process.cpu_seconds(), {thread: process.wakeups([thread]) for thread in process.threads()}
            await asyncio.sleep(runs.idle)
            # Threads that end meanwhile take their counts with them.
            gained = {
                thread: process.wakeups([thread]) - count for thread, count in before[1].items() if thread.exists()
            }
            on_main = gained.pop(main)
            for name, value in (
                ("idle CPU", 100 * (process.cpu_seconds() - before[0])),
                ("idle wake-ups of the main thread", on_main),
                ("idle wake-ups of other threads", sum(gained.values())),
            ):
                samples.setdefault(name, []).append(value / runs.idle)
    return samples


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _scrape(port: int | None) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        answer.read()
