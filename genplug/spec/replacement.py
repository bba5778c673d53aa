"""Finds what differs between two versions of a sequence whose unchanged elements are the identical objects. Pure.

A change of a device among thousands replaces few elements of the sequences that follow from it. The functions of this
module compare identities without running Python code for each element.
"""

from collections.abc import Sequence
from itertools import compress, count
from operator import is_not
from typing import NamedTuple


class Replacement(NamedTuple):
    """The elements from ``start`` to ``old_stop`` of a sequence, which those to ``new_stop`` of another replace."""

    start: int
    old_stop: int
    new_stop: int

    def __bool__(self) -> bool:
        """Return whether the sequences differ."""
        return self.start != self.old_stop or self.start != self.new_stop


def find_replacement(old: Sequence[object], new: Sequence[object]) -> Replacement:
    """Return the smallest range of ``old`` whose replacement makes it the same as ``new``, element by element."""
    if old is new:
        return Replacement(len(old), len(old), len(old))
    shorter = min(len(old), len(new))
    start = next(compress(count(), map(is_not, old, new)), shorter)
    same_end = next(compress(count(), map(is_not, reversed(old), reversed(new))), shorter)
    same_end = min(same_end, shorter - start)
    return Replacement(start, len(old) - same_end, len(new) - same_end)
