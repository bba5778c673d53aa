"""All states of an endpoint that events can reach, with every event in each of them."""

from collections.abc import Iterator

from msgspec import Struct

from genplug.kubelet.endpoint_events import (
    Event,
    KubeletSeen,
    OptionsChanged,
    OwnSocketLost,
    Registered,
    RegisterFailed,
    Retired,
    Served,
    ServeFailed,
    StreamClosed,
    StreamOpened,
    TimePassed,
)
from genplug.kubelet.endpoint_state import Action, EndpointState, first_step, next_step
from genplug.kubelet.plugin_dir import SocketIdentity
from genplug.kubelet.reports import Phase

OLD, NEW = SocketIdentity(1, 1, 1), SocketIdentity(1, 2, 2)
RESULTS: dict[Action, tuple[Event, ...]] = {
    Action.SERVE: (Served(), ServeFailed("no space")),
    Action.REGISTER: (Registered(), RegisterFailed("refused"), OwnSocketLost()),
    Action.RETIRE: (Retired(),),
}
"""The events with which an action can end."""
FROM_OUTSIDE: tuple[Event, ...] = (
    KubeletSeen(None),
    KubeletSeen(OLD),
    KubeletSeen(NEW),
    OwnSocketLost(),
    OptionsChanged(),
    StreamOpened(),
    StreamClosed(),
    TimePassed(),
)
_MAX_STATES = 20_000


class Situation(Struct, frozen=True):
    """A state of an endpoint, the action that runs, and the time."""

    state: EndpointState
    running: Action | None
    now: float

    def after(self, event: Event, later: float) -> "Situation":
        """Return the situation after an event."""
        step = next_step(self.state, event, later, 0.0)
        is_result = self.running is not None and event in RESULTS[self.running] and not isinstance(event, OwnSocketLost)
        return Situation(step.state, step.action or (None if is_result else self.running), later)


class Transition(Struct, frozen=True):
    """An event in a situation, and the situation that follows."""

    before: Situation
    event: Event
    after: Situation


def explore_endpoint() -> Iterator[Transition]:
    """Yield every transition from every state that is reachable from the first."""
    first = first_step(OLD, 0.0)
    pending = [Situation(first.state, first.action, 0.0)]
    seen = {_summarize(pending[0])}
    while pending:
        before = pending.pop()
        for event, later in _possible_events(before):
            after = before.after(event, later)
            yield Transition(before, event, after)
            key = _summarize(after)
            if key not in seen:
                seen.add(key)
                pending.append(after)
        assert len(seen) < _MAX_STATES


def _possible_events(situation: Situation) -> Iterator[tuple[Event, float]]:
    """Yield each event that can happen in a situation, with its time."""
    state = situation.state
    for event in (*FROM_OUTSIDE, *(RESULTS[situation.running] if situation.running is not None else ())):
        if isinstance(event, StreamClosed) and not state.streams:
            continue
        # A stream needs a server, and a second stream is that of another client.
        if isinstance(event, StreamOpened) and (state.streams > 1 or state.phase in (Phase.SERVE, Phase.PAUSE)):
            continue
        later = situation.now + 0.01
        if isinstance(event, TimePassed):
            if state.due is None:
                continue
            later = max(state.due, situation.now)
        yield event, later


def _summarize(situation: Situation) -> tuple[object, ...]:
    """Return what distinguishes situations for the decisions that follow."""
    state = situation.state
    return (
        state.phase,
        min(state.failures, 6),
        min(state.streams, 2),
        state.kubelet,
        state.registered_with,
        None if state.due is None else state.due > situation.now,
        state.stream_ended is None,
        situation.running,
    )
