"""A step of a soak, and the interface of the kinds of steps."""

from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from genplug.testing.soak.model import Configuration, World

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine


class Step(Struct, frozen=True):
    """A step: its kind, what it uses (devices, value, number, configuration), its duration, and its inner steps."""

    kind: str
    devices: tuple[str, ...] = ()
    value: str = ""
    number: int = 0
    seconds: float = 0.0
    inner: tuple["Step", ...] = ()
    configuration: Configuration | None = None

    def __str__(self) -> str:
        parts = [self.kind, ",".join(self.devices), self.value, str(self.number or "")]
        if (configuration := self.configuration) is not None:
            without = [f"-{name}" for name in sorted(configuration.without)]
            replicas = [f"{name}*{number}" for name, number in sorted(configuration.replicas.items())]
            parts += [f"#{configuration.number}", *without, *replicas]
        parts += [f"{self.seconds:.2f} s" if self.seconds else "", *(f"[{step}]" for step in self.inner)]
        return " ".join(part for part in parts if part)


class Action(ABC):
    """A kind of step.

    ``weight`` is the relative frequency. ``needs_root`` states that the action mounts file systems, ``needs_clock``
    that it changes the clock of the agent, which requires a C compiler. ``is_change`` states that the step can be a
    part of a longer step, such as changes during a pause of the agent. ``needs_settled_node`` states that the agent
    must know all previous changes before the step. ``max_inner_steps`` is the number of changes that can happen during
    the step.
    """

    kind: ClassVar[str]
    weight: ClassVar[int] = 10
    needs_root: ClassVar[bool] = False
    needs_clock: ClassVar[bool] = False
    is_change: ClassVar[bool] = False
    needs_settled_node: ClassVar[bool] = False
    max_inner_steps: ClassVar[int] = 0

    @abstractmethod
    def choose(self, random: Random, world: World) -> Step | None:
        """Return a step for the state of the node, or None if the action does not apply to it."""

    def apply(self, step: Step, world: World) -> World:  # noqa: ARG002 - for the overriding methods
        """Return the expected state after the step."""
        return world

    def accepts(self, step: Step, inner: Step) -> bool:  # noqa: ARG002 - for the overriding methods
        """Return whether another step can happen during a step of this kind."""
        return True

    @abstractmethod
    async def execute(self, step: Step, machine: "Machine") -> None:
        """Perform the step on the node."""
