"""Scalars and the order of keys in values files; the expected values are those that Helm 3 and 4 print."""

import pytest

from genplug.config.helm_yaml import resolve_helm_scalar, sort_keys
from genplug.config.yaml_tree import MapEntry, MapNode, ScalarNode
from genplug.spec.location import SourceLocation


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x10de", 4318),
        ("0xffffffffffffffff", 18446744073709551615.0),
        ("0xffffffffffffffffff", "0xffffffffffffffffff"),
        # float() of this number raises an OverflowError.
        ("0x" + "f" * 290, "0x" + "f" * 290),
        ("-0x8000000000000000", -(1 << 63)),
        ("-0x8000000000000001", "-0x8000000000000001"),
        ("0b" + "1" * 65, "0b" + "1" * 65),
        ("0o" + "7" * 40, "0o" + "7" * 40),
        ("0777", 511),
        ("0" + "7" * 40, 7.777777777777778e39),
        ("9" * 200, 1e200),
    ],
)
def test_number_beyond_64_bits_is_a_decimal_float_or_a_text(text: str, value: object) -> None:
    assert resolve_helm_scalar(text) == value


@pytest.mark.parametrize(
    "names",
    [
        ["a9", "a10"],
        ["a1", "a01", "a2"],
        ["a1", "a1b"],
        ["8" * 5000, "9" * 5000],
        ["9" * 5000, "1" * 5001],
        ["x0", "x0a"],
    ],
)
def test_keys_are_sorted_by_the_numbers_in_them(names: list[str]) -> None:
    location = SourceLocation("values.yaml", 1, 1)
    entries = {name: MapEntry(location, ScalarNode(location, name, name, None)) for name in reversed(names)}
    sorted_node = sort_keys(MapNode(location, entries))
    assert isinstance(sorted_node, MapNode)
    assert list(sorted_node.entries) == names
