"""The state machine of an endpoint, as a pure function of events.

Source: docs/internals/kubelet-contract.md §3, which describes the state machine and the races behind its transitions.

A generation is a socket name that is used once, the server on that socket, and the streams of the server; they begin
and end together. This module has no clock, no socket and no task: :func:`next_step` gets an event and the time, and
returns the next state and the action to run. The comment at each transition states the kubelet's behavior that requires
it.
"""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

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
from genplug.kubelet.plugin_dir import SocketIdentity
from genplug.kubelet.reports import EndpointStatus, Phase

Seconds = float

FIRST_STREAM_SECONDS = 15.0
"""How long after Register the kubelet may take to open ListAndWatch (§3, PENDING)."""
STREAM_RETURN_SECONDS = 0.1
"""How long an endpoint without a stream waits for another stream before it retires (§3, LIVE).

The kubelet opens one stream for each registration (§2.4). The time is for the end of a stream that precedes a new
kubelet.sock.
"""
LAST_STREAM_SECONDS = 0.1
"""How long an endpoint whose socket a starting kubelet removed waits for the end of the previous kubelet's stream.

If the endpoint ends the stream itself, it cannot know which kubelet has to process the disconnect, and has to pause.
"""
OLD_STREAM_SECONDS = 5.0
"""How long a stream may stay open after kubelet.sock was replaced (§3, race 6)."""
DISCONNECT_SECONDS = 0.5
"""Pause between the end of the last stream and the next registration with the same kubelet (§2.3)."""
FREE_DISCONNECTS = 4
"""Consecutive early disconnects without an additional pause: a device must not be missing for longer than a second."""
STABLE_SECONDS = 30.0
"""A disconnect after a stream of at least this duration does not count as a repeated failure."""
_OLD_STREAM_REASON = "kubelet.sock was replaced, but the stream is open"
_RETRY_SECONDS = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_MAX_LOCAL_FAILURES = 2
"""The failures that extend the pause if the kubelet is not the reason: such an attempt does not cost the kubelet
anything, so that it is repeated every second, and the devices are back soon after the system has recovered."""


class Action(StrEnum):
    """An action that the endpoint runs."""

    SERVE = "serve"
    REGISTER = "register"
    RETIRE = "retire"


class EndpointState(Struct, frozen=True):
    """The state of an endpoint, on which the next step depends. Times are monotonic seconds.

    ``number`` counts the generations. ``since`` is the time at which the phase began, and ``due`` the time of the next
    :class:`TimePassed`, None for never. ``failures`` counts the consecutive failed attempts to serve or to register,
    and disconnects soon after a registration. ``kubelet`` is the last known kubelet.sock, and ``registered_with`` the
    kubelet.sock that this generation is registered with. ``stream_ended`` is the time at which the last stream ended,
    and ``reason`` states why the endpoint is not registered.
    """

    number: int
    phase: Phase
    since: Seconds
    due: Seconds | None = None
    failures: int = 0
    kubelet: SocketIdentity | None = None
    registered_with: SocketIdentity | None = None
    streams: int = 0
    stream_ended: Seconds | None = None
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the kubelet has an open stream of this endpoint now."""
        return self.phase is Phase.LIVE and self.streams > 0

    @property
    def status(self) -> EndpointStatus:
        """The part of the state that the log and the status of the agent contain."""
        return EndpointStatus(
            phase=self.phase,
            generation=self.number,
            streams=self.streams,
            is_registered=self.is_live,
            reason=self.reason,
            failures=self.failures,
            has_kubelet=self.kubelet is not None,
        )

    def __str__(self) -> str:
        return str(self.status)


class Step(Struct, frozen=True):
    """The state after an event, and the action to run, None for no action."""

    state: EndpointState
    action: Action | None = None


def first_step(kubelet: SocketIdentity | None, now: Seconds) -> Step:
    """Return the first step of an endpoint."""
    return Step(EndpointState(1, Phase.SERVE, now, kubelet=kubelet), Action.SERVE)


def next_step(state: EndpointState, event: Event, now: Seconds, jitter: float) -> Step:
    """Return the step that follows an event.

    ``jitter`` is a random number in [0, 1), which spreads the retries of many endpoints over time. An event that the
    phase does not expect changes nothing: it arrived after the state had changed for another reason.
    """
    if isinstance(event, KubeletSeen):
        return _on_kubelet_seen(state, event.socket, now)
    if isinstance(event, StreamOpened):
        return _on_stream_opened(replace(state, streams=state.streams + 1), now)
    if isinstance(event, StreamClosed):
        return _on_stream_closed(state, now)
    if isinstance(event, OwnSocketLost | OptionsChanged):
        return _on_generation_outdated(state, event, now)
    if isinstance(event, TimePassed):
        return _on_time_passed(state, now, jitter)
    match state.phase, event:
        case Phase.SERVE, Served():
            return _register_or_wait(state, now)
        case Phase.SERVE, ServeFailed(error):
            return Step(_back_off(state, Phase.SERVE, f"cannot serve: {error}", now, jitter, is_local=True))
        case Phase.REGISTER, Registered():
            return _on_registered(state, now)
        case Phase.REGISTER, RegisterFailed(error, is_local):
            # The kubelet can open a stream although Register timed out. The stream proves the registration.
            if state.streams:
                return Step(_enter_live(state, now))
            reason = f"Register failed: {error}"
            return Step(_back_off(state, Phase.WAIT, reason, now, jitter, is_local=is_local))
        case Phase.RETIRE, Retired():
            return _on_retired(state, now, jitter)
    return Step(state)


def retry_delay(failures: int, jitter: float) -> Seconds:
    """Return the pause after a number of consecutive failures: 0.1 s, then 1 s doubling to 30 s, plus up to a quarter.

    The first pause is short because kubelet.sock exists a moment before the kubelet listens on it.
    """
    return _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1] * (1 + 0.25 * jitter)


def _enter(
    state: EndpointState, phase: Phase, now: Seconds, due: Seconds | None = None, reason: str = ""
) -> EndpointState:
    return replace(state, phase=phase, since=now, due=due, reason=reason)


def _enter_live(state: EndpointState, now: Seconds) -> EndpointState:
    """Enter LIVE with the streams that are open; wait only a limited time for the end of streams of another client."""
    if state.kubelet is None or state.kubelet == state.registered_with:
        return _enter(state, Phase.LIVE, now)
    reason = _OLD_STREAM_REASON if state.registered_with is not None else "another process opened a stream"
    return _enter(state, Phase.LIVE, now, now + OLD_STREAM_SECONDS, reason)


def _back_off(  # noqa: PLR0913 - the fields of the next state
    state: EndpointState, phase: Phase, reason: str, now: Seconds, jitter: float, *, is_local: bool = False
) -> EndpointState:
    """Enter a phase with a pause. ``is_local`` states that the kubelet is not the reason for the failure."""
    failures = state.failures + 1
    pause = retry_delay(min(failures, _MAX_LOCAL_FAILURES) if is_local else failures, jitter)
    return replace(_enter(state, phase, now, now + pause, reason), failures=failures)


def _register_or_wait(state: EndpointState, now: Seconds) -> Step:
    if state.streams:
        # A resource with an open stream is never registered again (§10, point 19).
        return Step(_enter_live(state, now))
    if state.kubelet is None:
        return Step(_enter(state, Phase.WAIT, now, reason="waiting for kubelet.sock to appear"))
    registering = _enter(state, Phase.REGISTER, now, reason=state.reason)
    return Step(replace(registering, registered_with=state.kubelet), Action.REGISTER)


def _on_registered(state: EndpointState, now: Seconds) -> Step:
    if state.streams:
        return Step(_enter_live(state, now))
    reason = "registered; waiting for the kubelet to open ListAndWatch"
    return Step(_enter(state, Phase.PENDING, now, now + FIRST_STREAM_SECONDS, reason))


def _on_kubelet_seen(state: EndpointState, socket: SocketIdentity | None, now: Seconds) -> Step:
    if socket == state.kubelet:
        return Step(state)
    seen = replace(state, kubelet=socket)
    if socket is None:
        return Step(seen)
    # A new socket is a new kubelet, to which the failures with the previous kubelet do not apply.
    fresh = replace(seen, failures=0)
    match seen.phase:
        case Phase.WAIT:
            return _register_or_wait(fresh, now)
        case Phase.PENDING:
            return _register_or_wait(replace(fresh, reason=""), now)
        case Phase.PAUSE:
            return _serve_again(fresh, now)
        case Phase.LIVE if not seen.streams:
            return _retire(fresh, "the kubelet was restarted", now)
        case Phase.LIVE:
            # A registration beside an open stream triggers the bug of kubelets up to 1.35 (§2.3; §3, race 6).
            return Step(replace(fresh, due=now + OLD_STREAM_SECONDS, reason=_OLD_STREAM_REASON))
        case _:
            return Step(fresh)


def _on_stream_opened(state: EndpointState, now: Seconds) -> Step:
    if state.phase in (Phase.PENDING, Phase.WAIT):
        return Step(replace(_enter(state, Phase.LIVE, now), registered_with=state.kubelet))
    if state.phase is Phase.LIVE:
        return Step(replace(state, due=None, reason="", registered_with=state.kubelet))
    if state.phase is Phase.REGISTER:
        # The kubelet opens the stream before it answers Register, or after it.
        return Step(replace(state, registered_with=state.kubelet))
    return Step(state)


def _on_stream_closed(state: EndpointState, now: Seconds) -> Step:
    streams = max(state.streams - 1, 0)
    closed = replace(state, streams=streams, stream_ended=now)
    if closed.phase is not Phase.LIVE or streams:
        return Step(closed)
    if closed.kubelet is not None and closed.kubelet != closed.registered_with:
        return _retire(closed, "the kubelet was restarted", now)
    return Step(replace(closed, due=now + STREAM_RETURN_SECONDS, reason="the kubelet closed its stream"))


def _on_generation_outdated(state: EndpointState, event: OwnSocketLost | OptionsChanged, now: Seconds) -> Step:
    if isinstance(event, OptionsChanged):
        return _retire(state, "its plugin options changed", now)
    reason = "its socket was removed"
    if not state.is_live or state.kubelet is None or state.kubelet == state.registered_with:
        return _retire(state, reason, now)
    # The stream of the previous kubelet ends about now.
    due = now + LAST_STREAM_SECONDS
    return Step(replace(state, due=due if state.due is None else min(state.due, due), reason=reason))


def _on_time_passed(state: EndpointState, now: Seconds, jitter: float) -> Step:
    if state.due is None or now < state.due:
        return Step(state)
    idle = replace(state, due=None)
    match idle.phase:
        case Phase.SERVE:
            return Step(idle, Action.SERVE)
        case Phase.WAIT:
            return _register_or_wait(idle, now)
        case Phase.PENDING:
            # Kubelets up to 1.24 only log a failed dial (§2.1).
            reason = "registered, but the kubelet never opened ListAndWatch"
            return Step(_back_off(idle, Phase.WAIT, reason, now, jitter))
        case Phase.LIVE:
            return _retire(idle, idle.reason, now, is_disconnect=True)
        case Phase.PAUSE:
            return _serve_again(idle, now)
        case _:
            return Step(idle)


def _retire(state: EndpointState, reason: str, now: Seconds, *, is_disconnect: bool = False) -> Step:
    if state.phase in (Phase.SERVE, Phase.RETIRE, Phase.PAUSE):
        return Step(state)
    failures = state.failures
    if state.phase is Phase.LIVE:
        # A kubelet that repeatedly disconnects soon is a repeated failure, and each cycle can fail pods (§3). The loss
        # of the own socket and changed options are not: the devices have to be back within a second.
        is_stable = now - state.since >= STABLE_SECONDS or state.kubelet != state.registered_with
        failures = failures + 1 if is_disconnect and not is_stable else 0
    # A kubelet with an open stream is running and has to process the end of the stream, even if kubelet.sock changed.
    partner = state.kubelet if state.streams else state.registered_with
    retiring = _enter(state, Phase.RETIRE, now, reason=reason)
    return Step(replace(retiring, failures=failures, registered_with=partner), Action.RETIRE)


def _on_retired(state: EndpointState, now: Seconds, jitter: float) -> Step:
    paused = replace(state, phase=Phase.PAUSE, streams=0)
    if paused.kubelet is None:
        # A starting kubelet deletes every socket that is bound before kubelet.sock exists (§3, race 2).
        return Step(paused)
    resume = now
    if paused.kubelet == paused.registered_with and paused.stream_ended is not None:
        resume = paused.stream_ended + DISCONNECT_SECONDS
    if paused.failures > FREE_DISCONNECTS:
        resume = max(resume, now + retry_delay(paused.failures - FREE_DISCONNECTS + 1, jitter))
    if now >= resume:
        return _serve_again(paused, now)
    return Step(replace(paused, due=resume))


def _serve_again(state: EndpointState, now: Seconds) -> Step:
    if state.kubelet is None:
        return Step(state)
    following = EndpointState(
        state.number + 1,
        Phase.SERVE,
        now,
        failures=state.failures,
        kubelet=state.kubelet,
        reason=state.reason,
    )
    return Step(following, Action.SERVE)
