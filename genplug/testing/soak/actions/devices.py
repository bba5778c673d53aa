"""Steps that plug and unplug devices."""

from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, Final

from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine

_MAX_FLAPS = 20
_NEW_MINOR_START = 1000


def choose_some(random: Random, devices: Iterable[str], most: int) -> tuple[str, ...]:
    """Return some devices, at most ``most``, or none if there are none."""
    candidates = sorted(devices)
    return tuple(sorted(random.sample(candidates, min(len(candidates), random.randint(1, most)))))


class Unplug(Action):
    """Remove some devices."""

    kind = "unplug"
    weight = 20
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        devices = choose_some(random, world.present, 3)
        return Step(self.kind, devices) if devices else None

    def apply(self, step: Step, world: World) -> World:
        return world.unplug(step.devices)

    async def execute(self, step: Step, machine: "Machine") -> None:
        for device in step.devices:
            machine.unplug(device)


class Plug(Action):
    """Add some devices that do not exist."""

    kind = "plug"
    weight = 25
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        devices = choose_some(random, set(world.devices) - world.present, 4)
        return Step(self.kind, devices) if devices else None

    def apply(self, step: Step, world: World) -> World:
        return world.plug(step.devices)

    async def execute(self, step: Step, machine: "Machine") -> None:
        for device in step.devices:
            machine.plug(device)


class UnplugMany(Action):
    """Remove all devices of several families, or add all devices."""

    kind = "many-devices"
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        missing = set(world.devices) - world.present
        if len(missing) > len(world.devices) // 4:
            return Step(self.kind, tuple(sorted(missing)), "plug")
        families = random.sample(world.families, random.randint(2, len(world.families)))
        gone = [device for family in families for device in family.devices if device in world.present]
        return Step(self.kind, tuple(sorted(gone)), "unplug") if gone else None

    def apply(self, step: Step, world: World) -> World:
        return world.plug(step.devices) if step.value == "plug" else world.unplug(step.devices)

    async def execute(self, step: Step, machine: "Machine") -> None:
        change = machine.plug if step.value == "plug" else machine.unplug
        for device in step.devices:
            change(device)


class Flap(Action):
    """Remove a device and add it again several times, in short intervals."""

    kind = "flap"
    weight = 20
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        devices = choose_some(random, world.present, 2)
        interval = random.choice((0.0, 0.001, 0.02, 0.1))
        return Step(self.kind, devices, "", random.randint(1, _MAX_FLAPS), interval) if devices else None

    async def execute(self, step: Step, machine: "Machine") -> None:
        for _ in range(step.number):
            for device in step.devices:
                machine.unplug(device)
            await machine.pause(step.seconds)
            for device in step.devices:
                machine.plug(device)
            await machine.pause(step.seconds)


class Replug(Action):
    """Remove a device, and add it with another minor number."""

    kind = "replug"
    weight = 15
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        devices = choose_some(random, world.present, 3)
        return Step(self.kind, devices, "", max(_NEW_MINOR_START, *world.minors.values()) + 1) if devices else None

    def apply(self, step: Step, world: World) -> World:
        return world.renumber({device: step.number + n for n, device in enumerate(step.devices)})

    async def execute(self, step: Step, machine: "Machine") -> None:
        for number, device in enumerate(step.devices, start=step.number):
            machine.unplug(device)
            machine.plug(device, minor=number)


ACTIONS: Final = (Unplug(), Plug(), UnplugMany(), Flap(), Replug())
