"""Probes that listen: records from before and after the start, and the events that end a failure."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from genplug.hardware.host import Host
from genplug.hardware.uevents import Uevent
from genplug.health.binding import bind_probes
from genplug.health.event_probes import MAX_EVALUATIONS_PER_TURN, EventProbes, is_driver_bound
from genplug.health.probe_instance import ProbeInstance
from genplug.health.probes.kernel_log import KernelLogCheck
from genplug.health.probes.uevent import UeventCheck
from genplug.health.thresholds import Outcome, Result, initial_state, next_state
from genplug.spec.model import Resource
from genplug.spec.probes import Check, HealthSpec, ProbeSpec
from genplug.spec.template import Template
from tests.support.probes import LOCATION, PASSED, make_device

BRIDGE = "/devices/pci0000:00/0000:00:03.0"
FUNCTION = f"{BRIDGE}/0000:03:00.0"
CARD = f"{FUNCTION}/drm/card0"


def event(action: str, devpath: str, **values: str) -> Uevent:
    return Uevent(action, devpath, "pci", {"ACTION": action, "DEVPATH": devpath, **values})


def test_driver_is_bound_to_device_or_to_its_pci_function() -> None:
    directories = (f"/sys{CARD}",)
    assert is_driver_bound(directories, event("bind", FUNCTION, DRIVER="amdgpu"))
    assert is_driver_bound(("/sys/devices/x", *directories), event("bind", FUNCTION, DRIVER="amdgpu"))
    for action in ("unbind", "add", "change", "remove"):
        assert not is_driver_bound(directories, event(action, FUNCTION, DRIVER="amdgpu"))
    for other in (f"{CARD}/card0-DP-1", f"{BRIDGE}/0000:03:00.1", f"{FUNCTION}0"):
        assert not is_driver_bound(directories, event("bind", other, DRIVER="amdgpu"))
    assert not is_driver_bound((), event("bind", FUNCTION, DRIVER="amdgpu"))
    # The driver of a bridge is not a driver of the device below it.
    assert not is_driver_bound(directories, event("bind", BRIDGE, DRIVER="pcieport"))


class Listening:
    """Event probes of one device, and the results that they apply."""

    def __init__(self, root: Path, *checks: Check, uevents_error: str = "") -> None:
        (root / "dev").mkdir()
        os.mkfifo(root / "dev/kmsg")
        self._log = os.open(root / "dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        self.results: asyncio.Queue[tuple[str, Result]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self.probes = EventProbes(Host(root), lambda: uevents_error, self._apply, lambda: None, self._spawn)
        device = make_device({"sysfs": (f"/sys{CARD}",)})
        probes = tuple(ProbeSpec(LOCATION, f"probe{number}", check) for number, check in enumerate(checks))
        resource = Resource("a.example/x", LOCATION, (), health=HealthSpec(probes=probes))
        self.instances = [ProbeInstance(bound, initial_state(0), 0) for bound in bind_probes(resource, (device,))]

    def log(self, number: int, text: str) -> None:
        os.write(self._log, f"4,{number},0,-;{text}\n".encode())

    def start(self) -> None:
        self.probes.update((), self.instances)
        self.probes.start(self.instances)

    async def next_result(self) -> tuple[str, Result]:
        return await asyncio.wait_for(self.results.get(), 10)

    def close(self) -> None:
        self.probes.close()
        os.close(self._log)

    def _apply(self, instance: ProbeInstance, result: Result) -> None:
        instance.state = next_state(instance.state, result, instance.bound.timing, 0)
        self.results.put_nowait((instance.bound.spec.name, result))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))


FAULT = Result(Outcome.FAILED, "the kernel logged: fault")


async def test_failure_of_kernel_log_ends_when_driver_is_bound(tmp_path: Path) -> None:
    listening = Listening(tmp_path, KernelLogCheck((Template.parse("fault"),)))
    listening.log(1, "fault")
    listening.start()
    assert await listening.next_result() == ("probe0", FAULT)
    listening.probes.on_uevent(event("bind", FUNCTION, DRIVER="amdgpu"))
    assert await listening.next_result() == ("probe0", PASSED)
    listening.probes.on_uevent(event("change", FUNCTION))
    assert listening.results.empty()
    listening.close()


@pytest.mark.parametrize("error", ["", "events cannot be received"])
async def test_uevent_probe_passes_first_unless_events_cannot_be_received(tmp_path: Path, error: str) -> None:
    listening = Listening(tmp_path, UeventCheck((Template.parse("WEDGED="),)), uevents_error=error)
    listening.start()
    expected = Result(Outcome.ERROR, error) if error else PASSED
    assert await listening.next_result() == ("probe0", expected)
    listening.close()


async def test_existing_records_are_evaluated_in_turns_for_many_probes(tmp_path: Path) -> None:
    count, records = 1000, 400
    listening = Listening(tmp_path, *[KernelLogCheck((Template.parse("fault"),))] * count)
    for number in range(records):
        listening.log(number, "fault")
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            # Another task of the event loop, for example a call of the kubelet.
            seen = listening.results.qsize()
            await asyncio.sleep(0)
            turns += listening.results.qsize() > seen

    other = asyncio.create_task(take_turns())
    listening.start()
    async with asyncio.timeout(60):
        while listening.results.qsize() < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert turns >= count * records // MAX_EVALUATIONS_PER_TURN // 2
    other.cancel()
    listening.close()
