"""Run a soak: execute the steps, settle, check, and measure."""

import asyncio
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from genplug.testing.soak.actions import ACTIONS
from genplug.testing.soak.checks import Checker
from genplug.testing.soak.footprint import Footprint, growth_error, measure_footprint
from genplug.testing.soak.machine import Machine, SoakError
from genplug.testing.soak.model import World, expected_lists
from genplug.testing.soak.report import Failure, Report
from genplug.testing.soak.sequence import Burst, apply_step, generate_bursts
from genplug.testing.soak.settles import Moves, Settle, classify_settle
from genplug.testing.soak.steps import Step

_WARM_UP_SHARE: Final = 0.15
_MAX_WARM_UP_SECONDS: Final = 300.0
_PROGRESS_SECONDS: Final = 15.0
_START_SECONDS: Final = 120.0
"""Limit of the first check, which includes the start of the agent on a busy machine."""
_SHOWN_STEPS: Final = 12


class Plan(Struct, frozen=True):
    """The arguments of a soak. ``max_steps`` is 0 without a limit; ``sabotage`` is 0 or the step to falsify."""

    minutes: float
    seed: int
    world: World
    kinds: tuple[str, ...]
    left_out: dict[str, str]
    max_steps: int
    sabotage: int
    settle_seconds: float
    log_file: Path
    replay: str
    is_verbose: bool
    has_mounts: bool


async def run_soak(plan: Plan, report: Report) -> None:
    """Run a soak and fill the report."""
    started = time.monotonic()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        report.stopped_by = name
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number.name)
    machine = Machine(
        plan.world, plan.log_file, plan.seed, has_mounts=plan.has_mounts, has_clock="clock-jump" in plan.kinds
    )
    runner = _Runner(plan, report, machine, started, stopping)
    try:
        async with machine.run():
            await runner.run()
    except SoakError as error:
        runner.fail(str(error))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the report has the steps before the error
        runner.fail(f"the soak failed: {''.join(traceback.format_exception(error))}")
    finally:
        report.seconds = time.monotonic() - started
        report.checks = runner.checker.counts
        report.calls = machine.calls


class _Runner:
    """Executes the bursts of a plan until its end, a signal, or a failed check."""

    def __init__(self, plan: Plan, report: Report, machine: Machine, started: float, stopping: asyncio.Event) -> None:
        self.checker = Checker(machine, plan.settle_seconds)
        self._plan = plan
        self._report = report
        self._machine = machine
        self._started = started
        self._stopping = stopping
        self._recent: deque[str] = deque(maxlen=_SHOWN_STEPS)
        self._step = 0
        self._warm_up: list[Footprint] = []
        self._last: Footprint | None = None
        self._world = plan.world
        self._settled = plan.world
        """The last state in which the lists of the kubelet were compared."""
        self._moves = Moves()
        self._shown = started

    def fail(self, message: str) -> None:
        """Put a failure into the report."""
        self._report.failure = Failure(self._step, tuple(self._recent), message, self._plan.replay)

    async def run(self) -> None:
        """Execute the bursts and check the agent after each of them.

        Raises:
            SoakError: a check failed.
        """
        plan, report = self._plan, self._report
        await self.checker.check_all(self._world, _START_SECONDS)
        for burst in generate_bursts(plan.seed, plan.kinds, plan.world):
            if self._is_over(burst):
                break
            previous_steps = tuple(self._recent)
            for number, step in enumerate(burst.steps, start=burst.first):
                self._step = number
                self._recent.append(f"{number} {step}")
                if plan.is_verbose:
                    print(f"{time.monotonic() - self._started:8.1f} s  step {number}: {step}", file=sys.stderr)
                await self._execute(step)
            self._world = burst.world
            await self._settle(burst, previous_steps)
            self._measure()
            self._show_progress()
        else:
            report.stopped_by = "no step applies to the state of the node"
        if self._last is not None:
            report.footprints["at the end"] = self._last

    def _is_over(self, burst: Burst) -> bool:
        is_late = time.monotonic() >= self._started + self._plan.minutes * 60
        return self._stopping.is_set() or is_late or 0 < self._plan.max_steps < burst.first

    async def _execute(self, step: Step) -> None:
        before = self._world
        self._world = apply_step(step, before)

        async def settle(step: Step, without: Collection[str]) -> None:
            world = before
            for inner in step.inner:
                world = apply_step(inner, world)
            if world.kubelet_runs:
                await self.checker.wait_for_lists(world, without)

        self._machine.on_inner_settle = settle
        if self._plan.sabotage and self._step >= self._plan.sabotage:
            self._machine.unplug(min(self._world.present))
        await self._machine.execute(step)
        self._moves.record(before, self._world, time.monotonic())
        self._report.steps[step.kind] += 1
        self._report.inner_steps.update(inner.kind for inner in step.inner)
        self.checker.raise_violations()

    async def _settle(self, burst: Burst, previous_steps: tuple[str, ...]) -> None:
        world, changed = burst.world, time.monotonic()
        text = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        withheld = self._moves.withheld(world, changed)
        times = await self.checker.check_all(world)
        if times is None:
            return
        previous, self._settled = self._settled, world
        self._moves.settle(world)
        if times.true_since is None or (not times.were_false and expected_lists(previous) == expected_lists(world)):
            return
        group = classify_settle(burst.steps, world, withheld)
        steps = tuple(f"{number} {step}" for number, step in enumerate(burst.steps, start=burst.first))
        seconds = times.true_since - changed
        self._report.add(Settle(group, seconds, self._step, steps, previous_steps, text, times.awaited))

    def _measure(self) -> None:
        seconds = time.monotonic() - self._started
        sample = measure_footprint(self._machine.agent_pid, seconds)
        planned = self._plan.minutes * 60
        if seconds <= min(planned * _WARM_UP_SHARE, _MAX_WARM_UP_SECONDS) or not self._warm_up:
            self._warm_up.append(sample)
            self._report.footprints["after the warm-up"] = sample
            return
        self._last = sample
        if seconds >= planned / 2:
            self._report.footprints.setdefault("in the middle", sample)
        maximum = self._report.maximum or sample
        names = ("descriptors", "threads", "workers", "rss_kib")
        self._report.maximum = replace(
            sample, **{name: max(getattr(maximum, name), getattr(sample, name)) for name in names}
        )
        if error := growth_error(self._warm_up, sample):
            raise SoakError(f"use of the agent: {error}")
        self.checker.counts["footprints"] += 1

    def _show_progress(self) -> None:
        now = time.monotonic()
        if now - self._shown >= _PROGRESS_SECONDS:
            self._shown = now
            last = self._last or self._warm_up[-1]
            print(
                f"{(now - self._started) / 60:.1f} of {self._plan.minutes:g} min: step {self._step}, "
                f"{sum(self.checker.counts.values())} checks, {last.descriptors} descriptors, {last.threads} threads, "
                f"{last.workers} workers, {last.rss_kib // 1024} MiB",
                file=sys.stderr,
                flush=True,
            )


def select_kinds(
    chosen: Collection[str], excluded: Collection[str], *, can_mount: bool, can_change_clock: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the kinds of steps that this process can execute, and the reasons for which it leaves out others."""
    kinds, left_out = [], {}
    for kind, action in sorted(ACTIONS.items()):
        if kind in excluded or (chosen and kind not in chosen):
            left_out[kind] = "excluded by an option"
        elif action.needs_root and not can_mount:
            left_out[kind] = "requires root and /dev/fuse, to mount file systems"
        elif action.needs_clock and not can_change_clock:
            left_out[kind] = "requires a C compiler, for the library that changes the clock of the agent"
        else:
            kinds.append(kind)
    return tuple(kinds), left_out
