"""Which devices to take when the kubelet lets us choose. Never an error, always a valid set (contract 5.2). Pure.

Grants stand in groups within groups (a NUMA node or what ``preferredAllocation.by`` says, then the device itself).
Packed takes from as few groups as it can, spread from as many; inside a group the same holds for the groups in it.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence

from genplug.spec.model import Preference
from genplug.spec.natural_sort import natural_sort_key

Groups = Mapping[str, tuple[str, ...]]
"""Grant ID to the groups that it is in, the outermost first. A grant that is not named is in none."""


def choose_preferred(  # noqa: PLR0913 - the request's three, and how to choose
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    order: Iterable[str] = (),
    *,
    groups: Groups = {},  # noqa: B006 - never changed
    policy: Preference = Preference.NONE,
    distinct: bool = False,
) -> tuple[str, ...]:
    """Return ``size`` of the available IDs, those of ``must_include`` among them, in natural order.

    ``order`` holds the known IDs in natural order; unknown ones come after them. ``distinct`` takes no two grants of
    one innermost group while there are others. Where the request contradicts itself the answer is the nearest that
    does not: at most ``size``, only what is available.
    """
    free = set(available)
    ranked = [one for one in order if one in free]
    if len(ranked) < len(free):
        ranked += sorted(free.difference(ranked), key=natural_sort_key)
    wanted = set(must_include)
    taken = [one for one in ranked if one in wanted][: max(size, 0)]
    rest = [one for one in ranked if one not in wanted]
    if distinct:
        rest = _distinct_first(rest, taken, max(size, 0) - len(taken), groups)
    chosen = {*taken, *_choose(rest, taken, max(size, 0) - len(taken), groups, policy, level=0)}
    return tuple(one for one in ranked if one in chosen)


def _distinct_first(rest: Sequence[str], taken: Sequence[str], missing: int, groups: Groups) -> list[str]:
    """Return the first grant of each device of which none is taken; and the others too where that is not enough."""
    seen = {groups[one] for one in taken if one in groups}
    first = []
    for one in rest:
        if one in groups:
            if groups[one] in seen:
                continue
            seen.add(groups[one])
        first.append(one)
    return first if len(first) >= missing else list(rest)


def _choose(  # noqa: PLR0913, PLR0917 - one level of the same question
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
        # Each is a group of its own: the first ones, whatever the policy.
        return list(rest[:missing])
    share = _packed if policy is Preference.PACKED else _spread
    counts = share({group: len(ids) for group, ids in free.items()}, held_counts, missing)
    return [
        one
        for group, count in counts.items()
        if count
        for one in _choose(free[group], held.get(group, ()), count, groups, policy, level + 1)
    ]


def _by_group(ids: Iterable[str], groups: Groups, level: int) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for one in ids:
        path = groups.get(one, ())
        found.setdefault(path[level] if level < len(path) else None, []).append(one)
    return found


def _packed(free: Mapping[str | None, int], held: Mapping[str | None, int], missing: int) -> dict[str | None, int]:
    """Take from groups that are in use already, then from the smallest that holds all, else from the largest."""
    counts: dict[str | None, int] = {}
    left = sorted(free, key=lambda group: -held[group])
    while missing and left:
        if held[left[0]]:
            group = left[0]
        else:
            enough = [one for one in left if free[one] >= missing]
            group = min(enough, key=free.__getitem__) if enough else max(left, key=free.__getitem__)
        left.remove(group)
        counts[group] = min(free[group], missing)
        missing -= counts[group]
    return counts


def _spread(free: Mapping[str | None, int], held: Mapping[str | None, int], missing: int) -> dict[str | None, int]:
    """Take one at a time from the group of which the least is taken; among equals from the one with most left."""
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
