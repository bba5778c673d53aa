"""Writes a conversion as YAML, with a comment at the place of each remark."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import yaml

from genplug.config.scalars import resolve_scalar
from genplug.convert.conversion import Conversion, Kind, Path, Remark
from genplug.spec.printable import escape_line

_LINE_WIDTH = 110
"""The columns of a comment."""
_FLOW_WIDTH = 76
"""The columns of a mapping or list on one line."""
_MIN_FLOW_DEPTH = 2
"""Resources are not on one line: their path is ``resources`` and their name."""
_WIDE = 1 << 30
_LABELS = {Kind.UNSUPPORTED: "Not converted", Kind.UNKNOWN: "Unknown key", Kind.NOTE: "Note"}
HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
POLICY_HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"}

_Comments: TypeAlias = Mapping[Path, Sequence[str]]


def format_conversion(conversion: Conversion) -> str:
    """Return a configuration as YAML, with comments."""
    lines = [*_comment(f"Converted by 'genplug convert' from {conversion.title}: {conversion.file}.", 0)]
    if count := conversion.attention_count:
        noun = "thing needs" if count == 1 else "things need"
        lines += _comment(f"{count} {noun} attention: see the comments with 'Not converted' or 'Unknown key'.", 0)
    lines += _format_general(conversion)
    comments: dict[Path, list[str]] = {}
    for remark in conversion.remarks:
        if remark.resource in conversion.resources:
            comments.setdefault(("resources", remark.resource, *remark.at), []).append(describe_remark(remark))
    document = {**HEADER, "resources": dict(conversion.resources)}
    return "\n".join([*lines, *_write_map(document, comments, (), 0)]) + "\n"


def format_document(document: Mapping[str, Any]) -> str:
    """Return a document as YAML without comments."""
    return "\n".join(_write_map(document, {}, (), 0)) + "\n"


def describe_remark(remark: Remark) -> str:
    """Return a remark as one line: what, where, why, and what to do."""
    key = f"{remark.key}, " if remark.key else ""
    # A command, a path and the name of genplug keep their case.
    is_sentence = re.match(r"[a-z]+\b(?![/.])", remark.action) and not remark.action.startswith("genplug")
    action = remark.action[:1].upper() + remark.action[1:] if is_sentence else remark.action
    ends = tuple(part if part.endswith(("?", ".")) else f"{part}." for part in (remark.message, action) if part)
    return escape_line(f"{_LABELS[remark.kind]} ({key}line {remark.location.line}): {' '.join(ends)}")


def _format_general(conversion: Conversion) -> Iterator[str]:
    """Yield the comments about the file, and the policy."""
    for remark in conversion.remarks:
        if remark.resource not in conversion.resources:
            yield from _comment(describe_remark(remark), 0)
    if conversion.policy is not None:
        yield from _comment(
            "The default policy does not allow this configuration. It needs this policy, which '--policy-output FILE' "
            "writes:",
            0,
        )
        yield from (f"#   {line}" for line in format_document(conversion.policy).splitlines())


def _comment(text: str, indent: int) -> Iterator[str]:
    margin = " " * indent
    width = max(_LINE_WIDTH - indent - 2, 40)
    for line in textwrap.wrap(escape_line(text), width, break_long_words=False, break_on_hyphens=False):
        yield f"{margin}# {line}"


def _write_map(value: Mapping[str, Any], comments: _Comments, path: Path, indent: int) -> Iterator[str]:
    margin = " " * indent
    for key, item in value.items():
        for text in comments.get((*path, key), ()):
            yield from _comment(text, indent)
        yield from _write_entry(f"{margin}{_scalar(key)}:", item, comments, (*path, key), indent)


def _write_entry(head: str, item: Any, comments: _Comments, path: Path, indent: int) -> Iterator[str]:  # noqa: ANN401 - a value of YAML
    if not isinstance(item, Mapping | list):
        yield f"{head} {_scalar(item)}"
    elif (flow := _flow(item, comments, path)) is not None:
        yield f"{head} {flow}"
    elif isinstance(item, list):
        yield head
        yield from _write_list(item, comments, path, indent)
    else:
        yield head
        yield from _write_map(item, comments, path, indent + 2)


def _write_list(items: Sequence[Any], comments: _Comments, path: Path, indent: int) -> Iterator[str]:
    margin = " " * indent
    for number, item in enumerate(items):
        inner = (*path, number)
        for text in comments.get(inner, ()):
            yield from _comment(text, indent)
        if not isinstance(item, Mapping | list):
            yield f"{margin}- {_scalar(item)}"
        elif (flow := _flow(item, comments, inner)) is not None and "glob" not in item:
            yield f"{margin}- {flow}"
        elif isinstance(item, Mapping):
            lines = list(_write_map(item, comments, inner, indent + 2))
            yield f"{margin}- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield f"{margin}-"
            yield from _write_list(item, comments, inner, indent + 2)


def _flow(value: Any, comments: _Comments, path: Path) -> str | None:  # noqa: ANN401 - a value of YAML
    """Return a mapping or list on one line, or None if it is too long, too deep or has comments."""
    parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
    if value and (any(isinstance(part, Mapping) for part in parts) or len(path) <= _MIN_FLOW_DEPTH):
        return None
    if any(other[: len(path)] == path and len(other) > len(path) for other in comments):
        return None
    text = _flow_text(value)
    return text if len(text) <= _FLOW_WIDTH else None


def _flow_text(value: Any) -> str:  # noqa: ANN401 - a value of YAML
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow_text, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:  # noqa: ANN401 - a scalar of YAML
    """Return a scalar that genplug and other YAML parsers read as this value, in a mapping or list on one line too."""
    text = str(yaml.safe_dump([value], default_flow_style=True, width=_WIDE, allow_unicode=False)).strip()[1:-1]
    if isinstance(value, str) and text == value and not isinstance(resolve_scalar(text), str):
        return f'"{text}"'
    if isinstance(value, str) and text == f"'{value}'":
        # Double quotes, as in the documentation, where nothing must be escaped.
        return text if '"' in value or "\\" in value else f'"{value}"'
    return text
