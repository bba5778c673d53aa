"""Elements of HTML as values, which are rendered as HTML for a browser, or as JSON for the script of the page.

The content of the page is built once, by :mod:`genplug.observe.page.content`. Both forms escape every text: HTML by
:func:`html.escape`, and the script creates text nodes only.
"""

import html
import json
from typing import NamedTuple, Union

from genplug.spec.printable import escape_line, escape_lines

_VOID = {"br", "link", "meta"}
"""Elements without an end tag (HTML, section 13.1.2)."""


class Element(NamedTuple):
    """An element. As a tuple, it is an array in JSON."""

    tag: str
    attributes: dict[str, str]
    children: tuple[Union["Element", str], ...]


Child = Element | str


def build_element(tag: str, *children: Child | None, **attributes: str | bool | None) -> Element:
    """Return an element; children and attributes with the value None are left out.

    The name of an attribute can have a trailing underscore, as in ``class_``, and underscores in place of hyphens. The
    value True is an attribute without a value. Characters that are not printable are escaped, and newlines are kept in
    ``pre`` only.
    """
    escape = escape_lines if tag == "pre" else escape_line
    return Element(
        tag,
        {
            name.rstrip("_").replace("_", "-"): "" if value is True else escape_line(value)
            for name, value in attributes.items()
            if value is not None and value is not False
        },
        tuple(escape(child) if isinstance(child, str) else child for child in children if child is not None),
    )


def render_html(child: Child) -> str:
    """Return an element or a text as HTML. It contains no white space between elements."""
    parts: list[str] = []
    _render(child, parts)
    return "".join(parts)


def render_json(child: Child) -> str:
    """Return an element as a JSON array of its tag, its attributes and its children."""
    return json.dumps(child, separators=(",", ":"))


def _render(child: Child, parts: list[str]) -> None:
    if isinstance(child, str):
        parts.append(html.escape(child))
        return
    attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in child.attributes.items())
    parts.append(f"<{child.tag}{attributes}>")
    for nested in child.children:
        _render(nested, parts)
    if child.tag not in _VOID:
        parts.append(f"</{child.tag}>")
