"""The state machine of an endpoint's generations: every arrow, without a loop, a socket or a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.kubelet import endpoint_state as g
from genplug.kubelet.endpoint_state import Action, Generation, Step, first_step, next_step
from genplug.kubelet.events import Phase
from genplug.kubelet.plugin_dir import SocketIdentity

OLD, NEW = SocketIdentity(1, 1, 1), SocketIdentity(1, 2, 2)


def after(*events: tuple[float, g.Event], kubelet: SocketIdentity | None = OLD) -> Step:
    """Play events at their times from the beginning of an endpoint's life."""
    step = first_step(kubelet, 0.0)
    for now, event in events:
        step = next_step(step.generation, event, now, 0.0)
    return step


LIVE = ((0.01, g.Served()), (0.02, g.Registered()), (0.03, g.StreamOpened()))


def test_a_life_begins_by_serving() -> None:
    step = first_step(None, 5.0)
    assert (step.generation.phase, step.action, step.generation.number) == (Phase.SERVE, Action.SERVE, 1)


def test_served_without_a_kubelet_waits_and_registers_when_it_appears() -> None:
    waiting = after((1, g.Served()), kubelet=None)
    assert (waiting.generation.phase, waiting.action) == (Phase.WAIT, None)
    step = next_step(waiting.generation, g.KubeletSeen(NEW), 9.0, 0.0)
    assert (step.generation.phase, step.action) == (Phase.REGISTER, Action.REGISTER)


def test_registered_and_then_a_stream_is_live() -> None:
    step = after(*LIVE)
    assert (step.generation.phase, step.generation.is_live, step.action) == (Phase.LIVE, True, None)


def test_a_stream_that_opens_before_register_returns_is_live_too() -> None:
    step = after((1, g.Served()), (2, g.StreamOpened()), (3, g.Registered()))
    assert step.generation.is_live


def test_a_stream_that_opens_although_register_timed_out_is_live() -> None:
    during = after((1, g.Served()), (2, g.StreamOpened()), (30, g.RegisterFailed("no answer")))
    later = after((1, g.Served()), (30, g.RegisterFailed("no answer")), (30.01, g.StreamOpened()))
    assert during.generation.is_live
    assert later.generation.is_live


def test_register_is_never_sent_beside_a_live_stream() -> None:
    failed = after((1, g.Served()), (30, g.RegisterFailed("no answer")), (30.01, g.StreamOpened()))
    step = next_step(failed.generation, g.TimePassed(), 100.0, 0.0)
    assert step.action is not Action.REGISTER


def test_a_failed_register_backs_off_from_a_tenth_of_a_second_to_thirty() -> None:
    step = after((0, g.Served()))
    now, pauses = 0.0, []
    for _ in range(9):
        step = next_step(step.generation, g.RegisterFailed("refused"), now, 0.0)
        assert step.generation.due is not None
        pauses.append(round(step.generation.due - now, 3))
        now = step.generation.due
        step = next_step(step.generation, g.TimePassed(), now, 0.0)
        assert step.action is Action.REGISTER
    assert pauses == [0.1, 1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_spreads_retries_by_a_quarter() -> None:
    assert g.retry_delay(2, 0.0) == 1.0
    assert g.retry_delay(2, 0.999) == pytest.approx(1.25, abs=0.001)


def test_a_new_kubelet_ends_the_back_off_at_once() -> None:
    failed = after((0, g.Served()), (1, g.RegisterFailed("x")), (1.1, g.TimePassed()), (2, g.RegisterFailed("x")))
    step = next_step(failed.generation, g.KubeletSeen(NEW), 2.01, 0.0)
    assert (step.action, step.generation.failures) == (Action.REGISTER, 0)


def test_registered_but_no_stream_within_15_s_registers_again_in_the_same_generation() -> None:
    pending = after((0, g.Served()), (1, g.Registered()))
    assert pending.generation.due == 16.0
    watchdog = next_step(pending.generation, g.TimePassed(), 16.0, 0.0)
    assert watchdog.generation.phase is Phase.WAIT
    assert watchdog.generation.due is not None
    again = next_step(watchdog.generation, g.TimePassed(), watchdog.generation.due, 0.0)
    assert (again.action, again.generation.number) == (Action.REGISTER, 1)


def test_a_lost_own_socket_retires_a_live_generation_and_the_same_kubelet_gets_a_second_to_digest_it() -> None:
    lost = after(*LIVE, (100, g.OwnSocketLost()))
    assert (lost.generation.phase, lost.action) == (Phase.RETIRE, Action.RETIRE)
    closed = next_step(lost.generation, g.StreamClosed(), 100.1, 0.0)
    stopped = next_step(closed.generation, g.Retired(), 100.1, 0.0)
    assert (stopped.generation.phase, stopped.action) == (Phase.PAUSE, None)
    assert stopped.generation.due == pytest.approx(101.1)
    anew = next_step(stopped.generation, g.TimePassed(), 101.2, 0.0)
    assert (anew.generation.number, anew.action) == (2, Action.SERVE)


def test_a_restarted_kubelet_costs_no_pause() -> None:
    down = after(*LIVE, (100, g.StreamClosed()))
    assert down.generation.phase is Phase.LIVE
    back = next_step(down.generation, g.KubeletSeen(NEW), 100.3, 0.0)
    assert back.action is Action.RETIRE
    anew = next_step(back.generation, g.Retired(), 100.31, 0.0)
    assert anew.action is Action.SERVE


def test_nothing_is_bound_while_there_is_no_kubelet() -> None:
    wiped = after(*LIVE, (100, g.StreamClosed()), (100.1, g.KubeletSeen(None)), (100.1, g.OwnSocketLost()))
    held = next_step(wiped.generation, g.Retired(), 100.2, 0.0)
    assert (held.generation.phase, held.generation.due, held.action) == (Phase.PAUSE, None, None)
    assert next_step(held.generation, g.KubeletSeen(NEW), 700.0, 0.0).action is Action.SERVE


def test_a_stream_that_returns_in_time_changes_nothing() -> None:
    step = after(*LIVE, (100, g.StreamClosed()), (101, g.StreamOpened()))
    assert step.generation.is_live
    assert step.generation.due is None


def test_a_stream_that_does_not_return_retires_the_generation() -> None:
    closed = after(*LIVE, (100, g.StreamClosed()))
    assert closed.generation.due == 100 + g.STREAM_RETURN_SECONDS
    assert next_step(closed.generation, g.TimePassed(), 101.5, 0.0).action is Action.RETIRE


def test_the_end_of_one_of_two_streams_changes_nothing() -> None:
    step = after(*LIVE, (50, g.StreamOpened()), (60, g.StreamClosed()))
    assert step.generation.is_live
    assert step.generation.due is None


def test_a_new_socket_beside_a_live_stream_is_watched_for_5_s_before_anything_is_done() -> None:
    seen = after(*LIVE, (100, g.KubeletSeen(NEW)))
    assert (seen.generation.phase, seen.action, seen.generation.due) == (Phase.LIVE, None, 105.0)
    assert next_step(seen.generation, g.TimePassed(), 105.0, 0.0).action is Action.RETIRE
    kept = next_step(seen.generation, g.StreamOpened(), 101.0, 0.0)
    assert kept.generation.due is None


def test_changed_options_make_a_new_generation() -> None:
    assert after(*LIVE, (100, g.OptionsChanged())).action is Action.RETIRE


def test_a_kubelet_that_hangs_up_each_time_is_answered_ever_more_slowly() -> None:
    step, now, pauses = after(*LIVE), 1.0, []
    for _ in range(4):
        step = next_step(step.generation, g.StreamClosed(), now, 0.0)
        step = next_step(step.generation, g.TimePassed(), now + 1.5, 0.0)
        step = next_step(step.generation, g.Retired(), now + 1.5, 0.0)
        due = step.generation.due or now + 1.5
        pauses.append(due - now - 1.5)
        step = next_step(step.generation, g.TimePassed(), due, 0.0)
        for event in (g.Served(), g.Registered(), g.StreamOpened()):
            step = next_step(step.generation, event, due, 0.0)
        assert step.generation.is_live
        now = due + 0.1
    assert pauses == pytest.approx([0, 1, 2, 4])


def test_a_socket_that_cannot_be_bound_is_tried_again_later() -> None:
    failed = after((1, g.ServeFailed("read-only")))
    assert "read-only" in failed.generation.reason
    assert failed.generation.due is not None
    assert next_step(failed.generation, g.TimePassed(), failed.generation.due, 0.0).action is Action.SERVE


EVENTS = st.sampled_from(
    [
        g.Served(),
        g.ServeFailed("e"),
        g.KubeletSeen(None),
        g.KubeletSeen(OLD),
        g.KubeletSeen(NEW),
        g.OwnSocketLost(),
        g.Registered(),
        g.RegisterFailed("e"),
        g.StreamOpened(),
        g.StreamClosed(),
        g.Retired(),
        g.OptionsChanged(),
        g.TimePassed(),
    ]
)


@given(st.lists(st.tuples(st.floats(0, 40), EVENTS), max_size=60))
def test_whatever_happens_it_never_registers_beside_a_stream_and_never_gets_stuck(
    history: list[tuple[float, g.Event]],
) -> None:
    step, now = first_step(OLD, 0.0), 0.0
    for passed, event in history:
        now += passed
        step = next_step(step.generation, event, now, 0.5)
        assert step.action is not Action.REGISTER or step.generation.streams == 0
        assert _has_a_way_on(step.generation)


def _has_a_way_on(state: Generation) -> bool:
    """Say whether work is under way, a time is due, or an event that must come is awaited."""
    match state.phase:
        case Phase.SERVE | Phase.REGISTER | Phase.RETIRE:
            return True
        case Phase.WAIT | Phase.PAUSE:
            return state.due is not None or state.kubelet is None
        case Phase.PENDING:
            return state.due is not None
        case Phase.LIVE:
            return state.streams > 0 or state.due is not None
