"""The attack of a privileged container that replaces device nodes while pods start.

``python -m tests.attacks.world.swap --allocates 100000 --record FILE`` runs it at length and writes its figures.

A second process replaces 16 device nodes without pause, with links, disks, other devices and files of other types,
while the agent, a process of its own, answers Allocate on its socket. An answer is wrong if

- it names a path other than that of the requested device,
- during the whole call the path led to something other than the requested device, so that the agent cannot have
  checked the path during the call, or
- with ``inject: cdi``, the CDI file at that moment states another type or number than that of the device.

The attack also counts how often the path of a right answer leads elsewhere when the answer arrives. With
``inject: nodes`` the container runtime uses the path then (docs/explanation/security.md, "What is not protected"); with
``inject: cdi`` it uses the numbers in the file.
"""

import argparse
import asyncio
import bisect
import contextlib
import json
import os
import platform
import random
import signal
import stat
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from msgspec import Struct, field

from genplug import __version__
from genplug.allocation.cdi_spec import file_name, qualified_name
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.node.fake_node import FakeNode
from tests.attacks.world.swapper import DEVICES, GENUINE, GENUINE_LINK, MAJOR, Change, read_changes
from tests.support.agent_process import start_agent
from tests.support.resources import X, build_x_config

CONFIGS = {
    mode: build_x_config(
        f"allocate: {{inject: {mode}}}", source=f"where: {{major: '{MAJOR}', minor: {{max: {DEVICES - 1}}}}}"
    )
    for mode in ("nodes", "cdi")
}
REFUSALS = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND})
"""The status codes of a refused allocation. Others are failures of the agent."""
CALLS_AT_ONCE = 4
SETTLE_SECONDS = 40
"""Seconds for the first list, and for the list after the attack, also on a busy machine."""
IDS = tuple(f"x{number}" for number in range(DEVICES))


class Answer(Struct, frozen=True):
    """A successful answer for a device, and the times of the call in monotonic nanoseconds."""

    device: int
    started: int
    ended: int
    path: str | None
    """The path on the host that the answer names; None with ``inject: cdi``."""


class Result(Struct):
    """The figures of an attack. ``wrong`` are the reasons of wrong answers."""

    mode: str
    allocates: int
    refused: int = 0
    elsewhere: int = 0
    changes: int = 0
    answers: list[Answer] = []
    wrong: list[str] = []
    failures: Counter[str] = field(default_factory=Counter)
    """Errors of the agent other than refusals."""

    def __str__(self) -> str:
        return (
            f"inject: {self.mode}: {self.allocates} allocates, {len(self.answers)} answered, {self.refused} refused, "
            f"{len(self.wrong)} wrong, {self.elsewhere} led elsewhere on arrival; {self.changes} changes of nodes"
        )


class Periods:
    """The periods in which the devices can have been in certain states."""

    def __init__(self, changes: Iterable[Change], states: frozenset[str]) -> None:
        self._starts: dict[int, list[int]] = {device: [] for device in range(DEVICES)}
        self._ends: dict[int, list[float]] = {device: [] for device in range(DEVICES)}
        for change in changes:
            starts, ends = self._starts[change.device], self._ends[change.device]
            if len(ends) < len(starts) and change.state not in states:
                ends.append(change.after)
            elif len(ends) == len(starts) and change.state in states:
                starts.append(change.before)

    def overlap(self, device: int, started: int, ended: int) -> bool:
        """Return whether a device can have been in one of the states at some time between two times."""
        index = bisect.bisect_right(self._starts[device], ended) - 1
        ends = self._ends[device]
        return index >= 0 and (index >= len(ends) or ends[index] >= started)


class Attack:
    """The calls of a kubelet while a swapper runs."""

    def __init__(self, node: FakeNode, result: Result, seed: int) -> None:
        self._node = node
        self._result = result
        self._choose = random.Random(seed)
        self._cdi_file = node.locate("/var/run/cdi") / file_name(X)
        self._remaining = result.allocates

    async def run(self) -> None:
        """Make the calls, several at once."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLS_AT_ONCE):
                tasks.create_task(self._call_repeatedly())

    async def _call_repeatedly(self) -> None:
        plugin = self._node.kubelet.plugin(X)
        while self._remaining:
            self._remaining -= 1
            device = self._choose.randrange(DEVICES)
            started = time.monotonic_ns()
            try:
                response = await plugin.allocate([[IDS[device]]])
            except grpc.aio.AioRpcError as error:
                if error.code() in REFUSALS:
                    self._result.refused += 1
                else:
                    self._result.failures[f"{error.code()}: {error.details()}"] += 1
                continue
            ended = time.monotonic_ns()
            self._check(device, response.container_responses[0])
            path = response.container_responses[0].devices[0].host_path if self._result.mode == "nodes" else None
            self._result.answers.append(Answer(device, started, ended, path))

    def _check(self, device: int, response: pb.ContainerAllocateResponse) -> None:
        """Check what an answer contains, and where it leads at this moment."""
        paths = {f"/dev/x{device}", f"/dev/real/x{device}"}
        named = [(node.host_path, node.container_path) for node in response.devices]
        names = [device.name for device in response.cdi_devices]
        if self._result.mode == "nodes":
            if len(named) != 1 or named[0][0] not in paths or named[0][1] != f"/dev/x{device}" or names:
                self._result.wrong.append(f"{IDS[device]}: the answer has {named} and {names}")
            elif not leads_to(self._node.locate(named[0][0]), device):
                self._result.elsewhere += 1
            return
        if named or names != [qualified_name(X, IDS[device])]:
            self._result.wrong.append(f"{IDS[device]}: the answer has {named} and {names}")
        if not leads_to(self._node.locate(f"/dev/x{device}"), device):
            self._result.elsewhere += 1
        if error := find_cdi_error(json.loads(self._cdi_file.read_text()), device):
            self._result.wrong.append(f"{IDS[device]}: {error}")


def leads_to(path: Path, device: int) -> bool:
    """Return whether a path leads to the genuine device now, as a container runtime finds it."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(MAJOR, device)


def find_cdi_error(spec: dict[str, Any], requested: int) -> str:
    """Return what a CDI file states wrongly, or an empty string; it must define the requested device."""
    defined = {device["name"]: device["containerEdits"] for device in spec["devices"]}
    for name, edits in defined.items():
        number = int(name.removeprefix("x"))
        [node] = edits["deviceNodes"]
        found = (node["path"], node.get("type"), node.get("major"), node.get("minor"))
        if edits.keys() != {"deviceNodes"} or found != (f"/dev/x{number}", "c", MAJOR, number):
            return f"the CDI file defines {name} as {edits}"
    return "" if IDS[requested] in defined else "the CDI file does not define it"


def find_unchecked(result: Result, changes: list[Change]) -> list[str]:
    """Return the answers whose path led elsewhere during the whole call."""
    genuine = Periods(changes, frozenset({GENUINE, GENUINE_LINK}))
    by_path = {
        "/dev/x": Periods(changes, frozenset({GENUINE})),
        "/dev/real/x": Periods(changes, frozenset({GENUINE_LINK})),
    }
    return [
        f"x{answer.device}: the path led elsewhere during the whole call ({answer.path or 'CDI'})"
        for answer in result.answers
        for periods in [by_path.get((answer.path or "").rstrip("0123456789"), genuine)]
        if not periods.overlap(answer.device, answer.started, answer.ended)
    ]


@contextlib.asynccontextmanager
async def run_swapper(node: FakeNode, record: Path, seed: int) -> AsyncIterator[None]:
    """Replace the devices of a node while the context is open."""
    arguments = (str(node.locate("/dev")), str(node.directory / "stock"), str(record), "--seed", str(seed))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.world.swapper", *arguments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


async def attack(mode: str, allocates: int, seed: int = 0) -> Result:
    """Run the attack with ``inject: nodes`` or ``inject: cdi``, and return its figures.

    Raises:
        TimeoutError: the agent does not list all devices in time after the attack.
    """
    result = Result(mode, allocates)
    async with FakeNode(stand_ins=False) as node:
        record = node.directory / "changes"
        node.write_config(CONFIGS[mode])
        await node.kubelet.start()
        async with start_agent(node, stderr=asyncio.subprocess.DEVNULL) as agent:
            async with run_swapper(node, record, seed):
                await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(X)), timeout=SETTLE_SECONDS)
                await Attack(node, result, seed).run()
            # The attack ended, and the same process serves all devices.
            await node.kubelet.wait_for_list(X, healthy=set(IDS), timeout=SETTLE_SECONDS)
            for device in IDS:
                await node.kubelet.plugin(X).allocate([[device]])
            assert agent.returncode is None
        changes = read_changes(record)
    result.changes = len(changes)
    result.wrong += find_unchecked(result, changes)
    return result


def format_number(number: int) -> str:
    """Return a number with spaces between thousands."""
    return f"{number:,}".replace(",", " ")


def write_record(path: Path, results: list[Result]) -> None:
    """Write the figures as a JSON document for docs/generate_figures.py."""
    columns = ("Injection", "Changes of nodes", "Allocates", "Answered", "Refused", "Wrong", "Path replaced on arrival")
    document = {
        "conditions": {
            "date": datetime.now(tz=UTC).date().isoformat(),
            "genplug": __version__,
            "python": platform.python_version(),
            "kernel": platform.release().split("-")[0],
            "cores": os.cpu_count(),
        },
        "columns": columns,
        "rows": [
            [
                f"inject: {result.mode}",
                *map(
                    format_number,
                    (
                        result.changes,
                        result.allocates,
                        len(result.answers),
                        result.refused,
                        len(result.wrong),
                        result.elsewhere,
                    ),
                ),
            ]
            for result in results
        ],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def main() -> int:
    """Run the attack with both kinds of injection; return 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description="Replace device nodes while the agent answers Allocate.")
    parser.add_argument("--allocates", type=int, default=100_000, help="the number of calls for each kind of injection")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the random choices")
    parser.add_argument("--record", type=Path, help="the file to write the figures to")
    arguments = parser.parse_args()
    results = []
    for mode in CONFIGS:
        result = asyncio.run(attack(mode, arguments.allocates, arguments.seed))
        results.append(result)
        print(result)
        for reason, number in Counter(result.wrong).most_common(10):
            print(f"  {number} wrong: {reason}")
        for failure, number in result.failures.most_common(10):
            print(f"  {number} failed: {failure}")
    if arguments.record is not None:
        write_record(arguments.record, results)
    return int(any(result.wrong or result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
