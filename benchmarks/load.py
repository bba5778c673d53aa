"""Measures Allocate while the agent scans, probes or reloads. ``-m benchmarks.load`` is the client, in its own process.

In the process of the benchmark, the work of the kubelet stand-in would delay the client.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable

from benchmarks.agent import SETTLED, Node, agent, node
from benchmarks.figures import Samples
from benchmarks.latency import add_percentiles, draw_requests, time_calls
from benchmarks.runs import Runs

_PROBED = 1000
_INTERVAL_SECONDS = 0.5
"""The time between two signals or reloads."""


async def scanning(runs: Runs) -> Samples:
    """Allocate of one of 10 000 devices while all of them are scanned twice a second, and 1 000 others are probed."""
    async with node(1, 10_000) as busy:
        for number in range(_PROBED):
            busy.fake.plug(f"/dev/probed{number}")
            busy.fake.write(f"/sys/probed{number}/state", "0")
        busy.fake.write_config(
            "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
            f"  {busy.resources[0]}:\n    devices: [{{glob: '/dev/acc0-*'}}]\n"
            "  example.com/probed:\n    devices: [{glob: '/dev/probed*'}]\n"
            "    health: {probes: [{file: {path: '/sys/${name}/state', equals: 0}}]}\n",
            how="configmap",
        )
        async with agent(busy) as process:
            await busy.listed(process.started)
            await busy.fake.kubelet.wait_for(
                lambda: len(busy.fake.kubelet.devices("example.com/probed")) == _PROBED, 60
            )
            await asyncio.sleep(SETTLED)
            disturb = lambda: os.kill(process.pid, signal.SIGHUP)  # noqa: E731 - short
            return await _measure_during(disturb, busy, "Allocate during scans of 10000 devices and 1000 probes", runs)


async def reloading(runs: Runs) -> Samples:
    """Allocate of a resource whose configuration is kept, while that of another resource changes twice a second."""
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        replicas = 1

        def reload() -> None:
            nonlocal replicas
            replicas = 3 - replicas
            busy.configure(replicas=replicas)

        return await _measure_during(reload, busy, "Allocate during reloads", runs)


async def _measure_during(disturb: Callable[[], None], busy: Node, name: str, runs: Runs) -> Samples:
    """Call Allocate of the last resource while ``disturb`` is called repeatedly."""
    samples: dict[str, list[float]] = {}
    disturbing = asyncio.create_task(_repeat(disturb))
    try:
        for _ in range(runs.repeats):
            add_percentiles(samples, name, await time_in_process(busy, runs.calls // 3))
    finally:
        disturbing.cancel()
    return samples


async def _repeat(disturb: Callable[[], None]) -> None:
    while True:
        disturb()
        await asyncio.sleep(_INTERVAL_SECONDS)


async def time_in_process(busy: Node, calls: int) -> list[float]:
    """Return the seconds of calls of the last resource that another process makes."""
    socket = busy.fake.kubelet.plugin(busy.resources[-1]).socket
    requests = [request.hex() for request in draw_requests(busy, busy.resources[-1], 1, calls)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load", socket, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(json.dumps(requests).encode())
    if process.returncode:
        raise RuntimeError(f"the client ended with {process.returncode}")
    seconds: list[float] = json.loads(output)
    return seconds


def _main() -> None:
    """Call Allocate with the requests on the standard input, and print the seconds of each call."""
    requests = [bytes.fromhex(request) for request in json.load(sys.stdin)]
    [seconds] = time_calls(sys.argv[1], [("Allocate", requests)])
    print(json.dumps(seconds))


if __name__ == "__main__":
    _main()
