"""Quantities in the canonical form of Kubernetes."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.kubectl.quantity import parse_quantity
from genplug.spec.quantity import canonicalize_quantity, read_quantity

QUANTITIES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "+"]),
        st.from_regex(r"[0-9]{1,12}(\.[0-9]{0,9})?", fullmatch=True),
        st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2"]),
    ),
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Gi", "0"),
        ("17179869184", "17179869184"),
        ("5000", "5k"),
        ("1.5G", "1500M"),
        ("1.500", "1500m"),
        ("+5", "5"),
        ("1e3", "1k"),
        ("1E3", "1k"),
        ("1E", "1E"),
        ("2e-3", "2m"),
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1Ki", "1Ki"),
        ("1.5Ki", "1536"),
        ("7Ei", "7Ei"),
        (f"{63 * '0'}1", "1"),
        ("1.0001Ki", "1024102400u"),
        ("9223372036854775806", "9223372036854775806"),
    ],
)
def test_quantity_has_its_largest_suffix(text: str, canonical: str) -> None:
    assert canonicalize_quantity(text) == canonical


@pytest.mark.parametrize(
    "text",
    ["", "16 GiB", "16GiB", "-1", "1K", "1ki", "0x10", "1n1", "1e100", "1e-200", "0.1n", "8Ei", 65 * "0", "1\n", "٤"],
)
def test_other_texts_are_not_quantities(text: str) -> None:
    assert canonicalize_quantity(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-100", Fraction(1, 10**100)),
        ("1e-101", Fraction(0)),
        ("0e101", Fraction(0)),
        ("1e101", Fraction((1 << 63) - 1)),
        ("1e100", Fraction((1 << 63) - 1)),
        ("8Ei", Fraction((1 << 63) - 1)),
        ("2.5", Fraction(5, 2)),
    ],
)
def test_value_is_exact_up_to_the_limit(text: str, value: Fraction) -> None:
    assert read_quantity(text) == value


@given(QUANTITIES)
def test_canonical_form_keeps_the_value_and_is_final(text: str) -> None:
    canonical = canonicalize_quantity(text)
    value: Fraction = parse_quantity(text)
    if canonical is None:
        assert value >= (1 << 63) - 1 or (value * 10**9).denominator != 1
    else:
        assert parse_quantity(canonical) == value
        assert canonicalize_quantity(canonical) == canonical
