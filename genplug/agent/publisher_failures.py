"""Applies failed requests and ended watches to the state of the publisher, as pure functions.

After a failure, the publisher pauses, or it leaves out the pool that the API server refused.
"""

from msgspec.structs import replace

from genplug.agent.publisher_actions import Action, Notice, OpenWatch, ProbeTaints, ReadNode, WriteSlice
from genplug.agent.publisher_state import PublisherState, Refusal, Seconds
from genplug.agent.publisher_write_limits import WRITE_SECONDS, count_write, get_pool_name
from genplug.allocation.slice_plan import DeleteSlice, Write
from genplug.cluster.errors import ApiError, NotConnectedError, UnreachableError
from genplug.observe.events import Event

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


def apply_watch_end(
    state: PublisherState, error: Exception | None, now: Seconds, jitter: float
) -> tuple[PublisherState, tuple[Notice, ...]]:
    """Return the state after the end of a watch, and messages for the log."""
    if not state.is_watching:
        # Another failure has ended it already.
        return state, ()
    lasted = now - state.watch_since
    # A server that is upgraded ends its watches in order; another server answers the next request.
    ended = replace(state, is_watching=False, actual=None, was_away=True)
    if isinstance(error, ApiError) and error.status == _GONE and lasted >= WRITE_SECONDS:
        return ended, ()
    if error is not None:
        return apply_failure(ended, OpenWatch(""), error, now, jitter)
    if lasted < SHORT_WATCH_SECONDS:
        reason = f"the API server ended a watch after {lasted:.1f} s"
        return _back_off(ended, reason, now, jitter, MAX_RETRY_SECONDS), ()
    return ended, ()


def apply_failure(
    state: PublisherState, action: Action, error: Exception, now: Seconds, jitter: float
) -> tuple[PublisherState, tuple[Notice, ...]]:
    """Return the state after a failed action, and messages for the log."""
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
    name = get_pool_name(write)
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
        state, refusals={**state.refusals, name: refusal}, writes=count_write(state, write, now), is_unsupported=False
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
