"""Records as Markdown, with every value of the document."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genplug.record.facts import JSON
from genplug.spec.printable import escape_markdown

_TITLES = {"NodeRecord": "Record of a node", "ReleaseRecord": "Record of a release"}
_KEYS = {"configMap": "ConfigMap", "daemonSet": "DaemonSet", "appArmor": "AppArmor", "seLinux": "SELinux"}
"""Keys that are names."""
_ACRONYMS = {
    **{word.lower(): word for word in ("API", "UID", "GID", "ID", "PCI", "USB", "RBAC", "PID", "IPC")},
    "sha256": "SHA-256",
}
"""Words of keys that are written in another way."""
"""Characters with a meaning in Markdown."""
_MAX_HEADING_LEVEL = 6
_MAX_COLUMNS = 9
"""Columns of a table; objects with more keys are lists."""
_MAX_INLINE_CHARACTERS = 80
"""Characters of a list that is written on the line of its key."""


def format_markdown(document: JSON) -> str:
    """Return a record as Markdown: a heading for each section, a table for each list of objects.

    Values of one line precede the other values of a section. A fact is followed by its source in parentheses, and an
    unknown fact is the text "not known" with the reason.
    """
    kind = _TITLES[document["kind"]]
    lines = [f"# {kind}", ""]
    for key, value in document.items():
        if key in {"apiVersion", "kind"}:
            lines += [f"- {_title(key)}: {_escape(value)}"]
        else:
            lines += ["", f"## {_title(key)}", "", *_format_section(value, 3)]
    return "\n".join(_join_blank_lines(lines)) + "\n"


def _format_section(value: Any, level: int) -> Iterator[str]:  # noqa: ANN401 - a part of a document
    """Yield the lines of a value under a heading."""
    if _is_fact(value):
        yield from _format_fact(value, level)
    elif isinstance(value, Mapping):
        short = {key: item for key, item in value.items() if _is_short(item)}
        if short:
            yield from (f"- {_title(key)}: {_format_inline(item)}" for key, item in short.items())
            yield ""
        for key, item in value.items():
            if key not in short:
                yield from (f"{'#' * min(level, _MAX_HEADING_LEVEL)} {_title(key)}", "")
                yield from _format_section(item, level + 1)
                yield ""
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        is_wide = max(len(item) for item in value) > _MAX_COLUMNS
        yield from _format_objects(value, level) if is_wide else _format_table(value)
    elif isinstance(value, list) and value:
        yield from (f"- {_format_inline(item)}" for item in value)
    else:
        yield _format_inline(value)


def _format_fact(fact: JSON, level: int) -> Iterator[str]:
    if not fact["known"] or _is_short(fact):
        yield _format_inline(fact)
        return
    yield f"Source: {_escape(fact['source'])}"
    yield ""
    yield from _format_section(fact["value"], level)


def _format_objects(items: Sequence[JSON], level: int) -> Iterator[str]:
    """Yield a heading and a list for each object that has too many keys for a table."""
    for item in items:
        names = [text for text in list(item.values())[:2] if isinstance(text, str)]
        yield from (f"{'#' * min(level, _MAX_HEADING_LEVEL)} {', '.join(map(_escape, names))}", "")
        yield from (f"- {_title(key)}: {_format_inline(value)}" for key, value in item.items())
        yield ""


def _format_table(rows: Sequence[JSON]) -> Iterator[str]:
    """Yield a table; the heading of a column has the source of its facts if they have the same."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    sources = {key: _common_source([row[key] for row in rows if key in row]) for key in keys}
    headings = [_title(key) + (f" (source: {_escape(sources[key])})" if sources[key] else "") for key in keys]
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(keys)
    for row in rows:
        cells = [_format_cell(row[key], has_source=not sources[key]) if key in row else "" for key in keys]
        yield "| " + " | ".join(cells) + " |"


def _common_source(values: Sequence[Any]) -> str:
    """Return the source of all known facts among values, or an empty text if they have several or none."""
    sources = {value["source"] for value in values if _is_fact(value) and value["known"]}
    return str(sources.pop()) if len(sources) == 1 else ""


def _format_cell(value: Any, *, has_source: bool) -> str:  # noqa: ANN401 - as above
    is_known = _is_fact(value) and value["known"]
    return _format_inline(value["value"] if is_known and not has_source else value)


def _format_inline(value: Any) -> str:  # noqa: ANN401 - as above
    """Return a value on one line."""
    if _is_fact(value):
        if not value["known"]:
            return f"not known: {_escape(value['reason'])}"
        return f"{_format_inline(value['value'])} (source: {_escape(value['source'])})"
    if isinstance(value, Mapping):
        return "; ".join(f"{_title(key)}: {_format_inline(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        separator = "<br>" if any(isinstance(item, Mapping) for item in value) else ", "
        return separator.join(map(_format_inline, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _escape(value) or "empty"


def _is_fact(value: object) -> bool:
    """Return whether a value is a fact; an object in the record of another version can have the key ``known`` too."""
    if not isinstance(value, Mapping):
        return False
    if value.get("known") is True:
        return "value" in value and isinstance(value.get("source"), str)
    return value.get("known") is False and isinstance(value.get("reason"), str)


def _is_short(value: Any) -> bool:  # noqa: ANN401 - as above
    """Return whether a value is written on the line of its key."""
    if _is_fact(value):
        return not value["known"] or _is_short(value["value"])
    if isinstance(value, Mapping):
        return False
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value) and sum(map(len, value)) <= _MAX_INLINE_CHARACTERS
    return True


def _title(key: str) -> str:
    """Return a key in camel case as words: ``hostMounts`` as ``Host mounts``. Other keys are kept."""
    if key in _KEYS:
        return _KEYS[key]
    if not re.fullmatch(r"[a-z]+(?:[A-Z0-9][a-z0-9]*)*", key):
        return _escape(key)
    words = [_ACRONYMS.get(word.lower(), word.lower()) for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]", key)]
    text = " ".join(words)
    return text[0].upper() + text[1:]


def _escape(value: object) -> str:
    return escape_markdown(str(value))


def _join_blank_lines(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines, with several empty lines as one and none at the end."""
    previous = ""
    pending = False
    for line in lines:
        if not line:
            pending = bool(previous)
            continue
        if pending:
            yield ""
        pending, previous = False, line
        yield line
