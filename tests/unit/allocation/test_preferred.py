"""Preference: always a valid choice of the right size, in natural order, and never an error."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.allocation.preferred import choose_preferred
from genplug.allocation.resource_state import ResourceState
from genplug.spec.model import Preference
from tests.support.allocation import Node, healthy, offer, resource


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
    assert choose_preferred(available, must_include, size) == expected


ids = st.lists(st.one_of(st.sampled_from([f"x{number}" for number in range(12)]), st.text(max_size=5)), max_size=15)


@given(available=ids, must_include=ids, size=st.integers(-3, 20), knows_the_order=st.booleans())
def test_63_whatever_is_asked_the_choice_is_valid(
    *, available: list[str], must_include: list[str], size: int, knows_the_order: bool
) -> None:
    order = [f"x{number}" for number in range(10)] if knows_the_order else []
    chosen = choose_preferred(available, must_include, size, order)
    free = set(available)
    assert len(chosen) == len(set(chosen)) == min(max(size, 0), len(free))
    assert set(chosen) <= free
    wanted = free & set(must_include)
    assert wanted <= set(chosen) or set(chosen) <= wanted
    assert chosen == choose_preferred(available[::-1], must_include[::-1], size, order)


def test_63_ten_thousand_devices_take_no_time(node: Node) -> None:
    device = node.device("x")
    spec = resource(replicas=10_000)
    answers = ResourceState(offer(spec, *healthy(device)), node.host)
    available = sorted(answers.offer.grants)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        chosen = answers.choose_preferred(available, available[-3:], 8)
        took.append(time.perf_counter() - started)
    assert chosen == tuple(f"x-r{number}" for number in (0, 1, 2, 3, 4, 9997, 9998, 9999))
    assert min(took) < 0.010


def chosen(policy: str, groups: dict[str, str], size: int, *must_include: str, taken: str = "") -> str:
    """Choose among devices that are one letter, each in the group that is named; ``taken`` ones are not free."""
    order = list(groups)
    free = [one for one in order if one not in taken]
    paths = {one: (group, one) for one, group in groups.items()}
    return "".join(choose_preferred(free, must_include, size, order, groups=paths, policy=Preference(policy)))


TWO = dict.fromkeys("abcd", "0") | dict.fromkeys("efgh", "1")


@pytest.mark.parametrize(
    ("policy", "size", "must_include", "taken", "expected"),
    [
        ("packed", 2, "", "", "ab"),
        ("packed", 4, "", "", "abcd"),
        ("packed", 4, "", "a", "efgh"),
        ("packed", 2, "", "ab", "cd"),
        ("packed", 2, "f", "", "ef"),
        ("packed", 6, "", "", "abcdef"),
        ("packed", 3, "", "abce", "fgh"),
        ("spread", 2, "", "", "ae"),
        ("spread", 4, "", "", "abef"),
        ("spread", 2, "a", "", "ae"),
        ("spread", 2, "ab", "", "ab"),
        ("spread", 3, "ab", "", "abe"),
        ("spread", 6, "", "fgh", "abcde"),
        ("none", 3, "", "", "abc"),
    ],
)
def test_64_devices_are_packed_into_groups_or_spread_over_them(
    policy: str, size: int, must_include: str, taken: str, expected: str
) -> None:
    assert chosen(policy, TWO, size, *must_include, taken=taken) == expected


def replicated(*, distinct: bool = False, policy: str = "none") -> dict[str, Any]:
    """Three devices x, y, z, four times each, as keywords of ``preferred``."""
    groups = {f"{device}{number}": ("", device) for device in "xyz" for number in range(4)}
    return {"order": list(groups), "groups": groups, "policy": Preference(policy), "distinct": distinct}


def test_64_replicas_of_one_device_are_packed_or_spread() -> None:
    available = list(replicated()["order"])
    assert choose_preferred(available, [], 3, **replicated(policy="packed")) == ("x0", "x1", "x2")
    assert choose_preferred(available, [], 3, **replicated(policy="spread")) == ("x0", "y0", "z0")
    assert choose_preferred(available, ["y1"], 3, **replicated(policy="packed")) == ("y0", "y1", "y2")


def test_distinct_takes_different_devices_while_there_are_and_then_the_others_too() -> None:
    available = list(replicated()["order"])
    assert choose_preferred(available, [], 3, **replicated(distinct=True)) == ("x0", "y0", "z0")
    assert choose_preferred(available, ["y1"], 3, **replicated(distinct=True, policy="packed")) == ("x0", "y1", "z0")
    assert len(choose_preferred(available, [], 5, **replicated(distinct=True))) == 5


@given(
    groups=st.dictionaries(st.sampled_from("abcdefghijkl"), st.sampled_from("012"), min_size=1),
    policy=st.sampled_from(list(Preference)),
    size=st.integers(-1, 14),
    distinct=st.booleans(),
    data=st.data(),
)
def test_63_a_preference_is_a_right_subset_by_any_policy(
    *, groups: dict[str, str], policy: Preference, size: int, distinct: bool, data: st.DataObject
) -> None:
    free = data.draw(st.lists(st.sampled_from([*groups, "?"]), unique=True))
    wanted = data.draw(st.lists(st.sampled_from([*groups, "!"]), unique=True))
    paths = {one: (group, one) for one, group in groups.items()}
    found = choose_preferred(free, wanted, size, sorted(groups), groups=paths, policy=policy, distinct=distinct)
    assert len(found) == len(set(found)) == min(max(size, 0), len(free))
    assert set(found) <= set(free)
    must = set(free) & set(wanted)
    assert must <= set(found) or set(found) <= must
