"""Reads values as Helm does: scalars as in YAML 1.1, merge keys, and keys in the order in which Helm prints them.

Helm reads a values file into JSON and prints it again with ``toYaml``: an unquoted ``0x10de`` is the number 4318,
``on`` is true, and the keys of a mapping are sorted. The rules are those of go-yaml (``resolve.go`` and ``sorter.go``),
which sigs.k8s.io/yaml uses.
"""

import math
import re
from functools import cmp_to_key

from genplug.config.scalars import Scalar
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_INTEGERS = (
    (re.compile(r"[-+]?0[bB][01]+\Z"), 2),
    (re.compile(r"[-+]?0[xX][0-9a-fA-F]+\Z"), 16),
    (re.compile(r"[-+]?0[oO]?[0-7]+\Z"), 8),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"), 10),
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_MAX_DIGITS = 300
_MAX_PRINTED_AS_INTEGER = 1e21
"""Go prints a number from this on with an exponent (encoding/json)."""


def resolve_helm_scalar(text: str) -> Scalar:
    """Return the value that Helm reads from an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    plain = text.replace("_", "")
    if not plain or plain[0] not in "+-.0123456789" or len(plain) > _MAX_DIGITS:
        return text
    for pattern, base in _INTEGERS:
        if pattern.match(plain):
            number = int(plain.lower().replace("0o", "0", 1) if base == 8 else plain, base)  # noqa: PLR2004 - octal
            if -(1 << 63) <= number < 1 << 64:
                # JSON numbers are floats in Go.
                return _to_json_number(float(number))
            # Go parses a larger number as a decimal float if it has that form; otherwise it is a text.
            break
    return _to_json_number(float(plain)) if _FLOAT.match(plain) else text


def format_helm_scalar(value: Scalar, text: str) -> str:
    """Return the text that Helm prints for the value of an unquoted scalar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return text if isinstance(value, str) else repr(value)


def sort_keys(node: Node) -> Node:
    """Return a tree with the keys of each mapping in the order in which Helm prints them."""
    if isinstance(node, ListNode):
        return ListNode(node.location, tuple(map(sort_keys, node.items)))
    if not isinstance(node, MapNode):
        return node
    names = sorted(node.entries, key=cmp_to_key(_compare_keys))
    entries = {name: MapEntry(node.entries[name].key, sort_keys(node.entries[name].value)) for name in names}
    return MapNode(node.location, entries)


def _to_json_number(number: float) -> Scalar:
    if not math.isfinite(number):
        return str(number)
    return int(number) if number.is_integer() and abs(number) < _MAX_PRINTED_AS_INTEGER else number


def _compare_keys(left: str, right: str) -> int:
    """Compare keys as ``keyList.Less`` of go-yaml does: numbers by value, and letters after other characters."""
    if left == right:
        return 0
    is_after_digit = False
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a == b:
            is_after_digit = a.isdecimal()
            continue
        if a.isalpha() and b.isalpha():
            return _compare(a, b)
        if a.isalpha() or b.isalpha():
            # Less is `al` after a digit, otherwise `bl`.
            return -1 if (a.isalpha() if is_after_digit else b.isalpha()) else 1
        return _compare_numbers(left, right, index)
    return _compare(len(left), len(right))


def _compare_numbers(left: str, right: str, index: int) -> int:
    is_inside_number = False
    if "0" in (left[index], right[index]):
        before = re.search(r"[0-9]*\Z", left[:index])
        is_inside_number = before is not None and before[0].strip("0") != ""
    digits = [re.match(r"[0-9]*", key[index:]) for key in (left, right)]
    texts = [match[0] if match else "" for match in digits]
    # Without int(), which raises a ValueError for thousands of digits: the longer number is the larger number.
    significant = [("1" if is_inside_number else "") + text for text in texts]
    numbers = [(len(stripped), stripped) for stripped in (text.lstrip("0") for text in significant)]
    if numbers[0] != numbers[1]:
        return _compare(*numbers)
    if len(texts[0]) != len(texts[1]):
        return _compare(len(texts[0]), len(texts[1]))
    return _compare(left[index], right[index])


def _compare(a: object, b: object) -> int:
    return -1 if a < b else 1 if a > b else 0  # type: ignore[operator] # two texts or two numbers
