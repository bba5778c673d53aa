r"""Templates: ``${name|filter:argument}`` in the strings of a configuration.

A name refers to a tuple of values: one for a plain candidate, several for a device of several nodes or a container with
several devices. The filters in :data:`EACH` apply to each value, those in :data:`ALL` to the tuple; the result is
joined by ``,``. The decoder checks the names, so an unknown name is a load error.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import product

from attrs import frozen

from genplug.spec.globs import has_magic
from genplug.spec.location import TextSyntaxError

Values = Mapping[str, tuple[str, ...]]
"""Attribute values by attribute name, in natural order, without repeats. A missing name does not exist."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
_GIB = 1 << 30


class TemplateError(TextSyntaxError):
    """An invalid template."""


class MissingAttributeError(LookupError):
    """An attribute (``name``) without a value, for which the template has no default."""

    def __init__(self, name: str) -> None:
        super().__init__(f"${{{name}}} has no value here")
        self.name = name


def _gib(value: str) -> str:
    try:
        return str(int(value, 0) // _GIB)
    except ValueError:
        return value


EACH: Mapping[str, tuple[int, Callable[..., str]]] = {
    "lower": (0, str.lower),
    "upper": (0, str.upper),
    "basename": (0, lambda value: value.rstrip("/").rpartition("/")[2]),
    "dirname": (0, lambda value: value.rstrip("/").rpartition("/")[0]),
    "replace": (2, str.replace),
    "gib": (0, _gib),
}
"""Filters that apply to each value: number of arguments and function."""

ALL: Mapping[str, tuple[int, Callable[..., str]]] = {
    "join": (1, lambda values, separator: separator.join(values)),
    "first": (0, lambda values: values[0] if values else ""),
    "count": (0, lambda values: str(len(values))),
    "json": (0, lambda values: json.dumps(list(values))),
}
"""Filters that apply to all values of an attribute together: number of arguments and function."""

FILTERS = frozenset({*EACH, *ALL, "default"})


@frozen
class Filter:
    """A filter and its arguments."""

    name: str
    arguments: tuple[str, ...] = ()


@frozen
class Reference:
    """A reference ``${name|filter|...}``; ``offset`` is the position of its name (in characters, from 0)."""

    name: str
    filters: tuple[Filter, ...] = ()
    offset: int = 0

    @property
    def has_default(self) -> bool:
        """Whether it has a default for a missing value."""
        return any(filter_.name == "default" for filter_ in self.filters)

    def render(self, values: Values) -> str:
        """Return the text that replaces the reference.

        Raises:
            MissingAttributeError: the attribute has no value and the reference has no default.
        """
        found = values.get(self.name)
        for filter_ in self.filters:
            if filter_.name == "default":
                found = found or filter_.arguments
            elif found is None:
                continue
            elif filter_.name in ALL:
                found = (ALL[filter_.name][1](found, *filter_.arguments),)
            else:
                found = tuple(EACH[filter_.name][1](value, *filter_.arguments) for value in found)
        if found is None:
            raise MissingAttributeError(self.name)
        return ",".join(found)


@frozen(slots=False)
class Template:
    """A parsed template: ``text`` as written, and its parts: literal strings and references."""

    text: str
    parts: tuple[str | Reference, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Parse a template.

        Raises:
            TemplateError: a reference is not closed, has no name, or uses a filter wrongly.
        """
        parts: list[str | Reference] = []
        literal, position = "", 0
        while (start := text.find("${", position)) >= 0:
            if text[start - 1 : start] == "$" and start > position:
                literal += text[position : start - 1] + "${"
                position = start + 2
                continue
            end = text.find("}", start)
            if end < 0:
                raise TemplateError("'${' without a '}'", start, "write '$${' for a literal '${'")
            literal += text[position:start]
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_parse_reference(text[start + 2 : end], start + 2))
            position = end + 1
        literal += text[position:]
        if literal:
            parts.append(literal)
        return cls(text, tuple(parts))

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """All references, in order."""
        return tuple(part for part in self.parts if isinstance(part, Reference))

    @cached_property
    def has_glob(self) -> bool:
        """Whether its literal parts contain a glob."""
        return any(isinstance(part, str) and has_magic(part) for part in self.parts)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all attributes that it refers to."""
        return frozenset(reference.name for reference in self.references)

    def render(self, values: Values, escape: Callable[[str], str] = str) -> str:
        """Return the text with every reference replaced by its value, escaped by ``escape``.

        Raises:
            MissingAttributeError: an attribute has no value and no default.
        """
        return "".join(part if isinstance(part, str) else escape(part.render(values)) for part in self.parts)

    def render_each(self, values: Values, escape: Callable[[str], str] = str) -> tuple[str, ...]:
        """Return one text for each combination of the values of the attributes that it refers to.

        Raises:
            MissingAttributeError: an attribute has no value and no default.
        """
        names = sorted(name for name in self.names if name in values)
        combinations = product(*(values[name] for name in names))
        used = {reference.name: values[reference.name] for reference in self.references if reference.name in values}
        texts = (
            self.render({**used, **{n: (v,) for n, v in zip(names, values_, strict=True)}}, escape)
            for values_ in combinations
        )
        return tuple(dict.fromkeys(texts))


def _parse_reference(body: str, offset: int) -> Reference:
    name, *filters = body.split("|")
    if not _NAME.match(name):
        raise TemplateError(f"{name!r} is not an attribute name", offset, "write ${name} or ${name|filter}")
    position = offset + len(name) + 1
    read = []
    for text in filters:
        read.append(_parse_filter(text, position))
        position += len(text) + 1
    return Reference(name, tuple(read), offset)


def _parse_filter(text: str, offset: int) -> Filter:
    name, separator, rest = text.partition(":")
    if name not in FILTERS:
        raise TemplateError(f"unknown filter {name!r}", offset, f"valid filters: {', '.join(sorted(FILTERS))}")
    if name in ("default", "join"):
        if not separator:
            raise TemplateError(f"filter {name!r} requires a text after ':'", offset, f"write {name}:TEXT")
        return Filter(name, (rest,))
    arguments = tuple(rest.split(":")) if separator else ()
    expected_count = (EACH.get(name) or ALL[name])[0]
    if len(arguments) != expected_count:
        hint = f"write {name}:OLD:NEW" if expected_count else f"write {name} alone"
        message = f"filter {name!r}: expected {expected_count or 'no'} arguments, found {len(arguments)}"
        raise TemplateError(message, offset, hint)
    if expected_count and not arguments[0]:
        raise TemplateError(f"filter {name!r} has an empty text to replace", offset, f"write {name}:OLD:NEW")
    return Filter(name, arguments)
