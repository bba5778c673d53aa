"""The state of a probe after its results: thresholds, errors, and failures that are never cleared."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.health.thresholds import Outcome, ProbeState, Result, initial_state, next_state, worst_result
from genplug.spec.probes import OnError, ProbeTiming

TIMING = ProbeTiming(failure_threshold=3, success_threshold=2)
RESULTS = {
    "+": Result(Outcome.PASSED),
    "-": Result(Outcome.FAILED, "is bad"),
    "?": Result(Outcome.ERROR, "does not exist"),
}


def after(results: str, timing: ProbeTiming = TIMING) -> ProbeState:
    """The state after results at the seconds 1, 2, ..."""
    state = initial_state(0)
    for second, result in enumerate(results, 1):
        state = next_state(state, RESULTS[result], timing, second)
    return state


def healths(results: str, timing: ProbeTiming = TIMING) -> str:
    return "".join("+" if after(results[:end], timing).healthy else "-" for end in range(1, len(results) + 1))


def test_first_result_decides_immediately() -> None:
    assert healths("-") == "-"
    assert healths("+") == "+"
    assert after("-").reason == "is bad"


def test_thresholds_count_consecutive_results() -> None:
    assert healths("+---") == "+++-"
    assert healths("+---++") == "+++--+"
    assert healths("+--+--+--") == "+++++++++"
    assert healths("-+-+-+-") == "-------"


def test_state_keeps_reason_and_time_of_deciding_result() -> None:
    down = after("+---")
    assert (down.reason, down.since) == ("is bad", 4)
    again = next_state(down, Result(Outcome.FAILED, "is worse"), TIMING, 5)
    assert (again.reason, again.since) == ("is bad", 4)
    up = after("+---++")
    assert (up.reason, up.since) == ("", 6)


def test_initial_state_is_healthy_since_its_time() -> None:
    assert initial_state(7) == ProbeState(healthy=True, reason="", since=7)


def test_failed_state_has_reason_and_time_of_deciding_result_only() -> None:
    failed = ProbeState(healthy=False, reason="is bad", since=4, is_known=True)
    assert after("+---") == failed
    assert after("+---+-") == failed
    assert after("-") == replace(failed, since=1)


def test_error_that_means_failure_decides_at_its_time_and_is_kept() -> None:
    timing = replace(TIMING, on_error=OnError.UNHEALTHY)
    failed = ProbeState(healthy=False, reason="does not exist", since=4, is_known=True, error="does not exist")
    assert after("+???", timing) == failed
    assert after("?", timing) == replace(failed, since=1)


def test_error_that_means_success_decides_at_its_time_and_is_kept() -> None:
    timing = replace(TIMING, on_error=OnError.HEALTHY)
    assert after("-??", timing) == ProbeState(healthy=True, reason="", since=3, is_known=True, error="does not exist")


def test_repeated_success_makes_no_state() -> None:
    healthy = after("+")
    assert next_state(healthy, RESULTS["+"], TIMING, 2) is healthy


@given(st.lists(st.sampled_from(Outcome)))
def test_worst_result_is_first_failure_else_first_error(outcomes: list[Outcome]) -> None:
    results = [Result(outcome, f"number {number}") for number, outcome in enumerate(outcomes)]
    worst = next((outcome for outcome in (Outcome.FAILED, Outcome.ERROR) if outcome in outcomes), None)
    expected = Result(Outcome.PASSED) if worst is None else results[outcomes.index(worst)]
    assert worst_result(results) == expected


def test_error_neither_counts_nor_resets_counters() -> None:
    assert healths("+-?-?-") == "+++++-"
    assert healths("-+?+") == "---+"
    assert after("+?").error == "does not exist"
    assert after("+?+").error == ""
    assert healths("???") == "+++"


def test_on_error_decides_what_error_means() -> None:
    unhealthy, healthy = (replace(TIMING, on_error=on_error) for on_error in (OnError.UNHEALTHY, OnError.HEALTHY))
    assert healths("+???", unhealthy) == "+++-"
    assert healths("?", unhealthy) == "-"
    assert after("+???", unhealthy).reason == "does not exist"
    assert healths("-??", healthy) == "--+"
    assert after("-??", healthy).error == "does not exist"


def test_sticky_failure_is_never_cleared() -> None:
    assert healths("+---+++++++", replace(TIMING, sticky=True)) == "+++--------"


def test_state_is_pending_until_first_result_and_stable_while_passing() -> None:
    assert initial_state(0).is_pending
    assert not after("?").is_pending
    assert not after("-").is_pending
    assert after("+").is_stable_healthy
    assert not any(after(results).is_stable_healthy for results in ("+-", "-", "+?", "?"))


def test_repr_names_health_counters_and_error() -> None:
    assert repr(initial_state(0)) == "<ProbeState [unknown]>"
    assert repr(after("+")) == "<ProbeState [healthy]>"
    assert repr(after("+--?")) == "<ProbeState [healthy | failures: 2 | error: does not exist]>"
    assert repr(after("-+")) == "<ProbeState [unhealthy: is bad | successes: 1]>"


@given(st.text("+-?", max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_health_changes_only_after_enough_consecutive_results(results: str, failures: int, successes: int) -> None:
    timing = ProbeTiming(failure_threshold=failures, success_threshold=successes)
    seen = healths(results, timing)
    for end in range(1, len(results)):
        if seen[end] == seen[end - 1]:
            continue
        row, needed = results[: end + 1].replace("?", ""), successes if seen[end] == "+" else failures
        # The first result decides alone.
        assert len(row) == 1 or row.endswith(seen[end] * needed)
