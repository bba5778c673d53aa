"""Preferred devices: a valid subset of the requested size, packed or spread, in natural order."""

import time
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.allocation.preferred import choose_preferred, parse_position
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


def test_63_choice_among_ten_thousand_devices_is_not_quadratic(tree: DeviceTree) -> None:
    device = tree.make_device("x")
    spec = build_resource(replicas=10_000)
    state = build_state(tree, spec, *mark_healthy(device))
    available = sorted(state.offer.grants)
    started = time.process_time()
    chosen = state.choose_preferred(available, available[-3:], 8)
    # ``python -m benchmarks --only preferences`` measures some milliseconds.
    assert time.process_time() - started < 1
    assert chosen == tuple(f"x-r{number}" for number in (0, 1, 2, 3, 4, 9997, 9998, 9999))


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
        # A group in use is preferred to the smallest group.
        ("packed", 2, "f", "ab", "ef"),
        ("packed", 9, "", "", "abcdefgh"),
        # Among groups with as many taken devices, the group with the most devices left is preferred.
        ("spread", 3, "e", "d", "aef"),
    ],
)
def test_64_devices_are_packed_into_groups_or_spread_over_them(
    policy: str, size: int, must_include: str, taken: str, expected: str
) -> None:
    assert choose(policy, TWO_GROUPS, size, *must_include, taken=taken) == expected


def test_64_spread_takes_from_the_group_with_fewer_taken_devices_until_both_are_equal() -> None:
    groups = dict.fromkeys("ab", "0") | dict.fromkeys("efghi", "1")
    assert choose("spread", groups, 4, *"ef") == "abef"
    assert choose("spread", groups, 5, *"ef") == "abefg"


def build_replica_options(*, distinct: bool = False, policy: str = "none") -> dict[str, Any]:
    """Return keyword arguments of ``choose_preferred`` for the devices x, y and z with four replicas each."""
    groups = {f"{device}{number}": ("", device) for device in "xyz" for number in range(4)}
    return {"order": list(groups), "groups": groups, "policy": Preference(policy), "distinct": distinct}


def test_64_replicas_of_a_device_are_packed_or_spread() -> None:
    available = list(build_replica_options()["order"])
    assert choose_preferred(available, [], 3, **build_replica_options(policy="packed")) == ("x0", "x1", "x2")
    assert choose_preferred(available, [], 3, **build_replica_options(policy="spread")) == ("x0", "y0", "z0")
    assert choose_preferred(available, ["y1"], 3, **build_replica_options(policy="packed")) == ("y0", "y1", "y2")
    # The replicas of a device in use are preferred to those of the smallest device.
    options = build_replica_options(policy="packed")
    assert choose_preferred(available[2:], ["y1"], 3, **options) == ("y0", "y1", "y2")
    # Each device has a single free replica besides that of x.
    assert choose_preferred(["x0", "x1", "y0"], ["x0"], 2, **build_replica_options(policy="spread")) == ("x0", "y0")


def test_replicas_need_not_be_distinct_by_default() -> None:
    options = build_replica_options()
    chosen = choose_preferred(options["order"], [], 3, options["order"], groups=options["groups"])
    assert chosen == ("x0", "x1", "x2")


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


def choose_by_position(free: str, size: int, *must_include: str, order: str = "abcdefghijklmnop") -> str:
    """Return the chosen devices; their positions are those of the letters in the alphabet."""
    positions = {device: float(ord(device)) for device in order}
    chosen = choose_preferred(list(free), must_include, size, order, positions=positions, policy=Preference.CONTIGUOUS)
    return "".join(chosen)


@pytest.mark.parametrize(
    ("free", "size", "must_include", "expected"),
    [
        ("abcdefgh", 4, "", "abcd"),
        # The smallest gap that is large enough.
        ("abcdijk", 2, "", "ij"),
        ("abcdijk", 3, "", "ijk"),
        ("abcdijk", 4, "", "abcd"),
        ("bcdefop", 2, "", "op"),
        # No gap is large enough: the smallest range.
        ("acegijm", 3, "", "gij"),
        ("abcfgh", 5, "", "abcfg"),
        ("abcdefgh", 3, "e", "cde"),
        ("abcdefgh", 4, "dg", "defg"),
        ("abcdefgh", 3, "ah", "abh"),
        ("adefh", 4, "ah", "aefh"),
        ("abchp", 3, "h", "bch"),
        ("abhp", 9, "", "abhp"),
        ("abhp", 0, "", ""),
        # Positions that differ by two are not adjacent.
        ("abcef", 2, "", "ef"),
        # The range grows by less above.
        ("aef", 2, "e", "ef"),
    ],
)
def test_contiguous_devices_span_the_smallest_range(free: str, size: int, must_include: str, expected: str) -> None:
    assert choose_by_position(free, size, *must_include) == expected


@pytest.mark.parametrize(
    ("positions", "must_include", "size", "expected"),
    [
        # A window at an end of the adjacent positions leaves the others together.
        ({"a": 0, "b": 1, "c": 1.5, "d": 2}, "", 2, "cd"),
        # Grants at the position of a required grant do not extend the range.
        ({"a": 3, "b": 3, "c": 5}, "a", 3, "abc"),
        ({"a": 3, "b": 3, "c": 1}, "a", 3, "abc"),
        ({"a": 3, "b": 3, "c": 5}, "a", 2, "ab"),
        ({"a": 1, "b": 1, "z": 3}, "az", 3, "abz"),
        ({"a": 1, "b": 3, "z": 3}, "az", 3, "abz"),
        # The first of several grants at a position.
        ({"a": 3, "b": 3, "c": 3, "z": 9}, "az", 3, "abz"),
    ],
)
def test_contiguous_devices_may_have_equal_or_fractional_positions(
    positions: dict[str, float], must_include: str, size: int, expected: str
) -> None:
    order = list(positions)
    chosen = choose_preferred(order, list(must_include), size, order, positions=positions, policy=Preference.CONTIGUOUS)
    assert "".join(chosen) == expected


@given(
    positions=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-3, 9).map(float)),
    size=st.integers(-1, 10),
    data=st.data(),
)
def test_contiguous_choice_is_valid_and_as_narrow_as_possible(
    *, positions: dict[str, float], size: int, data: st.DataObject
) -> None:
    free = data.draw(st.lists(st.sampled_from("abcdefghij"), unique=True))
    must_include = data.draw(st.lists(st.sampled_from("abcdefgh!"), unique=True))
    chosen = choose_preferred(free, must_include, size, "abcdefghij", positions=positions, policy=Preference.CONTIGUOUS)
    assert len(chosen) == len(set(chosen)) == min(max(size, 0), len(free))
    assert set(chosen) <= set(free)
    required = set(free) & set(must_include)
    assert required <= set(chosen) or set(chosen) <= required
    if not required <= set(chosen):
        return
    possible = [set(devices) for devices in combinations(free, len(chosen)) if required <= set(devices)]
    placed = max(len(devices & positions.keys()) for devices in possible)
    assert len(set(chosen) & positions.keys()) == placed

    def span(devices: set[str]) -> float:
        found = [positions[device] for device in devices if device in positions]
        return max(found) - min(found) if found else 0

    narrowest = min(span(devices) for devices in possible if len(devices & positions.keys()) == placed)
    assert span(set(chosen)) == narrowest
    again = choose_preferred(
        free[::-1], must_include[::-1], size, "abcdefghij", positions=positions, policy=Preference.CONTIGUOUS
    )
    assert again == chosen


def test_contiguous_choice_among_ten_thousand_devices_takes_100_ms() -> None:
    order = [f"x{number}" for number in range(10_000)]
    positions = {device: float(number * 7919 % 20_000) for number, device in enumerate(order)}
    for must_include in ([], order[5000:5004], [order[0], order[-1]]):
        started = time.thread_time()
        chosen = choose_preferred(order, must_include, 5000, order, positions=positions, policy=Preference.CONTIGUOUS)
        assert time.thread_time() - started < 0.1
        assert len(chosen) == 5000


@pytest.mark.parametrize(
    ("text", "position"),
    [("7", 7), ("-2", -2), ("1.5", 1.5), ("0x1f", 31), ("", None), ("a", None), ("1,2", None), ("9" * 400, None)],
)
def test_position_is_a_decimal_or_hexadecimal_number(text: str, position: float | None) -> None:
    assert parse_position(text) == position
