"""The work of the agent for a change of one device, counted instead of timed: the counts do not depend on the machine.

``python -m benchmarks --only work`` prints the sums. ``python -m benchmarks.work`` prints the functions whose counts
grow with the number of devices or resources, and those with the largest counts.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.agent import SETTLED, Agent, Node, agent, as_installed, node
from benchmarks.counting import KINDS
from benchmarks.figures import Samples
from benchmarks.runs import Runs
from genplug.cli.output import format_table

_POLL_SECONDS, _REST_SECONDS = 0.25, 0.002
"""The agent is at rest when it uses at most this processor time between two polls."""


class Size(Struct, frozen=True):
    """A number of resources, and of devices in each of them."""

    resources: int
    each: int

    @property
    def name(self) -> str:
        return f"{self.each} devices" if self.resources == 1 else f"{self.resources} resources"


FEW, MANY = Size(1, 1000), Size(1, 10_000)
NARROW, WIDE = Size(10, 10), Size(300, 10)
SIZES: Final = (FEW, MANY, NARROW, WIDE)
"""The sizes of the benchmark, in pairs of which the second is larger."""

Counts = Mapping[str, Mapping[str, int]]
"""The number of calls by kind and function."""


async def work(runs: Runs) -> Samples:
    """A device appears and vanishes among 1 000 and 10 000 devices, and in one of 10 and 300 resources."""
    samples: dict[str, list[float]] = {}
    for size in SIZES:
        counts = await count_calls(size, runs.counts)
        for kind in KINDS:
            samples[f"replug, {size.name}: {kind}"] = [sum(counts[kind].values())]
        if shutil.which("strace"):
            samples[f"replug, {size.name}: system calls"] = [await count_system_calls(size)]
    for fewer, more in zip(SIZES[::2], SIZES[1::2], strict=True):
        low, high = (samples[f"replug, {size.name}: {KINDS[0]}"][0] for size in (fewer, more))
        samples[f"replug, {KINDS[0]}: {more.name} / {fewer.name}"] = [high / low]
    return samples


async def count_calls(size: Size, times: int) -> Counts:
    """Return the calls of the agent while a device appears and vanishes, the smallest of a number of repetitions.

    A larger number contains work that occurs periodically.
    """
    async with node(size.resources, size.each) as busy:
        path = busy.fake.directory / "count"
        async with agent(busy, program=("benchmarks.counting", str(path))) as process:
            await busy.listed(process.started)
            found = []
            for _ in range(times):
                await asyncio.sleep(SETTLED)
                before = await _read_counts(path)
                await _replug(busy, process)
                after = await _read_counts(path)
                found.append({kind: dict(Counter(after[kind]) - Counter(before[kind])) for kind in KINDS})
    return min(found, key=lambda counts: sum(sum(by_name.values()) for by_name in counts.values()))


async def count_system_calls(size: Size) -> int:
    """Return the system calls of the agent while a device appears and vanishes; needs strace."""
    async with node(size.resources, size.each) as busy, agent(busy) as process:
        await busy.listed(process.started)
        await asyncio.sleep(SETTLED)
        file = busy.fake.directory / "strace"
        command = ("strace", "-f", "-c", "-U", "calls", "-o", str(file), "-p", str(process.pid))
        tracer = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert tracer.stderr
        await tracer.stderr.readline()  # attached
        await _replug(busy, process)
        tracer.send_signal(signal.SIGINT)
        await tracer.communicate()
        return int((await asyncio.to_thread(file.read_text)).split()[-2])


async def _replug(busy: Node, process: Agent) -> None:
    """Make a device of the first resource appear, then vanish; wait after both until the agent is at rest."""
    for change in (busy.fake.plug, busy.fake.unplug):
        lists = len(busy.fake.kubelet.messages(busy.resources[0]))
        change(busy.device(0, busy.each))
        await busy.arrived(lists + 1, 0)
        # The devices of an event are scanned again after a second.
        await asyncio.sleep(SETTLED)
        used = 0.0
        while (now := process.cpu_seconds()) - used > _REST_SECONDS:
            used = now
            await asyncio.sleep(_POLL_SECONDS)


async def _read_counts(path: Path) -> Counts:
    reader, writer = await asyncio.open_unix_connection(path)
    counts: Counts = json.loads(await reader.read())
    writer.close()
    return counts


def main() -> int:
    """Print the functions whose calls increase most from the first size to the second."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.work", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wide", action="store_true", help="compare 10 and 300 resources, not 1000 and 10000 devices")
    parser.add_argument("--top", type=int, default=25, metavar="NUMBER", help="functions to print (default: 25)")
    arguments = parser.parse_args()
    sizes = (NARROW, WIDE) if arguments.wide else (FEW, MANY)
    found = asyncio.run(_count_at(sizes))
    print(format_table(("FUNCTION", *(size.name.upper() for size in sizes)), compare_counts(*found)[: arguments.top]))
    return 0


async def _count_at(sizes: Iterable[Size]) -> list[Counts]:
    async with as_installed():
        return [await count_calls(size, 1) for size in sizes]


def compare_counts(fewer: Counts, more: Counts) -> list[tuple[str, str, str]]:
    """Return the sums and each function with both counts, those that increase most first."""
    rows = [
        (name, fewer[kind].get(name, 0), more[kind].get(name, 0))
        for kind in KINDS
        for name in fewer[kind].keys() | more[kind].keys()
    ]
    rows.sort(key=lambda row: (row[1] - row[2], row[0]))
    sums = [(f"all {kind}", sum(fewer[kind].values()), sum(more[kind].values())) for kind in KINDS]
    return [(name, str(low), str(high)) for name, low, high in sums + rows]


if __name__ == "__main__":
    sys.exit(main())
