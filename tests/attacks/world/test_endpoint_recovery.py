"""The state machine of an endpoint under every fault: from each state it serves again when the faults end."""

from collections.abc import Iterator

import pytest

from genplug.kubelet.endpoint_events import (
    Event,
    KubeletSeen,
    Registered,
    RegisterFailed,
    Retired,
    Served,
    ServeFailed,
    StreamClosed,
    StreamOpened,
    TimePassed,
)
from genplug.kubelet.endpoint_state import FIRST_STREAM_SECONDS, OLD_STREAM_SECONDS, Action, retry_delay
from genplug.kubelet.plugin_dir import SocketIdentity
from genplug.kubelet.reports import Phase, PhaseChanged
from genplug.observe.events import Event as LogName
from genplug.observe.events import EventLog, LogEvent
from genplug.observe.messages import log_report
from tests.support.endpoint_exploration import NEW, OLD, Situation, explore_endpoint

STEP_SECONDS = 0.01
MAX_RECOVERY_SECONDS = max(FIRST_STREAM_SECONDS, OLD_STREAM_SECONDS, retry_delay(100, 0.0)) + 1
"""The longest pause of the state machine, and time for the steps after it."""
MAX_EVENTS = 20
SUCCESSES: dict[Action, Event] = {
    Action.SERVE: Served(),
    Action.REGISTER: Registered(),
    Action.RETIRE: Retired(),
}


def next_event_without_faults(situation: Situation, kubelet: SocketIdentity, *, has_ended: bool) -> tuple[Event, float]:
    """Return what happens next on a node without faults, on which this kubelet runs, and when.

    ``has_ended`` is whether the kubelet of an earlier kubelet.sock has ended, which ends its streams.
    """
    state, soon = situation.state, situation.now + STEP_SECONDS
    if state.kubelet != kubelet:
        return KubeletSeen(kubelet), soon
    if state.streams and (state.phase is Phase.RETIRE or (has_ended and state.registered_with != kubelet)):
        # The server of a stream stops, or its kubelet has ended.
        return StreamClosed(), soon
    if situation.running is not None:
        return SUCCESSES[situation.running], soon
    if state.phase is Phase.PENDING:
        return StreamOpened(), soon
    assert state.due is not None, f"the endpoint waits for nothing: {situation}"
    return TimePassed(), max(state.due, situation.now)


def play_until_live(situation: Situation, kubelet: SocketIdentity, *, has_ended: bool) -> Iterator[Situation]:
    """Yield the situations without faults until the kubelet has a stream of the endpoint."""
    while not (situation.state.is_live and situation.state.registered_with == kubelet == situation.state.kubelet):
        event, now = next_event_without_faults(situation, kubelet, has_ended=has_ended)
        situation = situation.after(event, now)
        yield situation


@pytest.mark.parametrize("has_ended", [True, False], ids=["streams end", "streams stay open"])
@pytest.mark.parametrize("kubelet", [OLD, NEW], ids=["same kubelet", "new kubelet"])
def test_endpoint_serves_again_from_every_state_when_the_faults_end(kubelet: SocketIdentity, has_ended: bool) -> None:  # noqa: FBT001
    explored = 0
    for transition in explore_endpoint():
        start = transition.after
        last = start
        for number, situation in enumerate(play_until_live(start, kubelet, has_ended=has_ended), 1):
            last = situation
            assert number <= MAX_EVENTS, transition
        assert last.now - start.now <= MAX_RECOVERY_SECONDS, transition
        assert last.running is None
        explored += 1
    assert explored > 1000


def collect_log(previous: Situation, following: Situation) -> list[LogEvent]:
    """Return what the agent logs when an endpoint goes from one situation to another."""
    before, after = previous.state, following.state
    is_other = (before.phase, before.number, before.is_live) != (after.phase, after.number, after.is_live)
    if not is_other and after.failures <= before.failures:
        return []
    log = EventLog()
    entries: list[LogEvent] = []
    log.listen(entries.append)
    log_report(log, PhaseChanged("example.com/x", before.status, after.status))
    return entries


def test_failed_step_is_logged_once_for_each_reason() -> None:
    """Serve and register with errors that last and change; each change is an event with its text, a repeat is not."""
    errors = ["No space left on device", "No space left on device", "Read-only file system", "No space left on device"]
    step = next(explore_endpoint()).before
    logged = []
    for error in errors:
        assert step.running is Action.SERVE
        failed = step.after(ServeFailed(error), step.now + STEP_SECONDS)
        logged += [entry.text for entry in collect_log(step, failed) if entry.event is LogName.SERVE_FAILED]
        assert failed.state.due is not None
        step = failed.after(TimePassed(), failed.state.due)
    assert logged == [f"example.com/x: cannot serve: {errors[index]}; the agent retries" for index in (0, 2, 3)]


def test_every_failed_step_in_every_state_is_logged_with_its_error() -> None:
    failures = 0
    for transition in explore_endpoint():
        before, after = transition.before, transition.after
        if not isinstance(transition.event, ServeFailed | RegisterFailed) or after.state.streams:
            continue
        failures += 1
        names = {LogName.SERVE_FAILED, LogName.REGISTRATION_FAILED}
        texts = [entry.text for entry in collect_log(before, after) if entry.event in names]
        if before.state.reason == after.state.reason:
            continue
        assert len(texts) == 1
        assert transition.event.error in texts[0]
    assert failures > 20
