r"""Templates: ``${name|filter:argument}`` in the strings of a configuration.

A name refers to the values of an attribute. A candidate usually has one value. A device of several candidates, and a
container with several devices, has the values of its members in the order of the members (:class:`MergedValues`), so
the i-th values of two attributes belong to the same member if each member has one value of each.

The filters in :data:`EACH` apply to each value, those in :data:`ALL` to all values together, and those in
:data:`FALLBACKS` to each member without a value; the result is joined by ``,``. The decoder checks the names, so an
unknown name is a load error.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod

from msgspec import Struct

from genplug.spec.globs import has_magic
from genplug.spec.limits import (
    MAX_FILTERS,
    MAX_PAD_WIDTH,
    MAX_REFERENCES,
    MAX_RENDERED_CHARACTERS,
    MAX_VALUE_CHARACTERS,
    MAX_VALUE_COMBINATIONS,
)
from genplug.spec.location import TextSyntaxError
from genplug.spec.names import is_node_attribute
from genplug.spec.natural_sort import natural_sort_key

Values = Mapping[str, tuple[str, ...]]
"""Attribute values by attribute name. A missing name does not exist."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
_WIDTH = re.compile(r"[0-9]{1,4}\Z")
_GIB = 1 << 30


class TemplateError(TextSyntaxError):
    """An invalid template."""


class RenderError(LookupError):
    """A template cannot be rendered with the values that it gets."""

    def describe(self, owner: str) -> str:
        """Return the reason as a clause whose subject is the template; ``owner`` is what the values belong to."""
        raise NotImplementedError


class MissingAttributeError(RenderError):
    """An attribute (``name``) without a value, for which the template has no default."""

    def __init__(self, name: str) -> None:
        super().__init__(f"${{{name}}} has no value here")
        self.name = name

    def describe(self, owner: str) -> str:
        """See :meth:`RenderError.describe`."""
        return f"refers to '{self.name}', which {owner} does not have"


class RenderLimitError(RenderError):
    """A template would render to more text, or to more texts, than a limit allows; raised before that is made."""

    def describe(self, owner: str) -> str:  # noqa: ARG002 - the limit applies to every owner
        """See :meth:`RenderError.describe`."""
        return str(self)


class MergedValues(Mapping[str, tuple[str, ...]]):
    """The attribute values of several members (candidates of a device, devices of a container), member by member.

    Repeated values are kept. A member without an attribute contributes nothing to it. An attribute that is the same for
    every device (:func:`~genplug.spec.names.is_node_attribute`) has its value once.
    """

    __slots__ = ("members",)

    def __init__(self, members: tuple[Values, ...]) -> None:
        self.members = members

    def __repr__(self) -> str:
        return f"MergedValues({self.members!r})"

    def __eq__(self, other: object) -> bool:
        return self.members == other.members if isinstance(other, MergedValues) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.members)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        if not any(name in member for member in self.members):
            raise KeyError(name)
        if is_node_attribute(name):
            return next(member[name] for member in self.members if name in member)
        return tuple(text for member in self.members for text in member.get(name, ()))

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys(name for member in self.members for name in member)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class SingleValues(Mapping[str, tuple[str, ...]]):
    """The attribute values of one member, with one value for each attribute."""

    __slots__ = ()


class LayeredValues(Mapping[str, tuple[str, ...]]):
    """The attribute values of ``upper``, and those of ``lower`` for the names that ``upper`` does not have.

    No value is copied: most values of a device are never read.
    """

    __slots__ = ("lower", "upper")

    def __init__(self, lower: Values, upper: Values) -> None:
        self.lower = lower
        self.upper = upper

    def __repr__(self) -> str:
        return f"LayeredValues({self.lower!r}, {self.upper!r})"

    def __eq__(self, other: object) -> bool:
        if type(other) is LayeredValues and (self.lower, self.upper) == (other.lower, other.upper):
            return True
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, name: str) -> tuple[str, ...]:
        values = self.upper.get(name)
        return self.lower[name] if values is None else values

    def __iter__(self) -> Iterator[str]:
        yield from self.lower
        yield from (name for name in self.upper if name not in self.lower)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def merge_values(parts: Iterable[Values]) -> Values:
    """Return the merged values of several candidates or devices, in their order."""
    members = tuple(member for part in parts for member in list_members(part))
    return members[0] if len(members) == 1 else MergedValues(members)


def list_members(values: Values) -> tuple[Values, ...]:
    """Return the values of each member; of plain values, the values themselves."""
    # isinstance takes several times as long for an abstract class, and this is called for each device of a scan.
    return values.members if type(values) is MergedValues else (values,)


def _is_distinct(values: Values) -> bool:
    if isinstance(values, SingleValues):
        return True
    if type(values) is LayeredValues:
        return _is_distinct(values.lower) and _is_distinct(values.upper)
    return type(values) is not MergedValues and max(map(len, values.values()), default=0) <= 1


def distinct_values(values: Values) -> Values:
    """Return values in natural order and without repeats, for texts that identify a device.

    Such a text must not depend on how many members have a value, or on the order of files.
    """
    if _is_distinct(values):
        return values
    return {name: tuple(sorted(set(texts), key=natural_sort_key)) for name, texts in values.items()}


def _gib(value: str) -> str:
    # The time to convert a number grows with the square of its length.
    if len(value) > MAX_PAD_WIDTH:
        return value
    try:
        return str(int(value, 0) // _GIB)
    except ValueError:
        return value


def _pad(value: str, width: str) -> str:
    return value.zfill(int(width)) if value.isdecimal() else value


def _replace(value: str, old: str, new: str) -> str:
    length = len(value) + value.count(old) * (len(new) - len(old))
    if length > max(len(value), MAX_VALUE_CHARACTERS):
        raise RenderLimitError(
            f"makes a value of {length} characters with 'replace', at most {MAX_VALUE_CHARACTERS} are allowed"
        )
    return value.replace(old, new)


def _quote(value: str) -> str:
    """Return a value as a JSON string.

    Raises:
        RenderLimitError: it is too long; several filters 'quote' would double its backslashes each time.
    """
    _check_length(len(value))
    import json  # noqa: PLC0415 - probe workers do not need it

    quoted = json.dumps(value)
    _check_length(len(quoted))
    return quoted


def _list_as_json(values: Sequence[str]) -> tuple[str]:
    _check_length(sum(map(len, values)))
    import json  # noqa: PLC0415 - probe workers do not need it

    text = json.dumps(list(values))
    _check_length(len(text))
    return (text,)


def _check_length(length: int) -> None:
    if length > MAX_RENDERED_CHARACTERS:
        raise RenderLimitError(f"renders to {length} characters, at most {MAX_RENDERED_CHARACTERS} are allowed")


EACH: Mapping[str, tuple[int, Callable[..., str]]] = {
    "lower": (0, str.lower),
    "upper": (0, str.upper),
    "basename": (0, lambda value: value.rstrip("/").rpartition("/")[2]),
    "dirname": (0, lambda value: value.rstrip("/").rpartition("/")[0]),
    "replace": (2, _replace),
    "gib": (0, _gib),
    "pad": (1, _pad),
    "quote": (0, _quote),
}
"""Filters that apply to each value: number of arguments and function."""

ALL: Mapping[str, tuple[int, Callable[..., Sequence[str]]]] = {
    "unique": (0, lambda values: tuple(dict.fromkeys(values))),
    "join": (1, lambda values, separator: (join_texts(separator, values),)),
    "first": (0, lambda values: values[:1] or ("",)),
    "count": (0, lambda values: (str(len(values)),)),
    "json": (0, _list_as_json),
}
"""Filters that apply to all values of an attribute together: number of arguments and function."""

FALLBACKS = frozenset({"default", "or"})
"""Filters that apply to each member without a value: a text, or the name of another attribute."""

FILTERS = frozenset({*EACH, *ALL, *FALLBACKS})


def join_texts(separator: str, texts: Sequence[str]) -> str:
    """Return joined texts.

    Raises:
        RenderLimitError: the result would be too long.
    """
    _check_length(sum(map(len, texts)) + len(separator) * max(len(texts) - 1, 0))
    return separator.join(texts)


class Filter(Struct, frozen=True):
    """A filter and its arguments; ``offset`` is the position of its first argument (in characters, from 0)."""

    name: str
    arguments: tuple[str, ...] = ()
    offset: int = 0


class Reference(Struct, frozen=True):
    """A reference ``${name|filter|...}``; ``offset`` is the position of its name (in characters, from 0)."""

    name: str
    filters: tuple[Filter, ...] = ()
    offset: int = 0

    @property
    def has_default(self) -> bool:
        """Whether it has a default for a missing value."""
        return any(filter_.name == "default" for filter_ in self.filters)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of its attribute, and those of the attributes that are used if it does not exist."""
        return (self.name, *(filter_.arguments[0] for filter_ in self.filters if filter_.name == "or"))

    @property
    def named_offsets(self) -> Iterator[tuple[str, int]]:
        """Every name with its position."""
        yield self.name, self.offset
        yield from ((filter_.arguments[0], filter_.offset) for filter_ in self.filters if filter_.name == "or")

    def find_name(self, values: Values) -> str | None:
        """Return the name that it gets its value from: the first of its names that exists."""
        return next((name for name in self.names if values.get(name)), None)

    def render(self, values: Values) -> str:
        """Return the text that replaces the reference.

        Raises:
            MissingAttributeError: the attribute has no value and the reference has no default.
            RenderLimitError: the text would be too long.
        """
        if not self.filters and type(values) is not MergedValues and (texts := values.get(self.name)):
            # Most references of most devices.
            return join_texts(",", texts)
        members = list_members(values)
        found = [member.get(self.name) for member in members]
        if is_node_attribute(self.name):
            found = [next((texts for texts in found if texts), None)]
        for filter_ in self.filters:
            if filter_.name == "default":
                found = [texts or filter_.arguments for texts in found]
            elif filter_.name == "or":
                # Behind a filter of all values there is one list for all members.
                others = members if len(found) == len(members) else (values,)
                found = [texts or other.get(filter_.arguments[0]) for texts, other in zip(found, others, strict=True)]
            elif filter_.name in EACH:
                apply = EACH[filter_.name][1]
                found = [texts and tuple(apply(text, *filter_.arguments) for text in texts) for texts in found]
            elif any(texts is not None for texts in found):
                flat = tuple(text for texts in found for text in texts or ())
                found = [tuple(ALL[filter_.name][1](flat, *filter_.arguments))]
        if all(texts is None for texts in found):
            raise MissingAttributeError(self.name)
        return join_texts(",", [text for texts in found for text in texts or ()])


class Template(Struct, frozen=True, dict=True):
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
        literals: list[str] = []
        position = count = 0
        while (start := text.find("${", position)) >= 0:
            if text[start - 1 : start] == "$":
                literals += (text[position : start - 1], "${")
                position = start + 2
                continue
            end = text.find("}", start)
            if end == -1:
                raise TemplateError("'${' without a '}'", start, "write '$${' for a literal '${'")
            if (count := count + 1) > MAX_REFERENCES:
                message = f"more than {MAX_REFERENCES} references in a template"
                raise TemplateError(message, start, "divide the text, or define custom attributes with parts of it")
            literals.append(text[position:start])
            parts += filter(None, ("".join(literals),))
            literals.clear()
            parts.append(_parse_reference(text[start + 2 : end], start + 2))
            position = end + 1
        literals.append(text[position:])
        parts += filter(None, ("".join(literals),))
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
        return frozenset(name for reference in self.references for name in reference.names)

    def render(self, values: Values, escape: Callable[[str], str] = str) -> str:
        """Return the text with every reference replaced by its value, escaped by ``escape``.

        Raises:
            MissingAttributeError: an attribute has no value and no default.
            RenderLimitError: the text would be too long.
        """
        if not self.references:
            return "".join(part for part in self.parts if isinstance(part, str))
        texts: list[str] = []
        length = 0
        for part in self.parts:
            text = part if isinstance(part, str) else escape(part.render(values))
            length += len(text)
            if length > MAX_RENDERED_CHARACTERS:
                raise RenderLimitError(
                    f"renders to {length} characters or more, at most {MAX_RENDERED_CHARACTERS} are allowed"
                )
            texts.append(text)
        return "".join(texts)

    def render_each(self, values: Values, escape: Callable[[str], str] = str) -> tuple[str, ...]:
        """Return one text for each combination of the values that belong together (:func:`combine_values`).

        Raises:
            MissingAttributeError: an attribute has no value and no default.
            RenderLimitError: there would be too many texts, or a text would be too long.
        """
        return tuple(dict.fromkeys(self.render(selected, escape) for selected in combine_values((self,), values)))


def combine_values(templates: Sequence[Template], values: Values, context: Sequence[Template] = ()) -> Iterator[Values]:
    """Yield values with one value for each attribute that ``templates`` refer to: each combination that exists.

    Values of different members are not combined, unless no member has all attributes. The attributes that only
    ``context`` refers to have the values of the same member, or of all members if that member has none.

    Raises:
        RenderLimitError: there are more than MAX_VALUE_COMBINATIONS.
    """
    references = [reference for template in templates for reference in template.references]
    own = frozenset(name for template in templates for name in template.names)
    others = frozenset(name for template in context for name in template.names) - own
    existing = [reference for reference in references if reference.find_name(values) is not None]
    members = [
        member
        for member in list_members(values)
        if existing and all(reference.find_name(member) is not None for reference in existing)
    ] or [distinct_values(values)]
    found = 0
    for member in members:
        names = sorted({name for reference in existing if (name := reference.find_name(member)) is not None})
        found += prod(len(member[name]) for name in names)
        if found > MAX_VALUE_COMBINATIONS:
            raise RenderLimitError(
                f"renders to {found} or more texts, one for each combination of the values of "
                f"{' and '.join(names)}; at most {MAX_VALUE_COMBINATIONS} are allowed"
            )
        # Iterating over `member` would miss attributes that are read when they are looked up.
        base = {name: texts for name in own if (texts := member.get(name)) is not None}
        base |= {name: texts for name in others if (texts := member.get(name) or values.get(name)) is not None}
        for chosen in product(*([(name, (text,)) for text in member[name]] for name in names)):
            yield {**base, **dict(chosen)}


def _parse_reference(body: str, offset: int) -> Reference:
    name, *filters = body.split("|")
    if not _NAME.match(name):
        raise TemplateError(f"{name!r} is not an attribute name", offset, "write ${name} or ${name|filter}")
    if len(filters) > MAX_FILTERS:
        message = f"${{{name}|...}} has {len(filters)} filters, at most {MAX_FILTERS} are allowed"
        raise TemplateError(message, offset, "remove filters, or define a custom attribute with a part of them")
    position = offset + len(name) + 1
    read = []
    for text in filters:
        read.append(_parse_filter(text, position))
        position += len(text) + 1
    return Reference(name, tuple(read), offset)


_USAGE = {
    "replace": "write replace:OLD:NEW",
    "pad": "write pad:WIDTH",
    "default": "write default:TEXT",
    "join": "write join:TEXT",
    "or": "write or:ATTRIBUTE",
}


def _parse_filter(text: str, offset: int) -> Filter:
    name, separator, rest = text.partition(":")
    if name not in FILTERS:
        raise TemplateError(f"unknown filter {name!r}", offset, f"valid filters: {', '.join(sorted(FILTERS))}")
    usage = _USAGE.get(name, f"write {name} alone")
    if name in ("default", "join", "or"):
        if not separator:
            what = "an attribute" if name == "or" else "a text"
            raise TemplateError(f"filter {name!r} requires {what} after ':'", offset, usage)
        if name == "or" and not _NAME.match(rest):
            raise TemplateError(f"{rest!r} is not an attribute name", offset + len("or:"), usage)
        return Filter(name, (rest,), offset + len(name) + 1)
    arguments = tuple(rest.split(":")) if separator else ()
    expected_count = (EACH.get(name) or ALL[name])[0]
    if len(arguments) != expected_count:
        noun = "argument" if expected_count == 1 else "arguments"
        message = f"filter {name!r}: expected {expected_count or 'no'} {noun}, found {len(arguments)}"
        raise TemplateError(message, offset, usage)
    if name == "replace" and not arguments[0]:
        raise TemplateError(f"filter {name!r} has an empty text to replace", offset, usage)
    if name == "pad" and not (_WIDTH.match(rest) and 1 <= int(rest) <= MAX_PAD_WIDTH):
        raise TemplateError(f"filter 'pad': expected a width from 1 to {MAX_PAD_WIDTH}, found {rest!r}", offset, usage)
    return Filter(name, arguments, offset + len(name) + 1)
