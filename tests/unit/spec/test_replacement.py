"""Replacements: the ranges in which two versions of a sequence differ."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.replacement import Replacement, find_replacements, list_replaced
from tests.support.work import count_lines

objects = [object() for _ in range(5)]
sequences = st.lists(st.sampled_from(objects), max_size=8)


@given(sequences, sequences)
def test_replacements_turn_the_old_sequence_into_the_new_one(old: list[object], new: list[object]) -> None:
    replaced = find_replacements(old, new)
    made = list(old)
    for start, old_stop, new_stop in reversed(replaced):
        made[start:old_stop] = new[start:new_stop]
    assert made == new
    assert bool(replaced) == (old != new)


@given(sequences, sequences)
def test_replacements_are_as_small_as_possible(old: list[object], new: list[object]) -> None:
    removed, added = list_replaced(old, new, find_replacements(old, new))
    if len(old) == len(new):
        assert removed == [first for first, second in zip(old, new, strict=True) if first is not second]
        assert added == [second for first, second in zip(old, new, strict=True) if first is not second]
    elif removed and added:
        assert removed[0] is not added[0]
        assert removed[-1] is not added[-1]


def test_elements_are_compared_by_identity() -> None:
    old, new = [1000.5, 2000.5], [1000.5, float("2000.5")]
    assert old == new
    assert find_replacements(old, new) == (Replacement(1, 2, 2),)


def test_adjacent_differences_are_one_range() -> None:
    first, second, third = objects[:3]
    old, new = [first, first, second, first], [third, third, second, third]
    assert find_replacements(old, new) == (Replacement(0, 2, 2), Replacement(3, 4, 4))


def test_same_sequence_has_no_replacement() -> None:
    assert find_replacements(objects, objects) == ()
    assert find_replacements(objects, list(objects)) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda old: [*old[:3], object(), *old[4:]],
        lambda old: [object(), *old[1:-1], object()],
        lambda old: old[1:],
        lambda old: [*old, object()],
    ],
)
def test_comparison_executes_the_same_lines_for_any_length(change: Callable[[list[object]], list[object]]) -> None:
    def count(length: int) -> int:
        old = [object() for _ in range(length)]
        new = change(old)
        return count_lines(lambda: find_replacements(old, new))[0]

    assert count(10_000) == count(10)
