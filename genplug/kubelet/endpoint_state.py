"""The life of an endpoint's generations, as a pure function of events (contract 3: the state machine to build).

A generation is a socket name used once, the server behind it and the server's streams; they live and die together.
Nothing here has a clock, a socket or a task: :func:`next_step` is given what happened and the time, and says what the
endpoint is now and what to do. Each arrow has a reason in the kubelet's behavior, told where it stands.
"""

from enum import StrEnum

from attrs import evolve, frozen

from genplug.kubelet.events import EndpointStatus, Phase
from genplug.kubelet.plugin_dir import SocketIdentity

Seconds = float

FIRST_STREAM_SECONDS = 15.0
"""How long after Register the kubelet may take to open ListAndWatch (contract 3: PENDING)."""
STREAM_RETURN_SECONDS = 1.5
"""How long an endpoint waits for a stream to come back before it believes that the kubelet let go of it."""
OLD_STREAM_SECONDS = 5.0
"""How long streams to an old kubelet may stay open beside a new kubelet.sock (contract 3, race 6)."""
DISCONNECT_SECONDS = 1.0
"""How long the same kubelet is given to digest a disconnect before we register anew (contract 2.3)."""
STABLE_SECONDS = 30.0
"""How long a kubelet must have listened for its hanging up to count as the first time."""
_RETRY_SECONDS = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


class Action(StrEnum):
    """What the endpoint is to do."""

    SERVE = "serve"
    REGISTER = "register"
    RETIRE = "retire"


@frozen
class Served:
    """The own server answers on its new socket."""


@frozen
class ServeFailed:
    """The own socket could not be bound or does not answer."""

    error: str


@frozen
class KubeletSeen:
    """What kubelet.sock is now; None where there is none."""

    socket: SocketIdentity | None


@frozen
class OwnSocketLost:
    """The own socket's path is gone or names another file."""


@frozen
class Registered:
    """The kubelet answered Register with OK: not yet a proof of anything (contract 2.1)."""


@frozen
class RegisterFailed:
    """Register failed, with the kubelet's or the transport's words."""

    error: str


@frozen
class StreamOpened:
    """The kubelet opened ListAndWatch."""


@frozen
class StreamClosed:
    """A ListAndWatch stream ended, from whichever side."""


@frozen
class Retired:
    """The old server has stopped entirely."""


@frozen
class OptionsChanged:
    """The plugin options differ from those the kubelet read; it reads them only when it connects."""


@frozen
class TimePassed:
    """Nothing happened until the time in ``due``."""


Event = (
    Served
    | ServeFailed
    | KubeletSeen
    | OwnSocketLost
    | Registered
    | RegisterFailed
    | StreamOpened
    | StreamClosed
    | Retired
    | OptionsChanged
    | TimePassed
)


@frozen
class Generation:
    """Everything the next step depends on. Times are monotonic seconds.

    ``due`` is when time alone makes a difference; ``failures`` counts tries in a row that led nowhere; ``kubelet`` is
    the kubelet.sock last seen, ``partner`` the one that this generation spoke with; ``stream_ended`` is when the last
    stream ended; ``reason`` says in words why it is where it is.
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
        """Whether the kubelet is listening to this endpoint right now."""
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


@frozen
class Step:
    """The generation after an event, and what to do about it (None: nothing)."""

    generation: Generation
    action: Action | None = None


def first_step(kubelet: SocketIdentity | None, now: Seconds) -> Step:
    """Return the step that begins an endpoint's life."""
    return Step(Generation(1, Phase.SERVE, now, kubelet=kubelet), Action.SERVE)


def next_step(generation: Generation, event: Event, now: Seconds, jitter: float) -> Step:
    """Return what an event makes of a generation.

    ``jitter`` is a random number in [0, 1) that spreads retries, so that 300 endpoints don't knock in step.
    Events that a phase does not wait for change nothing: they are late news of something already dealt with.
    """
    if isinstance(event, KubeletSeen):
        return _kubelet_seen(generation, event.socket, now)
    if isinstance(event, StreamOpened):
        return _stream_opened(evolve(generation, streams=generation.streams + 1), now)
    if isinstance(event, StreamClosed):
        return _stream_closed(generation, now)
    if isinstance(event, OwnSocketLost | OptionsChanged):
        lost = isinstance(event, OwnSocketLost)
        return _retire(generation, "its socket was removed" if lost else "its options changed", now)
    if isinstance(event, TimePassed):
        return _time_passed(generation, now, jitter)
    match generation.phase, event:
        case Phase.SERVE, Served():
            return _register_or_wait(generation, now)
        case Phase.SERVE, ServeFailed(error):
            return Step(_failed(generation, Phase.SERVE, f"its socket cannot be served: {error}", now, jitter))
        case Phase.REGISTER, Registered():
            return _registered(generation, now)
        case Phase.REGISTER, RegisterFailed(error):
            # A stream may have opened although Register timed out: then the kubelet is with us, whatever it said.
            if generation.streams:
                return Step(_moved(generation, Phase.LIVE, now))
            return Step(_failed(generation, Phase.WAIT, f"Register failed: {error}", now, jitter))
        case Phase.RETIRE, Retired():
            return _retired(generation, now, jitter)
    return Step(generation)


def retry_delay(failures: int, jitter: float) -> Seconds:
    """Return the pause after the given number of failures in a row: 0.1 s once, then 1 s doubling to 30 s.

    The first is short because kubelet.sock exists a moment before the kubelet listens on it.
    """
    return _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1] * (1 + 0.25 * jitter)


def _moved(generation: Generation, phase: Phase, now: Seconds, due: Seconds | None = None, why: str = "") -> Generation:
    return evolve(generation, phase=phase, since=now, due=due, reason=why)


def _failed(generation: Generation, phase: Phase, why: str, now: Seconds, jitter: float) -> Generation:
    failures = generation.failures + 1
    return evolve(_moved(generation, phase, now, now + retry_delay(failures, jitter), why), failures=failures)


def _register_or_wait(generation: Generation, now: Seconds) -> Step:
    if generation.streams:
        # Contract 10, test 19: never a Register beside a live stream of the same resource.
        return Step(_moved(generation, Phase.LIVE, now))
    if generation.kubelet is None:
        return Step(_moved(generation, Phase.WAIT, now, why="waiting for kubelet.sock to appear"))
    moved = evolve(_moved(generation, Phase.REGISTER, now, why=generation.reason), registered_with=generation.kubelet)
    return Step(moved, Action.REGISTER)


def _registered(generation: Generation, now: Seconds) -> Step:
    if generation.streams:
        return Step(_moved(generation, Phase.LIVE, now))
    why = "registered; waiting for the kubelet to open ListAndWatch"
    return Step(_moved(generation, Phase.PENDING, now, now + FIRST_STREAM_SECONDS, why))


def _kubelet_seen(generation: Generation, socket: SocketIdentity | None, now: Seconds) -> Step:
    if socket == generation.kubelet:
        return Step(generation)
    seen = evolve(generation, kubelet=socket)
    if socket is None:
        return Step(seen)
    # A new socket is a new kubelet: what the old one refused is no reason to hold back.
    fresh = evolve(seen, failures=0)
    if seen.phase is Phase.WAIT:
        return _register_or_wait(fresh, now)
    if seen.phase is Phase.PENDING:
        return _register_or_wait(evolve(fresh, reason=""), now)
    if seen.phase is Phase.PAUSE:
        return _serve_again(fresh, now)
    if seen.phase is Phase.LIVE:
        if not seen.streams:
            return _retire(fresh, "the kubelet was restarted", now)
        # Race 6: streams alive beside a new socket; registering now would confuse a kubelet <= 1.35 (contract 2.3).
        return Step(
            evolve(fresh, due=now + OLD_STREAM_SECONDS, reason="kubelet.sock was replaced while its stream is open")
        )
    return Step(fresh)


def _stream_opened(generation: Generation, now: Seconds) -> Step:
    if generation.phase in (Phase.PENDING, Phase.WAIT):
        return Step(evolve(_moved(generation, Phase.LIVE, now), registered_with=generation.kubelet))
    if generation.phase is Phase.LIVE:
        return Step(evolve(generation, due=None, reason="", registered_with=generation.kubelet))
    return Step(generation)


def _stream_closed(generation: Generation, now: Seconds) -> Step:
    left = max(generation.streams - 1, 0)
    closed = evolve(generation, streams=left, stream_ended=now)
    if closed.phase is not Phase.LIVE or left:
        return Step(closed)
    if closed.kubelet is not None and closed.kubelet != closed.registered_with:
        return _retire(closed, "the kubelet was restarted", now)
    return Step(evolve(closed, due=now + STREAM_RETURN_SECONDS, reason="the kubelet closed its stream"))


def _time_passed(generation: Generation, now: Seconds, jitter: float) -> Step:
    if generation.due is None or now < generation.due:
        return Step(generation)
    idle = evolve(generation, due=None)
    match idle.phase:
        case Phase.SERVE:
            return Step(idle, Action.SERVE)
        case Phase.WAIT:
            return _register_or_wait(idle, now)
        case Phase.PENDING:
            # The watchdog (contract 2.1: on <= 1.24 a failed dial is only in the kubelet's log).
            return Step(_failed(idle, Phase.WAIT, "registered, but the kubelet never opened ListAndWatch", now, jitter))
        case Phase.LIVE:
            return _retire(idle, idle.reason or "the kubelet closed its stream", now)
        case Phase.PAUSE:
            return _serve_again(idle, now)
        case _:
            return Step(idle)


def _retire(generation: Generation, why: str, now: Seconds) -> Step:
    if generation.phase in (Phase.SERVE, Phase.RETIRE, Phase.PAUSE):
        return Step(generation)
    failures = generation.failures
    if generation.phase is Phase.LIVE:
        # A kubelet that hangs up soon each time is a failure that repeats, and each round costs pods (contract 3).
        is_steady = now - generation.since >= STABLE_SECONDS or generation.kubelet != generation.registered_with
        failures = 0 if is_steady else failures + 1
    # Whoever still has a stream open is alive, and has its end to digest, whatever became of kubelet.sock.
    partner = generation.kubelet if generation.streams else generation.registered_with
    moved = _moved(generation, Phase.RETIRE, now, why=why)
    return Step(evolve(moved, failures=failures, registered_with=partner), Action.RETIRE)


def _retired(generation: Generation, now: Seconds, jitter: float) -> Step:
    paused = evolve(generation, phase=Phase.PAUSE, streams=0)
    if paused.kubelet is None:
        # Whatever is bound now, a starting kubelet wipes (contract 3, race 2): hold until its socket appears.
        return Step(paused)
    digested = now
    if paused.kubelet == paused.registered_with and paused.stream_ended is not None:
        digested = paused.stream_ended + DISCONNECT_SECONDS
    if paused.failures > 1:
        digested = max(digested, now + retry_delay(paused.failures, jitter))
    if now >= digested:
        return _serve_again(paused, now)
    return Step(evolve(paused, due=digested))


def _serve_again(generation: Generation, now: Seconds) -> Step:
    if generation.kubelet is None:
        return Step(evolve(generation, due=None))
    number = generation.number + 1
    anew = Generation(number, Phase.SERVE, now, None, generation.failures, generation.kubelet, reason=generation.reason)
    return Step(anew, Action.SERVE)
