"""Comparisons of a file's value with the expected value, and the errors that they report."""

import pytest

from genplug.health.value_check import Comparison, NotANumberError, ValueCheck


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ok", ValueCheck(equals="ok", not_equals="bad", matches="^o", not_matches="x")),
        ("1.0", ValueCheck(equals="1")),
        ("1Ki", ValueCheck(equals="1024")),
        ("0X1F", ValueCheck(equals="0x1f")),
        ("+5", ValueCheck(equals="5")),
        ("5", ValueCheck(minimum=(5, "5"), maximum=(5, "5"))),
        ("-3", ValueCheck(minimum=(-4, "-4"))),
        ("65536", ValueCheck(minimum=(65536, "64Ki"))),
        ("0", ValueCheck(bits_clear=0xFFFFFFFF)),
        ("0xb", ValueCheck(bits_clear=0x4)),
        ("anything at all", ValueCheck()),
    ],
)
def test_expected_value_has_no_error(value: str, expected: ValueCheck) -> None:
    assert expected.error(value) == ""


@pytest.mark.parametrize(
    ("value", "expected", "error"),
    [
        ("OK", ValueCheck(equals="ok"), "is 'OK', expected 'ok'"),
        ("", ValueCheck(equals="1"), "is '', expected '1'"),
        ("0x10", ValueCheck(not_equals="16"), "is '0x10', expected any other value"),
        ("63.9", ValueCheck(minimum=(64, "64")), "is '63.9', expected at least 64"),
        ("1025", ValueCheck(maximum=(1024, "1Ki")), "is '1025', expected at most 1Ki"),
        # Only those bits of the mask that are set are named.
        ("0x15", ValueCheck(bits_clear=0x7), "is '0x15', expected the bits 0x5 to be 0"),
        ("12", ValueCheck(bits_clear=0x8), "is '12', expected the bits 0x8 to be 0"),
        ("a\n  b", ValueCheck(equals="c"), "is 'a b', expected 'c'"),
        ("x" * 80, ValueCheck(equals="c"), f"is '{'x' * 80}', expected 'c'"),
        ("x" * 81, ValueCheck(equals="c"), f"is '{'x' * 77}...', expected 'c'"),
        ("2", ValueCheck(equals="1", equals_source="/sys/a"), "is '2', expected '1', the value of /sys/a"),
    ],
)
def test_error_names_value_found_and_value_expected(value: str, expected: ValueCheck, error: str) -> None:
    assert expected.error(value) == error


@pytest.mark.parametrize(
    ("comparison", "met", "not_met", "expected"),
    [
        ("equals", "0x10", "17", "'16', the value of /sys/limit"),
        ("min", "16", "15", "at least '16', the value of /sys/limit"),
        ("max", "16", "17", "at most '16', the value of /sys/limit"),
    ],
)
def test_value_is_compared_with_the_value_of_a_file(
    comparison: Comparison, met: str, not_met: str, expected: str
) -> None:
    check = ValueCheck(bits_clear=0x100).with_limit(comparison, "16", "/sys/limit")
    assert check.error(met) == ""
    assert check.error(not_met) == f"is '{not_met}', expected {expected}"
    assert check.bits_clear == 0x100, "the other conditions are kept"


def test_limit_of_a_file_must_be_a_number() -> None:
    for comparison in ("min", "max"):
        with pytest.raises(NotANumberError, match=r"^is 'N/A', expected a number$"):
            ValueCheck().with_limit(comparison, "N/A", "/sys/limit")
    assert ValueCheck().with_limit("equals", "N/A", "/sys/limit").error("N/A") == ""


@pytest.mark.parametrize("value", ["", "N/A", "0x", "5 C", "nan", "1e999", "3,5", "0b1"])
@pytest.mark.parametrize(
    "expected",
    [ValueCheck(minimum=(0, "0")), ValueCheck(maximum=(0, "0")), ValueCheck(bits_clear=1)],
    ids=["min", "max", "bits"],
)
def test_text_cannot_be_compared_as_a_number(value: str, expected: ValueCheck) -> None:
    with pytest.raises(NotANumberError, match="expected a number"):
        expected.error(value)


def test_text_differs_from_a_number() -> None:
    assert ValueCheck(equals="0").error("N/A") == "is 'N/A', expected '0'"
    assert ValueCheck(not_equals="0").error("N/A") == ""


def test_mask_covers_all_64_bits_of_a_register() -> None:
    assert (
        ValueCheck(bits_clear=1).error("0x8000000000000001") == "is '0x8000000000000001', expected the bits 0x1 to be 0"
    )
    assert ValueCheck(bits_clear=1).error(str(2**63 + 1)) == f"is '{2**63 + 1}', expected the bits 0x1 to be 0"


def test_long_numbers_are_compared_exactly() -> None:
    assert ValueCheck(equals="0x20000000000000").error("0x20000000000001") != ""
    assert ValueCheck(equals=str(2**53)).error(str(2**53 + 1)) != ""
