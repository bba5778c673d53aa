"""Selectors: what passes, through the configuration that an operator writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.config.diagnostics import ErrorCode
from genplug.spec.selectors import Selector, normalize, parse_quantity
from tests.support.configs import codes, loaded


def selector(written: str) -> Selector:
    (source,) = loaded(f"devices: [{{glob: /dev/x*, where: {{name: {written}}}}}]").sources
    (condition,) = source.where
    assert condition.attribute == "name"
    return condition.selector


HOLDS = {
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
}


@pytest.mark.parametrize(("written", "values"), HOLDS.items(), ids=HOLDS)
def test_these_pass_and_those_do_not(written: str, values: tuple[list[str | None], list[str | None]]) -> None:
    one = selector(written)
    for value in values[0]:
        assert one.accepts((value,) if value is not None else ()), value
    for value in values[1]:
        assert not one.accepts((value,) if value is not None else ()), value


SEVERAL = {
    "a*": ([("b", "a1"), ("a1", "a2")], [("b", "c"), ()]),
    "[a, b]": ([("x", "b")], [("x", "y")]),
    "{notIn: a*}": ([("b",), ("b", "c")], [("b", "a1"), ("a1", "b"), ()]),
    # One value passes it all, and not each test another one.
    "{in: [a1, b2], matches: '2$'}": ([("a1", "b2")], [("a1", "c2")]),
    "{in: [a1, b2], notIn: c*}": ([("a1", "b2"), ("a1", "x")], [("a1", "c2")]),
    "{min: 2, max: 4}": ([("1", "3", "9")], [("1", "9"), ("one", "5")]),
    "{exists: true}": ([("a", "b")], [()]),
    "{exists: false}": ([()], [("a", "b")]),
}


@pytest.mark.parametrize(("written", "values"), SEVERAL.items(), ids=SEVERAL)
def test_of_several_values_one_has_to_pass_and_none_may_be_what_is_not_wanted(
    written: str, values: tuple[list[tuple[str, ...]], list[tuple[str, ...]]]
) -> None:
    one = selector(written)
    assert [several for several in values[0] if not one.accepts(several)] == []
    assert [several for several in values[1] if one.accepts(several)] == []


@pytest.mark.parametrize(
    "written",
    ["{matches: '('}", "{matches: '(?=a)'}", r"{matches: '(a)\1'}", "{min: a}", "{max: 1Q}", "{min: 2, max: 1}"],
)
def test_what_cannot_be_read_or_cannot_hold_is_refused(written: str) -> None:
    assert codes(f"devices: [{{glob: /dev/x*, where: {{name: {written}}}}}]") == [ErrorCode.SELECTOR]


def test_no_expression_can_hold_up_a_scan() -> None:
    assert not selector("{matches: '(x+x+)+y'}").accepts(("x" * 100_000,))


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
def test_a_quantity_is_read_as_kubernetes_does(text: str, number: float | None) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("written", ["'a['", "'{a,b'", "[ok, 'a}']", "{in: '[^a]'}", "{notIn: ['{a}']}"])
def test_a_glob_in_it_is_as_strict_as_one_over_paths(written: str) -> None:
    assert codes(f"devices: [{{glob: /dev/x*, where: {{name: {written}}}}}]") == [ErrorCode.GLOB]


@given(st.text(max_size=30))
def test_no_value_of_an_attribute_upsets_a_selector(value: str) -> None:
    assert Selector(any_of=("*",)).accepts((value,))
    number = parse_quantity(value)
    assert Selector(minimum=1, maximum=2).accepts((value,)) == (number is not None and 1 <= number <= 2)


@given(st.text("0xabAB", max_size=6))
def test_texts_compare_without_case_and_with_or_without_0x(value: str) -> None:
    assert normalize(value) == normalize(value.upper()) == normalize(f" {value} ")
    assert normalize(f"0x{value.removeprefix('0x')}") == value.lower().removeprefix("0x")
