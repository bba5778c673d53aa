"""Steps that write valid and invalid configurations."""

from random import Random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from genplug.testing.node.config_files import WRITE_METHODS
from genplug.testing.soak.configuration import INVALID_TEXTS
from genplug.testing.soak.model import Configuration, World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine

_MAX_REPLICAS = 3
_WITHOUT_SHARE, _REPLICAS_SHARE, _MOVE_SHARE = 0.15, 0.3, 0.03


def _choose_configuration(random: Random, world: World) -> Configuration:
    claimed = {family.claims for family in world.families}
    without = set()
    for family in world.families:
        was_without = family.name in world.configuration.without
        if family.name in claimed:
            # The agent withholds devices that move to another resource for half a minute, in case a pod uses them.
            is_without = was_without != (random.random() < _MOVE_SHARE)
        else:
            is_without = family.is_optional and random.random() < _WITHOUT_SHARE
        if is_without:
            without.add(family.name)
    replicas = {
        family.name: random.randint(1, _MAX_REPLICAS)
        for family in world.families
        if not family.is_kept and random.random() < _REPLICAS_SHARE
    }
    return Configuration(world.configuration.number + 1, frozenset(without), replicas)


class _WritesConfiguration(Action):
    """Common to steps that write a valid configuration; a step has the configuration as ``choice``."""

    is_change = True

    def apply(self, step: Step, world: World) -> World:
        return replace(
            world,
            configuration=step.configuration or world.configuration,
            config_error="",
            has_unread_configuration=True,
        )


class Reload(_WritesConfiguration):
    """Write a valid configuration with one of the methods by which people and programs write files."""

    kind = "reload"
    weight = 15

    def choose(self, random: Random, world: World) -> Step | None:
        configuration = _choose_configuration(random, world)
        return Step(self.kind, (), random.choice(sorted(WRITE_METHODS)), configuration=configuration)

    async def execute(self, step: Step, machine: "Machine") -> None:
        if step.configuration is not None:
            machine.write_configuration(step.configuration, step.value)


class SwapTwice(_WritesConfiguration):
    """Update the ConfigMap volume twice, the first time with an invalid or another configuration."""

    kind = "config-map-twice"

    def choose(self, random: Random, world: World) -> Step | None:
        configuration = _choose_configuration(random, world)
        first = random.choice(("valid", *(name for name, text in sorted(INVALID_TEXTS.items()) if text is not None)))
        return Step(self.kind, (), first, seconds=random.choice((0.0, 0.01, 0.3)), configuration=configuration)

    async def execute(self, step: Step, machine: "Machine") -> None:
        if step.configuration is not None:
            if step.value == "valid":
                machine.write_configuration(Configuration(-1), "configmap")
            else:
                machine.write_invalid(step.value, "configmap")
            await machine.pause(step.seconds)
            machine.write_configuration(step.configuration, "configmap")


class InvalidReload(Action):
    """Write an invalid configuration, or delete the file; the last valid configuration that was read remains active."""

    kind = "invalid-reload"
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        if world.has_unread_configuration:
            return None
        name = random.choice(sorted(INVALID_TEXTS))
        return Step(self.kind, (random.choice(sorted(WRITE_METHODS)),), name)

    def apply(self, step: Step, world: World) -> World:
        return replace(world, config_error=step.value)

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.write_invalid(step.value, step.devices[0])


ACTIONS: Final = (Reload(), SwapTwice(), InvalidReload())
