"""Measures another v1beta1 device plugin beside genplug: on the same node, in alternating rounds, with the same client.

The rounds of both plugins have the same random pauses, so that a plugin that polls is met at any time of its period.
"""

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import quantiles
from types import MappingProxyType
from typing import Final

import grpc
from msgspec import Struct, field

from benchmarks.agent import SETTLED, Node, node
from benchmarks.latency import time_calls
from benchmarks.placeholders import fill_placeholders, find_placeholders
from benchmarks.ratios import (
    ALLOCATE,
    APPEARS,
    DEVICES,
    EMPTY_CALL,
    KUBELET,
    MAX_WAIT_SECONDS,
    SECOND,
    START,
    VANISHES,
    Round,
)
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.records import ListMessage

_MS = 1000
_SECOND_CHANGE_SECONDS = 0.3
"""The time from the list of a change to the next change."""
_ABSENCES = (0.2, 1.0, 3.0)
"""The seconds for which the kubelet is absent, in turn."""
_END_SECONDS = 10.0
"""The time after SIGTERM before a plugin receives SIGKILL."""
_LAST_BYTES = 2000
_MEMORY: Final[Mapping[str, str]] = MappingProxyType({"Rss:": "RSS", "Pss:": "PSS", "Anonymous:": "anonymous memory"})


class Rounds(Struct, frozen=True):
    """The number and size of the rounds; all times are seconds.

    A change follows the last list after a random pause. ``min_pause`` is the time in which the change would be part of
    a burst; ``max_pause`` exceeds it by the period of a plugin that polls. ``max_start`` limits the wait for the first
    list, ``max_wait`` every other wait.
    """

    number: int = 8
    calls: int = 3000
    settle: float = 3.0
    min_pause: float = SETTLED
    max_pause: float = SETTLED + 5.0
    max_start: float = 30.0
    max_wait: float = MAX_WAIT_SECONDS


QUICK_ROUNDS = Rounds(number=1, calls=500, settle=1.0, max_pause=SETTLED)


class Plugin(Struct, frozen=True):
    """A plugin to measure: its name in messages, and its arguments with placeholders."""

    name: str
    arguments: tuple[str, ...]


async def measure_peer(arguments: Sequence[str], rounds: Rounds) -> tuple[list[Round], list[Round]]:
    """Return the rounds of genplug and those of the plugin that a command with placeholders starts.

    Raises:
        RuntimeError: a plugin does not list the devices at all.
    """
    genplug, peer = _genplug("port" in find_placeholders(list(arguments))), Plugin("peer", tuple(arguments))
    taken: dict[str, list[Round]] = {genplug.name: [], peer.name: []}
    async with node(1, DEVICES) as shared:
        for plugin in (genplug, peer):
            await check_start(plugin, shared, rounds)
        for number in range(rounds.number):
            print(f"round {number + 1} of {rounds.number}", file=sys.stderr)
            for plugin in (genplug, peer) if number % 2 == 0 else (peer, genplug):
                taken[plugin.name].append(await measure_round(plugin, shared, rounds, number))
    return taken[genplug.name], taken[peer.name]


class _Session(Struct):
    """A running plugin. ``resource`` is what the plugin registered; ``present`` are the numbers of the devices."""

    plugin: Plugin
    node: Node
    rounds: Rounds
    process: asyncio.subprocess.Process
    started: float
    pauses: random.Random
    absence: float
    resource: str = ""
    present: list[int] = field(default_factory=lambda: list(range(DEVICES)))

    async def wait_for_list(self, since: float, max_wait: float | None = None) -> float | None:
        """Return the milliseconds from ``since`` to the first list of all devices, or None if none arrived."""
        kubelet = self.node.fake.kubelet
        waiting = asyncio.create_task(
            kubelet.wait_for(lambda: self._find_list(since) is not None, max_wait or self.rounds.max_wait)
        )
        ending = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, ending):
                task.cancel()
            await asyncio.gather(waiting, ending, return_exceptions=True)
        found = self._find_list(since)
        if found is None:
            return None
        self.resource = found.resource
        return _MS * (found.time - since)

    def plug(self) -> None:
        self.present.append(max(self.present) + 1)
        self.node.fake.plug(self.node.device(0, self.present[-1]))

    def unplug(self) -> None:
        self.node.fake.unplug(self.node.device(0, self.present.pop()))

    async def pause(self) -> None:
        """Wait until a change is not part of a burst, and for a random time."""
        await asyncio.sleep(self.pauses.uniform(self.rounds.min_pause, self.rounds.max_pause))

    def _find_list(self, since: float) -> ListMessage | None:
        kubelet = self.node.fake.kubelet
        resources = {registration.resource for registration in kubelet.registrations}
        messages = [message for resource in resources for message in kubelet.messages(resource)]
        complete = [
            message
            for message in messages
            if message.time >= since and len(message.devices.healthy) == len(self.present)
        ]
        return min(complete, key=lambda message: message.time, default=None)


async def _measure_memory(session: _Session) -> dict[str, float | None]:
    """Measure the memory of the process and its descendants at rest."""
    await asyncio.sleep(session.rounds.settle)
    try:
        lines = [
            line.split()
            for process in _descendants(session.process.pid)
            for line in (process / "smaps_rollup").read_text().splitlines()
        ]
    except OSError as error:
        _report(session.plugin, f"the memory could not be read, the process may have ended: {error}")
        return {}
    kib = {name: sum(int(line[1]) for line in lines if line[0] == key) for key, name in _MEMORY.items()}
    return {f"{DEVICES} devices: {name}": value / 1024 for name, value in kib.items()}


async def _measure_calls(session: _Session) -> dict[str, float | None]:
    """Measure Allocate of random devices, and a call without work."""
    try:
        client = session.node.fake.kubelet.plugin(session.resource)
    except LookupError as error:
        _report(session.plugin, f"Allocate could not be called: {error}")
        return {}
    ids = sorted(session.node.fake.kubelet.devices(session.resource).healthy)
    chosen = [session.pauses.choice(ids) for _ in range(session.rounds.calls)]
    requests = [
        pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=[device])]).SerializeToString()
        for device in chosen
    ]
    taken: dict[str, float | None] = {}
    for name, method, bodies in (
        (ALLOCATE, "Allocate", requests),
        (EMPTY_CALL, "GetDevicePluginOptions", [b""] * session.rounds.calls),
    ):
        try:
            # The threaded client has no deadline: a plugin that does not answer is recognized by this call.
            await client.call_method(method, bodies[0], session.rounds.max_wait)
            [seconds] = await asyncio.to_thread(time_calls, client.socket, [(method, bodies)])
        except grpc.RpcError as error:
            _report(session.plugin, f"{method} failed: {error.code()} {error.details()}")
            continue
        cuts = quantiles(seconds, n=100)
        taken |= {f"{name}, p{percentile}": _MS * cuts[percentile - 1] for percentile in (50, 99)}
    return taken


async def _measure_appears(session: _Session) -> dict[str, float | None]:
    await session.pause()
    changed = time.monotonic()
    session.plug()
    return {APPEARS: await session.wait_for_list(changed)}


async def _measure_vanishes(session: _Session) -> dict[str, float | None]:
    await session.pause()
    changed = time.monotonic()
    session.unplug()
    return {VANISHES: await session.wait_for_list(changed)}


async def _measure_second(session: _Session) -> dict[str, float | None]:
    """Measure a change that follows the list of another change within a second."""
    await session.pause()
    changed = time.monotonic()
    session.plug()
    if await session.wait_for_list(changed) is None:
        return {SECOND: None}
    await asyncio.sleep(_SECOND_CHANGE_SECONDS)
    changed = time.monotonic()
    session.plug()
    return {SECOND: await session.wait_for_list(changed)}


async def _measure_kubelet(session: _Session) -> dict[str, float | None]:
    await session.pause()
    kubelet = session.node.fake.kubelet
    await kubelet.crash()
    await asyncio.sleep(session.absence)
    started = time.monotonic()
    await kubelet.start()
    return {KUBELET: await session.wait_for_list(started)}


_STEPS: Final[Sequence[Callable[[_Session], Awaitable[dict[str, float | None]]]]] = (
    _measure_memory,
    _measure_calls,
    _measure_appears,
    _measure_vanishes,
    _measure_second,
    _measure_kubelet,
)


async def measure_round(plugin: Plugin, shared: Node, rounds: Rounds, number: int) -> Round:
    """Return the values of a round. After a list that did not arrive, the plugin starts again for the next step."""
    taken: dict[str, float | None] = {}
    steps = list(_STEPS)
    while steps:
        async with _run_plugin(plugin, shared, rounds, number) as session:
            listed = await session.wait_for_list(session.started, rounds.max_start)
            taken.setdefault(START, listed)
            if listed is None:
                _report(plugin, "the devices were not listed after the start")
                break
            arrived = True
            while steps and arrived:
                # Each step has its own sequence, the same for both plugins, also after a start in between.
                session.pauses = random.Random(f"{number} {len(steps)}")
                values = await steps.pop(0)(session)
                taken |= values
                arrived = None not in values.values()
            if session.process.returncode is not None:
                _report(plugin, f"the process ended with {session.process.returncode} in the step {', '.join(values)}")
    return taken


async def check_start(plugin: Plugin, shared: Node, rounds: Rounds) -> None:
    """Start a plugin once, which also fills the disk cache, and fail with its last words if it lists nothing."""
    async with _run_plugin(plugin, shared, rounds, 0) as session:
        if await session.wait_for_list(session.started, rounds.max_start) is not None:
            return
        code = session.process.returncode
    state = "did not list" if code is None else f"ended with {code} and did not list"
    attempts = ", ".join(sorted({attempt.resource for attempt in shared.fake.kubelet.attempts})) or "nothing"
    output = _log(shared, plugin).read_text(errors="replace")[-_LAST_BYTES:]
    raise RuntimeError(
        f"{' '.join(plugin.arguments)} {state} {DEVICES} healthy devices of a resource within {rounds.max_start:g} s; "
        f"it registered {attempts}. Its output ends with\n{output}"
    )


@asynccontextmanager
async def _run_plugin(plugin: Plugin, shared: Node, rounds: Rounds, number: int) -> AsyncIterator[_Session]:
    """Run a plugin on a node with exactly :data:`DEVICES` devices and a kubelet that has started a moment ago."""
    fake = shared.fake
    for path in fake.locate("/dev").glob("acc0-*"):
        if int(path.name.partition("-")[2]) >= DEVICES:
            path.unlink()
    for missing in range(DEVICES):
        if not fake.locate(shared.device(0, missing)).exists():
            fake.plug(shared.device(0, missing))
    await fake.kubelet.restart()
    values = {
        "plugins": fake.kubelet.plugins_dir,
        "glob": fake.locate("/dev") / "acc0-*",
        "devices": fake.locate("/dev"),
        "port": _free_port(),
        "kubelet": fake.kubelet_dir,
        "root": fake.root,
        "config": fake.config_dir,
    }
    arguments = fill_placeholders(list(plugin.arguments), values)
    with _log(shared, plugin).open("ab") as log:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(*arguments, stdout=log, stderr=log, start_new_session=True)
    absence = _ABSENCES[number % len(_ABSENCES)]
    try:
        yield _Session(plugin, shared, rounds, process, started, random.Random(number), absence)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a plugin and the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _genplug(has_http: bool) -> Plugin:  # noqa: FBT001 - a property of the peer
    """Return genplug with the defaults of production; with the HTTP endpoints if the peer has a port too."""
    where = ("--config", "{config}", "--root", "{root}", "--kubelet-dir", "{kubelet}")
    listen = ("--listen", "127.0.0.1:{port}") if has_http else ()
    return Plugin("genplug", (sys.executable, "-m", "genplug", "run", *where, *listen))


def _descendants(pid: int) -> list[Path]:
    """Return the directories in /proc of a process and of all processes that it started."""
    found = Path("/proc", str(pid))
    children = [
        int(child) for thread in (found / "task").iterdir() for child in (thread / "children").read_text().split()
    ]
    return [found, *(path for child in children for path in _descendants(child))]


def _log(shared: Node, plugin: Plugin) -> Path:
    return shared.fake.directory / f"{plugin.name}.log"


def _report(plugin: Plugin, message: str) -> None:
    print(f"{plugin.name}: {message}", file=sys.stderr)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
