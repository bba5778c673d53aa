"""Numbers in texts."""

import pytest

from genplug.spec.numbers import parse_natural


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_digits_are_a_number(text: str, number: int) -> None:
    assert parse_natural(text) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "1_0", "\u00b2", "\u0661", "1" * 19, "1" * 10_000])
def test_other_texts_are_no_numbers(text: str) -> None:
    assert parse_natural(text) is None


def test_number_of_digits_has_a_limit() -> None:
    assert parse_natural("65535", 5) == 65535
    assert parse_natural("065535", 5) is None
