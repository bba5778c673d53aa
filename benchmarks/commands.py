"""Measures commands as processes, from fork to exit."""

import asyncio
import sys
import tempfile
import time

from benchmarks.agent import SETTLED, agent, node
from benchmarks.figures import Samples
from benchmarks.footprint import free_port
from benchmarks.runs import Runs


async def yardstick(runs: Runs) -> Samples:
    """The start of Python with the imports that every agent needs: the speed of the machine."""
    return {"yardstick: python -c 'import asyncio, grpc.aio'": await _timed(runs, "-c", "import asyncio, grpc.aio")}


async def usage(runs: Runs) -> Samples:
    """``--help``, as whole processes."""
    return {"genplug --help": await _timed(runs, "-m", "genplug", "--help")}


async def validate(runs: Runs) -> Samples:
    """``validate`` of a configuration of 100 resources."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        config.write(_config(100))
        config.flush()
        return {"genplug validate, 100 resources": await _timed(runs, "-m", "genplug", "validate", config.name)}


async def plan(runs: Runs) -> Samples:
    """``plan`` on a node with 10 000 devices that match."""
    async with node(1, 10_000) as big:
        where = ("--config", str(big.fake.config_dir), "--root", str(big.fake.root))
        return {"genplug plan, 10000 candidates": await _timed(runs, "-m", "genplug", "plan", *where)}


async def status(runs: Runs) -> Samples:
    """``status`` of an agent with 10 resources and 1 000 devices."""
    address = f"127.0.0.1:{free_port()}"
    async with node() as busy, agent(busy, "--listen", address) as process:
        await busy.listed(process.started)
        await asyncio.sleep(SETTLED)
        return {"genplug status": await _timed(runs, "-m", "genplug", "status", "--address", address)}


async def _timed(runs: Runs, *arguments: str) -> list[float]:
    """Return the durations of a command in milliseconds, after one run that warms the disk cache."""
    values = []
    for number in range(runs.commands + 1):
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(
                f"python {' '.join(arguments)} ended with {process.returncode}: {errors.decode()[-500:]}"
            )
        values += [1000 * (time.perf_counter() - started)] if number else []
    return values


def _config(resources: int) -> str:
    """Return a configuration with about six lines per resource."""
    lines = ["apiVersion: genplug.io/v1alpha1", "kind: DevicePluginConfig", "resources:"]
    for number in range(resources):
        lines += [
            f"  example.com/accelerator-{number}:",
            "    devices:",
            f"    - glob: /dev/acc{number}-*",
            f"      exclude: /dev/acc{number}-0",
            "    allocate:",
            '      env: {ACCELERATORS: "${path}"}',
        ]
    return "\n".join(lines) + "\n"
