"""Decides what the publisher of ResourceSlices does next, as pure functions of its state, events and the time.

The publisher is level-triggered: :func:`decide` compares the wanted slices with the known slices of the API server, and
returns the next action. Events only change what is known. The next comparison repairs what was missed, for example a
change while a watch was interrupted.
"""

from collections.abc import Mapping
from enum import StrEnum
from math import inf
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.slice_plan import (
    Answered,
    DeleteSlice,
    Write,
    actual_content,
    find_dropped_fields,
    plan_writes,
    wanted_content,
)
from genplug.allocation.slices import ActualSlice, SliceScope, WantedPool, read_slice
from genplug.cluster.errors import ApiError, NotConnectedError, UnreachableError
from genplug.observe.events import Event
from genplug.observe.text import count_noun

Seconds = float

WRITE_SECONDS = 1.0
"""Seconds between two writes of a slice: changes within this time are written together."""
SLOW_WRITE_SECONDS = 10.0
"""The same for a slice that was written ``MANY_WRITES`` times within ``MANY_WRITES_SECONDS``."""
MANY_WRITES = 10
MANY_WRITES_SECONDS = 60.0
MAX_CONNECT_RETRY_SECONDS = 3.0
"""The longest pause without a connection: the devices are published within 5 s after the API server has returned."""
MAX_ANSWER_RETRY_SECONDS = 30.0
"""The longest pause after a connection to the API server without a valid answer."""
MAX_RETRY_SECONDS = 60.0
"""The longest pause after the API server answered with an error that can pass."""
FORBIDDEN_SECONDS = 60.0
"""The pause after a refusal by rights or a policy, which an administrator has to change."""
START_SECONDS = 30.0
"""The time after a failed connection in which a refusal by rights can pass: a started API server has no rights yet."""
UNSUPPORTED_SECONDS = 600.0
"""The pause after the API server did not know the API group, which an upgrade of the cluster changes."""
REFUSED_SECONDS = 600.0
"""The pause after the API server refused a slice as invalid, if the wanted devices do not change before."""
MISSING_NODE_SECONDS = 10.0
"""The pause if there is no Node object, which the kubelet creates when it starts."""
SHORT_WATCH_SECONDS = 10.0
"""A watch that ends sooner counts as a failure, so that a proxy that ends each watch causes no stream of requests."""
_MAX_CONNECT_FAILURES = 2
"""The failures without a connection that count for the pauses after other failures."""
_STARTING = "It was away before, and may not have read the rights yet"
_INVALID = frozenset({400, 413, 422})
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE, _TOO_MANY = 401, 403, 404, 409, 410, 429
_SERVER_ERROR = 500
"""The first status of the errors of a server."""
_OF_SERVER = frozenset({_UNAUTHORIZED, _TOO_MANY, 503})
"""The errors that concern all requests."""
_OF_ALL_WRITES = frozenset({_UNAUTHORIZED, _NOT_FOUND, _CONFLICT, _GONE, _TOO_MANY})
"""The errors of a write after which no pool is written for a time, or all slices are read again."""


class Phase(StrEnum):
    """The state of the publisher, for the log and the status."""

    IDLE = "idle"
    WAIT_KUBELET = "waiting for the kubelet"
    LIST = "reading slices"
    SYNC = "writing slices"
    WATCH = "published"
    BACKOFF = "waiting to retry"
    UNSUPPORTED = "not supported by the cluster"
    DRAIN = "deleting slices"


UNSUPPORTED_KUBELET = (
    "the kubelet does not support drivers of Dynamic Resource Allocation: upgrade Kubernetes to 1.34 or later"
)
"""The error of a kubelet that has no handler for drivers."""


class Registration(StrEnum):
    """The registration of the driver with the kubelet."""

    WAITING = "waiting"
    REGISTERED = "registered"
    UNSUPPORTED = "unsupported"


class ReadNode(Struct, frozen=True):
    """Read the UID of the Node object."""


class ListSlices(Struct, frozen=True):
    """List the slices of the driver on the node."""


class OpenWatch(Struct, frozen=True):
    """Open a watch from a resource version."""

    resource_version: str


class CloseWatch(Struct, frozen=True):
    """Close the watch."""


class WriteSlice(Struct, frozen=True):
    """Write or delete a slice."""

    write: Write
    scope: SliceScope


class ProbeTaints(Struct, frozen=True):
    """Find out whether the API server keeps taints, without a slice that the scheduler could read without them."""

    scope: SliceScope


Action: TypeAlias = ReadNode | ListSlices | OpenWatch | CloseWatch | WriteSlice | ProbeTaints


class WantedChanged(Struct, frozen=True):
    """The wanted pools have changed; None if no resource is served by Dynamic Resource Allocation."""

    pools: tuple[WantedPool, ...] | None


class RegistrationChanged(Struct, frozen=True):
    """The kubelet has registered the driver, has lost it, or does not support such drivers."""

    registration: Registration


class NodeRead(Struct, frozen=True):
    """The UID of the Node object is known."""

    scope: SliceScope


class SlicesListed(Struct, frozen=True):
    """All slices of the driver on the node are known."""

    slices: Mapping[str, ActualSlice]
    resource_version: str


class WatchOpened(Struct, frozen=True):
    """The API server sends changes from now on."""


class WatchEnded(Struct, frozen=True):
    """The watch has ended, with an error or as the API server ends each watch."""

    error: Exception | None = None


class SliceSeen(Struct, frozen=True):
    """A slice has changed; a deleted slice has no ``found``. A bookmark has an empty name."""

    name: str
    found: ActualSlice | None
    resource_version: str


class SliceWritten(Struct, frozen=True):
    """A write has succeeded. ``answer`` is the JSON of the slice, None after a deletion."""

    write: Write
    answer: Mapping[str, Any] | None


class TaintsProbed(Struct, frozen=True):
    """The API server keeps taints, or drops them."""

    keeps_taints: bool


class ActionFailed(Struct, frozen=True):
    """An action has failed."""

    action: Action
    error: Exception


PublisherEvent: TypeAlias = (
    WantedChanged
    | RegistrationChanged
    | NodeRead
    | SlicesListed
    | WatchOpened
    | WatchEnded
    | SliceSeen
    | SliceWritten
    | TaintsProbed
    | ActionFailed
)


class Notice(Struct, frozen=True):
    """An event for the log. Parts of the text are untrusted."""

    event: Event
    text: str
    facts: Mapping[str, object] = {}


class Refusal(Struct, frozen=True):
    """The API server refused a write of a pool: nothing is written for this pool until ``until``.

    ``pool`` has the devices if these are invalid: other devices are written at once. Refusals for other reasons have
    no pool.
    ``failures`` counts the consecutive refusals of the pool.
    """

    pool: WantedPool | None
    reason: str
    until: Seconds
    failures: int = 1


class PublisherState(Struct, frozen=True):
    """The state of the publisher. Times are monotonic seconds.

    ``pools`` are the wanted pools, None if no resource is served by Dynamic Resource Allocation. ``actual`` has the
    slices of the API server by name, None if they have to be listed. ``is_watching`` states that changes of them arrive
    since ``watch_since``. ``keeps_taints`` states that the API server has not dropped taints yet. ``was_away`` states
    that it could not be reached or ended a watch since that was found: it may keep taints after an upgrade.
    ``away_at`` is the time of the last request that did not reach it, or that it answered with an error of its own.
    ``refusals`` has the pools that the API server refuses, by name. ``writes`` has the times of the last writes of each
    slice. ``in_flight`` is
    the write that was sent and is not answered yet. Nothing is sent before ``retry_at``, and ``error`` is the reason.
    ``changed_at`` is the time of the last change of the wanted pools, or of the registration if that was later.
    ``published`` has the pools that were published last, without those that were refused, and ``may_have_slices``
    states that the API server may have slices of the driver.
    """

    phase: Phase = Phase.IDLE
    pools: tuple[WantedPool, ...] | None = None
    registration: Registration = Registration.WAITING
    scope: SliceScope | None = None
    actual: Mapping[str, ActualSlice] | None = None
    resource_version: str = ""
    is_watching: bool = False
    watch_since: Seconds = 0.0
    keeps_taints: bool = True
    was_away: bool = False
    away_at: Seconds = -inf
    answers: Mapping[str, Answered] = {}
    refusals: Mapping[str, Refusal] = {}
    writes: Mapping[str, tuple[Seconds, ...]] = {}
    in_flight: Write | None = None
    failures: int = 0
    retry_at: Seconds = -inf
    is_unsupported: bool = False
    error: str = ""
    changed_at: Seconds = 0.0
    published: tuple[WantedPool, ...] | None = None
    may_have_slices: bool = False

    @property
    def is_synced(self) -> bool:
        """Whether the API server has had the wanted slices once, those of refused pools excepted."""
        return self.published is not None


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
    planned = frozenset(map(_pool_of, plan))
    if state.refusals.keys() - planned:
        state = replace(state, refusals={name: found for name, found in state.refusals.items() if name in planned})
    allowed = _find_allowed_times(state, plan)
    write = next((write for write in plan if allowed.get(_pool_of(write), -inf) <= now), None)
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


def apply_event(
    state: PublisherState, event: PublisherEvent, now: Seconds, jitter: float
) -> tuple[PublisherState, tuple[Notice, ...]]:
    """Return the state after an event, and messages for the log.

    ``jitter`` is a random number in [0, 1), which spreads the retries of many nodes over time.
    """
    match event:
        case WantedChanged(pools):
            changed = {pool.name: pool for pool in pools or ()}
            refusals = {
                name: found
                for name, found in state.refusals.items()
                if found.pool is None or changed.get(name) == found.pool
            }
            return replace(state, pools=pools, refusals=refusals, changed_at=now), ()
        case RegistrationChanged(registration):
            return _on_registration(replace(state, changed_at=now), registration)
        case NodeRead(scope):
            return replace(state, scope=scope), ()
        case SlicesListed(slices, version):
            listed = replace(state, actual=slices, resource_version=version, is_unsupported=False)
            return replace(listed, may_have_slices=state.may_have_slices or bool(slices)), ()
        case WatchOpened():
            return replace(state, is_watching=True, watch_since=now), ()
        case WatchEnded(error):
            return _on_watch_ended(state, error, now, jitter)
        case SliceSeen():
            return _on_slice_seen(state, event)
        case SliceWritten(write, answer):
            return _on_written(state, write, answer, now)
        case TaintsProbed(keeps_taints):
            return replace(state, keeps_taints=keeps_taints, was_away=False), ()
        case ActionFailed(action, error):
            return _on_failed(replace(state, in_flight=None), action, error, now, jitter)


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


def _find_allowed_times(state: PublisherState, plan: tuple[Write, ...]) -> Mapping[str, Seconds]:
    """Return when the writes of each pool may be sent: all at the same time, so that it is incomplete only shortly.

    While slices of resources that are not served any more are deleted, only refusals delay the deletions.
    """
    allowed: dict[str, Seconds] = {}
    for write in plan:
        pool = _pool_of(write)
        refusal = state.refusals.get(pool)
        earliest = allowed.get(pool, -inf if refusal is None else refusal.until)
        allowed[pool] = earliest if state.pools is None else max(earliest, _slice_allowed_at(state, write.name))
    return allowed


def _slice_allowed_at(state: PublisherState, name: str) -> Seconds:
    times = state.writes.get(name, ())
    if not times:
        return -inf
    is_slow = len(times) == MANY_WRITES and times[-1] - times[0] < MANY_WRITES_SECONDS
    return times[-1] + (SLOW_WRITE_SECONDS if is_slow else WRITE_SECONDS)


def _pool_of(write: Write) -> str:
    return write.pool if isinstance(write, DeleteSlice) else write.pool.name


def _on_registration(state: PublisherState, registration: Registration) -> tuple[PublisherState, tuple[Notice, ...]]:
    changed = replace(state, registration=registration)
    if registration is not Registration.UNSUPPORTED or state.registration is registration:
        return changed, ()
    return changed, (Notice(Event.DRA_UNSUPPORTED, UNSUPPORTED_KUBELET),)


def _on_watch_ended(
    state: PublisherState, error: Exception | None, now: Seconds, jitter: float
) -> tuple[PublisherState, tuple[Notice, ...]]:
    if not state.is_watching:
        # Another failure has ended it already.
        return state, ()
    lasted = now - state.watch_since
    # A server that is upgraded ends its watches in order; another server answers the next request.
    ended = replace(state, is_watching=False, actual=None, was_away=True)
    if isinstance(error, ApiError) and error.status == _GONE and lasted >= WRITE_SECONDS:
        return ended, ()
    if error is not None:
        return _on_failed(ended, OpenWatch(""), error, now, jitter)
    if lasted < SHORT_WATCH_SECONDS:
        reason = f"the API server ended a watch after {lasted:.1f} s"
        return _back_off(ended, reason, now, jitter, MAX_RETRY_SECONDS), ()
    return ended, ()


def _on_slice_seen(state: PublisherState, event: SliceSeen) -> tuple[PublisherState, tuple[Notice, ...]]:
    if state.actual is None:
        return state, ()
    seen = replace(state, resource_version=event.resource_version)
    known = state.actual.get(event.name)
    if not event.name or (known is not None and _is_newer(known.resource_version, event.resource_version)):
        return seen, ()
    actual = {name: found for name, found in state.actual.items() if name != event.name}
    if event.found is not None:
        actual[event.name] = event.found
    seen = replace(seen, actual=actual)
    wanted = {part.name: part.content for pool in state.pools or () for part in pool.slices}
    is_own = state.in_flight is not None and state.in_flight.name == event.name
    if is_own or event.name not in wanted:
        return seen, ()
    if event.found is not None:
        expected = {wanted[event.name]}
        answer = state.answers.get(event.name)
        if answer is not None and answer.sent.devices == wanted[event.name]:
            expected.add(answer.answered.devices)
        if event.found.content in expected or (known is not None and known.content not in expected):
            # A client that writes all the time is reported once for each time that genplug writes the slice again.
            return seen, ()
        writer = f" by {event.found.writer}" if event.found.writer else ""
        change = f"changed{writer}"
    elif known is None:
        return seen, ()
    else:
        # The Node may have been created again: its UID is read before the slice is created.
        seen = replace(seen, scope=None)
        change = "deleted"
    text = f"the ResourceSlice {event.name} was {change}; genplug writes it again"
    facts = {"slice": event.name, "writer": "" if event.found is None else event.found.writer}
    return seen, (Notice(Event.SLICES_RESTORED, text, facts),)


def _is_newer(version: str, other: str) -> bool:
    """Return whether a resource version is equal to or newer than another; False if they cannot be compared."""
    return version == other or (version.isdecimal() and other.isdecimal() and int(version) > int(other))


def _on_written(
    state: PublisherState, write: Write, answer: Mapping[str, Any] | None, now: Seconds
) -> tuple[PublisherState, tuple[Notice, ...]]:
    actual = dict(state.actual or {})
    answers = {name: found for name, found in state.answers.items() if name != write.name}
    written = replace(state, answers=answers, writes=_count_write(state, write, now), in_flight=None, error="")
    if isinstance(write, DeleteSlice) or answer is None:
        known = actual.get(write.name)
        # Another client can have created a slice of this name again, which the watch has sent already.
        if known is not None and isinstance(write, DeleteSlice) and known.uid == write.uid:
            del actual[write.name]
        dropped: tuple[str, ...] = ()
    else:
        found = read_slice(answer)
        known = actual.get(write.name)
        if state.scope is not None:
            answered = Answered(wanted_content(write.pool, write.part, state.scope), actual_content(found))
            written = replace(written, answers={**answers, write.name: answered})
        # The watch can have sent a later change already, also the deletion.
        if known is None and _is_newer(state.resource_version, found.resource_version):
            written = replace(written, scope=None)
        elif known is None or not _is_newer(known.resource_version, found.resource_version):
            actual[write.name] = found
        dropped = tuple(find_dropped_fields(write.part.devices, answer))
    written = replace(written, actual=None if state.actual is None else actual)
    if "taints" not in dropped or not state.keeps_taints:
        return written, ()
    text = "the API server drops the taints of devices, so that unhealthy devices are left out of the ResourceSlices"
    # The devices are left out by the next write, which must not wait: until then a claim can be allocated to them.
    writes = {name: times for name, times in written.writes.items() if name != write.name}
    return replace(written, keeps_taints=False, was_away=False, writes=writes), (Notice(Event.TAINTS_DROPPED, text),)


def _count_write(state: PublisherState, write: Write, now: Seconds) -> Mapping[str, tuple[Seconds, ...]]:
    """Return the times of the last writes of each slice, with a write that was answered now."""
    recent = {name: times for name, times in state.writes.items() if now - times[-1] < MANY_WRITES_SECONDS}
    return {**recent, write.name: (*recent.get(write.name, ()), now)[-MANY_WRITES:]}


def _on_failed(
    state: PublisherState, action: Action, error: Exception, now: Seconds, jitter: float
) -> tuple[PublisherState, tuple[Notice, ...]]:
    # The write may have had its effect: the slices are listed, and watched again from the list.
    failed = replace(state, actual=None, is_watching=False)
    if not isinstance(error, ApiError):
        is_away = isinstance(error, UnreachableError)
        failed = replace(failed, was_away=state.was_away or is_away, away_at=now if is_away else state.away_at)
        if isinstance(error, NotConnectedError):
            waiting = _back_off(failed, str(error), now, jitter, MAX_CONNECT_RETRY_SECONDS)
            # A server that returns can answer with errors first: the pauses after these start short.
            waiting = replace(waiting, failures=min(waiting.failures, _MAX_CONNECT_FAILURES))
        else:
            waiting = _back_off(failed, str(error), now, jitter, MAX_ANSWER_RETRY_SECONDS)
        return waiting, _away_notices(state, str(error))
    is_of_server = error.status in _OF_SERVER or _may_be_starting(state, error, now)
    if isinstance(action, ProbeTaints) and not is_of_server:
        # For example a webhook that refuses dry runs. The unhealthy devices remain left out.
        return replace(state, was_away=False), ()
    if error.is_path_unknown:
        text = "the API server does not have resource.k8s.io/v1: upgrade Kubernetes to 1.34 or later"
        notices = () if state.is_unsupported else (Notice(Event.DRA_UNSUPPORTED, text),)
        return replace(failed, is_unsupported=True, error=text, retry_at=now + UNSUPPORTED_SECONDS), notices
    failed = replace(failed, is_unsupported=False, away_at=now if error.status >= _SERVER_ERROR else state.away_at)
    # A conflict that remains after the slices were listed concerns one pool: a slice of another driver has its name.
    is_lasting = error.status == _CONFLICT and state.failures > 0
    if isinstance(action, WriteSlice) and (is_lasting or error.status not in _OF_ALL_WRITES):
        return _refuse(state, action.write, error, now, jitter)
    if error.status == _FORBIDDEN:
        if _may_be_starting(state, error, now):
            waiting = _back_off(failed, f"{error}. {_STARTING}", now, jitter, MAX_CONNECT_RETRY_SECONDS)
            return replace(waiting, failures=min(waiting.failures, _MAX_CONNECT_FAILURES)), ()
        text = _describe_refusal(error)
        waiting = replace(failed, failures=state.failures + 1, error=text, retry_at=now + FORBIDDEN_SECONDS)
        return waiting, (() if state.error == text else (Notice(Event.SLICES_REFUSED, text, {"status": error.status}),))
    if isinstance(action, ReadNode) and error.status == _NOT_FOUND:
        return replace(failed, error=str(error), retry_at=now + MISSING_NODE_SECONDS), ()
    if error.status in (_CONFLICT, _GONE, _NOT_FOUND) and not state.failures:
        # Another client wrote the slice: it is read and planned again at once, and later with a pause.
        return replace(failed, failures=1), ()
    waiting = _back_off(failed, str(error), now, jitter, MAX_RETRY_SECONDS)
    if error.retry_after is not None:
        requested = now + error.retry_after * (1 + 0.25 * jitter)
        waiting = replace(waiting, retry_at=max(waiting.retry_at, requested))
    return waiting, _away_notices(state, str(error))


def _refuse(
    state: PublisherState, write: Write, error: ApiError, now: Seconds, jitter: float
) -> tuple[PublisherState, tuple[Notice, ...]]:
    """Leave out a pool whose write the API server refuses; the other pools continue.

    The slices are not listed again: the watch sends the change if the write had its effect nevertheless.
    """
    name = _pool_of(write)
    is_starting = _may_be_starting(state, error, now)
    is_invalid = error.status in _INVALID and not error.is_denied
    pool = write.pool if not isinstance(write, DeleteSlice) and is_invalid else None
    previous = state.refusals.get(name)
    failures = 1 if previous is None else previous.failures + 1
    if pool is not None:
        pause = REFUSED_SECONDS
    elif is_starting:
        pause = _find_pause(failures - 1, jitter, MAX_CONNECT_RETRY_SECONDS)
    elif error.status == _FORBIDDEN or error.is_denied:
        pause = FORBIDDEN_SECONDS
    else:
        pause = max(_find_pause(failures - 1, jitter, MAX_RETRY_SECONDS), error.retry_after or 0.0)
    reason = f"{error}. {_STARTING}" if is_starting else _describe_refusal(error)
    refusal = Refusal(pool, reason, now + pause, failures)
    changed = replace(
        state, refusals={**state.refusals, name: refusal}, writes=_count_write(state, write, now), is_unsupported=False
    )
    if is_starting or (previous is not None and (previous.pool, previous.reason) == (pool, refusal.reason)):
        return changed, ()
    text = f"the ResourceSlice {write.name} of the pool {name} is refused: {refusal.reason}"
    facts: dict[str, object] = {"slice": write.name, "status": error.status}
    if not isinstance(write, DeleteSlice):
        text = f"the ResourceSlice {write.name} of {write.pool.resource} is refused: {refusal.reason}"
        facts["resource"] = write.pool.resource
    return changed, (Notice(Event.SLICES_REFUSED, text, facts),)


def _may_be_starting(state: PublisherState, error: ApiError, now: Seconds) -> bool:
    """Return whether an API server that has just returned may refuse a request because it has not read the rights yet.

    It answers before its authorizer has read the roles, and before its admission plugins are ready.
    """
    return error.status == _FORBIDDEN and not error.is_denied and now - state.away_at < START_SECONDS


def _describe_refusal(error: ApiError) -> str:
    if error.is_denied:
        return (
            f"{error}. Correct this admission policy or webhook: it must allow the service account of the agent to "
            "write the ResourceSlices of its node and driver"
        )
    if error.status == _FORBIDDEN:
        return f"{error}. Grant the verbs of the chart to the service account: 'helm upgrade' restores them"
    return str(error)


def _away_notices(state: PublisherState, text: str) -> tuple[Notice, ...]:
    """Return a message for the first of several failures."""
    return (Notice(Event.API_SERVER_AWAY, text),) if not state.error else ()


def _back_off(state: PublisherState, reason: str, now: Seconds, jitter: float, longest: Seconds) -> PublisherState:
    """Wait after a failure, longer after each further failure."""
    pause = _find_pause(state.failures, jitter, longest)
    return replace(state, failures=state.failures + 1, error=reason, retry_at=now + pause)


def _find_pause(failures: int, jitter: float, longest: Seconds) -> Seconds:
    """Return the pause after a number of earlier failures: 1 s, doubled for each of them, plus up to a quarter."""
    return min(2.0 ** min(failures, 10), longest) * (1 + 0.25 * jitter)


class PoolStatus(Struct, frozen=True):
    """A published resource, for the status: its slices and devices at the API server.

    ``refusal`` is the reason if the API server refuses its slices.
    """

    resource: str
    pool: str
    slices: int
    devices: int
    tainted: int
    refusal: str = ""


class PublisherStatus(Struct, frozen=True):
    """The publisher, for the status. ``retry_seconds`` is the time until the next request after an error."""

    phase: Phase
    error: str
    retry_seconds: Seconds
    keeps_taints: bool
    pools: tuple[PoolStatus, ...]


def build_status(state: PublisherState, now: Seconds) -> PublisherStatus:
    """Return the status of the publisher."""
    pools = tuple(_build_pool_status(state, pool) for pool in state.pools or ())
    error, retry_at = state.error, state.retry_at
    # The reason is the rights, a webhook or the API server: the status has it like an error of all requests.
    refused = next((refusal for refusal in state.refusals.values() if refusal.pool is None), None)
    if refused is not None and not error:
        error, retry_at = refused.reason, refused.until
    retry_seconds = max(retry_at - now, 0.0) if error else 0.0
    return PublisherStatus(state.phase, error, retry_seconds, state.keeps_taints, pools)


def _build_pool_status(state: PublisherState, pool: WantedPool) -> PoolStatus:
    """Return the slices that the API server has, or had when they were known last."""
    refusal = state.refusals.get(pool.name)
    reason = "" if refusal is None else refusal.reason
    if state.actual is not None:
        found = [part for part in state.actual.values() if part.pool == pool.name]
        devices, tainted = sum(part.devices for part in found), sum(part.tainted for part in found)
        return PoolStatus(pool.resource, pool.name, len(found), devices, tainted, reason)
    published = next((known for known in state.published or () if known.name == pool.name), None)
    slices = () if published is None else published.slices
    content = [device for part in slices for device in part.devices]
    tainted = sum(bool(device.taints) for device in content)
    return PoolStatus(pool.resource, pool.name, len(slices), len(content), tainted, reason)
