"""Runs a soak: steps of random actions, and the checks after each step."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import grpc
from msgspec import Struct, field

from tests.cluster.cluster import Cluster
from tests.cluster.soak import actions
from tests.cluster.soak.actions import ACTIONS, Action
from tests.cluster.soak.checks import Checks
from tests.cluster.soak.model import DEVICES, Configuration, World
from tests.cluster.soak.observation import find_agent_process, observe

SETTLE_SECONDS = 120.0
"""Seconds within which the node must agree with the model."""
IDLE_SECONDS = 20.0
"""Seconds without an action before the use of the agent is measured; idle threads end meanwhile."""
MAX_GROWTH = {"descriptors": 8, "threads": 8, "child processes": 2, "KiB of resident memory": 24 * 1024}
"""The maximum growth of what the agent uses."""
_POLL_SECONDS = 0.5
_LOGGED_STEPS = 10


class SoakError(Exception):
    """A check failed; the text has the differences and the last steps."""


class Figures(Struct):
    """The counts and measurements of a soak."""

    seed: int
    minutes: float = 0
    actions: Counter[str] = field(default_factory=Counter)
    settle_seconds: list[float] = []
    observations: int = 0
    pods: int = 0
    ran: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    before: dict[str, int] = {}
    after: dict[str, int] = {}


class Soak:
    """A soak of a cluster with the chart. The same seed gives the same steps."""

    def __init__(self, cluster: Cluster, seed: int, log: Callable[[str], None] = print) -> None:
        self._cluster = cluster
        self._world = World()
        self._choose = Random(seed)
        self._checks = Checks(cluster, self._world)
        self._log = log
        self._steps: list[str] = []
        self._second_half: int | None = None
        """The number of steps in the first half, once the second half has begun."""
        self.figures = Figures(seed)
        self.sabotaged_step = 0

    def prepare(self, values: dict[str, Any]) -> None:
        """Create the devices, and install or upgrade the chart with the configuration of the soak."""
        for name in DEVICES:
            self._world.plugged.discard(name)
            actions.plug(self._cluster, self._world, name)
        self._cluster.install(values | {"config": {"resources": Configuration().build()}})
        self._settle()

    def run_steps(self, number: int, second_half: int | None = None) -> None:
        """Run a number of steps; ``second_half`` is the number of steps in the first half.

        Raises:
            SoakError: A check failed.
        """
        for step in range(number):
            if step == second_half:
                self._begin_second_half()
            self._run_step()
        self._record_pods()

    def run_minutes(self, minutes: float) -> None:
        """Run steps for some minutes; in the second half, no action ends the agent, and its use is measured.

        Raises:
            SoakError: A check failed, or the agent uses more than before.
        """
        start = time.monotonic()
        self._run_until(start + 30 * minutes)
        self._begin_second_half()
        process = find_agent_process(self._cluster)
        self.figures.before = actions.read_footprint(process)
        self._run_until(start + 60 * minutes)
        self._rest()
        if process != find_agent_process(self._cluster):
            raise self._error(["expected the same process of the agent in the second half, found another"])
        self.figures.after = actions.read_footprint(process)
        self.figures.minutes = (time.monotonic() - start) / 60
        growth = {name: self.figures.after[name] - before for name, before in self.figures.before.items()}
        if errors := [
            f"{name} of the agent: expected a growth of at most {most}, found {growth[name]}"
            for name, most in MAX_GROWTH.items()
            if growth[name] > most
        ]:
            raise self._error(errors)

    def _begin_second_half(self) -> None:
        self._rest()
        self._second_half = len(self._steps)

    def _run_until(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            self._run_step()

    def _run_step(self) -> None:
        texts, names = [], set[str]()
        for name, action in self._choose_actions():
            # The choice does not depend on the time, so that a seed gives the same steps.
            choose = Random(self._choose.random())
            if action.ends_agent and self._second_half is not None:
                continue
            texts.append(action.run(self._cluster, self._world, choose))
            self.figures.actions[name] += 1
            names.add(name)
        self._checks.is_calm = names <= {"create", "delete"}
        self._steps.append(f"step {len(self._steps) + 1}: {'; '.join(texts)}")
        if self.sabotaged_step == len(self._steps):
            self._cluster.machine.unplug(f"/dev/{min(self._world.plugged)}")
        seconds = self._settle()
        self._log(f"{self._steps[-1]} ({seconds:.1f} s)")

    def _choose_actions(self) -> list[tuple[str, Action]]:
        if self._choose.random() < 0.3:
            names = ["config"] if self._world.written is None else ["config", "bad-config"]
            number = 1
        else:
            names = [name for name, action in ACTIONS.items() if not action.is_alone]
            number = self._choose.randint(1, 4)
        chosen = self._choose.choices(names, [ACTIONS[name].weight for name in names], k=number)
        return [(name, ACTIONS[name]) for name in chosen]

    def _settle(self) -> float:
        """Return the seconds until the node agrees with the model in two observations.

        Raises:
            SoakError: Something happened that must never happen, or the node does not settle in time.
        """
        start = time.monotonic()
        agreed: float | None = None
        while True:
            deviations, has_agreed = self._compare(), agreed is not None
            if not deviations and has_agreed:
                assert agreed is not None
                self.figures.settle_seconds.append(agreed - start)
                return agreed - start
            agreed = None if deviations else time.monotonic()
            if time.monotonic() > start + SETTLE_SECONDS:
                raise self._error(deviations)
            time.sleep(_POLL_SECONDS)

    def _compare(self) -> list[str]:
        try:
            seen = observe(self._cluster)
            violations = self._checks.find_violations(seen)
            deviations = self._checks.find_deviations(seen)
        except (grpc.RpcError, OSError, KeyError, ValueError, subprocess.CalledProcessError) as error:
            # The kubelet or the agent starts, and for example the pod of the agent has no address yet.
            return [f"the node does not respond: {error!r}"]
        self.figures.observations += 1
        if violations:
            # The parts of an observation are not of the same moment: a container may have ended meanwhile.
            again = set(self._checks.find_violations(observe(self._cluster)))
            if confirmed := [text for text in violations if text in again or "internal error" in text]:
                raise self._error(confirmed)
        return deviations

    def _rest(self) -> None:
        """Restore the machine, delete all pods, and wait until the agent is idle."""
        self._record_pods()
        world, cluster = self._world, self._cluster
        for name in DEVICES:
            if name not in world.plugged:
                actions.plug(cluster, world, name)
        actions.set_probe(cluster, world, has_failed=False)
        if world.pods:
            cluster.kubectl("delete", "pod", "--wait=false", *world.pods)
            world.pods.clear()
        self._settle()
        actions.write_configuration(cluster, world, Configuration())
        self._settle()
        time.sleep(IDLE_SECONDS)
        self._settle()

    def _record_pods(self) -> None:
        self.figures.pods = self._world.created
        self.figures.ran = len(self._checks.ran)
        self.figures.rejected = len(self._checks.rejected)
        self.figures.refused = Counter(self._checks.refused.values())

    def _error(self, texts: list[str]) -> SoakError:
        steps = "\n".join(self._steps[-_LOGGED_STEPS:])
        directory = self._cluster.machine.directory
        logs = self._cluster.machine.read_logs()
        agent = "\n".join(
            "\n".join(path.read_text(errors="replace").splitlines()[-40:])
            for path in sorted(Path(directory, "log/pods").glob("genplug_*/genplug/*.log"))
        )
        command = f"python -m tests.cluster.soak --seed {self.figures.seed} --steps {len(self._steps)}"
        if self._second_half is not None:
            command += f" --second-half {self._second_half}"
        differences = "\n".join(texts)
        return SoakError(
            f"log of the agent:\n{agent}\n\n{logs}\n\nlast steps:\n{steps}\n\n{differences}\n\nreplay: {command}"
        )
