"""Explains why each candidate is used or left out: every condition with its values, every attribute with its file.

It reads the attributes again, because a scan does not keep the files that they come from.
"""

from collections.abc import Iterator

from msgspec import Struct

from genplug.hardware.attributes.custom import AttributeLimitError
from genplug.hardware.attributes.lazy import LazyAttributes
from genplug.hardware.candidates import condition_error, path_error
from genplug.hardware.host import Host, printable
from genplug.hardware.inventory import Candidate, Inventory
from genplug.hardware.required_attributes import required_attributes
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource


class CheckedCondition(Struct, frozen=True):
    """A condition of ``where``: its text, whether the candidate passed, the values found and their file."""

    condition: str
    passed: bool
    values: tuple[str, ...]
    origin: str


class ExplainedAttribute(Struct, frozen=True):
    """An attribute that the configuration uses; without values it does not exist for the candidate."""

    name: str
    values: tuple[str, ...]
    origin: str


class CandidateExplanation(Struct, frozen=True):
    """A candidate: the configured resource and source that found it, its outcome, and the reason."""

    path: str
    resource: str
    location: SourceLocation
    found_by: str
    device: str | None
    reason: str
    checks: tuple[CheckedCondition, ...] = ()
    attributes: tuple[ExplainedAttribute, ...] = ()


def explain(inventory: Inventory, host: Host) -> Iterator[CandidateExplanation]:
    """Explain every candidate of a scan of this host, in the order of the scan."""
    host = host.cached()
    outcomes = {(outcome.path, outcome.location): outcome for outcome in inventory.outcomes}
    for scan in inventory.scans.values():
        for candidate in scan.candidates:
            source = scan.resource.sources[candidate.source]
            outcome = outcomes.get((printable(candidate.path), source.location))
            checks, attributes = _read(candidate, scan.resource, host)
            yield CandidateExplanation(
                path=printable(candidate.path),
                resource=scan.resource.name,
                location=source.location,
                found_by=candidate.found_by,
                device=outcome.device if outcome is not None else None,
                reason=outcome.reason if outcome is not None and outcome.device is None else "",
                checks=checks,
                attributes=attributes,
            )


def _read(
    candidate: Candidate, resource: Resource, host: Host
) -> tuple[tuple[CheckedCondition, ...], tuple[ExplainedAttribute, ...]]:
    source = resource.sources[candidate.source]
    info = host.stat(candidate.path)
    if info is None or path_error(candidate.path, info, source, host):
        return (), ()
    facts = LazyAttributes(candidate.path, info, source, host, resource.policy)
    checks = []
    for condition in source.where:
        if (exceeded := _attribute(condition.attribute, facts)).values == () and exceeded.origin:
            text = f"{condition.attribute}: {condition.selector.text} ({condition.location})"
            checks.append(CheckedCondition(text, passed=False, values=(), origin=exceeded.origin))
            continue
        value, error = facts.value(condition.attribute), condition_error(condition, facts)
        values, origin = (value.values, value.origin) if value is not None else ((), "")
        text = f"{condition.attribute}: {condition.selector.text} ({condition.location})"
        checks.append(CheckedCondition(text, not error, values, origin))
    # Show the custom attributes, too: a missing one explains why attributes that refer to it are missing.
    names = {attribute.name for attribute in source.attributes}
    if all(check.passed for check in checks):
        names |= required_attributes(resource, source)
    return tuple(checks), tuple(_attribute(name, facts) for name in sorted(names | set(facts)))


def _attribute(name: str, facts: LazyAttributes) -> ExplainedAttribute:
    try:
        value = facts.value(name)
    except AttributeLimitError as error:
        return ExplainedAttribute(name, (), str(error))
    return ExplainedAttribute(name, *((value.values, value.origin) if value is not None else ((), "")))
