"""Selectors: the values that they accept, as written in a configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.selectors import Selector, normalize, parse_quantity
from tests.support.configs import load_resource


def read_selector(written: str) -> Selector:
    (source,) = load_resource(f"devices: [{{glob: /dev/x*, where: {{name: {written}}}}}]").sources
    (condition,) = source.where
    assert condition.attribute == "name"
    return condition.selector


SINGLE_VALUES = {
    "nvidia*": (["nvidia0", "NVIDIA0"], ["xnvidia0", None]),
    '"0x10de"': (["0x10de", "10de", "0x10DE"], ["0x10df", "0x10de0"]),
    '"10de"': (["0x10de"], ["10d"]),
    "[a*, b]": (["a", "ab", "b"], ["ba", "c"]),
    "'{a,b}[0-9]'": (["a0", "B1"], ["c0", "a"]),
    "{in: [a, b]}": (["a"], ["c", None]),
    "{in: a}": (["a"], ["b"]),
    "{notIn: [a, b*]}": (["c"], ["a", "bc", None]),
    "{in: a*, notIn: ab}": (["a", "ac"], ["ab", "b"]),
    "{matches: '^tty(USB|ACM)[0-9]+$'}": (["ttyUSB10"], ["ttyS0", "xttyUSB1", "ttyusb1"]),
    "{matches: B}": (["aBc"], ["abc"]),
    "{min: 2}": (["2", "3.5", "0x10"], ["1", "-5", "two", ""]),
    "{max: 64Gi}": (["64Gi", "68719476736", "1k", "60G"], ["65Gi", "1Ti", "69G", "many"]),
    "{min: 1, max: 1}": (["1", "1.0"], ["2"]),
    "{min: '0x10'}": (["16"], ["15"]),
    "{exists: true}": (["", "a"], [None]),
    "{exists: false}": ([None], ["", "a"]),
    "{exists: true, in: a}": (["a"], ["b", None]),
    "{notIn: [a, b*], missing: ok}": (["c", None], ["a", "bc"]),
    "{in: a, missing: ok}": (["a", None], ["b"]),
    "{min: 2, missing: ok}": (["2", None], ["1", "two"]),
}


@pytest.mark.parametrize(("written", "values"), SINGLE_VALUES.items(), ids=SINGLE_VALUES)
def test_selector_accepts_only_the_expected_values(
    written: str, values: tuple[list[str | None], list[str | None]]
) -> None:
    selector = read_selector(written)
    for value in values[0]:
        assert selector.accepts((value,) if value is not None else ()), value
    for value in values[1]:
        assert not selector.accepts((value,) if value is not None else ()), value


SEVERAL_VALUES = {
    "a*": ([("b", "a1"), ("a1", "a2")], [("b", "c"), ()]),
    "[a, b]": ([("x", "b")], [("x", "y")]),
    "{notIn: a*}": ([("b",), ("b", "c")], [("b", "a1"), ("a1", "b"), ()]),
    # A single value must pass all tests.
    "{in: [a1, b2], matches: '2$'}": ([("a1", "b2")], [("a1", "c2")]),
    "{in: [a1, b2], notIn: c*}": ([("a1", "b2"), ("a1", "x")], [("a1", "c2")]),
    "{min: 2, max: 4}": ([("1", "3", "9")], [("1", "9"), ("one", "5")]),
    "{exists: true}": ([("a", "b")], [()]),
    "{exists: false}": ([()], [("a", "b")]),
}


@pytest.mark.parametrize(("written", "values"), SEVERAL_VALUES.items(), ids=SEVERAL_VALUES)
def test_selector_with_several_values_needs_a_match_and_no_exclusion(
    written: str, values: tuple[list[tuple[str, ...]], list[tuple[str, ...]]]
) -> None:
    selector = read_selector(written)
    assert [group for group in values[0] if not selector.accepts(group)] == []
    assert [group for group in values[1] if selector.accepts(group)] == []


def test_regex_matches_without_backtracking() -> None:
    assert not read_selector("{matches: '(x+x+)+y'}").accepts(("x" * 100_000,))


QUANTITIES = {
    "0": 0,
    "-1.5": -1.5,
    "+2": 2,
    "1k": 1e3,
    "1K": 1e3,
    "1Ki": 1024,
    "2M": 2e6,
    "1Gi": 2**30,
    "1E": 1e18,
    "1Ei": 2**60,
    "0x1f": 31,
    " 5 ": 5,
    "": None,
    "Gi": None,
    "1g": None,
    "1 Gi": None,
    "0xz": None,
    "one": None,
    "1e3": 1000,
    "1e3Ki": 1024000,
    "1e999": None,
}


@pytest.mark.parametrize(("text", "number"), QUANTITIES.items())
def test_quantity_is_parsed_like_in_kubernetes(text: str, number: float | None) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("sign", ["", "+", "-"])
def test_integer_of_at_most_40_characters_is_exact(sign: str) -> None:
    digits = "1" + "0" * (38 - len(sign)) + "1"
    assert parse_quantity(sign + digits) == int(sign + digits)
    assert parse_quantity(sign + digits + "0") == float(sign + digits + "0") != int(sign + digits + "0")


def test_hexadecimal_number_has_at_most_40_characters() -> None:
    assert parse_quantity("0x" + "f" * 38) == 16**38 - 1
    assert parse_quantity("0x" + "f" * 39) is None


@given(st.text(max_size=30))
def test_selector_accepts_or_rejects_any_text(value: str) -> None:
    assert Selector(any_of=("*",)).accepts((value,))
    number = parse_quantity(value)
    assert Selector(minimum=1, maximum=2).accepts((value,)) == (number is not None and 1 <= number <= 2)


@given(st.text("0xabAB", max_size=6))
def test_normalized_text_ignores_case_and_hexadecimal_prefix(value: str) -> None:
    assert normalize(value) == normalize(value.upper()) == normalize(f" {value} ")
    assert normalize(f"0x{value.removeprefix('0x')}") == value.lower().removeprefix("0x")


@pytest.mark.parametrize(
    ("written", "accepted", "rejected"),
    [
        ('"{ttyUSB,ttyACM}*"', ["ttyUSB0", "ttyacm1"], ["ttyS0", "{ttyUSB,ttyACM}0"]),
        ('"{0x10de,0x1002}"', ["10de", "0x1002"], ["10df"]),
        ('{notIn: "x{0..2}"}', ["x3"], ["x0", "x2"]),
    ],
)
def test_selector_expands_braces_like_a_glob(written: str, accepted: list[str], rejected: list[str]) -> None:
    selector = read_selector(written)
    assert [value for value in accepted if not selector.accepts((value,))] == []
    assert [value for value in rejected if selector.accepts((value,))] == []
