"""From globs to candidates: what a source finds, and for everything left out the reason, in an operator's words."""

from collections.abc import Iterable, Iterator

from attrs import frozen

from genplug.config.model import CandidateType, Resource, Source
from genplug.config.template import Values
from genplug.hardware.attributes import own_attributes
from genplug.hardware.host import Host, is_sendable, readable
from genplug.hardware.interests import Interests
from genplug.hardware.inventory import KIND_NAMES, Considered, Kind, Look, Unmatched

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
class Candidate:
    """One path that passed a source's filters; ``source`` counts from 0, ``found_by`` says which glob found it."""

    path: str
    look: Look
    attributes: Values
    source: int
    found_by: str


@frozen
class Candidates:
    """All candidates of a resource in the order of sources, globs and paths, each node once; and what was left out."""

    taken: tuple[Candidate, ...]
    left_out: tuple[Considered, ...]
    unmatched: tuple[Unmatched, ...]


def find_candidates(resource: Resource, host: Host, interests: Interests) -> Candidates:
    """Find a resource's candidates; ``interests`` get what may change them."""
    taken: list[Candidate] = []
    left_out: list[Considered] = []
    unmatched: list[Unmatched] = []
    known: dict[object, Candidate] = {}
    found_by: dict[tuple[int, str], str] = {}
    for number, source in enumerate(resource.sources):
        for glob in source.globs:
            found = host.glob(glob)
            interests.update(found.interests)
            if not found.paths:
                unmatched.append(Unmatched(glob.text, resource.name, source.place))
            for path in found.paths:
                found_by.setdefault((number, path), f"found by '{glob.text}'")
    for (number, path), look in _nodes_before_links(found_by, host, interests):
        source = resource.sources[number]
        sifted = _sifted(path, look, source, host)
        if not isinstance(sifted, str):
            candidate = Candidate(path, *sifted, number, found_by[number, path])
            if (same := known.setdefault(_identity(candidate.look), candidate)) is candidate:
                taken.append(candidate)
                continue
            sifted = f"the same node as {same.path}" if same.path != path else "already found by a source above"
        left_out.append(Considered(readable(path), resource.name, source.place, None, sifted))
    return Candidates(tuple(taken), tuple(left_out), tuple(unmatched))


NOT_SENDABLE = "its name is not UTF-8, which neither the kubelet nor a container would understand"


def _nodes_before_links(
    found: Iterable[tuple[int, str]], host: Host, interests: Interests
) -> Iterator[tuple[tuple[int, str], Look | None]]:
    """Look at paths; symlinks come last, for a node's ID must not depend on who links to it."""
    links = []
    for place in found:
        look = host.see(place[1], interests)
        if look is not None and look.resolved == place[1]:
            yield place, look
        else:
            links.append((place, look))
    yield from links


def _identity(look: Look) -> object:
    """Return what makes two paths one thing: the kernel's numbers, or the place of what has none."""
    return look.numbers if look.is_device else look.resolved


def _sifted(path: str, look: Look | None, source: Source, host: Host) -> tuple[Look, Values] | str:
    """Return what is known of a candidate, or the reason why the path is none."""
    if look is None:
        return host.absence(path) or "vanished while it was looked at"
    if not is_sendable(path) or not is_sendable(look.resolved):
        return NOT_SENDABLE
    for glob in source.exclude:
        if glob.matches(path):
            return f"excluded by '{glob.text}' ({source.place})"
    wanted, kinds = _WANTED[source.type]
    if look.kind not in kinds:
        return f"is {KIND_NAMES[look.kind]}, wanted {wanted}"
    attributes = own_attributes(path, look)
    return _failed_condition(attributes, source) or (look, attributes)


def _failed_condition(attributes: Values, source: Source) -> str:
    for condition in source.where:
        value = ",".join(attributes[condition.attribute]) if condition.attribute in attributes else None
        if not condition.selector.holds(value):
            was = f"it has no {condition.attribute}" if value is None else f"{condition.attribute} is '{value}'"
            return f"where: {was}, wanted {condition.selector.text} ({condition.place})"
    return ""
