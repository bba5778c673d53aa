"""From globs to candidates: what a source finds, and for everything left out the reason, in an operator's words."""

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from genplug.hardware.attributes.lazy import Facts
from genplug.hardware.dependencies import Interests, Touch
from genplug.hardware.host import Host, is_sendable, readable
from genplug.hardware.inventory import KIND_NAMES, Candidate, Considered, Examined, Kind, Look, Unmatched
from genplug.hardware.required_attributes import wanted
from genplug.spec.model import CandidateType, Resource, Source
from genplug.spec.selectors import Condition
from genplug.spec.template import Values

_WANTED: dict[CandidateType, tuple[str, frozenset[Kind]]] = {
    CandidateType.DEVICE: ("a device node", frozenset({Kind.CHAR, Kind.BLOCK})),
    CandidateType.CHAR: ("a character device", frozenset({Kind.CHAR})),
    CandidateType.BLOCK: ("a block device", frozenset({Kind.BLOCK})),
    CandidateType.DIRECTORY: ("a directory", frozenset({Kind.DIRECTORY})),
    CandidateType.FILE: ("a file", frozenset({Kind.FILE})),
    CandidateType.SOCKET: ("a socket", frozenset({Kind.SOCKET})),
    CandidateType.ANY: ("anything", frozenset(Kind)),
}


@frozen
class Candidates:
    """All candidates of a resource in the order of sources, globs and paths, each node once; and what was left out."""

    taken: tuple[Candidate, ...]
    left_out: tuple[Considered, ...]
    unmatched: tuple[Unmatched, ...]
    examined: Examined


def find_candidates(
    resource: Resource, host: Host, interests: Interests, before: Examined | None = None, touch: Touch | None = None
) -> Candidates:
    """Find a resource's candidates; ``interests`` get what may change them.

    What an earlier scan of the same resource examined ``before`` is looked at again only where ``touch`` concerns it.
    """
    examined: list[Mapping[str, Candidate]] = []
    unmatched: list[Unmatched] = []
    for number, source in enumerate(resource.sources):
        names = wanted(resource, source)
        known = before[number] if before is not None and touch is not None else {}
        found: dict[str, Candidate] = {}
        for path, by in _found(resource, source, host, interests, unmatched).items():
            one = known.get(path)
            if one is None or touch is None or touch.concerns(one.steps) or touch.concerns(one.depends):
                one = _examined(path, source, number, by, names, host, interests)
            else:
                for step in one.steps:
                    interests.add_name(*_parted(step))
            found[path] = one
        examined.append(found)
    taken: list[Candidate] = []
    left_out: list[Considered] = []
    firsts: dict[object, Candidate] = {}
    for candidate in _nodes_before_links(one for found in examined for one in found.values()):
        path, reason = candidate.path, candidate.reason
        if not reason and candidate.look is not None:
            if (same := firsts.setdefault(_identity(candidate.look), candidate)) is candidate:
                taken.append(candidate)
                continue
            reason = f"the same node as {same.path}" if same.path != path else "already found by a source above"
        place = resource.sources[candidate.source].place
        left_out.append(Considered(readable(path), resource.name, place, None, reason))
    return Candidates(tuple(taken), tuple(left_out), tuple(unmatched), tuple(examined))


NOT_SENDABLE = "its name is not UTF-8, which neither the kubelet nor a container would understand"


def kind_fault(path: str, look: Look | None, source: Source, host: Host) -> str:
    """Say why a path is none that a source asks for, whatever its attributes are; empty if it is one."""
    if look is None:
        return host.absence(path) or "vanished while it was looked at"
    if not is_sendable(path) or not is_sendable(look.resolved):
        return NOT_SENDABLE
    for glob in source.exclude:
        if glob.matches(path):
            return f"excluded by '{glob.text}' ({source.place})"
    wanted_name, kinds = _WANTED[source.type]
    return "" if look.kind in kinds else f"is {KIND_NAMES[look.kind]}, wanted {wanted_name}"


def condition_fault(condition: Condition, attributes: Values) -> str:
    """Say why a candidate with these attributes does not pass a condition; empty if it does."""
    values = attributes.get(condition.attribute, ())
    if condition.selector.holds(values):
        return ""
    was = f"{condition.attribute} is '{','.join(values)}'" if values else f"it has no {condition.attribute}"
    return f"where: {was}, wanted {condition.selector.text} ({condition.place})"


def _found(
    resource: Resource, source: Source, host: Host, interests: Interests, unmatched: list[Unmatched]
) -> dict[str, str]:
    """Return every path that a source's globs find, and which one did; note the globs that find nothing."""
    found_by: dict[str, str] = {}
    for glob in source.globs:
        found = host.glob(glob)
        interests.update(found.interests)
        if not found.paths:
            unmatched.append(Unmatched(glob.text, resource.name, source.place))
        by = f"found by '{glob.text}'"
        for path in found.paths:
            found_by.setdefault(path, by)
    return found_by


def _examined(  # noqa: PLR0913, PLR0917 - what a candidate is made of
    path: str, source: Source, number: int, found_by: str, names: frozenset[str], host: Host, interests: Interests
) -> Candidate:
    """Look at a path and read what its source asks of it."""
    look = host.see(path, interests)
    way: tuple[str, ...] = ()
    if look is None or look.resolved != path:
        host.see(path, around := Interests())
        way = tuple(f"{at}/{name}" for at, names_there in around.names.items() for name in names_there)
    reason = kind_fault(path, look, source, host)
    if look is None or reason:
        return Candidate(path, look, {}, number, found_by, reason, way)
    facts = Facts(path, look, source, host)
    reason = next((fault for one in source.where if (fault := condition_fault(one, facts))), "")
    attributes = {} if reason else facts.read(names)
    return Candidate(
        path, look, attributes, number, found_by, reason, way, tuple(sorted(facts.depends)) if facts.depends else ()
    )


def _nodes_before_links(examined: Iterable[Candidate]) -> Iterator[Candidate]:
    """Order candidates: symlinks come last, for a node's ID must not depend on who links to it."""
    links = []
    for candidate in examined:
        if candidate.look is not None and candidate.look.resolved == candidate.path:
            yield candidate
        else:
            links.append(candidate)
    yield from links


def _identity(look: Look) -> object:
    """Return what makes two paths one thing: the kernel's numbers, or the place of what has none."""
    return look.numbers if look.is_device else look.resolved


def _parted(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name
