"""From globs to candidates: what a source finds, and for everything left out the reason, in an operator's words."""

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from genplug.hardware.attributes.lazy import LazyAttributes
from genplug.hardware.dependencies import ChangeSet, Dependencies
from genplug.hardware.host import Host, is_utf8, printable
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inventory import (
    KIND_NAMES,
    Candidate,
    CandidateOutcome,
    CandidatesBySource,
    Kind,
    PathInfo,
    ScanStall,
    UnmatchedGlob,
)
from genplug.hardware.required_attributes import required_attributes
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
    left_out: tuple[CandidateOutcome, ...]
    unmatched: tuple[UnmatchedGlob, ...]
    by_source: CandidatesBySource
    stalls: tuple[ScanStall, ...] = ()


def find_candidates(
    resource: Resource,
    host: Host,
    dependencies: Dependencies,
    before: CandidatesBySource | None = None,
    touch: ChangeSet | None = None,
) -> Candidates:
    """Find a resource's candidates; ``dependencies`` get what may change them.

    What an earlier scan of the same resource examined ``before`` is looked at again only where ``touch`` concerns it.
    A candidate that cannot be examined because a file operation hangs is kept as it was ``before``.

    Raises:
        HangError: a directory in which a glob may match cannot be listed.
    """
    examined: list[Mapping[str, Candidate]] = []
    unmatched: list[UnmatchedGlob] = []
    stalls: list[ScanStall] = []
    for number, source in enumerate(resource.sources):
        names = required_attributes(resource, source)
        previous: Mapping[str, Candidate] = before[number] if before is not None else {}
        known = previous if touch is not None else {}
        found: dict[str, Candidate] = {}
        for path, by in _found(resource, source, host, dependencies, unmatched).items():
            one = known.get(path)
            if one is None or touch is None or touch.affects(one.symlink_chain) or touch.affects(one.depends):
                try:
                    one = _examine(path, source, number, by, names, host, dependencies)
                except HangError as error:
                    stalls.append(ScanStall(resource.name, printable(path), str(error)))
                    one = previous.get(path) or Candidate(path, None, {}, number, by, f"cannot be examined: {error}")
                    _depend_on(one, dependencies)
            else:
                _depend_on(one, dependencies)
            found[path] = one
        examined.append(found)
    taken: list[Candidate] = []
    left_out: list[CandidateOutcome] = []
    firsts: dict[object, Candidate] = {}
    for candidate in _nodes_before_links(one for found in examined for one in found.values()):
        path, reason = candidate.path, candidate.reason
        if not reason and candidate.info is not None:
            if (same := firsts.setdefault(_identity(candidate.info), candidate)) is candidate:
                taken.append(candidate)
                continue
            reason = f"the same node as {same.path}" if same.path != path else "already found by a source above"
        location = resource.sources[candidate.source].location
        left_out.append(CandidateOutcome(printable(path), resource.name, location, None, reason))
    return Candidates(tuple(taken), tuple(left_out), tuple(unmatched), tuple(examined), tuple(stalls))


NOT_SENDABLE = "its name is not UTF-8, which neither the kubelet nor a container would understand"


def kind_error(path: str, look: PathInfo | None, source: Source, host: Host) -> str:
    """Say why a path is none that a source asks for, whatever its attributes are; empty if it is one."""
    if look is None:
        return host.missing_reason(path) or "vanished while it was looked at"
    if not is_utf8(path) or not is_utf8(look.resolved):
        return NOT_SENDABLE
    for glob in source.exclude:
        if glob.matches(path):
            return f"excluded by '{glob.text}' ({source.location})"
    wanted_name, kinds = _WANTED[source.type]
    return "" if look.kind in kinds else f"is {KIND_NAMES[look.kind]}, wanted {wanted_name}"


def condition_error(condition: Condition, attributes: Values) -> str:
    """Say why a candidate with these attributes does not pass a condition; empty if it does."""
    values = attributes.get(condition.attribute, ())
    if condition.selector.accepts(values):
        return ""
    was = f"{condition.attribute} is '{','.join(values)}'" if values else f"it has no {condition.attribute}"
    return f"where: {was}, wanted {condition.selector.text} ({condition.location})"


def _found(
    resource: Resource, source: Source, host: Host, dependencies: Dependencies, unmatched: list[UnmatchedGlob]
) -> dict[str, str]:
    """Return every path that a source's globs find, and which one did; note the globs that find nothing."""
    found_by: dict[str, str] = {}
    for glob in source.globs:
        found = host.glob(glob)
        dependencies.update(found.dependencies)
        if not found.paths:
            unmatched.append(UnmatchedGlob(glob.text, resource.name, source.location))
        for path in found.paths:
            found_by.setdefault(path, glob.text)
    return found_by


def _depend_on(candidate: Candidate, dependencies: Dependencies) -> None:
    for step in candidate.symlink_chain:
        dependencies.add_name(*_parted(step))


def _examine(  # noqa: PLR0913, PLR0917 - what a candidate is made of
    path: str, source: Source, number: int, found_by: str, names: frozenset[str], host: Host, dependencies: Dependencies
) -> Candidate:
    """Look at a path and read what its source asks of it."""
    look = host.stat_tracked(path, dependencies)
    way: tuple[str, ...] = ()
    if look is None or look.resolved != path:
        host.stat_tracked(path, around := Dependencies())
        way = tuple(f"{at}/{name}" for at, names_there in around.names.items() for name in names_there)
    reason = kind_error(path, look, source, host)
    if look is None or reason:
        return Candidate(path, look, {}, number, found_by, reason, way)
    facts = LazyAttributes(path, look, source, host)
    reason = next((fault for one in source.where if (fault := condition_error(one, facts))), "")
    attributes = {} if reason else facts.read(names)
    return Candidate(
        path, look, attributes, number, found_by, reason, way, tuple(sorted(facts.depends)) if facts.depends else ()
    )


def _nodes_before_links(examined: Iterable[Candidate]) -> Iterator[Candidate]:
    """Order candidates: symlinks come last, for a node's ID must not depend on who links to it."""
    links = []
    for candidate in examined:
        if candidate.info is not None and candidate.info.resolved == candidate.path:
            yield candidate
        else:
            links.append(candidate)
    yield from links


def _identity(look: PathInfo) -> object:
    """Return what makes two paths one thing: the kernel's numbers, or the place of what has none."""
    return look.numbers if look.is_device else look.resolved


def _parted(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name
