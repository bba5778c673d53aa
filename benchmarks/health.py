"""The cost of probes of healthy devices, and the effect of a hung device on other devices."""

import asyncio
import os
import time

from benchmarks.agent import Agent, Node, agent, node
from benchmarks.figures import Samples
from benchmarks.latency import allocate_some
from benchmarks.runs import Runs

_MS = 1000
_PERIODS = 200
_PERIOD = 0.1


async def probes(runs: Runs) -> Samples:
    """1 000 devices with three file probes each, all of different files, at the default period of 10 s."""
    async with node(1, 1000) as busy:
        for number in range(busy.each):
            for name in ("state", "errors", "temp"):
                busy.fake.write(f"/sys/{_name(busy, number)}/{name}", "0")
        _configure(busy, period=10)
        starts = []
        for _ in range(runs.large_starts - 1):
            async with agent(busy) as process:
                starts.append(_MS * await busy.listed(process.started))
            await busy.fake.kubelet.restart()
        async with agent(busy) as process:
            starts.append(_MS * await busy.listed(process.started))
            await asyncio.sleep(runs.settle)
            before = _cpu(process)
            await asyncio.sleep(runs.idle)
            after = _cpu(process)
            workers = [worker.footprint() for worker in list_workers(process)]
    agent_cpu, workers_cpu = (100 * (late - early) / runs.idle for early, late in zip(before, after, strict=True))
    return {
        "1000 devices, 3 probes each: start to list": starts,
        "1000 devices, 3 probes each: CPU of the agent": [agent_cpu],
        "1000 devices, 3 probes each: CPU of the workers": [workers_cpu],
        "1000 devices, 3 probes each: CPU of both": [agent_cpu + workers_cpu],
        "a worker: RSS": [max(worker["RSS"] for worker in workers)],
        "a worker: anonymous memory": [max(worker["anonymous memory"] for worker in workers)],
    }


async def hanging(runs: Runs) -> Samples:
    """8 devices, one of which hangs in all three probes: Allocate of the others, memory, and time to stop."""
    async with node(1, 8) as busy:
        for number in range(busy.each):
            directory = busy.fake.locate(f"/sys/{_name(busy, number)}")
            directory.mkdir(parents=True)
            for name in ("state", "errors", "temp"):
                if number:
                    (directory / name).write_text("0")
                else:
                    os.mkfifo(directory / name)
        _configure(busy, period=10)
        async with agent(busy) as process:
            await busy.listed(process.started)
            await asyncio.sleep(runs.settle)
            samples = dict(await allocate_some(busy, "8 devices, 1 hangs: Allocate", runs.calls))
        await busy.fake.kubelet.restart()
        _configure(busy, period=_PERIOD)
        async with agent(busy) as process:
            await busy.listed(process.started)
            await asyncio.sleep(runs.settle)
            early = _held(process)
            await asyncio.sleep(_PERIODS * _PERIOD)
            gained = _held(process) - early
            stops = time.monotonic()
        samples["8 devices, 1 hangs: anonymous memory gained in 200 periods"] = [gained]
        samples["8 devices, 1 hangs: SIGTERM to the end"] = [_MS * (time.monotonic() - stops)]
    return samples


def _name(busy: Node, number: int) -> str:
    return busy.device(0, number).rpartition("/")[2]


def _configure(busy: Node, period: float) -> None:
    probes = (
        "{file: {path: '/sys/${name}/state', equals: 0}}",
        "{file: {path: '/sys/${name}/errors', maxIncrease: 0, perSeconds: 3600}}",
        "{file: {path: '/sys/${name}/temp', max: 95000}}",
    )
    busy.fake.write_config(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
        f"  {busy.resources[0]}:\n    devices: [{{glob: '/dev/acc0-*'}}]\n"
        f"    health: {{periodSeconds: {period}, timeoutSeconds: 0.5, probes: [{', '.join(probes)}]}}\n",
        how="configmap",
    )


def list_workers(process: Agent) -> list[Agent]:
    """Return the workers of an agent, which any of its threads can have started."""
    children = [child for thread in process.threads() for child in (thread / "children").read_text().split()]
    return [Agent(int(child), process.started) for child in children]


def _cpu(process: Agent) -> tuple[float, float]:
    return process.cpu_seconds(), sum(worker.cpu_seconds() for worker in list_workers(process))


def _held(process: Agent) -> float:
    return sum(part.footprint()["anonymous memory"] for part in (process, *list_workers(process)))
