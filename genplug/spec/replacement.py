"""Finds what differs between two versions of a sequence whose unchanged elements are the identical objects. Pure.

A change of a device among thousands replaces few elements of the sequences that follow from it. The functions of this
module compare identities without running Python code for each element.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, count
from operator import is_not
from typing import NamedTuple, TypeVar

ElementT = TypeVar("ElementT")


class Replacement(NamedTuple):
    """The elements from ``start`` to ``old_stop`` of a sequence, which those to ``new_stop`` of another replace."""

    start: int
    old_stop: int
    new_stop: int


def find_replacements(old: Sequence[object], new: Sequence[object]) -> tuple[Replacement, ...]:
    """Return the ranges of ``old`` whose replacement makes it the same as ``new``, in the order of the elements.

    The ranges of sequences of the same length are as small as possible. Sequences of different lengths have one range,
    with everything from the first to the last difference. Sequences that are the same have no range.
    """
    if old is new:
        return ()
    if len(old) == len(new):
        return tuple(_find_runs(compress(count(), map(is_not, old, new))))
    shorter = min(len(old), len(new))
    start = next(compress(count(), map(is_not, old, new)), shorter)
    same_end = next(compress(count(), map(is_not, reversed(old), reversed(new))), shorter)
    same_end = min(same_end, shorter - start)
    return (Replacement(start, len(old) - same_end, len(new) - same_end),)


def _find_runs(positions: Iterable[int]) -> Iterator[Replacement]:
    """Yield the runs of consecutive positions."""
    start = stop = 0
    for position in positions:
        if position != stop:
            if stop > start:
                yield Replacement(start, stop, stop)
            start = position
        stop = position + 1
    if stop > start:
        yield Replacement(start, stop, stop)


def list_replaced(
    old: Sequence[ElementT], new: Sequence[ElementT], replacements: Sequence[Replacement]
) -> tuple[list[ElementT], list[ElementT]]:
    """Return the elements of both sequences that the replacements consist of."""
    return (
        [element for start, stop, _ in replacements for element in old[start:stop]],
        [element for start, _, stop in replacements for element in new[start:stop]],
    )
