"""Steps that stop the agent, send it signals, change its clock, take descriptors from it, or disturb its log."""

import resource
import signal
from random import Random
from typing import TYPE_CHECKING, Final

from genplug.testing.soak.footprint import list_descriptors
from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine

_MIN_SECONDS, _MAX_SECONDS = 0.1, 3.0
_MAX_FREE_DESCRIPTORS = 4
_MAX_SIGNALS = 5
_DAY, _HOUR = 86_400, 3600
_CLOCK_OFFSETS = (-_DAY, -_HOUR, -5, 0, 5, _HOUR, _DAY)
"""Seconds between the clock of the agent and that of the machine."""


def _choose_seconds(random: Random) -> float:
    return round(random.uniform(_MIN_SECONDS, _MAX_SECONDS), 2)


class StopAgent(Action):
    """Stop the agent with SIGSTOP, and continue it later."""

    kind = "sigstop"
    weight = 8
    max_inner_steps = 4

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        return Step(self.kind, seconds=_choose_seconds(random))

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.send_signal(signal.SIGSTOP)
        try:
            await machine.execute_inner(step)
            await machine.pause(step.seconds)
        finally:
            machine.send_signal(signal.SIGCONT)


class ExhaustDescriptors(Action):
    """Lower the limit of open descriptors of the agent to its current use (EMFILE), and restore it later."""

    kind = "emfile"
    weight = 8
    max_inner_steps = 4

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        return Step(self.kind, number=random.randint(0, _MAX_FREE_DESCRIPTORS), seconds=_choose_seconds(random))

    async def execute(self, step: Step, machine: "Machine") -> None:
        # Descriptors have the lowest free numbers, and the limit is on the numbers.
        used = 1 + max(list_descriptors(machine.agent_pid))
        limits = resource.prlimit(machine.agent_pid, resource.RLIMIT_NOFILE)
        resource.prlimit(machine.agent_pid, resource.RLIMIT_NOFILE, (used + step.number, limits[1]))
        try:
            await machine.execute_inner(step)
            await machine.pause(step.seconds)
        finally:
            resource.prlimit(machine.agent_pid, resource.RLIMIT_NOFILE, limits)


class BlockLog(Action):
    """Stop reading the pipe of the agent's log; its device lists must be true while the pipe is full."""

    kind = "log-blocked"
    weight = 8
    max_inner_steps = 6

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        return Step(self.kind, seconds=_choose_seconds(random))

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.log.pause()
        try:
            await machine.execute_inner(step)
            await machine.pause(step.seconds)
            await machine.settle_within(step)
        finally:
            machine.log.resume()


class CloseLog(Action):
    """Close the reading end of the pipe of the agent's log, and open it again later."""

    kind = "log-closed"
    weight = 8
    max_inner_steps = 6

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        return Step(self.kind, seconds=_choose_seconds(random))

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.log.close()
        try:
            await machine.execute_inner(step)
            await machine.pause(step.seconds)
            await machine.settle_within(step)
        finally:
            await machine.log.open(machine.agent_pid)


class Hangup(Action):
    """Send SIGHUP several times, at which the agent reads the configuration and scans for devices."""

    kind = "sighup"
    weight = 5
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        return Step(self.kind, number=random.randint(1, _MAX_SIGNALS))

    async def execute(self, step: Step, machine: "Machine") -> None:
        for _ in range(step.number):
            machine.send_signal(signal.SIGHUP)


class JumpClock(Action):
    """Set the wall clock of the agent forward or back by a day, or to the time of the machine."""

    kind = "clock-jump"
    needs_clock = True
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        return Step(self.kind, number=random.choice(_CLOCK_OFFSETS))

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.clock.set_offset(step.number)


ACTIONS: Final = (StopAgent(), ExhaustDescriptors(), BlockLog(), CloseLog(), Hangup(), JumpClock())
