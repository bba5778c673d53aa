"""Finds the candidates of a resource, and the reason for each path that is left out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from genplug.hardware.attributes.custom import AttributeLimitError
from genplug.hardware.attributes.lazy import LazyAttributes, has_only_path_attributes
from genplug.hardware.candidate_attributes import PathAttributes
from genplug.hardware.candidate_budget import CandidateBudget
from genplug.hardware.dependencies import ChangeSet, Dependencies
from genplug.hardware.file_tree import split_path
from genplug.hardware.host import Host, is_utf8, printable
from genplug.hardware.hung_paths import HangError
from genplug.hardware.inventory import (
    KIND_NAMES,
    NO_READS,
    AttributeReads,
    Candidate,
    CandidateOutcome,
    CandidatesBySource,
    Kind,
    PathInfo,
    ScanStall,
    Search,
    SearchesBySource,
    UnmatchedGlob,
)
from genplug.hardware.required_attributes import required_attributes
from genplug.hardware.scan_errors import SearchLimitError
from genplug.spec.globs import Glob
from genplug.spec.limits import MAX_COMPARISONS, MAX_MATCHES
from genplug.spec.model import CandidateType, Resource, Source
from genplug.spec.policy import Policy
from genplug.spec.read_rules import literal_path
from genplug.spec.selectors import Condition
from genplug.spec.template import Values

NOT_UTF8 = "its name is not UTF-8, which the kubelet API requires"
_NOT_EXAMINED = "cannot be examined: "
"""The start of the reason of a candidate on which a file operation hangs, and that no earlier scan examined."""

_EXPECTED_KINDS: dict[CandidateType, tuple[str, frozenset[Kind]]] = {
    CandidateType.DEVICE: ("a device node", frozenset({Kind.CHAR, Kind.BLOCK})),
    CandidateType.CHAR: ("a character device", frozenset({Kind.CHAR})),
    CandidateType.BLOCK: ("a block device", frozenset({Kind.BLOCK})),
    CandidateType.DIRECTORY: ("a directory", frozenset({Kind.DIRECTORY})),
    CandidateType.FILE: ("a file", frozenset({Kind.FILE})),
    CandidateType.SOCKET: ("a socket", frozenset({Kind.SOCKET})),
    CandidateType.ANY: ("anything", frozenset(Kind)),
}


class Comparisons(Struct):
    """Counts the comparisons of a scan with patterns: paths with ``exclude``, and values with ``where``."""

    count: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the limit is exceeded."""
        return self.count > MAX_COMPARISONS

    def add(self, count: int) -> None:
        """Count comparisons before they are made.

        Raises:
            SearchLimitError: the limit is exceeded.
        """
        self.count += count
        if self.is_over:
            reason = f"'exclude' and 'where' compare paths and values with patterns more than {MAX_COMPARISONS} times"
            raise SearchLimitError(f"{reason}, the maximum; use fewer patterns, or globs that match fewer paths")


class Candidates(Struct, frozen=True):
    """The candidates of a resource in the order of sources, globs and paths, symlinks last; and the rest.

    Several candidates can be the same device node. :mod:`~genplug.hardware.identities` decides which path names it.
    """

    taken: tuple[Candidate, ...]
    left_out: tuple[CandidateOutcome, ...]
    unmatched: tuple[UnmatchedGlob, ...]
    by_source: CandidatesBySource
    stalls: tuple[ScanStall, ...] = ()
    searches: SearchesBySource = ()


def find_candidates(  # noqa: PLR0913 - what it scans, what it knows, and what it may use
    resource: Resource,
    host: Host,
    dependencies: Dependencies,
    previous: CandidatesBySource | None = None,
    changes: ChangeSet | None = None,
    *,
    budget: CandidateBudget | None = None,
) -> Candidates:
    """Find the candidates of a resource and add their dependencies to ``dependencies``.

    ``budget`` limits the candidates of all resources together.

    A path that the ``previous`` scan examined is only examined again if ``changes`` affect it. A candidate that cannot
    be examined because a file operation hangs is kept as in ``previous``.

    Raises:
        HangError: a directory in which a glob may match cannot be listed, or a search exceeds a limit.
    """
    examined: list[Mapping[str, Candidate]] = []
    unmatched: list[UnmatchedGlob] = []
    stalls: list[ScanStall] = []
    searches: list[tuple[Search, ...]] = []
    comparisons = Comparisons()
    count = 0
    for number, source in enumerate(resource.sources):
        names = required_attributes(resource, source)
        known: Mapping[str, Candidate] = previous[number] if previous is not None else {}
        found: dict[str, Candidate] = {}
        excluded = sum(len(glob.alternatives) for glob in source.exclude)
        paths, found_searches = _find_paths(resource, source, host, dependencies)
        searches.append(found_searches)
        unmatched += list_unmatched(resource, source, found_searches)
        if (count := count + len(paths)) > MAX_MATCHES:
            raise SearchLimitError(
                f"the globs of all entries of 'devices' match more than {MAX_MATCHES} paths together, the maximum"
            )
        if budget is not None:
            budget.take(resource.name, count)
        for path, by in paths.items():
            candidate = known.get(path)
            if candidate is None or changes is None or _is_affected(candidate, changes):
                try:
                    comparisons.add(excluded)
                    candidate = examine(
                        path, source, number, by, names, host, dependencies, resource.policy, comparisons
                    )
                except HangError as error:
                    if comparisons.is_over:
                        raise
                    last = known.get(path)
                    is_known = last is not None and not last.reason.startswith(_NOT_EXAMINED)
                    stalls.append(ScanStall.of(resource.name, printable(path), error, is_known=is_known))
                    candidate = last or Candidate(path, None, {}, number, by, f"{_NOT_EXAMINED}{error}")
                    _depend_on(candidate, dependencies)
            else:
                _depend_on(candidate, dependencies)
            found[path] = candidate
        host.end_access()
        examined.append(found)
    taken: list[Candidate] = []
    left_out: list[CandidateOutcome] = []
    firsts: dict[str, Candidate] = {}
    for candidate in _nodes_before_links(candidate for found in examined for candidate in found.values()):
        path, reason = candidate.path, candidate.reason
        if not reason and candidate.info is not None:
            if firsts.setdefault(path, candidate) is candidate:
                taken.append(candidate)
                continue
            reason = "already found by an earlier source"
        location = resource.sources[candidate.source].location
        left_out.append(CandidateOutcome(printable(path), resource.name, location, None, reason))
    return Candidates(tuple(taken), tuple(left_out), tuple(unmatched), tuple(examined), tuple(stalls), tuple(searches))


def path_error(path: str, info: PathInfo | None, source: Source, host: Host) -> str:
    """Return why a path is not a candidate of a source, apart from its attributes, or an empty string."""
    if info is None:
        return host.missing_reason(path) or "was removed during the scan"
    if not is_utf8(path) or not is_utf8(info.resolved):
        return NOT_UTF8
    for glob in source.exclude:
        if glob.matches(path):
            return f"excluded by '{glob.text}' ({source.location})"
    expected_name, kinds = _EXPECTED_KINDS[source.type]
    return "" if info.kind in kinds else f"is {KIND_NAMES[info.kind]}, expected {expected_name}"


def condition_error(condition: Condition, attributes: Values) -> str:
    """Return why a candidate with these attributes does not meet a condition, or an empty string."""
    values = attributes.get(condition.attribute, ())
    if condition.selector.accepts(values):
        return ""
    found = f"{condition.attribute} is '{','.join(values)}'" if values else f"it has no {condition.attribute}"
    return f"where: {found}, expected {condition.selector.text} ({condition.location})"


def _is_affected(candidate: Candidate, changes: ChangeSet) -> bool:
    return changes.affects(candidate.symlink_chain) or changes.affects(candidate.reads.depends)


def _find_paths(
    resource: Resource, source: Source, host: Host, dependencies: Dependencies
) -> tuple[dict[str, str], tuple[Search, ...]]:
    """Return every path that the globs of a source match, with the first glob, and the search for each glob.

    Raises:
        HangError: a directory cannot be listed, or a search exceeds a limit.
    """
    found_by: dict[str, str] = {}
    searches: list[Search] = []
    for glob in source.globs:
        result = host.glob(glob)
        dependencies.update(result.dependencies)
        paths = select_paths(result.paths, glob, resource.policy)
        searches.append(Search(result.leaves, result.way, len(paths)))
        for path in paths:
            found_by.setdefault(path, glob.text)
        if len(found_by) > MAX_MATCHES:
            raise SearchLimitError(
                f"the globs of an entry of 'devices' match more than {MAX_MATCHES} paths, the maximum"
            )
    return found_by, tuple(searches)


def list_unmatched(resource: Resource, source: Source, searches: Sequence[Search]) -> list[UnmatchedGlob]:
    """Return the globs of a source without a match."""
    return [
        UnmatchedGlob(glob.text, resource.name, source.location)
        for glob, search in zip(source.globs, searches, strict=True)
        if not search.matches
    ]


def find_named_path(glob: Glob) -> str:
    """Return the path that a glob without wildcards names, empty if it has wildcards or alternatives."""
    if len(glob.alternatives) != 1:
        return ""
    path, is_literal = literal_path(glob.alternatives[0])
    return path if is_literal else ""


def select_paths(found: Sequence[str], glob: Glob, policy: Policy) -> Sequence[str]:
    """Return the matches of a glob of which the result may reveal that they exist.

    A path without wildcards that the policy does not allow to name is a result whether or not it exists: its reason
    names the rule.
    """
    if named := find_named_path(glob):
        return [named] if policy.candidate_error(named) else found
    return [path for path in found if not policy.candidate_error(path) or policy.read.names(path)]


def _depend_on(candidate: Candidate, dependencies: Dependencies) -> None:
    for step in candidate.symlink_chain:
        dependencies.add_name(*split_path(step))


def examine(  # noqa: PLR0913, PLR0917 - the parts of a candidate
    path: str,
    source: Source,
    number: int,
    found_by: str,
    names: frozenset[str],
    host: Host,
    dependencies: Dependencies,
    policy: Policy,
    comparisons: Comparisons,
) -> Candidate:
    """Examine a path: stat it and read the attributes that its source needs."""
    info = host.stat_tracked(path, dependencies)
    links: tuple[str, ...] = ()
    if info is None or info.resolved != path:
        host.stat_tracked(path, path_dependencies := Dependencies())
        links = tuple(
            f"{directory}/{name}" for directory, entries in path_dependencies.names.items() for name in entries
        )
    # First the policy: the other reasons describe what is at the path.
    reason = policy.candidate_error(path)
    if not reason and info is not None and not info.is_device:
        reason = policy.candidate_error(info.resolved)
    reason = reason or path_error(path, info, source, host)
    if info is None or reason:
        return Candidate(path, info, {}, number, found_by, reason, links)
    if not source.where and has_only_path_attributes(info, source, host, names):
        return Candidate(path, info, PathAttributes(path, info), number, found_by, "", links)
    lazy = LazyAttributes(path, info, source, host, policy)
    attributes: Values = {}
    try:
        errors = (_where_error(condition, lazy, comparisons) for condition in source.where)
        reason = next(filter(None, errors), "")
        attributes = {} if reason else lazy.read(names)
    except AttributeLimitError as error:
        reason = str(error)
    has_reads = bool(lazy.depends or lazy.refusals)
    reads = AttributeReads(tuple(sorted(lazy.depends)), lazy.refusals) if has_reads else NO_READS
    return Candidate(path, info, attributes, number, found_by, reason, links, reads)


def _where_error(condition: Condition, attributes: LazyAttributes, comparisons: Comparisons) -> str:
    """Return why a candidate does not meet a condition, and why the attribute could not be read."""
    selector = condition.selector
    patterns = len(selector.any_of) + len(selector.none_of)
    comparisons.add(len(attributes.get(condition.attribute, ())) * patterns)
    error, refusal = condition_error(condition, attributes), attributes.refusals.get(condition.attribute)
    return f"{error}; {refusal}" if error and refusal else error


def _nodes_before_links(examined: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yield candidates with symlinks last, so that the ID of a device node does not depend on symlinks to it."""
    links = []
    for candidate in examined:
        if candidate.info is not None and candidate.info.resolved == candidate.path:
            yield candidate
        else:
            links.append(candidate)
    yield from links
