"""The state machine of an endpoint: every transition, without an event loop, a socket or a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.kubelet import endpoint_state
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
from genplug.kubelet.endpoint_state import Action, EndpointState, Step, first_step, next_step
from genplug.kubelet.plugin_dir import SocketIdentity
from genplug.kubelet.reports import Phase
from tests.support.endpoint_exploration import NEW, OLD, explore_endpoint


def play(*events: tuple[float, Event], kubelet: SocketIdentity | None = OLD) -> Step:
    """Return the step after events at the given times, from the first step at time 0."""
    step = first_step(kubelet, 0.0)
    for now, event in events:
        step = next_step(step.state, event, now, 0.0)
    return step


LIVE = ((0.01, Served()), (0.02, Registered()), (0.03, StreamOpened()))


def test_first_step_serves() -> None:
    assert first_step(None, 5.0) == Step(EndpointState(1, Phase.SERVE, since=5.0), Action.SERVE)
    assert first_step(OLD, 5.0).state.kubelet == OLD


def test_served_endpoint_registers_when_kubelet_socket_appears() -> None:
    waiting = play((1, Served()), kubelet=None)
    assert (waiting.state.phase, waiting.action) == (Phase.WAIT, None)
    step = next_step(waiting.state, KubeletSeen(NEW), 9.0, 0.0)
    assert (step.state.phase, step.action) == (Phase.REGISTER, Action.REGISTER)


def test_endpoint_is_live_after_register_and_a_stream() -> None:
    step = play(*LIVE)
    assert str(step.state) == "generation 1, live, 1 stream, registered"
    assert step.action is None


def test_endpoint_is_live_when_a_stream_opens_before_register_returns() -> None:
    step = play((1, Served()), (2, StreamOpened()), (3, Registered()))
    assert step.state.is_live


def test_endpoint_is_live_when_a_stream_opens_although_register_timed_out() -> None:
    during = play((1, Served()), (2, StreamOpened()), (30, RegisterFailed("no answer")))
    later = play((1, Served()), (30, RegisterFailed("no answer")), (30.01, StreamOpened()))
    assert during.state.is_live
    assert later.state.is_live


def test_endpoint_with_a_stream_does_not_register_again_after_a_failed_register() -> None:
    failed = play((1, Served()), (30, RegisterFailed("no answer")), (30.01, StreamOpened()))
    step = next_step(failed.state, TimePassed(), 100.0, 0.0)
    assert step.action is not Action.REGISTER


def test_failed_register_backs_off_from_a_tenth_of_a_second_to_thirty_seconds() -> None:
    step = play((0, Served()))
    now, pauses = 0.0, []
    for _ in range(9):
        step = next_step(step.state, RegisterFailed("refused"), now, 0.0)
        assert step.state.due is not None
        pauses.append(round(step.state.due - now, 3))
        now = step.state.due
        step = next_step(step.state, TimePassed(), now, 0.0)
        assert step.action is Action.REGISTER
    assert pauses == [0.1, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(
    ("action", "failure"),
    [
        (Action.SERVE, ServeFailed("no space")),
        (Action.REGISTER, RegisterFailed("no descriptor", is_system_limit=True)),
    ],
)
def test_failure_for_which_the_kubelet_is_not_the_reason_is_retried_every_second(
    action: Action, failure: ServeFailed | RegisterFailed
) -> None:
    step = play((0, Served())) if action is Action.REGISTER else play()
    now, pauses = 0.0, []
    for failures in range(1, 7):
        step = next_step(step.state, failure, now, 0.0)
        assert step.state.due is not None
        assert step.state.failures == failures
        pauses.append(round(step.state.due - now, 3))
        now = step.state.due
        step = next_step(step.state, TimePassed(), now, 0.0)
        assert step.action is action
    assert pauses == [0.1, 1, 1, 1, 1, 1]


def test_jitter_extends_the_retry_delay_by_up_to_a_quarter() -> None:
    assert endpoint_state.retry_delay(2, 0.0) == 1.0
    assert endpoint_state.retry_delay(2, 0.999) == pytest.approx(1.25, abs=0.001)


def test_new_kubelet_ends_the_back_off() -> None:
    failed = play(
        (0, Served()),
        (1, RegisterFailed("x")),
        (1.1, TimePassed()),
        (2, RegisterFailed("x")),
    )
    step = next_step(failed.state, KubeletSeen(NEW), 2.01, 0.0)
    assert (step.action, step.state.failures) == (Action.REGISTER, 0)


def test_registered_endpoint_without_a_stream_registers_again_after_15_s() -> None:
    pending = play((0, Served()), (1, Registered()))
    assert pending.state.due == 16.0
    watchdog = next_step(pending.state, TimePassed(), 16.0, 0.0)
    assert watchdog.state.phase is Phase.WAIT
    assert watchdog.state.due is not None
    again = next_step(watchdog.state, TimePassed(), watchdog.state.due, 0.0)
    assert (again.action, again.state.number) == (Action.REGISTER, 1)


def test_pause_grows_if_the_kubelet_repeatedly_opens_no_stream() -> None:
    pending = play((0, Served()), (1, Registered()))
    step = next_step(replace(pending.state, failures=4), TimePassed(), 16.0, 0.0)
    assert (step.state.failures, step.state.due) == (5, 16.0 + endpoint_state.retry_delay(5, 0.0))


def test_lost_socket_retires_a_live_generation_and_pauses_until_the_kubelet_has_disconnected() -> None:
    lost = play(*LIVE, (100, OwnSocketLost()))
    assert (lost.state.phase, lost.action) == (Phase.RETIRE, Action.RETIRE)
    closed = next_step(lost.state, StreamClosed(), 100.1, 0.0)
    stopped = next_step(closed.state, Retired(), 100.1, 0.0)
    assert (stopped.state.phase, stopped.action) == (Phase.PAUSE, None)
    assert stopped.state.due == pytest.approx(100.1 + endpoint_state.DISCONNECT_SECONDS)
    again = next_step(stopped.state, TimePassed(), 101.2, 0.0)
    assert (again.state.number, again.action) == (2, Action.SERVE)


def test_socket_that_a_new_kubelet_removed_causes_no_pause() -> None:
    lost = play(*LIVE, (100, KubeletSeen(NEW)), (100, OwnSocketLost()))
    assert (lost.state.phase, lost.state.due, lost.action) == (Phase.LIVE, 100.1, None)
    assert lost.state.reason == "its socket was removed"
    again = next_step(lost.state, OwnSocketLost(), 100.05, 0.0)
    assert again.state.due == 100.1
    closed = next_step(again.state, StreamClosed(), 100.06, 0.0)
    assert closed.action is Action.RETIRE
    assert next_step(closed.state, Retired(), 100.07, 0.0).action is Action.SERVE


def test_stream_that_outlives_the_socket_is_closed_and_the_kubelet_gets_time_to_process_it() -> None:
    lost = play(*LIVE, (100, KubeletSeen(NEW)), (100, OwnSocketLost()))
    retiring = next_step(lost.state, TimePassed(), 100.1, 0.0)
    assert (retiring.state.phase, retiring.action) == (Phase.RETIRE, Action.RETIRE)
    closed = next_step(retiring.state, StreamClosed(), 100.11, 0.0)
    stopped = next_step(closed.state, Retired(), 100.12, 0.0)
    assert stopped.state.due == pytest.approx(100.11 + endpoint_state.DISCONNECT_SECONDS)


def test_restarted_kubelet_causes_no_pause() -> None:
    down = play(*LIVE, (100, StreamClosed()))
    assert down.state.phase is Phase.LIVE
    back = next_step(down.state, KubeletSeen(NEW), 100.3, 0.0)
    assert back.action is Action.RETIRE
    again = next_step(back.state, Retired(), 100.31, 0.0)
    assert again.action is Action.SERVE


def test_retired_endpoint_does_not_serve_while_no_kubelet_exists() -> None:
    wiped = play(*LIVE, (100, StreamClosed()), (100.1, KubeletSeen(None)), (100.1, OwnSocketLost()))
    held = next_step(wiped.state, Retired(), 100.2, 0.0)
    assert (held.state.phase, held.state.due, held.action) == (Phase.PAUSE, None, None)
    assert next_step(held.state, KubeletSeen(NEW), 700.0, 0.0).action is Action.SERVE


def test_endpoint_stays_live_when_the_stream_returns_in_time() -> None:
    step = play(*LIVE, (100, StreamClosed()), (100.05, StreamOpened()))
    assert step.state.is_live
    assert step.state.due is None


def test_endpoint_retires_when_the_stream_does_not_return() -> None:
    closed = play(*LIVE, (100, StreamClosed()))
    assert closed.state.due == 100 + endpoint_state.STREAM_RETURN_SECONDS
    assert next_step(closed.state, TimePassed(), 101.5, 0.0).action is Action.RETIRE


def test_endpoint_stays_live_when_one_of_two_streams_ends() -> None:
    step = play(*LIVE, (50, StreamOpened()), (60, StreamClosed()))
    assert step.state.is_live
    assert step.state.due is None


def test_endpoint_with_a_stream_retires_5_s_after_kubelet_socket_was_replaced() -> None:
    seen = play(*LIVE, (100, KubeletSeen(NEW)))
    assert (seen.state.phase, seen.action, seen.state.due) == (Phase.LIVE, None, 105.0)
    assert next_step(seen.state, TimePassed(), 105.0, 0.0).action is Action.RETIRE
    kept = next_step(seen.state, StreamOpened(), 101.0, 0.0)
    assert kept.state.due is None


@pytest.mark.parametrize("event", [OwnSocketLost(), OptionsChanged()])
def test_repeated_loss_of_the_socket_and_changes_of_options_have_no_longer_pauses(event: Event) -> None:
    step, now = play(*LIVE), 1.0
    for _ in range(10):
        step = next_step(step.state, event, now, 0.0)
        step = next_step(step.state, StreamClosed(), now, 0.0)
        step = next_step(step.state, Retired(), now, 0.0)
        assert step.state.due == pytest.approx(now + endpoint_state.DISCONNECT_SECONDS)
        now += endpoint_state.DISCONNECT_SECONDS
        step = next_step(step.state, TimePassed(), now, 0.0)
        for following in (Served(), Registered(), StreamOpened()):
            step = next_step(step.state, following, now, 0.0)
        assert step.state.is_live


@pytest.mark.parametrize("loss", [(OwnSocketLost(), StreamClosed()), (StreamClosed(),)], ids=["socket", "stream"])
def test_pauses_after_the_first_losses_are_shorter_than_a_second(loss: tuple[Event, ...]) -> None:
    step, now = play(*LIVE), 1.0
    for _ in range(endpoint_state.FREE_DISCONNECTS):
        lost = now
        for event in loss:
            step = next_step(step.state, event, now, 1.0)
        if step.state.phase is Phase.LIVE:
            assert step.state.due is not None
            now = step.state.due
            step = next_step(step.state, TimePassed(), now, 1.0)
        assert step.state.phase is Phase.RETIRE
        step = next_step(step.state, Retired(), now, 1.0)
        assert step.state.due is not None
        now = step.state.due
        step = next_step(step.state, TimePassed(), now, 1.0)
        assert step.action is Action.SERVE
        assert now - lost == pytest.approx(endpoint_state.DISCONNECT_SECONDS)
        for event in (Served(), Registered(), StreamOpened()):
            step = next_step(step.state, event, now, 1.0)
        assert step.state.is_live
    assert endpoint_state.DISCONNECT_SECONDS < 1


def test_changed_options_retire_the_generation() -> None:
    assert play(*LIVE, (100, OptionsChanged())).action is Action.RETIRE


def test_pause_grows_when_the_kubelet_disconnects_repeatedly() -> None:
    step, now, pauses = play(*LIVE), 1.0, []
    for _ in range(7):
        step = next_step(step.state, StreamClosed(), now, 0.0)
        step = next_step(step.state, TimePassed(), now + 1.5, 0.0)
        step = next_step(step.state, Retired(), now + 1.5, 0.0)
        due = step.state.due or now + 1.5
        pauses.append(due - now - 1.5)
        step = next_step(step.state, TimePassed(), due, 0.0)
        for event in (Served(), Registered(), StreamOpened()):
            step = next_step(step.state, event, due, 0.0)
        assert step.state.is_live
        now = due + 0.1
    assert pauses == pytest.approx([0, 0, 0, 0, 1, 2, 4])


def test_failed_serve_is_retried_after_the_back_off() -> None:
    failed = play((1, ServeFailed("read-only")))
    assert "read-only" in failed.state.reason
    assert failed.state.due is not None
    assert next_step(failed.state, TimePassed(), failed.state.due, 0.0).action is Action.SERVE


def test_new_kubelet_is_registered_with_while_the_first_stream_is_pending() -> None:
    pending = play((0, Served()), (1, Registered()))
    step = next_step(pending.state, KubeletSeen(NEW), 2.0, 0.0)
    assert (step.action, step.state.registered_with) == (Action.REGISTER, NEW)
    assert str(step.state) == "generation 1, register, 0 streams"


def test_stream_that_closes_after_the_kubelet_was_replaced_retires_the_generation_at_once() -> None:
    step = play(*LIVE, (100, KubeletSeen(NEW)), (100.5, StreamClosed()))
    assert step.action is Action.RETIRE
    assert str(step.state) == "generation 1, retire, 0 streams: the kubelet was restarted"
    assert next_step(step.state, Retired(), 100.6, 0.0).action is Action.SERVE


@pytest.mark.parametrize("phase", [Phase.REGISTER, Phase.RETIRE])
def test_due_time_of_a_phase_with_an_action_in_progress_is_cleared(phase: Phase) -> None:
    step = next_step(EndpointState(1, phase, since=0.0, due=1.0), TimePassed(), 1.0, 0.0)
    assert (step.state.phase, step.state.due, step.action) == (phase, None, None)


def test_time_before_the_due_time_changes_nothing() -> None:
    pending = play((0, Served()), (1, Registered()))
    assert next_step(pending.state, TimePassed(), 15.9, 0.0) == Step(pending.state)


def test_paused_endpoint_does_not_serve_when_the_kubelet_has_disappeared() -> None:
    lost = play(*LIVE, (100, OwnSocketLost()), (100.1, StreamClosed()), (100.2, Retired()))
    paused = next_step(lost.state, KubeletSeen(None), 100.3, 0.0)
    step = next_step(paused.state, TimePassed(), 102.0, 0.0)
    assert (step.state.phase, step.state.due, step.action) == (Phase.PAUSE, None, None)
    assert next_step(step.state, KubeletSeen(OLD), 700.0, 0.0).action is Action.SERVE


def test_state_as_text_shows_failures_and_the_reason() -> None:
    step = play((0, Served()), (1, RegisterFailed("refused")))
    assert str(step.state) == "generation 1, wait, 0 streams, 1 failure: Register failed: refused"


SERVING = EndpointState(1, Phase.SERVE, since=0.0, kubelet=OLD)
REGISTERING = replace(SERVING, phase=Phase.REGISTER, since=1, registered_with=OLD)
PENDING = replace(
    REGISTERING,
    phase=Phase.PENDING,
    since=2,
    due=17,
    reason="registered; waiting for the kubelet to open ListAndWatch",
)
REFUSED = replace(REGISTERING, phase=Phase.WAIT, since=2, due=2.1, failures=1, reason="Register failed: refused")
STREAMING = replace(REGISTERING, phase=Phase.LIVE, since=3, streams=1)
ENDED = replace(STREAMING, streams=0, stream_ended=50, due=50.1, reason="the kubelet closed its stream")
REPLACED = replace(STREAMING, kubelet=NEW, due=55, reason="kubelet.sock was replaced, but the stream is open")
STRANGE = replace(SERVING, phase=Phase.LIVE, since=1, due=6, streams=1, reason="another process opened a stream")
RETIRING = replace(STREAMING, phase=Phase.RETIRE, since=50, reason="its socket was removed")
PAUSED = replace(RETIRING, phase=Phase.PAUSE, streams=0, stream_ended=50.2, due=50.7)
SERVING_AGAIN = EndpointState(2, Phase.SERVE, since=60, kubelet=OLD, reason="its socket was removed")


@pytest.mark.parametrize(
    ("state", "event", "now", "expected"),
    [
        (SERVING, Served(), 1, Step(REGISTERING, Action.REGISTER)),
        (
            replace(SERVING, kubelet=None),
            Served(),
            1,
            Step(EndpointState(1, Phase.WAIT, since=1, reason="waiting for kubelet.sock to appear")),
        ),
        (
            SERVING,
            ServeFailed("no space"),
            1,
            Step(replace(SERVING, since=1, due=1.1, failures=1, reason="cannot serve: no space")),
        ),
        (replace(SERVING, due=1.1), TimePassed(), 1.1, Step(SERVING, Action.SERVE)),
        # A client that is not the kubelet can open a stream at any time.
        (SERVING, StreamOpened(), 1, Step(replace(SERVING, streams=1))),
        (replace(SERVING, streams=1), Served(), 1, Step(STRANGE)),
        (
            replace(SERVING, streams=1, kubelet=None),
            Served(),
            1,
            Step(replace(STRANGE, kubelet=None, due=None, reason="")),
        ),
        (
            replace(REGISTERING, streams=1, kubelet=NEW),
            Registered(),
            50,
            Step(replace(REPLACED, since=50)),
        ),
        (
            replace(REGISTERING, kubelet=NEW),
            StreamOpened(),
            2,
            Step(replace(REGISTERING, kubelet=NEW, registered_with=NEW, streams=1)),
        ),
        (REGISTERING, Registered(), 2, Step(PENDING)),
        (REGISTERING, RegisterFailed("refused"), 2, Step(REFUSED)),
        (REGISTERING, StreamOpened(), 2, Step(replace(REGISTERING, streams=1))),
        (replace(REGISTERING, streams=1), Registered(), 3, Step(STREAMING)),
        (replace(REGISTERING, streams=1), RegisterFailed("no answer"), 3, Step(STREAMING)),
        (REGISTERING, KubeletSeen(NEW), 2, Step(replace(REGISTERING, kubelet=NEW))),
        (PENDING, StreamOpened(), 3, Step(STREAMING)),
        (
            PENDING,
            TimePassed(),
            17,
            Step(
                replace(
                    PENDING,
                    phase=Phase.WAIT,
                    since=17,
                    due=17.1,
                    failures=1,
                    reason="registered, but the kubelet never opened ListAndWatch",
                )
            ),
        ),
        (
            replace(PENDING, failures=3),
            KubeletSeen(NEW),
            1,
            Step(replace(REGISTERING, kubelet=NEW, registered_with=NEW), Action.REGISTER),
        ),
        (
            REFUSED,
            TimePassed(),
            2.1,
            Step(replace(REFUSED, phase=Phase.REGISTER, since=2.1, due=None), Action.REGISTER),
        ),
        (
            REFUSED,
            KubeletSeen(NEW),
            2.05,
            Step(
                replace(
                    REFUSED,
                    phase=Phase.REGISTER,
                    since=2.05,
                    due=None,
                    failures=0,
                    kubelet=NEW,
                    registered_with=NEW,
                ),
                Action.REGISTER,
            ),
        ),
        (
            replace(REFUSED, kubelet=NEW),
            StreamOpened(),
            3,
            Step(replace(STREAMING, failures=1, kubelet=NEW, registered_with=NEW)),
        ),
        (STREAMING, StreamClosed(), 50, Step(ENDED)),
        (ENDED, StreamOpened(), 50.05, Step(replace(STREAMING, stream_ended=50))),
        (
            ENDED,
            TimePassed(),
            50.1,
            Step(replace(ENDED, phase=Phase.RETIRE, since=50.1, due=None), Action.RETIRE),
        ),
        (
            ENDED,
            KubeletSeen(NEW),
            50.05,
            Step(
                replace(
                    ENDED,
                    phase=Phase.RETIRE,
                    since=50.05,
                    due=None,
                    kubelet=NEW,
                    reason="the kubelet was restarted",
                ),
                Action.RETIRE,
            ),
        ),
        (STREAMING, KubeletSeen(NEW), 50, Step(REPLACED)),
        (
            REPLACED,
            StreamOpened(),
            51,
            Step(replace(STREAMING, kubelet=NEW, registered_with=NEW, streams=2)),
        ),
        # The kubelet has an open stream, so the new kubelet.sock is its socket.
        (
            REPLACED,
            TimePassed(),
            55,
            Step(
                replace(REPLACED, phase=Phase.RETIRE, since=55, due=None, registered_with=NEW),
                Action.RETIRE,
            ),
        ),
        (STREAMING, OwnSocketLost(), 50, Step(RETIRING, Action.RETIRE)),
        (REPLACED, OwnSocketLost(), 50, Step(replace(REPLACED, due=50.1, reason="its socket was removed"))),
        (
            replace(REPLACED, due=None),
            OwnSocketLost(),
            50,
            Step(replace(REPLACED, due=50.1, reason="its socket was removed")),
        ),
        (REPLACED, OwnSocketLost(), 54.95, Step(replace(REPLACED, reason="its socket was removed"))),
        (
            replace(STREAMING, kubelet=None),
            OwnSocketLost(),
            50,
            Step(replace(RETIRING, kubelet=None, registered_with=None), Action.RETIRE),
        ),
        (
            STREAMING,
            OptionsChanged(),
            50,
            Step(replace(RETIRING, reason="its plugin options changed"), Action.RETIRE),
        ),
        (
            replace(PENDING, kubelet=None),
            OwnSocketLost(),
            5,
            Step(
                replace(PENDING, kubelet=None, phase=Phase.RETIRE, since=5, due=None, reason="its socket was removed"),
                Action.RETIRE,
            ),
        ),
        (RETIRING, StreamClosed(), 50.2, Step(replace(RETIRING, streams=0, stream_ended=50.2))),
        (replace(RETIRING, stream_ended=50.2), Retired(), 50.3, Step(PAUSED)),
        (
            replace(RETIRING, kubelet=None),
            Retired(),
            50.3,
            Step(replace(RETIRING, kubelet=None, phase=Phase.PAUSE, streams=0)),
        ),
        (RETIRING, Retired(), 60, Step(SERVING_AGAIN, Action.SERVE)),
        (PAUSED, TimePassed(), 60, Step(SERVING_AGAIN, Action.SERVE)),
        (PAUSED, KubeletSeen(NEW), 60, Step(replace(SERVING_AGAIN, kubelet=NEW), Action.SERVE)),
        (replace(PAUSED, kubelet=None), TimePassed(), 60, Step(replace(PAUSED, kubelet=None, due=None))),
    ],
)
def test_event_gives_the_whole_state_and_the_action(
    state: EndpointState, event: Event, now: float, expected: Step
) -> None:
    step = next_step(state, event, now, 0.0)
    due, expected_due = step.state.due, expected.state.due
    assert due == (None if expected_due is None else pytest.approx(expected_due))
    assert replace(step, state=replace(step.state, due=expected_due)) == expected


@pytest.mark.parametrize(
    ("since", "closed", "registered_with", "failures"),
    [
        (100.0, 129.9, OLD, 3),
        (100.0, 130.0, OLD, 0),
        # The disconnect of a former kubelet is not a failure of the present kubelet.
        (100.0, 101.0, NEW, 0),
    ],
)
def test_disconnect_soon_after_the_registration_is_a_repeated_failure(
    since: float, closed: float, registered_with: SocketIdentity, failures: int
) -> None:
    live = replace(ENDED, since=since, due=closed, registered_with=registered_with, failures=2)
    step = next_step(live, TimePassed(), closed, 0.0)
    assert (step.action, step.state.failures) == (Action.RETIRE, failures)


def test_endpoint_is_live_in_its_phase_with_a_stream_only() -> None:
    assert STREAMING.is_live
    assert not ENDED.is_live
    assert not replace(REGISTERING, streams=1).is_live


def test_status_has_the_kubelet_and_the_registration() -> None:
    assert STREAMING.status.has_kubelet
    assert STREAMING.status.is_registered
    assert not replace(STREAMING, kubelet=None).status.has_kubelet


EVENTS = st.sampled_from(
    [
        Served(),
        ServeFailed("e"),
        KubeletSeen(None),
        KubeletSeen(OLD),
        KubeletSeen(NEW),
        OwnSocketLost(),
        Registered(),
        RegisterFailed("e"),
        StreamOpened(),
        StreamClosed(),
        Retired(),
        OptionsChanged(),
        TimePassed(),
    ]
)


@given(st.lists(st.tuples(st.floats(0, 40), EVENTS), max_size=60))
def test_any_history_neither_registers_beside_a_stream_nor_blocks_the_endpoint(
    history: list[tuple[float, Event]],
) -> None:
    step, now = first_step(OLD, 0.0), 0.0
    for passed, event in history:
        now += passed
        step = next_step(step.state, event, now, 0.5)
        assert step.action is not Action.REGISTER or step.state.streams == 0
        assert _is_progress_possible(step.state)


def _is_progress_possible(state: EndpointState) -> bool:
    """Return whether an action runs, a time is due, or an event is expected that must happen."""
    match state.phase:
        case Phase.SERVE | Phase.REGISTER | Phase.RETIRE:
            return True
        case Phase.WAIT | Phase.PAUSE:
            return state.due is not None or state.kubelet is None
        case Phase.PENDING:
            return state.due is not None
        case Phase.LIVE:
            return state.streams > 0 or state.due is not None


FAULTS = (ServeFailed, RegisterFailed, OwnSocketLost, StreamClosed)


def test_every_fault_in_every_state_leads_to_a_reason_and_a_retry() -> None:
    phases = set()
    for transition in explore_endpoint():
        before, event, after = transition.before, transition.event, transition.after
        following = after.state
        phases.add(following.phase)
        if isinstance(event, OwnSocketLost) and before.running is Action.REGISTER:
            assert after.running is Action.RETIRE
        # Something continues: an action, a time, a stream, or the wait for a kubelet.
        waits_for_kubelet = following.kubelet is None and following.phase in (Phase.WAIT, Phase.PAUSE)
        assert after.running or following.due is not None or following.is_live or waits_for_kubelet, transition
        if not following.is_live and isinstance(event, FAULTS) and following.phase is not Phase.LIVE:
            has_begun = following.phase in (Phase.SERVE, Phase.REGISTER) and not following.failures
            assert following.reason or has_begun or waits_for_kubelet, transition
        if isinstance(event, ServeFailed | RegisterFailed) and not following.streams:
            assert following.failures == before.state.failures + 1
            assert event.error in following.reason
            assert following.due is not None
            assert following.due > after.now
    assert phases == set(Phase)


def test_stream_of_another_process_before_the_registration_delays_it_for_5_s() -> None:
    step = play((0.01, StreamOpened()), (0.02, Served()))
    assert (step.state.phase, step.action) == (Phase.LIVE, None)
    assert step.state.reason == "another process opened a stream"
    assert step.state.due == pytest.approx(0.02 + endpoint_state.OLD_STREAM_SECONDS)
    assert next_step(step.state, TimePassed(), 5.02, 0.0).action is Action.RETIRE


def test_kubelet_that_is_replaced_during_register_is_registered_with() -> None:
    replaced = play((1, Served()), (2, StreamOpened()), (3, KubeletSeen(NEW)), (4, Registered()))
    assert replaced.state.due == 4 + endpoint_state.OLD_STREAM_SECONDS
    opened = play((1, Served()), (3, KubeletSeen(NEW)), (3.5, StreamOpened()), (4, Registered()))
    assert opened.state.is_live
    assert (opened.state.due, opened.state.registered_with) == (None, NEW)
