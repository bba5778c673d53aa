"""The sequence of steps of a seed. The same seed and the same kinds give the same steps."""

from collections.abc import Collection, Iterator, Sequence
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from genplug.testing.soak.actions import ACTIONS
from genplug.testing.soak.model import World
from genplug.testing.soak.steps import Action, Step

_MAX_BURST = 4
_SINGLE_STEP_SHARE = 0.6
_MAX_ATTEMPTS = 1000


class Burst(Struct, frozen=True):
    """Steps that follow each other at once, and the state that must result; ``first`` is the number of the first."""

    first: int
    steps: tuple[Step, ...]
    world: World


def generate_bursts(seed: int, kinds: Collection[str], world: World) -> Iterator[Burst]:
    """Yield bursts of steps of these kinds, until no step applies to the state of the node."""
    random = Random(seed)
    actions = [action for kind, action in sorted(ACTIONS.items()) if kind in kinds]
    unsettled = [action for action in actions if not action.needs_settled_node]
    number = 1
    while True:
        size = 1 if random.random() < _SINGLE_STEP_SHARE else random.randint(2, _MAX_BURST)
        steps: list[Step] = []
        while len(steps) < size:
            step = _choose_step(random, world, unsettled if steps else actions)
            if step is None:
                break
            world = apply_step(step, world)
            steps.append(step)
        if not steps:
            return
        world = replace(world, has_unread_configuration=False)
        yield Burst(number, tuple(steps), world)
        number += len(steps)


def apply_step(step: Step, world: World) -> World:
    """Return the expected state after a step and the steps during it."""
    for inner in step.inner:
        world = apply_step(inner, world)
    return ACTIONS[step.kind].apply(step, world)


def _choose_step(random: Random, world: World, actions: Sequence[Action]) -> Step | None:
    """Return a step that applies to the state of the node, None if none was found."""
    for _ in range(_MAX_ATTEMPTS if actions else 0):
        (action,) = random.choices(actions, [action.weight for action in actions])
        if (step := action.choose(random, world)) is not None:
            return _add_inner_steps(random, world, step, actions)
    return None


def _add_inner_steps(random: Random, world: World, step: Step, actions: Sequence[Action]) -> Step:
    action = ACTIONS[step.kind]
    changes = [action for action in actions if action.is_change]
    inner: list[Step] = []
    for _ in range(random.randint(1, action.max_inner_steps) if action.max_inner_steps else 0):
        change = _choose_step(random, world, changes)
        if change is not None and action.accepts(step, change):
            inner.append(change)
            world = apply_step(change, world)
    return replace(step, inner=tuple(inner))
