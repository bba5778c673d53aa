"""The rules for the names and values of published devices."""

import pytest

from genplug.spec.model import AttributeType
from genplug.spec.published_values import (
    is_dns_label,
    parse_bool,
    parse_int,
    published_name_error,
    quantity_error,
    value_error,
)


@pytest.mark.parametrize(
    "name", ["a", "_", "Model_2", 32 * "a", "k8s.cni.cncf.io/deviceID", f"{31 * 'a'}.{31 * 'b'}/x"]
)
def test_name_is_an_identifier_with_an_optional_domain(name: str) -> None:
    assert published_name_error(name) == ""


_NOT_AN_IDENTIFIER = "must consist of letters, digits and '_', and must not start with a digit"
_NOT_A_DOMAIN = "the part before '/' is not a DNS name (lower-case letters, digits, '-' and '.')"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", f"the name {_NOT_AN_IDENTIFIER}"),
        ("2a", f"the name {_NOT_AN_IDENTIFIER}"),
        ("a-b", f"the name {_NOT_AN_IDENTIFIER}"),
        ("a.b", f"the name {_NOT_AN_IDENTIFIER}"),
        (33 * "a", "the name has 33 characters, at most 32 are allowed"),
        ("a.io/", f"the part after '/' {_NOT_AN_IDENTIFIER}"),
        (f"a.io/{33 * 'a'}", "the part after '/' has 33 characters, at most 32 are allowed"),
        ("/a", _NOT_A_DOMAIN),
        ("A.io/a", _NOT_A_DOMAIN),
        ("a_b.io/a", _NOT_A_DOMAIN),
        ("a/b/c", _NOT_A_DOMAIN),
        (f"{32 * 'a'}.{31 * 'b'}/x", "the part before '/' has 64 characters, at most 63 are allowed"),
    ],
)
def test_other_names_are_errors(name: str, error: str) -> None:
    assert published_name_error(name) == error


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4", 4),
        ("-4", -4),
        ("+4", 4),
        ("0x10de", 0x10DE),
        ("007", 7),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775808", -(1 << 63)),
    ],
)
def test_integer_is_decimal_or_hexadecimal(text: str, number: int) -> None:
    assert parse_int(text) == number
    assert value_error(AttributeType.INT, text) == ""


@pytest.mark.parametrize(
    "text", ["", "four", "4.0", "4 ", "1_000", "0o7", "9223372036854775808", "0xffffffffffffffff", 30 * "1", "٤"]
)
def test_other_texts_are_not_integers(text: str) -> None:
    assert parse_int(text) is None
    assert value_error(AttributeType.INT, text) == "is not an integer of 64 bits"


def test_boolean_has_the_forms_of_yaml_and_of_the_kernel() -> None:
    assert [parse_bool(text) for text in ("true", "1", "Y", "false", "0", "N", "", "on")] == [
        *3 * [True],
        *3 * [False],
        *2 * [None],
    ]


def test_text_that_is_not_a_boolean_is_an_error() -> None:
    assert value_error(AttributeType.BOOL, "Y") == ""
    error = "is not a boolean: true or false, 1 or 0, Y or N"
    assert [value_error(AttributeType.BOOL, text) for text in ("on", "")] == [error, error]


def test_text_that_is_not_a_quantity_is_an_error() -> None:
    assert quantity_error("16Gi") == ""
    assert quantity_error("16GiB") == "is not a quantity, for example 8 or 16Gi"


@pytest.mark.parametrize("text", ["0.0.0", "550.54.15", "1.2.3-rc.1+build.5", "1.0.0-0a"])
def test_version_is_semantic(text: str) -> None:
    assert value_error(AttributeType.VERSION, text) == ""


@pytest.mark.parametrize("text", ["", "1.2", "v1.2.3", "550.054.15", "1.2.3.4", "1.2.3-01", "1.2.3\n"])
def test_other_texts_are_not_versions(text: str) -> None:
    assert value_error(AttributeType.VERSION, text) == "is not a semantic version, for example 2.1.0"


def test_length_of_a_value_is_counted_in_bytes() -> None:
    assert value_error(AttributeType.STRING, 32 * "é") == ""
    assert value_error(AttributeType.STRING, 32 * "é" + "a") == "has 65 bytes, at most 64 are allowed"
    assert value_error(AttributeType.VERSION, "1.2.3-" + 58 * "a") == ""
    assert value_error(AttributeType.VERSION, "1.2.3-" + 59 * "a") == "has 65 bytes, at most 64 are allowed"


def test_bytes_that_are_not_utf_8_are_not_a_value() -> None:
    assert value_error(AttributeType.STRING, b"\xff".decode(errors="surrogateescape")) == "is not UTF-8"


def test_dns_label_has_at_most_63_characters() -> None:
    assert is_dns_label(63 * "a")
    assert not any(map(is_dns_label, (64 * "a", "", "-a", "a-", "A", "a.b", "a_b", "a\n")))
