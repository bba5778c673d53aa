"""Why each candidate is in or out: every condition with what it saw, every attribute with the file it came from.

The same reading as a scan's, done again for people: a scan does not keep where things came from.
"""

from collections.abc import Iterator

from attrs import frozen

from genplug.hardware.attributes.lazy import LazyAttributes
from genplug.hardware.candidates import condition_error, kind_error
from genplug.hardware.host import Host, printable
from genplug.hardware.inventory import Candidate, Inventory
from genplug.hardware.required_attributes import required_attributes
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource


@frozen
class Checked:
    """One condition of a ``where``: what it asks, whether the candidate passed, what was seen and in which file."""

    condition: str
    passed: bool
    seen: tuple[str, ...]
    origin: str


@frozen
class Attribute:
    """One attribute that the configuration uses; without values it does not exist for this candidate."""

    name: str
    values: tuple[str, ...]
    origin: str


@frozen
class CandidateExplanation:
    """One candidate: which resource (as written) and source looked at it, what became of it, and why."""

    path: str
    resource: str
    location: SourceLocation
    found_by: str
    device: str | None
    reason: str
    checks: tuple[Checked, ...] = ()
    attributes: tuple[Attribute, ...] = ()


def explain(inventory: Inventory, host: Host) -> Iterator[CandidateExplanation]:
    """Explain every candidate of a scan of this host, in the order in which they were found."""
    host = host.cached()
    fates = {(one.path, one.location): one for one in inventory.outcomes}
    for scan in inventory.scans.values():
        for candidate in scan.candidates:
            source = scan.resource.sources[candidate.source]
            fate = fates.get((printable(candidate.path), source.location))
            checks, attributes = _read(candidate, scan.resource, host)
            yield CandidateExplanation(
                path=printable(candidate.path),
                resource=scan.resource.name,
                location=source.location,
                found_by=candidate.found_by,
                device=fate.device if fate is not None else None,
                reason=fate.reason if fate is not None and fate.device is None else "",
                checks=checks,
                attributes=attributes,
            )


def _read(candidate: Candidate, resource: Resource, host: Host) -> tuple[tuple[Checked, ...], tuple[Attribute, ...]]:
    source = resource.sources[candidate.source]
    look = host.stat(candidate.path)
    if look is None or kind_error(candidate.path, look, source, host):
        return (), ()
    facts = LazyAttributes(candidate.path, look, source, host)
    checks = []
    for condition in source.where:
        fact, fault = facts.fact(condition.attribute), condition_error(condition, facts)
        seen, origin = (fact.values, fact.origin) if fact is not None else ((), "")
        asked = f"{condition.attribute}: {condition.selector.text} ({condition.location})"
        checks.append(Checked(asked, not fault, seen, origin))
    # Others are made of the own attributes: where one of those is missing, the reason is seen here.
    names = {own.name for own in source.attributes}
    if all(check.passed for check in checks):
        names |= required_attributes(resource, source)
    facts.read(names)
    return tuple(checks), tuple(_attribute(name, facts) for name in sorted(names | set(facts)))


def _attribute(name: str, facts: LazyAttributes) -> Attribute:
    fact = facts.fact(name)
    return Attribute(name, *((fact.values, fact.origin) if fact is not None else ((), "")))
