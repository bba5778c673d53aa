"""Chooses devices for GetPreferredAllocation. Never fails, always returns a valid set (kubelet-contract.md §5.2). Pure.

Grants are in nested groups: a NUMA node or the value of ``preferredAllocation.by``, then the device. ``packed`` takes
grants from as few groups as possible, ``spread`` from as many as possible; inside a group, the same rule applies to its
subgroups.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence

from genplug.spec.model import Preference
from genplug.spec.natural_sort import natural_sort_key

Groups = Mapping[str, tuple[str, ...]]
"""The groups of each grant by grant ID, the outermost first. A grant without an entry is in no group."""


def choose_preferred(  # noqa: PLR0913 - the fields of the request, and the rules
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    order: Iterable[str] = (),
    *,
    groups: Groups = {},  # noqa: B006 - never changed
    policy: Preference = Preference.NONE,
    distinct: bool = False,
) -> tuple[str, ...]:
    """Return ``size`` of the available IDs, including those of ``must_include``, in natural order.

    ``order`` has the known IDs in natural order; unknown IDs come after them. ``distinct`` avoids two grants of one
    innermost group as long as possible. For a contradictory request, the result is the closest valid set: at most
    ``size`` IDs, all of them available.
    """
    free = set(available)
    ranked = [grant for grant in order if grant in free]
    if len(ranked) < len(free):
        ranked += sorted(free.difference(ranked), key=natural_sort_key)
    required = set(must_include)
    taken = [grant for grant in ranked if grant in required][: max(size, 0)]
    rest = [grant for grant in ranked if grant not in required]
    if distinct:
        rest = _distinct_first(rest, taken, max(size, 0) - len(taken), groups)
    chosen = {*taken, *_choose(rest, taken, max(size, 0) - len(taken), groups, policy, level=0)}
    return tuple(grant for grant in ranked if grant in chosen)


def _distinct_first(rest: Sequence[str], taken: Sequence[str], missing: int, groups: Groups) -> list[str]:
    """Return the first grant of each device without a taken grant, or all grants if these are not enough."""
    seen = {groups[grant] for grant in taken if grant in groups}
    first = []
    for grant in rest:
        if grant in groups:
            if groups[grant] in seen:
                continue
            seen.add(groups[grant])
        first.append(grant)
    return first if len(first) >= missing else list(rest)


def _choose(  # noqa: PLR0913, PLR0917 - recursion over the levels of groups
    rest: Sequence[str], taken: Sequence[str], missing: int, groups: Groups, policy: Preference, level: int
) -> list[str]:
    if missing <= 0:
        return []
    free = _by_group(rest, groups, level)
    if policy is Preference.NONE or set(free) <= {None}:
        return list(rest[:missing])
    held = _by_group(taken, groups, level)
    held_counts = {group: len(held.get(group, ())) for group in free}
    if len(free) == len(rest) and not any(held_counts.values()):
        # Every grant is its own group: take the first grants for any policy.
        return list(rest[:missing])
    count_per_group = _count_packed if policy is Preference.PACKED else _count_spread
    counts = count_per_group({group: len(ids) for group, ids in free.items()}, held_counts, missing)
    return [
        grant
        for group, count in counts.items()
        if count
        for grant in _choose(free[group], held.get(group, ()), count, groups, policy, level + 1)
    ]


def _by_group(ids: Iterable[str], groups: Groups, level: int) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for grant in ids:
        path = groups.get(grant, ())
        found.setdefault(path[level] if level < len(path) else None, []).append(grant)
    return found


def _count_packed(
    free: Mapping[str | None, int], held: Mapping[str | None, int], missing: int
) -> dict[str | None, int]:
    """Prefer groups already in use, then the smallest group with enough grants, otherwise the largest group."""
    counts: dict[str | None, int] = {}
    left = sorted(free, key=lambda group: -held[group])
    while missing and left:
        if held[left[0]]:
            group = left[0]
        else:
            enough = [group for group in left if free[group] >= missing]
            group = min(enough, key=free.__getitem__) if enough else max(left, key=free.__getitem__)
        left.remove(group)
        counts[group] = min(free[group], missing)
        missing -= counts[group]
    return counts


def _count_spread(
    free: Mapping[str | None, int], held: Mapping[str | None, int], missing: int
) -> dict[str | None, int]:
    """Repeatedly take from the group with the fewest taken grants; among equals, from the group with the most left."""
    counts = dict.fromkeys(free, 0)
    heap = [(held[group], -count, rank, group) for rank, (group, count) in enumerate(free.items())]
    heapq.heapify(heap)
    while missing and heap:
        taken, left, rank, group = heapq.heappop(heap)
        counts[group] += 1
        missing -= 1
        if left + 1:
            heapq.heappush(heap, (taken + 1, left + 1, rank, group))
    return counts
