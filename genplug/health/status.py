"""What the monitor tells of itself: how it stands with the probes, and what keeps them from looking. Frozen values."""

from typing import TypeAlias

from attrs import frozen


@frozen
class CrewStatus:
    """How many workers there are, how many questions hang, and whether that leaves no worker for the others."""

    workers: int = 0
    hung: int = 0
    is_exhausted: bool = False


NO_CREW = CrewStatus()


@frozen
class Trouble:
    """Why a probe cannot look at some devices of a resource (IDs), or could not until now (``is_over``)."""

    resource: str
    probe: str
    error: str
    devices: tuple[str, ...]
    is_over: bool = False


@frozen
class Exhausted:
    """So many workers hang that nobody is left to look, or that was so until now (``is_over``)."""

    hung: int
    is_over: bool = False


News: TypeAlias = Trouble | Exhausted


@frozen
class HealthStatus:
    """How it stands with the probes: how many there are, how often they looked, and what keeps them from it.

    ``looks`` counts answered questions: what several probes ask alike is one. ``rounds`` is how many looks each
    question has behind it at least. ``seconds`` is the processor time of the workers.
    """

    probes: int = 0
    questions: int = 0
    looks: int = 0
    rounds: int = 0
    seconds: float = 0.0
    readers: CrewStatus = NO_CREW
    callers: CrewStatus = NO_CREW
    troubles: tuple[Trouble, ...] = ()

    @property
    def is_exhausted(self) -> bool:
        """Whether nobody is left to look."""
        return self.readers.is_exhausted or self.callers.is_exhausted


NO_HEALTH = HealthStatus()
