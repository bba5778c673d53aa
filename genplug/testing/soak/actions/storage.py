"""Steps in which a file system of the node is full or read-only."""

from random import Random
from typing import TYPE_CHECKING, Final

from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine

DIRECTORIES: Final = ("audit", "cdi", "plugins")
"""The directories that are file systems of their own."""
_CALM_KINDS: Final = frozenset({"unplug", "plug", "flap", "replug", "many-devices", "status-file", "probe-program"})
"""Changes that need no new file in these directories, except in that of the CDI files."""
_KUBELET_KINDS: Final = frozenset({"kubelet-restart"})
_MIN_SECONDS, _MAX_SECONDS = 0.1, 3.0
_MAX_ATTEMPTS, _RETRY_SECONDS = 100, 0.05
"""Attempts to mount a directory read-only, which fail while the agent writes a file in it."""


class _FailingDirectory(Action):
    """Common to the steps of a directory; the kubelet cannot start while its directory cannot be written."""

    needs_root = True
    needs_settled_node = True
    weight = 8
    max_inner_steps = 4
    directories: tuple[str, ...] = DIRECTORIES

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - applies to every state
        seconds = round(random.uniform(_MIN_SECONDS, _MAX_SECONDS), 2)
        return Step(self.kind, (), random.choice(self.directories), seconds=seconds)

    async def execute_during(self, step: Step, machine: "Machine") -> None:
        """Perform the inner steps. The lists must be true if the changes need no new file."""
        await machine.execute_inner(step)
        await machine.pause(step.seconds)
        if {inner.kind for inner in step.inner} <= _CALM_KINDS:
            without = ("injected",) if step.value == "cdi" else ()
            await machine.settle_within(step, without)


class FillDirectory(_FailingDirectory):
    """Fill the file system of a directory (ENOSPC), and free the space later."""

    kind = "enospc"

    def accepts(self, step: Step, inner: Step) -> bool:
        return step.value != "plugins" or inner.kind not in _KUBELET_KINDS

    async def execute(self, step: Step, machine: "Machine") -> None:
        file_system = machine.file_systems[step.value]
        file_system.fill()
        try:
            await self.execute_during(step, machine)
        finally:
            file_system.empty()


class MountReadOnly(_FailingDirectory):
    """Mount the file system of a directory read-only (EROFS), and writable again later."""

    kind = "erofs"
    # The kernel refuses it for the directory of the audit log, whose file is open.
    directories = ("cdi", "plugins")

    def accepts(self, step: Step, inner: Step) -> bool:
        return step.value != "plugins" or inner.kind not in _KUBELET_KINDS | {"wipe", "delete-socket"}

    async def execute(self, step: Step, machine: "Machine") -> None:
        file_system = machine.file_systems[step.value]
        for _ in range(_MAX_ATTEMPTS):
            if file_system.set_read_only(is_read_only=True):
                break
            await machine.pause(_RETRY_SECONDS)
        else:
            raise OSError(f"the directory '{step.value}' cannot be mounted read-only: a file in it remains open")
        try:
            await self.execute_during(step, machine)
        finally:
            file_system.set_read_only(is_read_only=False)


ACTIONS: Final = (FillDirectory(), MountReadOnly())
