"""Measures latencies: start, Allocate, changes of devices and configuration, restarts of the kubelet, losses."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from benchmarks.agent import SETTLED, Node, agent, node
from benchmarks.figures import Samples
from benchmarks.runs import Runs
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path

_MS = 1000
_WARM_UP = 500
_CROWD = 100


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
    """Allocate and an empty call, measured by a client of the socket."""
    samples: dict[str, list[float]] = {}
    async with node(1, 1000) as fake, agent(fake) as process:
        await fake.listed(process.started)
        await asyncio.sleep(SETTLED)
        for _ in range(runs.repeats):
            for name, size in (("Allocate 1 of 1000 devices", 1), ("Allocate 8 of 1000 devices", 8)):
                await _allocates(fake, name, size, runs.calls, samples)
            await _crowds(fake, "Allocate, 100 at once", runs.calls // 100, samples)
            await _calls(fake, "GetDevicePluginOptions", [b""] * runs.calls, _EMPTY, samples)
    return samples


async def changes(runs: Runs) -> Samples:
    """A device node appears or disappears: the first change after a quiet time."""
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        appears, vanishes = await appear_and_vanish(busy, runs.changes)
    return {"node appears to list": appears, "node vanishes to list": vanishes}


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
    """The kubelet ends, is away for as long as a service's restart takes, and starts again.

    The time before its start counts: reading its checkpoint and emptying its directory are a few ms of the figure.
    """
    values = []
    async with node() as busy, agent(busy) as process:
        await busy.listed(process.started)
        for number in range(runs.restarts):
            await asyncio.sleep(SETTLED)
            await busy.fake.kubelet.crash()
            await asyncio.sleep((0.2, 1.0, 3.0)[number % 3])
            appears = time.monotonic()
            await busy.fake.kubelet.start()
            values.append(_MS * await busy.listed(appears))
    return {"kubelet started to 10 resources listed": values}


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


async def appear_and_vanish(busy: Node, times: int) -> tuple[list[float], list[float]]:
    """Plug and unplug devices of the first resource; return the times until the lists arrive, in milliseconds."""
    taken: tuple[list[float], list[float]] = [], []
    for number in range(times):
        for change, values in zip((busy.fake.plug, busy.fake.unplug), taken, strict=True):
            await asyncio.sleep(SETTLED)
            lists = len(busy.fake.kubelet.messages(busy.resources[0]))
            changed = time.monotonic()
            change(busy.device(0, busy.each + number))
            values.append(_MS * await busy.arrived(lists + 1, changed))
    return taken


async def allocate_some(busy: Node, name: str, calls: int) -> Samples:
    """Call Allocate for a device of the first resource, repeatedly."""
    samples: dict[str, list[float]] = {}
    await _allocates(busy, name, 1, calls, samples)
    return samples


_EMPTY = "an empty call (GetDevicePluginOptions)"


async def _allocates(busy: Node, name: str, size: int, calls: int, samples: dict[str, list[float]]) -> None:
    ids = sorted(busy.fake.kubelet.devices(busy.resources[0]).healthy)
    choice = random.Random(size)
    asked = [pb.ContainerAllocateRequest(devices_ids=choice.sample(ids, size)) for _ in range(calls)]
    requests = [pb.AllocateRequest(container_requests=[request]).SerializeToString() for request in asked]
    answer = await _calls(busy, "Allocate", requests, name, samples)
    given = len(pb.AllocateResponse.FromString(answer).container_responses[0].devices)
    if given != size:
        raise RuntimeError(f"{size} devices were asked for and {given} given")


async def _calls(
    busy: Node, method: str, requests: Sequence[bytes], name: str, samples: dict[str, list[float]]
) -> bytes:
    """Add the p50 and the p99 of calls to the samples (milliseconds), and return the last answer."""
    socket = busy.fake.kubelet.plugin(busy.resources[0]).socket
    # A thread: gRPC's threaded client measures nothing but the call, this loop's own turns would be part of it.
    seconds, answer = await asyncio.to_thread(time_calls, socket, method, requests)
    cuts = statistics.quantiles(seconds, n=100)
    for percentile in (50, 99):
        samples.setdefault(f"{name}, p{percentile}", []).append(_MS * cuts[percentile - 1])
    return answer


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


def time_calls(socket: str, method: str, requests: Sequence[bytes]) -> tuple[list[float], bytes]:
    """Call a method on a socket with gRPC's threaded client; return the seconds of each call, and the last answer."""
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method_path(DEVICE_PLUGIN, method))
        for request in requests[:_WARM_UP]:
            call(request)
        seconds = []
        for request in requests:
            before = time.perf_counter()
            answer = call(request)
            seconds.append(time.perf_counter() - before)
    return seconds, answer
