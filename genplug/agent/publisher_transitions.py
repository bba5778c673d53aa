"""Applies events to the state of the publisher, as pure functions: each event changes what is known."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from genplug.agent.publisher_actions import Notice
from genplug.agent.publisher_events import (
    ActionFailed,
    NodeRead,
    PublisherEvent,
    RegistrationChanged,
    SliceSeen,
    SlicesListed,
    SliceWritten,
    TaintsProbed,
    WantedChanged,
    WatchEnded,
    WatchOpened,
)
from genplug.agent.publisher_failures import apply_failure, apply_watch_end
from genplug.agent.publisher_state import UNSUPPORTED_KUBELET, PublisherState, Registration, Seconds
from genplug.agent.publisher_write_limits import count_write
from genplug.allocation.slice_plan import (
    Answered,
    DeleteSlice,
    Write,
    actual_content,
    find_dropped_fields,
    wanted_content,
)
from genplug.allocation.slices import read_slice
from genplug.observe.events import Event


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
            return apply_watch_end(state, error, now, jitter)
        case SliceSeen():
            return _on_slice_seen(state, event)
        case SliceWritten(write, answer):
            return _on_written(state, write, answer, now)
        case TaintsProbed(keeps_taints):
            return replace(state, keeps_taints=keeps_taints, was_away=False), ()
        case ActionFailed(action, error):
            return apply_failure(replace(state, in_flight=None), action, error, now, jitter)


def _on_registration(state: PublisherState, registration: Registration) -> tuple[PublisherState, tuple[Notice, ...]]:
    changed = replace(state, registration=registration)
    if registration is not Registration.UNSUPPORTED or state.registration is registration:
        return changed, ()
    return changed, (Notice(Event.DRA_UNSUPPORTED, UNSUPPORTED_KUBELET),)


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


def _on_written(
    state: PublisherState, write: Write, answer: Mapping[str, Any] | None, now: Seconds
) -> tuple[PublisherState, tuple[Notice, ...]]:
    actual = dict(state.actual or {})
    answers = {name: found for name, found in state.answers.items() if name != write.name}
    written = replace(state, answers=answers, writes=count_write(state, write, now), in_flight=None, error="")
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


def _is_newer(version: str, other: str) -> bool:
    """Return whether a resource version is equal to or newer than another; False if they cannot be compared."""
    return version == other or (version.isdecimal() and other.isdecimal() and int(version) > int(other))
