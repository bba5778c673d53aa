"""Preference: always a valid choice of the right size, in natural order, and never an error."""

import time

import pytest
from allocation_values import Node, healthy, offer, resource
from hypothesis import given
from hypothesis import strategies as st

from genplug.allocation.answers import Answers
from genplug.allocation.preferred import preferred


@pytest.mark.parametrize(
    ("available", "must_include", "size", "expected"),
    [
        (["x10", "x2", "x1"], [], 2, ("x1", "x2")),
        (["x10", "x2", "x1"], ["x10"], 2, ("x1", "x10")),
        (["x10", "x2", "x1"], ["x10"], 0, ()),
        (["x10", "x2", "x1"], [], -1, ()),
        (["x10", "x2", "x1"], [], 9, ("x1", "x2", "x10")),
        (["x10", "x2", "x1"], ["x7"], 1, ("x1",)),
        (["x10", "x2", "x1"], ["x10", "x2"], 1, ("x2",)),
        (["x2", "x2", "x1"], ["x1", "x1"], 2, ("x1", "x2")),
        ([], ["x1"], 3, ()),
    ],
)
def test_63_the_choice(available: list[str], must_include: list[str], size: int, expected: tuple[str, ...]) -> None:
    assert preferred(available, must_include, size) == expected


ids = st.lists(st.one_of(st.sampled_from([f"x{number}" for number in range(12)]), st.text(max_size=5)), max_size=15)


@given(available=ids, must_include=ids, size=st.integers(-3, 20), knows_the_order=st.booleans())
def test_63_whatever_is_asked_the_choice_is_valid(
    *, available: list[str], must_include: list[str], size: int, knows_the_order: bool
) -> None:
    order = [f"x{number}" for number in range(10)] if knows_the_order else []
    chosen = preferred(available, must_include, size, order)
    free = set(available)
    assert len(chosen) == len(set(chosen)) == min(max(size, 0), len(free))
    assert set(chosen) <= free
    wanted = free & set(must_include)
    assert wanted <= set(chosen) or set(chosen) <= wanted
    assert chosen == preferred(available[::-1], must_include[::-1], size, order)


def test_63_ten_thousand_devices_take_no_time(node: Node) -> None:
    device = node.device("x")
    spec = resource(replicas=10_000)
    answers = Answers(offer(spec, *healthy(device)), node.host)
    available = sorted(answers.offer.grants)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        chosen = answers.prefer(available, available[-3:], 8)
        took.append(time.perf_counter() - started)
    assert chosen == tuple(f"x-r{number}" for number in (0, 1, 2, 3, 4, 9997, 9998, 9999))
    assert min(took) < 0.010
