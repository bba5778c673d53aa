"""Steps that change the results of probes, and reads and programs that hang."""

import signal
from random import Random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from genplug.testing.soak.actions.devices import choose_some
from genplug.testing.soak.model import ProgramState, World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine

ACTIONS_OF_CONFIGURATION = frozenset({"reload", "config-map-twice", "invalid-reload", "sighup", "eio"})
_REPAIR_SHARE = 0.7
_MAX_HUNG_READS = 2
"""Reads that hang at the same time. The agent runs no further probes of a resource with four of them."""


def _devices_with_probe(world: World, *kinds: str) -> list[str]:
    return [device for family in world.families if family.probe in kinds for device in family.devices]


class ChangeStatusFile(Action):
    """Write a failure, or the content of a healthy device, to the status files of some devices."""

    kind = "status-file"
    weight = 20
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        devices = choose_some(random, _devices_with_probe(world, "file", "fuse"), 3)
        return Step(self.kind, devices, random.choice(("ok", "failed"))) if devices else None

    def apply(self, step: Step, world: World) -> World:
        if step.value == "ok":
            return replace(world, failing=world.failing - frozenset(step.devices))
        return replace(world, failing=world.failing | frozenset(step.devices))

    async def execute(self, step: Step, machine: "Machine") -> None:
        for device in step.devices:
            machine.write_status(device, step.value)


class HangReads(Action):
    """Make the reads of a status file hang, or answer all reads that hang."""

    kind = "hang-read"
    needs_root = True
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        if world.hung:
            return Step(self.kind, tuple(sorted(world.hung)), "release")
        devices = choose_some(random, set(_devices_with_probe(world, "fuse")) - world.unreadable, _MAX_HUNG_READS)
        return Step(self.kind, devices, "hang") if devices else None

    def apply(self, step: Step, world: World) -> World:
        devices = frozenset(step.devices)
        return replace(world, hung=world.hung | devices if step.value == "hang" else world.hung - devices)

    async def execute(self, step: Step, machine: "Machine") -> None:
        for device in step.devices:
            machine.set_read_hangs(device, hangs=step.value == "hang")


class FailReads(Action):
    """Make the reads of a status file or of an attribute fail with EIO, or end the failures."""

    kind = "eio"
    needs_root = True
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        if world.unreadable and random.random() < _REPAIR_SHARE:
            return Step(self.kind, tuple(sorted(world.unreadable)), "release")
        files = [device for family in world.families if family.needs_root for device in family.devices]
        devices = choose_some(random, set(files) - world.hung - world.unreadable, 3)
        return Step(self.kind, devices, "fail") if devices else None

    def apply(self, step: Step, world: World) -> World:
        devices = frozenset(step.devices)
        unreadable = world.unreadable | devices if step.value == "fail" else world.unreadable - devices
        return replace(world, unreadable=unreadable)

    async def execute(self, step: Step, machine: "Machine") -> None:
        for device in step.devices:
            machine.set_read_fails(device, fails=step.value == "fail")
        # The kernel reports no event for a file of such a file system, so the agent must scan again.
        machine.send_signal(signal.SIGHUP)


class HangAttributes(Action):
    """Make the reads of attributes hang while other devices change; the resource keeps its devices."""

    kind = "hang-attributes"
    needs_root = True
    needs_settled_node = True
    max_inner_steps = 5

    def choose(self, random: Random, world: World) -> Step | None:
        devices = [device for family in world.families if family.has_attribute for device in family.devices]
        return Step(self.kind, tuple(devices), seconds=round(random.uniform(0.1, 3.0), 2)) if devices else None

    def accepts(self, step: Step, inner: Step) -> bool:
        # A scan that hangs delays changes of the devices of its resource, and the activation of a configuration.
        return not ACTIONS_OF_CONFIGURATION & {inner.kind} and not set(step.devices) & set(inner.devices)

    async def execute(self, step: Step, machine: "Machine") -> None:
        for device in step.devices:
            machine.set_read_hangs(device, hangs=True)
        machine.send_signal(signal.SIGHUP)
        try:
            await machine.execute_inner(step)
            await machine.pause(step.seconds)
            await machine.settle_within(step)
        finally:
            for device in step.devices:
                machine.set_read_hangs(device, hangs=False)


class ChangeProgram(Action):
    """Make the program of the ``exec`` probes succeed, fail or hang."""

    kind = "probe-program"
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        states = [state for state in ("pass", "fail", "hang") if state != world.program]
        state = "pass" if world.program != "pass" and random.random() < _REPAIR_SHARE else random.choice(states)
        return Step(self.kind, (), state)

    def apply(self, step: Step, world: World) -> World:
        states: dict[str, ProgramState] = {"pass": "pass", "fail": "fail", "hang": "hang"}
        return replace(world, program=states[step.value])

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.set_program(step.value)


ACTIONS: Final = (ChangeStatusFile(), HangReads(), FailReads(), HangAttributes(), ChangeProgram())
