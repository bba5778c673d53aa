"""Chooses devices for GetPreferredAllocation. Never fails, always returns a valid set (kubelet-contract.md §5.2). Pure.

Grants are in nested groups: a NUMA node or the value of ``preferredAllocation.by``, then the device. ``packed`` takes
grants from as few groups as possible, ``spread`` from as many as possible; inside a group, the same rule applies to its
subgroups. ``contiguous`` takes grants whose positions are as close to each other as possible.
"""

import heapq
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from genplug.spec.model import Preference
from genplug.spec.natural_sort import natural_sort_key

Groups = Mapping[str, tuple[str, ...]]
"""The groups of each grant by grant ID, the outermost first. A grant without an entry is in no group."""


Positions = Mapping[str, float]
"""The position of each grant by grant ID. A grant without an entry has no position."""

_POSITION = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?|0x[0-9A-Fa-f]{1,12}")


def parse_position(text: str) -> float | None:
    """Return a position, written as a decimal or hexadecimal number, or None."""
    if _POSITION.fullmatch(text) is None:
        return None
    return int(text, 16) if text.startswith("0x") else float(text)


def choose_preferred(  # noqa: PLR0913 - the fields of the request, and the rules
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    order: Iterable[str] = (),
    *,
    groups: Groups = {},  # noqa: B006 - never changed
    positions: Positions = {},  # noqa: B006 - never changed
    policy: Preference = Preference.NONE,
    distinct: bool = False,
) -> tuple[str, ...]:
    """Return ``size`` of the available IDs, including those of ``must_include``, in natural order.

    ``order`` has the known IDs in natural order; unknown IDs come after them. ``distinct`` avoids two grants of one
    innermost group as long as possible. For a contradictory request, the result is the closest valid set: at most
    ``size`` IDs, all of them available.
    """
    free, size = set(available), max(size, 0)
    ranked = [grant for grant in order if grant in free]
    if len(ranked) < len(free):
        ranked += sorted(free.difference(ranked), key=natural_sort_key)
    required = set(must_include)
    taken = [grant for grant in ranked if grant in required][:size]
    missing = size - len(taken)
    rest = [grant for grant in ranked if grant not in required]
    if distinct:
        rest = _distinct_first(rest, taken, missing, groups)
    if policy is Preference.CONTIGUOUS:
        chosen = {*taken, *_choose_contiguous(rest, taken, missing, positions)}
    else:
        chosen = {*taken, *_choose(rest, taken, missing, groups, policy, level=0)}
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


def _choose_contiguous(rest: Sequence[str], taken: Sequence[str], missing: int, positions: Positions) -> list[str]:
    """Return the grants with which all grants together span the smallest range of positions.

    Grants without a position are chosen last. Takes O(n log n) time.
    """
    placed = sorted((grant for grant in rest if grant in positions), key=positions.__getitem__)
    others = [grant for grant in rest if grant not in positions]
    count = min(missing, len(placed))
    fixed = sorted(positions[grant] for grant in taken if grant in positions)
    if not count:
        chosen: list[str] = []
    elif fixed:
        chosen = _extend_range(placed, fixed, count, positions)
    else:
        start = _find_window(placed, count, positions)
        chosen = placed[start : start + count]
    return [*chosen, *others[: missing - count]]


def _find_window(placed: Sequence[str], count: int, positions: Positions) -> int:
    """Return the index of the first of ``count`` consecutive grants.

    Among the windows of the smallest span, prefer a window in the shortest run of adjacent positions, and in this run a
    window at an end: large runs stay whole for large requests.
    """
    runs = _runs(placed, positions)

    def cost(start: int) -> tuple[float, int, bool, int]:
        end = start + count - 1
        first, last = runs[start][0], runs[end][1]
        span = positions[placed[end]] - positions[placed[start]]
        return span, last - first, start != first and end != last, start

    return min(range(len(placed) - count + 1), key=cost)


def _runs(placed: Sequence[str], positions: Positions) -> list[tuple[int, int]]:
    """Return for each grant the first and the last index of its run, in which positions differ by at most 1."""
    runs: list[tuple[int, int]] = []
    first = 0
    for index in range(1, len(placed) + 1):
        if index == len(placed) or positions[placed[index]] - positions[placed[index - 1]] > 1:
            runs += [(first, index - 1)] * (index - first)
            first = index
    return runs


def _extend_range(placed: Sequence[str], fixed: Sequence[float], count: int, positions: Positions) -> list[str]:
    """Return ``count`` grants that, with the ``fixed`` positions, span the smallest range."""
    low, high = fixed[0], fixed[-1]
    below = [grant for grant in placed if positions[grant] < low]
    above = [grant for grant in placed if positions[grant] > high]
    inside = [grant for grant in placed if low <= positions[grant] <= high]
    if len(inside) >= count:
        # The range does not grow.
        return _grow(inside, fixed, count, positions)
    outside = count - len(inside)

    def span(number: int) -> tuple[float, int]:
        bottom = positions[below[len(below) - number]] if number else low
        top = positions[above[outside - number - 1]] if number < outside else high
        return top - bottom, -number

    number = min(range(max(0, outside - len(above)), min(outside, len(below)) + 1), key=span)
    return [*below[len(below) - number :], *inside, *above[: outside - number]]


def _grow(inside: Sequence[str], fixed: Sequence[float], count: int, positions: Positions) -> list[str]:
    """Return ``count`` grants between fixed positions: repeatedly the grant that is nearest to a chosen position."""
    gaps: list[deque[str]] = [deque() for _ in fixed]
    for grant in inside:
        gaps[bisect_left(fixed, positions[grant])].append(grant)
    # The nearest grants of a gap are the first, seen from the position below it, and the last, seen from above.
    heap: list[tuple[float, int, bool]] = []
    edges = [[low, high] for low, high in pairwise((fixed[0], *fixed))]

    def push(gap: int, *, is_last: bool) -> None:
        if gaps[gap]:
            position = positions[gaps[gap][-1 if is_last else 0]]
            heapq.heappush(heap, (abs(edges[gap][is_last] - position), gap, is_last))

    for gap in range(len(gaps)):
        push(gap, is_last=False)
        push(gap, is_last=True)
    chosen: list[str] = []
    while len(chosen) < count:
        _, gap, is_last = heapq.heappop(heap)
        if gaps[gap]:
            grant = gaps[gap].pop() if is_last else gaps[gap].popleft()
            chosen.append(grant)
            edges[gap][is_last] = positions[grant]
            push(gap, is_last=is_last)
    return chosen


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
