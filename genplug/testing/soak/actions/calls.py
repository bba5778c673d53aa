"""Steps with many calls of the kubelet at once."""

from random import Random
from typing import TYPE_CHECKING, Final

from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine


class AllocateManyAtOnce(Action):
    """Call Allocate and admit pods from many tasks while devices and the configuration change."""

    kind = "allocate-many"
    weight = 15
    max_inner_steps = 5

    def choose(self, random: Random, world: World) -> Step | None:
        return Step(self.kind, number=random.randint(4, 32)) if world.kubelet_runs else None

    async def execute(self, step: Step, machine: "Machine") -> None:
        async with machine.allocate_meanwhile(step.number):
            await machine.execute_inner(step)


ACTIONS: Final = (AllocateManyAtOnce(),)
