"""Replacements: the range in which two versions of a sequence differ."""

from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.replacement import Replacement, find_replacement
from tests.support.work import count_lines

objects = [object() for _ in range(5)]
sequences = st.lists(st.sampled_from(objects), max_size=8)


@given(sequences, sequences)
def test_replacement_turns_the_old_sequence_into_the_new_one(old: list[object], new: list[object]) -> None:
    start, old_stop, new_stop = find_replacement(old, new)
    assert [*old[:start], *new[start:new_stop], *old[old_stop:]] == new
    assert start <= old_stop
    assert start <= new_stop


@given(sequences, sequences)
def test_replacement_is_the_smallest_range(old: list[object], new: list[object]) -> None:
    replaced = find_replacement(old, new)
    assert bool(replaced) == (old != new)
    if replaced.start < min(replaced.old_stop, replaced.new_stop):
        assert old[replaced.start] is not new[replaced.start]
        assert old[replaced.old_stop - 1] is not new[replaced.new_stop - 1]


def test_elements_are_compared_by_identity() -> None:
    old, new = [1000.5, 2000.5], [1000.5, float("2000.5")]
    assert old == new
    assert find_replacement(old, new) == Replacement(1, 2, 2)


def test_same_sequence_has_an_empty_replacement() -> None:
    assert find_replacement(objects, objects) == Replacement(5, 5, 5)
    assert not find_replacement([], [])


def test_comparison_executes_the_same_lines_for_any_length() -> None:
    def count(length: int) -> int:
        old = [object() for _ in range(length)]
        return count_lines(lambda: find_replacement(old, [*old[:3], object(), *old[4:]]))[0]

    assert count(10_000) == count(10)
