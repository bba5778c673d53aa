"""Where one probe of one device stands: thresholds that damp, errors that are not failures. A pure state machine.

The names are those of Pod probes. The first verdict comes at once, whatever the thresholds: a fault that is there when
the program starts is no news that has to prove itself, and a device that is well must not wait.
"""

from collections.abc import Iterable
from enum import Enum, auto

from attrs import evolve, frozen

from genplug.spec.probes import OnError, ProbeTiming


class Outcome(Enum):
    """What a probe said: well, not well, or nothing, because it could not look."""

    PASSED = auto()
    FAILED = auto()
    ERROR = auto()


@frozen
class Result:
    """One look of a probe: the outcome, and the reason in one line (empty for one that passed)."""

    outcome: Outcome
    reason: str = ""


def worst_result(results: Iterable[Result]) -> Result:
    """Return the first failure, else the first error, else that all is well."""
    first: dict[Outcome, Result] = {}
    for one in results:
        first.setdefault(one.outcome, one)
    return first.get(Outcome.FAILED) or first.get(Outcome.ERROR) or Result(Outcome.PASSED)


@frozen
class ProbeState:
    """Where a probe stands: whether the device is well by it, why not, and since when (monotonic seconds).

    ``is_known`` is false before the first look. ``failures`` and ``successes`` are looks in a row that speak against
    the standing; ``error`` is what keeps the probe from looking now, empty while it can.
    """

    healthy: bool
    reason: str
    since: float
    is_known: bool = False
    failures: int = 0
    successes: int = 0
    error: str = ""

    @property
    def is_pending(self) -> bool:
        """Whether the first look is not over yet."""
        return not self.is_known and not self.error

    @property
    def is_stable_healthy(self) -> bool:
        """Whether another look that passes changes nothing."""
        return self.is_known and self.healthy and not self.failures and not self.error


def returned_state(reason: str, now: float) -> ProbeState:
    """Return the standing of a device that was gone and is there again: it has to prove itself first."""
    return ProbeState(healthy=False, reason=reason, since=now, is_known=True)


def initial_state(now: float) -> ProbeState:
    """Return the standing before the first look: a device is not unwell because nobody has looked yet."""
    return ProbeState(healthy=True, reason="", since=now)


def next_state(before: ProbeState, result: Result, numbers: ProbeTiming, now: float) -> ProbeState:
    """Return the standing after a look."""
    if result.outcome is Outcome.ERROR:
        return _after_error(before, result.reason, numbers, now)
    before = evolve(before, error="") if before.error else before
    if result.outcome is Outcome.PASSED:
        return _after_success(before, numbers, now)
    failures = before.failures + 1
    if not before.healthy:
        # The reason stays that of the look that decided: a value that wavers is no news.
        return evolve(before, successes=0, is_known=True)
    if before.is_known and failures < numbers.failure_threshold:
        return evolve(before, failures=failures, successes=0)
    return ProbeState(healthy=False, reason=result.reason, since=now, is_known=True)


def _after_success(before: ProbeState, numbers: ProbeTiming, now: float) -> ProbeState:
    if before.healthy:
        return evolve(before, failures=0, is_known=True) if before.failures or not before.is_known else before
    successes = before.successes + 1
    if numbers.sticky or successes < numbers.success_threshold:
        return evolve(before, successes=successes)
    return ProbeState(healthy=True, reason="", since=now, is_known=True)


def _after_error(before: ProbeState, error: str, numbers: ProbeTiming, now: float) -> ProbeState:
    """Go by ``onError``; an error as such is neither a failure nor a success, and breaks no row of them."""
    match numbers.on_error:
        case OnError.KEEP:
            return evolve(before, error=error)
        case OnError.HEALTHY:
            return evolve(_after_success(before, numbers, now), error=error)
        case OnError.UNHEALTHY:
            failed = next_state(before, Result(Outcome.FAILED, error), numbers, now)
            return evolve(failed, error=error)
