"""Measures latencies: start, Allocate, changes of devices and configuration, restarts of the kubelet, losses."""

import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc
from msgspec import Struct, field

from benchmarks.agent import SETTLED, Agent, Node, agent, node
from benchmarks.figures import Samples
from benchmarks.runs import Runs
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path

_MS = 1000
_WARM_UP = 500
_CROWD = 100
_BLOCK = 10
"""The number of calls of a method in a turn."""
_SECOND_CHANGE_SECONDS = 0.3
"""The time from the list of a change to the next change."""


async def start(runs: Runs) -> Samples:
    """The time from the start of the process to the last list of ten resources."""
    values = []
    async with node() as fresh:
        for _ in range(runs.starts):
            async with agent(fresh) as process:
                values.append(_MS * await fresh.listed(process.started))
            await fresh.fake.kubelet.restart()
    return {"start to list, 10 resources, 1000 devices": values}


async def allocate(runs: Runs) -> Samples:
    """Allocate and an empty call in turn, measured by a client of the socket; again with the audit log."""
    samples: dict[str, list[float]] = {}
    async with node(1, 1000) as fake, agent(fake) as process:
        await fake.listed(process.started)
        await asyncio.sleep(SETTLED)
        for _ in range(runs.repeats):
            await _measure_calls(
                fake, {"Allocate 1 of 1000 devices": 1, "Allocate 8 of 1000 devices": 8}, runs, samples
            )
            await _crowds(fake, "Allocate, 100 at once", runs.calls // 100, samples)
    async with node(1, 1000) as fake, agent(fake, "--audit-dir", str(fake.fake.directory / "audit")) as process:
        await fake.listed(process.started)
        await asyncio.sleep(SETTLED)
        audited: dict[str, list[float]] = {}
        for _ in range(runs.repeats):
            await _measure_calls(fake, {"Allocate with the audit log": 1}, runs, audited)
    return samples | {name: values for name, values in audited.items() if "audit" in name}


async def changes(runs: Runs) -> Samples:
    """A device node appears or disappears: the first change after a quiet time, and a second change soon after."""
    second = []
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        measured = await appear_and_vanish(busy, process, runs.changes)
        for number in range(runs.changes // 2):
            await asyncio.sleep(SETTLED)
            first = busy.each + runs.changes + 2 * number
            await change_device(busy, busy.fake.plug, busy.device(0, first))
            await asyncio.sleep(_SECOND_CHANGE_SECONDS)
            second.append(await change_device(busy, busy.fake.plug, busy.device(0, first + 1)))
    return {
        "node appears to list": measured.appears,
        "node vanishes to list": measured.vanishes,
        "second change in 1 s to list": second,
    }


async def reload(runs: Runs) -> Samples:
    """The ``..data`` symlink of a ConfigMap is swapped: one resource of ten lists each device twice, then once."""
    values = []
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        for number in range(runs.changes):
            await asyncio.sleep(SETTLED)
            lists = len(busy.fake.kubelet.messages(busy.resources[0]))
            swapped = time.monotonic()
            busy.configure(replicas=1 if number % 2 else 2)
            values.append(_MS * await busy.arrived(lists + 1, swapped))
    return {"configuration swapped to list": values}


async def restart(runs: Runs) -> Samples:
    """The kubelet ends at a random time after the lists, is absent for a random time, and starts again.

    The time before its start counts: reading its checkpoint and emptying its directory are a few ms of the figure.
    """
    values = []
    chance = random.Random(13)
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        for _ in range(runs.restarts):
            await asyncio.sleep(_draw_seconds(chance, 0.05, 3))
            await busy.fake.kubelet.crash()
            await asyncio.sleep(_draw_seconds(chance, 0.01, 1))
            appears = time.monotonic()
            await busy.fake.kubelet.start()
            values.append(_MS * await busy.listed(appears))
    return {
        "kubelet started to 10 resources listed": values,
        "kubelet started to 10 resources listed, worst of 50": [max(values)],
    }


def _draw_seconds(chance: random.Random, least: float, greatest: float) -> float:
    """Return a random time, as often between 10 and 100 ms as between 0.1 and 1 s."""
    return math.exp(chance.uniform(math.log(least), math.log(greatest)))


async def losses(runs: Runs) -> Samples:
    """The socket of a resource is deleted, or the kubelet ends its stream: to the next list of the resource.

    The losses alternate: several lost streams in a row have longer pauses (``FREE_DISCONNECTS``).
    """
    sockets: list[float] = []
    streams: list[float] = []
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        kubelet, resource = busy.fake.kubelet, busy.resources[0]
        for _ in range(runs.losses):
            for values in (sockets, streams):
                await asyncio.sleep(SETTLED)
                lists = len(kubelet.messages(resource))
                lost = time.monotonic()
                if values is streams:
                    kubelet.cancel_stream(resource)
                else:
                    Path(kubelet.plugin(resource).socket).unlink()  # noqa: ASYNC240 - unlink does not wait
                values.append(_MS * await busy.arrived(lists + 1, lost))
    return {"socket deleted to list": sockets, "stream ended to list": streams}


class Changes(Struct, frozen=True):
    """Milliseconds until a list arrived, and milliseconds of processor time of the agent for each change.

    The processor time includes the scans that follow a change within :data:`SETTLED` seconds.
    """

    appears: list[float] = field(default_factory=list)
    vanishes: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def appear_and_vanish(busy: Node, process: Agent, times: int) -> Changes:
    """Plug and unplug devices of the first resource, and measure each change."""
    measured = Changes()
    await asyncio.sleep(SETTLED)
    for number in range(times):
        for change, values in ((busy.fake.plug, measured.appears), (busy.fake.unplug, measured.vanishes)):
            used = process.cpu_seconds()
            values.append(await change_device(busy, change, busy.device(0, busy.each + number)))
            await asyncio.sleep(SETTLED)
            measured.cpu.append(_MS * (process.cpu_seconds() - used))
    return measured


async def change_device(busy: Node, change: Callable[[str], None], path: str) -> float:
    """Change a device of the first resource; return the milliseconds until the list arrives."""
    lists = len(busy.fake.kubelet.messages(busy.resources[0]))
    changed = time.monotonic()
    change(path)
    return _MS * await busy.arrived(lists + 1, changed)


async def allocate_some(busy: Node, name: str, calls: int) -> Samples:
    """Call Allocate for a device of the first resource, repeatedly."""
    samples: dict[str, list[float]] = {}
    [seconds] = await asyncio.to_thread(
        time_calls, _socket(busy), [("Allocate", draw_requests(busy, busy.resources[0], 1, calls))]
    )
    add_percentiles(samples, name, seconds)
    return samples


_EMPTY = "an empty call (GetDevicePluginOptions)"


async def _measure_calls(busy: Node, sizes: Mapping[str, int], runs: Runs, samples: dict[str, list[float]]) -> None:
    """Add to the samples Allocate of numbers of devices and an empty call, made in turn so that they are comparable."""
    methods = [("Allocate", draw_requests(busy, busy.resources[0], size, runs.calls)) for size in sizes.values()]
    # A thread: gRPC's threaded client measures nothing but the call, this loop's own turns would be part of it.
    found = await asyncio.to_thread(
        time_calls, _socket(busy), [*methods, ("GetDevicePluginOptions", [b""] * runs.calls)]
    )
    for name, seconds in zip([*sizes, _EMPTY], found, strict=True):
        add_percentiles(samples, name, seconds)
    # The median of the differences of calls of a turn changes little if the machine becomes slower.
    own = [taken - empty for taken, empty in zip(found[0], found[-1], strict=True)]
    name = f"{next(iter(sizes))}, p50 over an empty call"
    samples.setdefault(name, []).append(_MS * statistics.median(own))


def draw_requests(busy: Node, resource: str, size: int, calls: int) -> list[bytes]:
    """Return requests for random devices of a resource."""
    ids = sorted(busy.fake.kubelet.devices(resource).healthy)
    choice = random.Random(size)
    asked = [pb.ContainerAllocateRequest(devices_ids=choice.sample(ids, size)) for _ in range(calls)]
    return [pb.AllocateRequest(container_requests=[request]).SerializeToString() for request in asked]


def add_percentiles(samples: dict[str, list[float]], name: str, seconds: Sequence[float]) -> None:
    """Add the p50 and the p99 of calls to the samples (milliseconds)."""
    cuts = statistics.quantiles(seconds, n=100)
    for percentile in (50, 99):
        samples.setdefault(f"{name}, p{percentile}", []).append(_MS * cuts[percentile - 1])


def _socket(busy: Node) -> str:
    return busy.fake.kubelet.plugin(busy.resources[0]).socket


async def _crowds(busy: Node, name: str, rounds: int, samples: dict[str, list[float]]) -> None:
    """Measure Allocate requests of a hundred containers at the same time, repeatedly."""
    ids = sorted(busy.fake.kubelet.devices(busy.resources[0]).healthy)[:_CROWD]
    asked = [pb.ContainerAllocateRequest(devices_ids=[device]) for device in ids]
    requests = [pb.AllocateRequest(container_requests=[request]).SerializeToString() for request in asked]
    socket = busy.fake.kubelet.plugin(busy.resources[0]).socket
    seconds = await asyncio.to_thread(_timed_together, socket, requests, rounds)
    samples.setdefault(f"{name}, p99", []).append(_MS * statistics.quantiles(seconds, n=100)[98])


def _timed_together(socket: str, requests: Sequence[bytes], rounds: int) -> list[float]:
    seconds: list[float] = []
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method_path(DEVICE_PLUGIN, "Allocate"))
        for _ in range(rounds):
            start = time.perf_counter()

            def record_duration(_call: object, start: float = start) -> None:
                seconds.append(time.perf_counter() - start)

            pending = [call.future(request) for request in requests]
            for future in pending:
                future.add_done_callback(record_duration)
            for future in pending:
                future.result()
    return seconds


def time_calls(socket: str, methods: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[float]]:
    """Call methods of a socket in turn with gRPC's threaded client; return the seconds of each call by method.

    Every method has the same number of requests. A turn has some calls of the same method after a call that is not
    measured, because the work after a response, such as a log line, delays the next call.

    Raises:
        RuntimeError: Allocate gave another number of devices than requested.
    """
    seconds: list[list[float]] = [[] for _ in methods]
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        calls: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = [
            channel.unary_unary(method_path(DEVICE_PLUGIN, method)) for method, _ in methods
        ]
        for call, (_, requests) in zip(calls, methods, strict=True):
            for request in requests[:_WARM_UP]:
                call(request)
        for start in range(0, len(methods[0][1]), _BLOCK):
            for call, (method, requests), taken in zip(calls, methods, seconds, strict=True):
                call(requests[start])
                for request in requests[start : start + _BLOCK]:
                    before = time.perf_counter()
                    answer = call(request)
                    taken.append(time.perf_counter() - before)
                if method == "Allocate":
                    _check_answer(request, answer)
    return seconds


def _check_answer(request: bytes, answer: bytes) -> None:
    asked = len(pb.AllocateRequest.FromString(request).container_requests[0].devices_ids)
    given = len(pb.AllocateResponse.FromString(answer).container_responses[0].devices)
    if given != asked:
        raise RuntimeError(f"{asked} devices were asked for and {given} given")
