"""Where a probe stands after its looks: thresholds, errors, and what is never taken back."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.thresholds import Outcome, ProbeState, Result, initial_state, next_state, returned_state
from genplug.spec.probes import OnError, ProbeTiming

NUMBERS = ProbeTiming(failure_threshold=3, success_threshold=2)
LOOKS = {"+": Result(Outcome.PASSED), "-": Result(Outcome.FAILED, "is bad"), "?": Result(Outcome.ERROR, "is not there")}


def after(looks: str, numbers: ProbeTiming = NUMBERS, start: ProbeState | None = None) -> ProbeState:
    """The standing after looks at the seconds 1, 2, ..."""
    standing = initial_state(0) if start is None else start
    for second, look in enumerate(looks, 1):
        standing = next_state(standing, LOOKS[look], numbers, second)
    return standing


def healths(looks: str, numbers: ProbeTiming = NUMBERS, start: ProbeState | None = None) -> str:
    return "".join("+" if after(looks[:end], numbers, start).healthy else "-" for end in range(1, len(looks) + 1))


def test_the_first_look_decides_at_once() -> None:
    assert healths("-") == "-"
    assert healths("+") == "+"
    assert after("-").reason == "is bad"


def test_thresholds_count_looks_in_a_row() -> None:
    assert healths("+---") == "+++-"
    assert healths("+---++") == "+++--+"
    assert healths("+--+--+--") == "+++++++++"
    assert healths("-+-+-+-") == "-------"


def test_who_decided_says_why_and_since_when() -> None:
    down = after("+---")
    assert (down.reason, down.since) == ("is bad", 4)
    again = next_state(down, Result(Outcome.FAILED, "is worse"), NUMBERS, 5)
    assert (again.reason, again.since) == ("is bad", 4)
    up = after("+---++")
    assert (up.reason, up.since) == ("", 6)


def test_an_error_is_neither_and_breaks_no_row() -> None:
    assert healths("+-?-?-") == "+++++-"
    assert healths("-+?+") == "---+"
    assert after("+?").error == "is not there"
    assert after("+?+").error == ""
    assert healths("???") == "+++"


def test_an_error_counts_as_is_written() -> None:
    unhealthy, healthy = (evolve(NUMBERS, on_error=one) for one in (OnError.UNHEALTHY, OnError.HEALTHY))
    assert healths("+???", unhealthy) == "+++-"
    assert healths("?", unhealthy) == "-"
    assert after("+???", unhealthy).reason == "is not there"
    assert healths("-??", healthy) == "--+"
    assert after("-??", healthy).error == "is not there"


def test_what_is_sticky_never_comes_back() -> None:
    assert healths("+---+++++++", evolve(NUMBERS, sticky=True)) == "+++--------"


def test_who_was_gone_has_to_pass_as_many_looks_as_others() -> None:
    gone = returned_state("was gone", 0)
    assert healths("++", start=gone) == "-+"
    assert healths("+-++", start=gone) == "---+"
    assert after("-", start=gone).reason == "was gone"


def test_it_is_awaited_until_it_was_looked_at_and_steady_while_all_is_well() -> None:
    assert initial_state(0).is_pending
    assert not after("?").is_pending
    assert not after("-").is_pending
    assert after("+").is_stable_healthy
    assert not any(after(looks).is_stable_healthy for looks in ("+-", "-", "+?", "?"))


@given(st.text("+-?", max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_nothing_flips_without_its_row(looks: str, failures: int, successes: int) -> None:
    numbers = ProbeTiming(failure_threshold=failures, success_threshold=successes)
    seen = healths(looks, numbers)
    for end in range(1, len(looks)):
        if seen[end] == seen[end - 1]:
            continue
        row, needed = looks[: end + 1].replace("?", ""), successes if seen[end] == "+" else failures
        # The very first look that says anything needs no row.
        assert len(row) == 1 or row.endswith(seen[end] * needed)
