"""Preferred devices: a valid subset of the requested size, packed or spread, in natural order."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.allocation.preferred import choose_preferred
from genplug.spec.model import Preference
from tests.support.allocation import DeviceTree, build_resource, build_state, mark_healthy


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
def test_63_request_gets_the_expected_devices(
    available: list[str], must_include: list[str], size: int, expected: tuple[str, ...]
) -> None:
    assert choose_preferred(available, must_include, size) == expected


ids = st.lists(st.one_of(st.sampled_from([f"x{number}" for number in range(12)]), st.text(max_size=5)), max_size=15)


@given(available=ids, must_include=ids, size=st.integers(-3, 20), has_order=st.booleans())
def test_63_any_request_gets_a_valid_subset(
    *, available: list[str], must_include: list[str], size: int, has_order: bool
) -> None:
    order = [f"x{number}" for number in range(10)] if has_order else []
    chosen = choose_preferred(available, must_include, size, order)
    free = set(available)
    assert len(chosen) == len(set(chosen)) == min(max(size, 0), len(free))
    assert set(chosen) <= free
    required = free & set(must_include)
    assert required <= set(chosen) or set(chosen) <= required
    assert chosen == choose_preferred(available[::-1], must_include[::-1], size, order)


def test_63_choice_among_ten_thousand_devices_takes_10_ms(tree: DeviceTree) -> None:
    device = tree.make_device("x")
    spec = build_resource(replicas=10_000)
    state = build_state(tree, spec, *mark_healthy(device))
    available = sorted(state.offer.grants)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        chosen = state.choose_preferred(available, available[-3:], 8)
        seconds.append(time.perf_counter() - started)
    assert chosen == tuple(f"x-r{number}" for number in (0, 1, 2, 3, 4, 9997, 9998, 9999))
    assert min(seconds) < 0.010


def choose(policy: str, groups: dict[str, str], size: int, *must_include: str, taken: str = "") -> str:
    """Return the chosen devices; ``groups`` maps each device to its group, ``taken`` devices are not free."""
    order = list(groups)
    free = [device for device in order if device not in taken]
    paths = {device: (group, device) for device, group in groups.items()}
    return "".join(choose_preferred(free, must_include, size, order, groups=paths, policy=Preference(policy)))


TWO_GROUPS = dict.fromkeys("abcd", "0") | dict.fromkeys("efgh", "1")


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
    assert choose(policy, TWO_GROUPS, size, *must_include, taken=taken) == expected


def build_replica_options(*, distinct: bool = False, policy: str = "none") -> dict[str, Any]:
    """Return keyword arguments of ``choose_preferred`` for the devices x, y and z with four replicas each."""
    groups = {f"{device}{number}": ("", device) for device in "xyz" for number in range(4)}
    return {"order": list(groups), "groups": groups, "policy": Preference(policy), "distinct": distinct}


def test_64_replicas_of_a_device_are_packed_or_spread() -> None:
    available = list(build_replica_options()["order"])
    assert choose_preferred(available, [], 3, **build_replica_options(policy="packed")) == ("x0", "x1", "x2")
    assert choose_preferred(available, [], 3, **build_replica_options(policy="spread")) == ("x0", "y0", "z0")
    assert choose_preferred(available, ["y1"], 3, **build_replica_options(policy="packed")) == ("y0", "y1", "y2")


def test_distinct_prefers_different_devices_before_replicas() -> None:
    available = list(build_replica_options()["order"])
    assert choose_preferred(available, [], 3, **build_replica_options(distinct=True)) == ("x0", "y0", "z0")
    assert choose_preferred(available, ["y1"], 3, **build_replica_options(distinct=True, policy="packed")) == (
        "x0",
        "y1",
        "z0",
    )
    assert len(choose_preferred(available, [], 5, **build_replica_options(distinct=True))) == 5


@given(
    groups=st.dictionaries(st.sampled_from("abcdefghijkl"), st.sampled_from("012"), min_size=1),
    policy=st.sampled_from(list(Preference)),
    size=st.integers(-1, 14),
    distinct=st.booleans(),
    data=st.data(),
)
def test_63_any_policy_gets_a_valid_subset(
    *, groups: dict[str, str], policy: Preference, size: int, distinct: bool, data: st.DataObject
) -> None:
    free = data.draw(st.lists(st.sampled_from([*groups, "?"]), unique=True))
    must_include = data.draw(st.lists(st.sampled_from([*groups, "!"]), unique=True))
    paths = {device: (group, device) for device, group in groups.items()}
    found = choose_preferred(free, must_include, size, sorted(groups), groups=paths, policy=policy, distinct=distinct)
    assert len(found) == len(set(found)) == min(max(size, 0), len(free))
    assert set(found) <= set(free)
    required = set(free) & set(must_include)
    assert required <= set(found) or set(found) <= required
