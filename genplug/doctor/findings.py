"""Checks and findings. A check is a pure function of the facts, with a stable name and a description."""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from genplug import __version__
from genplug.doctor.facts import Facts, UnknownFactError


class Severity(Enum):
    """The result of a check; ``error`` means that the machine is not ready."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


class Observation(Struct, frozen=True):
    """The fact that a check found, and what to do; ``action`` can be empty for ``ok`` and ``unknown``."""

    severity: Severity
    found: str
    action: str = ""


def ok(found: str) -> Observation:
    """Return the observation that everything is as it should be."""
    return Observation(Severity.OK, found)


def unknown(found: str, action: str = "") -> Observation:
    """Return the observation that a fact is not known."""
    return Observation(Severity.UNKNOWN, found, action)


def warning(found: str, action: str) -> Observation:
    """Return the observation of something that limits the agent."""
    return Observation(Severity.WARNING, found, action)


def error(found: str, action: str) -> Observation:
    """Return the observation of something that keeps the agent from working."""
    return Observation(Severity.ERROR, found, action)


Function: TypeAlias = Callable[[Facts], Iterator[Observation]]


class Check(Struct, frozen=True):
    """A check: its stable name, its group, what it examines, why that matters, and its function."""

    name: str
    group: str
    title: str
    why: str
    function: Function

    def run(self, facts: Facts) -> tuple["Finding", ...]:
        """Return the findings of the check; a fact that is not known is a finding too."""
        try:
            observations = tuple(self.function(facts))
        except UnknownFactError as reason:
            observations = (unknown(str(reason)),)
        return tuple(Finding(self, observation) for observation in observations)


class Finding(Struct, frozen=True):
    """An observation of a check."""

    check: Check
    observation: Observation

    @property
    def severity(self) -> Severity:
        """The severity of the observation."""
        return self.observation.severity

    def as_json(self) -> dict[str, object]:
        """Return the part of the document for the finding."""
        return {
            "check": self.check.name,
            "group": self.check.group,
            "severity": self.severity.value,
            "found": self.observation.found,
            "why": self.check.why,
            "action": self.observation.action,
        }


class Registry:
    """The checks of a module, in the order of their definition."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.checks: list[Check] = []

    def add(self, name: str, *, title: str, why: str) -> Callable[[Function], Function]:
        """Return a decorator that adds a function as a check."""

        def register(function: Function) -> Function:
            self.checks.append(Check(name, self.group, title, why, function))
            return function

        return register


def run_checks(checks: Sequence[Check], facts: Facts) -> tuple[Finding, ...]:
    """Return the findings of checks, in their order."""
    return tuple(finding for check in checks for finding in check.run(facts))


class Report(Struct, frozen=True):
    """All findings; the machine is ready if none is an error. ``node`` is the name of the Kubernetes node."""

    findings: tuple[Finding, ...]
    node: str | None

    @property
    def is_ready(self) -> bool:
        """Whether no check found an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the document of ``-o json``."""
        return {
            "apiVersion": "genplug.io/v1alpha1",
            "kind": "DoctorReport",
            "version": __version__,
            "node": self.node,
            "ready": self.is_ready,
            "findings": [finding.as_json() for finding in self.findings],
        }
