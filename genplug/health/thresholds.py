"""The state of a probe of a device: thresholds that debounce results, and errors that are not failures. Pure.

The thresholds have the names of those of Pod probes.
The first result decides immediately: thresholds apply only to later changes.
A failure that exists when the agent starts is not confirmed first, and a healthy device does not wait.
"""

from collections.abc import Iterable
from enum import Enum, auto

from msgspec import Struct
from msgspec.structs import replace

from genplug.spec.probes import OnError, ProbeTiming


class Outcome(Enum):
    """How a run of a probe ended: it passed, it failed, or it could not be run."""

    PASSED = auto()
    FAILED = auto()
    ERROR = auto()


class Result(Struct, frozen=True):
    """The result of one run. ``reason`` is one line, empty if the run passed."""

    outcome: Outcome
    reason: str = ""


def worst_result(results: Iterable[Result]) -> Result:
    """Return the first failure, else the first error, else a pass."""
    first: dict[Outcome, Result] = {}
    for result in results:
        first.setdefault(result.outcome, result)
    return first.get(Outcome.FAILED) or first.get(Outcome.ERROR) or Result(Outcome.PASSED)


class ProbeState(Struct, frozen=True, gc=False):
    """The state of a probe: whether it considers the device healthy, why not, and since when (monotonic seconds).

    ``is_known`` is false before the first result.
    ``failures`` and ``successes`` count consecutive results that contradict the state.
    ``error`` is the reason why the last run had no result, empty if it had a result.
    """

    healthy: bool
    reason: str
    since: float
    is_known: bool = False
    failures: int = 0
    successes: int = 0
    error: str = ""

    def __repr__(self) -> str:
        parts = ["healthy" if self.healthy else f"unhealthy: {self.reason}"] if self.is_known else ["unknown"]
        if self.failures:
            parts.append(f"failures: {self.failures}")
        if self.successes:
            parts.append(f"successes: {self.successes}")
        if self.error:
            parts.append(f"error: {self.error}")
        return f"<ProbeState [{' | '.join(parts)}]>"

    @property
    def is_pending(self) -> bool:
        """Whether there is neither a first result nor an error."""
        return not self.is_known and not self.error

    @property
    def is_stable_healthy(self) -> bool:
        """Whether another run that passes changes nothing."""
        return self.is_known and self.healthy and not self.failures and not self.error


def initial_state(now: float) -> ProbeState:
    """Return the state before the first result: healthy, because no failure is known."""
    return ProbeState(healthy=True, reason="", since=now)


def next_state(previous: ProbeState, result: Result, timing: ProbeTiming, now: float) -> ProbeState:
    """Return the state after a result."""
    if result.outcome is Outcome.ERROR:
        return _after_error(previous, result.reason, timing, now)
    previous = replace(previous, error="") if previous.error else previous
    if result.outcome is Outcome.PASSED:
        return _after_success(previous, timing, now)
    failures = previous.failures + 1
    if not previous.healthy:
        # Keep the reason of the result that made the device unhealthy; later values do not replace it.
        return replace(previous, successes=0)
    if previous.is_known and failures < timing.failure_threshold:
        return replace(previous, failures=failures)
    return ProbeState(healthy=False, reason=result.reason, since=now, is_known=True)


def _after_success(previous: ProbeState, timing: ProbeTiming, now: float) -> ProbeState:
    if previous.healthy:
        return replace(previous, failures=0, is_known=True) if previous.failures or not previous.is_known else previous
    successes = previous.successes + 1
    if timing.sticky or successes < timing.success_threshold:
        return replace(previous, successes=successes)
    return ProbeState(healthy=True, reason="", since=now, is_known=True)


def _after_error(previous: ProbeState, error: str, timing: ProbeTiming, now: float) -> ProbeState:
    """Apply ``onError``. An error by itself is neither a failure nor a success, and resets neither counter."""
    match timing.on_error:
        case OnError.KEEP:
            return replace(previous, error=error)
        case OnError.HEALTHY:
            return replace(_after_success(previous, timing, now), error=error)
        case OnError.UNHEALTHY:
            failed = next_state(previous, Result(Outcome.FAILED, error), timing, now)
            return replace(failed, error=error)
