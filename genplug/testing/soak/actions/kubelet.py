"""Steps of the kubelet: restarts, crashes, and files in its directory that disappear."""

from random import Random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Action, Step

if TYPE_CHECKING:
    from genplug.testing.soak.machine import Machine


class RestartKubelet(Action):
    """Crash the kubelet and start it again."""

    kind = "kubelet-restart"
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        pause = random.choice((0.0, 0.0, 0.05, 0.5))
        return Step(self.kind, seconds=pause) if world.kubelet_runs else None

    async def execute(self, step: Step, machine: "Machine") -> None:
        await machine.node.kubelet.crash()
        await machine.pause(step.seconds)
        await machine.node.kubelet.start()


class CrashKubelet(Action):
    """Crash the kubelet; a later step starts it."""

    kind = "kubelet-crash"
    weight = 5

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - nothing to choose
        return Step(self.kind) if world.kubelet_runs else None

    def apply(self, step: Step, world: World) -> World:  # noqa: ARG002 - the same for all steps
        return replace(world, kubelet_runs=False)

    async def execute(self, step: Step, machine: "Machine") -> None:  # noqa: ARG002 - the same for all steps
        await machine.node.kubelet.crash()


class StartKubelet(Action):
    """Start the kubelet after a crash."""

    kind = "kubelet-start"
    weight = 60

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - nothing to choose
        return None if world.kubelet_runs else Step(self.kind)

    def apply(self, step: Step, world: World) -> World:  # noqa: ARG002 - the same for all steps
        return replace(world, kubelet_runs=True)

    async def execute(self, step: Step, machine: "Machine") -> None:  # noqa: ARG002 - the same for all steps
        await machine.node.kubelet.start()


class WipeDirectory(Action):
    """Delete all sockets in the directory of the device plugins except the kubelet's."""

    kind = "wipe"
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:  # noqa: ARG002 - nothing to choose
        return Step(self.kind) if world.kubelet_runs else None

    async def execute(self, step: Step, machine: "Machine") -> None:  # noqa: ARG002 - the same for all steps
        machine.node.kubelet.wipe()


class DeleteSocket(Action):
    """Delete the socket of a resource."""

    kind = "delete-socket"
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        return Step(self.kind, number=random.randrange(1000)) if world.kubelet_runs else None

    async def execute(self, step: Step, machine: "Machine") -> None:
        sockets = sorted(
            path
            for path in machine.node.kubelet.plugins_dir.iterdir()
            if path.is_socket() and path != machine.node.kubelet.socket
        )
        if sockets:
            sockets[step.number % len(sockets)].unlink(missing_ok=True)


class CancelStream(Action):
    """Cancel the list stream of a resource, after which the kubelet waits for a registration."""

    kind = "cancel-stream"
    weight = 5
    is_change = True

    def choose(self, random: Random, world: World) -> Step | None:
        families = [family for family in world.families if world.configuration.has_resource(family)]
        return Step(self.kind, (), random.choice(families).resource) if world.kubelet_runs else None

    async def execute(self, step: Step, machine: "Machine") -> None:
        machine.cancel_stream(step.value)


ACTIONS: Final = (RestartKubelet(), CrashKubelet(), StartKubelet(), WipeDirectory(), DeleteSocket(), CancelStream())
