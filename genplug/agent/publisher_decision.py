"""Decides what the publisher of ResourceSlices does next, as a pure function of its state and the time.

The publisher is level-triggered: :func:`decide` compares the wanted slices with the known slices of the API server, and
returns the next action. Events only change what is known (:mod:`genplug.agent.publisher_transitions`). The next
comparison repairs what was missed, for example a change while a watch was interrupted.
"""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from genplug.agent.publisher_actions import (
    Action,
    CloseWatch,
    ListSlices,
    Notice,
    OpenWatch,
    ProbeTaints,
    ReadNode,
    WriteSlice,
)
from genplug.agent.publisher_failures import SHORT_WATCH_SECONDS
from genplug.agent.publisher_state import Phase, PublisherState, Registration, Seconds
from genplug.agent.publisher_write_limits import find_allowed_times, get_pool_name
from genplug.allocation.slice_plan import plan_writes
from genplug.observe.events import Event
from genplug.observe.text import count_noun


class Decision(Struct, frozen=True):
    """The next action, None to wait until ``due`` or the next event, and messages for the log."""

    state: PublisherState
    action: Action | None = None
    due: Seconds = inf
    notices: tuple[Notice, ...] = ()


def decide(state: PublisherState, now: Seconds) -> Decision:
    """Return the next action."""
    waiting = _find_wait(state, now)
    if waiting is not None:
        return waiting
    is_draining = state.pools is None
    reading = Phase.DRAIN if is_draining else Phase.LIST
    scope = state.scope
    if scope is None:
        return Decision(replace(state, phase=reading), ReadNode())
    if state.actual is None:
        return Decision(replace(state, phase=reading), ListSlices())
    if not state.is_watching:
        return Decision(replace(state, phase=reading), OpenWatch(state.resource_version))
    if not is_draining and state.registration is Registration.WAITING:
        # The kubelet deletes the slices of a driver that is not registered.
        return Decision(replace(state, phase=Phase.WAIT_KUBELET))
    if not is_draining and state.was_away and not state.keeps_taints:
        return Decision(replace(state, phase=Phase.SYNC), ProbeTaints(scope))
    plan = plan_writes(state.pools or (), state.actual.values(), scope, state.answers)
    planned = frozenset(map(get_pool_name, plan))
    if state.refusals.keys() - planned:
        state = replace(state, refusals={name: found for name, found in state.refusals.items() if name in planned})
    allowed = find_allowed_times(state, plan)
    write = next((write for write in plan if allowed.get(get_pool_name(write), -inf) <= now), None)
    if write is not None:
        phase = Phase.DRAIN if is_draining else Phase.SYNC
        sending = replace(state, phase=phase, in_flight=write, may_have_slices=True)
        return Decision(sending, WriteSlice(write, scope))
    if is_draining or planned - state.refusals.keys():
        phase = Phase.DRAIN if is_draining else Phase.SYNC
        return Decision(replace(state, phase=phase), due=min(allowed.values(), default=inf))
    return _rest(state, now, due=min(allowed.values(), default=inf))


def _find_wait(state: PublisherState, now: Seconds) -> Decision | None:
    """Return the decision if the publisher is idle, or may not send a request now; None otherwise."""
    is_draining = state.pools is None
    if is_draining and not (state.may_have_slices if state.actual is None else state.actual):
        # Without a watch, an upgrade of the API server is not noticed.
        idle = PublisherState(registration=state.registration, keeps_taints=state.keeps_taints, was_away=True)
        return Decision(idle, CloseWatch() if state.is_watching else None)
    if not is_draining and state.registration is Registration.UNSUPPORTED:
        return Decision(replace(state, phase=Phase.UNSUPPORTED))
    if not is_draining and state.registration is Registration.WAITING and not state.is_watching:
        return Decision(replace(state, phase=Phase.WAIT_KUBELET))
    if now < state.retry_at:
        phase = Phase.UNSUPPORTED if state.is_unsupported else Phase.BACKOFF
        return Decision(replace(state, phase=phase), due=state.retry_at)
    return None


def _rest(state: PublisherState, now: Seconds, due: Seconds) -> Decision:
    """Return the decision for an empty plan. Failures are forgotten when the watch has lasted for a time."""
    pools = tuple(pool for pool in state.pools or () if pool.name not in state.refusals)
    resting = replace(state, phase=Phase.WATCH, error="", published=pools)
    steady_at = state.watch_since + SHORT_WATCH_SECONDS
    if now >= steady_at:
        resting = replace(resting, failures=0)
    elif state.failures:
        due = min(due, steady_at)
    if state.published == pools or (state.refusals and not pools):
        return Decision(resting, due=due)
    slices = [part for pool in pools for part in pool.slices]
    devices = sum(len(part.devices) for part in slices)
    parts = count_noun(len(slices), "ResourceSlice"), count_noun(devices, "device"), count_noun(len(pools), "resource")
    text = f"the API server has {parts[0]} with {parts[1]} of {parts[2]}"
    facts = {"slices": len(slices), "devices": devices, "seconds": round(now - state.changed_at, 3)}
    return Decision(resting, due=due, notices=(Notice(Event.SLICES_PUBLISHED, text, facts),))
