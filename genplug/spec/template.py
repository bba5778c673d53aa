r"""Templates: ``${name|filter:argument}`` in the strings of a configuration (config-language: Templates).

A name stands for a tuple of values: one for a plain candidate, several for a device made of several nodes or for a
container with several devices. Filters work on each value, the last four on all of them; what is left is joined by
``,``. The set of names is not known here: the decoder checks it, so that a name nobody provides is an error at load.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import product

from attrs import frozen

Values = Mapping[str, tuple[str, ...]]
"""Attribute name to its values, in natural order, without repeats. A name that is missing does not exist."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
_GIB = 1 << 30


class TemplateError(ValueError):
    """A template that cannot be read; ``offset`` is where (characters, from 0), ``hint`` what to write instead."""

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.hint = hint


class MissingAttributeError(LookupError):
    """A name without a value where the template gives no default; ``name`` is which."""

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
"""Filters on one value: number of arguments and function."""

ALL: Mapping[str, tuple[int, Callable[..., str]]] = {
    "join": (1, lambda values, separator: separator.join(values)),
    "first": (0, lambda values: values[0] if values else ""),
    "count": (0, lambda values: str(len(values))),
    "json": (0, lambda values: json.dumps(list(values))),
}
"""Filters on all values of a name at once."""

FILTERS = frozenset({*EACH, *ALL, "default"})


@frozen
class Filter:
    """One filter and its arguments."""

    name: str
    arguments: tuple[str, ...] = ()


@frozen
class Reference:
    """``${name|filter|...}``; ``offset`` is where its name stands in the template (characters, from 0)."""

    name: str
    filters: tuple[Filter, ...] = ()
    offset: int = 0

    @property
    def has_default(self) -> bool:
        """Whether a missing value is filled in."""
        return any(one.name == "default" for one in self.filters)

    def render(self, values: Values) -> str:
        """Return what stands in the reference's location.

        Raises:
            MissingAttributeError: the name has no value and the reference no default.
        """
        found = values.get(self.name)
        for one in self.filters:
            if one.name == "default":
                found = found or one.arguments
            elif found is None:
                continue
            elif one.name in ALL:
                found = (ALL[one.name][1](found, *one.arguments),)
            else:
                found = tuple(EACH[one.name][1](value, *one.arguments) for value in found)
        if found is None:
            raise MissingAttributeError(self.name)
        return ",".join(found)


@frozen(slots=False)
class Template:
    """A parsed template: ``text`` as written and its parts, literal texts and references."""

    text: str
    parts: tuple[str | Reference, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template.

        Raises:
            TemplateError: it is not closed, names nothing, or misuses a filter.
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
            parts.append(_reference(text[start + 2 : end], start + 2))
            position = end + 1
        literal += text[position:]
        if literal:
            parts.append(literal)
        return cls(text, tuple(parts))

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Every reference, in order."""
        return tuple(part for part in self.parts if isinstance(part, Reference))

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that it speaks of."""
        return frozenset(reference.name for reference in self.references)

    def render(self, values: Values, quoted: Callable[[str], str] = str) -> str:
        """Return the text with every reference replaced by what ``quoted`` makes of what it stands for.

        Raises:
            MissingAttributeError: a name has no value and no default.
        """
        return "".join(part if isinstance(part, str) else quoted(part.render(values)) for part in self.parts)

    def render_each(self, values: Values, quoted: Callable[[str], str] = str) -> tuple[str, ...]:
        """Return one text for each value of the names used (each combination, where several names have several).

        Raises:
            MissingAttributeError: a name has no value and no default.
        """
        names = sorted(name for name in self.names if name in values)
        choices = product(*(values[name] for name in names))
        used = {reference.name: values[reference.name] for reference in self.references if reference.name in values}
        texts = (self.render({**used, **{n: (v,) for n, v in zip(names, one, strict=True)}}, quoted) for one in choices)
        return tuple(dict.fromkeys(texts))


def _reference(body: str, offset: int) -> Reference:
    name, *filters = body.split("|")
    if not _NAME.match(name):
        raise TemplateError(f"{name!r} is no attribute name", offset, "write ${name} or ${name|filter}")
    position = offset + len(name) + 1
    read = []
    for one in filters:
        read.append(_filter(one, position))
        position += len(one) + 1
    return Reference(name, tuple(read), offset)


def _filter(text: str, offset: int) -> Filter:
    name, separator, rest = text.partition(":")
    if name not in FILTERS:
        raise TemplateError(f"unknown filter {name!r}", offset, f"there are {', '.join(sorted(FILTERS))}")
    if name in ("default", "join"):
        if not separator:
            raise TemplateError(f"filter {name!r} needs a text after ':'", offset, f"write {name}:TEXT")
        return Filter(name, (rest,))
    arguments = tuple(rest.split(":")) if separator else ()
    wanted = (EACH.get(name) or ALL[name])[0]
    if len(arguments) != wanted:
        hint = f"write {name}:OLD:NEW" if wanted else f"write {name} alone"
        message = f"filter {name!r} takes {wanted or 'no'} arguments, not {len(arguments)}"
        raise TemplateError(message, offset, hint)
    if wanted and not arguments[0]:
        raise TemplateError(f"filter {name!r} has nothing to replace", offset, f"write {name}:OLD:NEW")
    return Filter(name, arguments)
