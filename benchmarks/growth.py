"""``python -m benchmarks.growth``: measure how time and memory grow with devices, resources, probes and pods.

A size is measured on a new node with a new agent process. ``--json`` replaces the measured series in a file and keeps
the others, so that each series can be measured on its own. The pictures of docs/explanation/benchmarks.md are made from
the file.
"""

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.agent import SETTLED, Agent, Node, agent, as_installed, node
from benchmarks.figures import machine
from benchmarks.footprint import free_port
from benchmarks.growth_record import SUBJECTS, UNITS, Point, Record, Series, Subject, decode_record, encode_record
from benchmarks.health import list_workers
from genplug.cli.output import format_table

_MS = 1000
_PROBES_PER_RESOURCE = 100
"""Devices of a resource in the series of probes: the smallest size above 0 is a probe of each of them."""


class Effort(Struct, frozen=True):
    """The number of starts and changes at each size; ``settle`` and ``cpu`` are seconds; sizes up to ``highest``."""

    starts: int = 3
    changes: int = 3
    requests: int = 3
    settle: float = 6.0
    cpu: float = 10.0
    highest: int | None = None


QUICK = Effort(starts=1, changes=1, requests=1, settle=2, cpu=5, highest=1000)


class Situation(Struct, frozen=True):
    """A node to measure, the flags of the agent, and what else than start, change and memory to measure."""

    node: Node
    flags: tuple[str, ...] = ()
    measures_cpu: bool = False
    port: int | None = None


@asynccontextmanager
async def devices(size: int) -> AsyncIterator[Situation]:
    """A resource with a number of devices."""
    async with node(1, size) as made:
        yield Situation(made)


@asynccontextmanager
async def resources(size: int) -> AsyncIterator[Situation]:
    """A number of resources with ten devices each."""
    async with node(size, 10) as made:
        yield Situation(made)


@asynccontextmanager
async def probes(size: int) -> AsyncIterator[Situation]:
    """1 000 devices in ten resources, and a number of probes of a file; every probe of a device reads its own file."""
    async with node(10, _PROBES_PER_RESOURCE) as made:
        by_resource = share_probes(size, len(made.resources))
        lines = ["apiVersion: genplug.io/v1alpha1", "kind: DevicePluginConfig", "resources:"]
        for resource, count in enumerate(by_resource):
            lines += [f"  {made.resources[resource]}:", f"    devices: [{{glob: '/dev/acc{resource}-*'}}]"]
            paths = [f"/sys/${{name}}/state{number}" for number in range(count)]
            lines += ["    health:", "      removalGracePeriodSeconds: 3600"]
            if paths:
                lines += [f"      probes: [{', '.join(f'{{file: {{path: {path!r}, equals: 0}}}}' for path in paths)}]"]
            for device in range(made.each):
                name = made.device(resource, device).rpartition("/")[2]
                for path in paths:
                    made.fake.write(path.replace("${name}", name), "0")
        made.fake.write_config("\n".join(lines) + "\n", how="configmap")
        yield Situation(made, measures_cpu=True)


@asynccontextmanager
async def pods(size: int) -> AsyncIterator[Situation]:
    """1 000 devices in ten resources, the audit log and the HTTP endpoints, and a number of pods with a device each."""
    async with node() as made:
        flags = ("--audit-dir", str(made.fake.directory / "audit"))
        async with agent(made, *flags) as process:
            await made.listed(process.started)
            for number in range(size):
                await made.fake.kubelet.admit(made.resources[number % len(made.resources)], pod=f"pod-{number}")
        # The restart empties the lists of the kubelet; the checkpoint restores the pods.
        await made.fake.kubelet.restart()
        port = free_port()
        yield Situation(made, (*flags, "--listen", f"127.0.0.1:{port}"), port=port)


_SITUATIONS: Mapping[str, Callable[[int], AbstractAsyncContextManager[Situation]]] = MappingProxyType(
    {"devices": devices, "resources": resources, "probes": probes, "pods": pods}
)


def share_probes(size: int, resource_count: int) -> tuple[int, ...]:
    """Return the probes of each resource; a probe of a resource counts once for each of its devices."""
    each, rest = divmod(size // _PROBES_PER_RESOURCE, resource_count)
    return tuple(each + (number < rest) for number in range(resource_count))


async def measure(situation: Situation, effort: Effort) -> dict[str, tuple[float, ...]]:
    """Return the values of each quantity: starts first, then memory, processor time, requests and changes."""
    made, values = situation.node, dict[str, list[float]]()
    for number in range(effort.starts):
        if number:
            await made.fake.kubelet.restart()
        async with agent(made, *situation.flags) as process:
            values.setdefault("start to list", []).append(_MS * await made.listed(process.started))
            values.setdefault("processor time of a start", []).append(_MS * process.cpu_seconds())
            if number == effort.starts - 1:
                await asyncio.sleep(effort.settle)
                values |= await _measure_settled(process, situation, effort)
    return {name: tuple(found) for name, found in values.items() if found}


async def _measure_settled(process: Agent, situation: Situation, effort: Effort) -> dict[str, list[float]]:
    held, workers = process.footprint(), [worker.footprint() for worker in list_workers(process)]
    values = {name: [held[name]] for name in ("RSS", "anonymous memory")}
    if workers:
        values["anonymous memory of the workers"] = [sum(worker["anonymous memory"] for worker in workers)]
    if situation.measures_cpu:
        before = _cpu_seconds(process)
        await asyncio.sleep(effort.cpu)
        used = [100 * (late - early) / effort.cpu for early, late in zip(before, _cpu_seconds(process), strict=True)]
        values["CPU of the agent"] = used[:1]
        values["CPU of the workers"] = used[1:] if workers else []
    if situation.port is not None:
        values["status request"] = [await _request_status(situation.port) for _ in range(effort.requests)]
    return values | await _remove_and_return(process, situation.node, effort.changes)


async def _remove_and_return(process: Agent, made: Node, times: int) -> dict[str, list[float]]:
    """Remove the last device of the first resource and add it again; return the values of the removals.

    An additional device would exceed the limit at the largest size.
    """
    device = made.device(0, made.each - 1)
    taken: dict[str, list[float]] = {"change to list": [], "processor time of a change": []}
    for _ in range(times):
        for change in (made.fake.unplug, made.fake.plug):
            await asyncio.sleep(SETTLED)
            lists, used = len(made.fake.kubelet.messages(made.resources[0])), process.cpu_seconds()
            changed = time.monotonic()
            change(device)
            arrived = _MS * await made.arrived(lists + 1, changed)
            if change == made.fake.unplug:
                taken["change to list"].append(arrived)
                taken["processor time of a change"].append(_MS * (process.cpu_seconds() - used))
    return taken


async def _request_status(port: int) -> float:
    """Return the time of a request for the status (ms), for which the agent asks the kubelet about pods."""
    await asyncio.sleep(SETTLED)  # a younger response of the kubelet is used again
    started = time.monotonic()
    await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/statusz")
    return _MS * (time.monotonic() - started)


def _read(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as answer:
        answer.read()


def _cpu_seconds(process: Agent) -> tuple[float, float]:
    return process.cpu_seconds(), sum(worker.cpu_seconds() for worker in list_workers(process))


async def measure_subject(subject: Subject, effort: Effort) -> AsyncIterator[Point]:
    """Measure the sizes of a subject, and report on stderr those that could not be measured."""
    for requested, size in subject.sizes_to_measure(effort.highest):
        at_limit = "" if size == requested else f" (at the limit {subject.limit} instead of {requested})"
        print(f"measuring {size} {subject.name}{at_limit}", file=sys.stderr)
        try:
            async with _SITUATIONS[subject.name](size) as situation:
                values = await measure(situation, effort)
        except (RuntimeError, TimeoutError) as error:
            print(f"{size} {subject.name} could not be measured: {error}", file=sys.stderr)
        else:
            yield Point(requested, size, values)


def format_series(series: Series) -> str:
    """Return the smallest values of a series as a table."""
    rows = [
        (f"{point.measured}", *("-" if (value := point.smallest(name)) is None else f"{value:.4g}" for name in UNITS))
        for point in series.points
    ]
    used = [0, *(number for number, name in enumerate(UNITS, 1) if name in series.quantities)]
    head = (series.name.upper(), *(f"{name} ({unit})".upper() for name, unit in UNITS.items()))
    return format_table([head[column] for column in used], [[row[column] for column in used] for row in rows])


def main() -> int:
    """Return 1 if a size could not be measured."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few runs of small sizes: shows that everything works")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="replace the measured series in this file")
    arguments = parser.parse_args()
    chosen = [subject for subject in SUBJECTS if subject.name in (arguments.only or names)]
    return int(not asyncio.run(_run(chosen, QUICK if arguments.quick else Effort(), arguments.json)))


async def _run(subjects: Iterable[Subject], effort: Effort, file: Path | None) -> bool:
    """Measure subjects and write each size at once; return whether all sizes could be measured."""
    is_complete = True
    async with as_installed():
        for subject in subjects:
            series = Series(subject.name, machine(), ())
            async for point in measure_subject(subject, effort):
                load = " ".join(f"{average:.1f}" for average in os.getloadavg())
                series = replace(
                    series, points=(*series.points, point), conditions={**series.conditions, "load after": load}
                )
                if file is not None:
                    await asyncio.to_thread(_write, file, series)
            print(format_series(series))
            is_complete &= len(series.points) == len(subject.sizes_to_measure(effort.highest))
    return is_complete


def _write(file: Path, series: Series) -> None:
    record: Record = decode_record(json.loads(file.read_text())) if file.exists() else {}
    file.write_text(json.dumps(encode_record({**record, series.name: series}), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
