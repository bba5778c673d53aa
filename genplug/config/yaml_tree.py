"""Parses YAML and JSON into a frozen tree in which every key and value has its source location.

The parser is strict where YAML surprises: only JSON-like scalars are not strings, so the PCI address ``0000:00:02.0``
is a string; a key must not repeat; aliases cannot expand without limit. It works on parser events, because PyYAML's
composer recurses in C and crashes on deep nesting.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.diagnostics import Diagnostics, TooManyErrorsError
from genplug.config.scalars import Scalar, resolve_scalar
from genplug.config.yaml_errors import explain_yaml_error
from genplug.config.yaml_library import yaml
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.limits import MAX_CONFIG_VALUES, MAX_DEPTH, MAX_FILE_BYTES
from genplug.spec.location import SourceLocation

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_Event: TypeAlias = Any
"""A PyYAML event: an alias, a scalar, or the start of a list or map; the event classes share no typed base."""
_DIVIDE = "use globs and 'defaults' instead of repetitions, or move parts to files for single nodes (node.NAME.yaml)"
_BLOCK_END = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


class Dialect(Struct, frozen=True):
    """The rules of a reader of YAML: those of genplug for its files, or those of Helm for a values file.

    ``resolve`` returns the value of an unquoted scalar, and ``format`` the text for a value and the text that is
    written. ``merge_keys`` is whether ``<<`` and tags are supported.
    """

    resolve: Callable[[str], Scalar] = resolve_scalar
    format: Callable[[Scalar, str], str] = lambda _, text: text
    merge_keys: bool = False


OWN_DIALECT = Dialect()


class ScalarNode(Struct, frozen=True):
    """A scalar: its value, its text, and the text as written in ``written`` if a dialect changes it.

    ``start`` is the location of the first character of the text if the file contains the text verbatim: on one line
    without escapes, or as a literal block (``|``). Otherwise, None.
    """

    location: SourceLocation
    value: Scalar
    text: str
    start: SourceLocation | None
    written: str = ""

    def at(self, offset: int) -> SourceLocation:
        """Return the location of the character at an offset (from 0), or that of the scalar if it is not exact."""
        if self.start is None:
            return self.location
        line_start = self.text.rfind("\n", 0, offset) + 1
        line = self.start.line + self.text.count("\n", 0, offset)
        return SourceLocation(self.start.file, line, self.start.column + offset - line_start)


class ListNode(Struct, frozen=True):
    """A list of nodes."""

    location: SourceLocation
    items: tuple["Node", ...]


class MapEntry(Struct, frozen=True):
    """The location of a key, and its value."""

    key: SourceLocation
    value: "Node"


class MapNode(Struct, frozen=True):
    """A mapping in the order of the file."""

    location: SourceLocation
    entries: Mapping[str, MapEntry]

    def get(self, key: str) -> "Node | None":
        """Return the value of a key, or None if the key is missing."""
        entry = self.entries.get(key)
        return entry.value if entry else None


Node: TypeAlias = ScalarNode | ListNode | MapNode
Plain: TypeAlias = Scalar | list["Plain"] | dict[str, "Plain"]


def to_python(node: Node) -> Plain:
    """Return a tree as dicts, lists and scalars, without locations."""
    if isinstance(node, MapNode):
        return {key: to_python(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, ListNode):
        return [to_python(item) for item in node.items]
    return node.value


def count_values(node: Node | None) -> int:
    """Return the number of keys and values of a tree; what an alias repeats counts each time."""
    if isinstance(node, MapNode):
        return 1 + len(node.entries) + sum(count_values(entry.value) for entry in node.entries.values())
    return 1 + sum(map(count_values, node.items)) if isinstance(node, ListNode) else int(node is not None)


def parse_document(text: str, file: str, diagnostics: Diagnostics, max_values: int = MAX_CONFIG_VALUES) -> Node | None:
    """Return the tree of a text that consists of one document; otherwise record an error and return None."""
    trees = parse_documents(text, file, diagnostics, max_values=max_values)
    if not trees:
        return None
    # Ignore a trailing '---' (an empty last document).
    _, *others = trees = [tree for tree in trees if not (isinstance(tree, ScalarNode) and not tree.text)] or trees[:1]
    if not others:
        return trees[0]
    message = "found a second document; a configuration file has one"
    hint = "remove the '---' above it, or move the document to its own file: files are merged"
    diagnostics.add(ErrorCode.SYNTAX, others[0].location, message, hint=hint)
    return None


def parse_documents(  # noqa: PLR0913 - the limits of each kind of file
    text: str,
    file: str,
    diagnostics: Diagnostics,
    max_bytes: int = MAX_FILE_BYTES,
    max_values: int = MAX_CONFIG_VALUES,
    *,
    dialect: Dialect = OWN_DIALECT,
) -> list[Node] | None:
    """Return the tree of each document of a text; record an error and return None if it cannot be parsed."""
    start = SourceLocation(file, 1, 1)
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        message = f"the file is larger than {max_bytes >> 20} MiB, the maximum"
        hint = "a ConfigMap cannot be larger than 1 MiB either" if max_bytes == MAX_FILE_BYTES else ""
        diagnostics.add(ErrorCode.UNREADABLE, start, message, hint=hint)
        return None
    try:
        return list(_Composer(text, file, diagnostics, max_values, dialect).documents())
    except TooManyErrorsError:
        return None
    except _UnusableError as error:
        with suppress(TooManyErrorsError):
            diagnostics.add(error.code, error.location, str(error), hint=error.hint)
    except yaml.MarkedYAMLError as error:
        line, column, message, hint = explain_yaml_error(error, lines_of(text))
        diagnostics.add(ErrorCode.SYNTAX, SourceLocation(file, line, column), message, hint=hint)
    except yaml.reader.ReaderError as error:
        # The C parser gives the position in bytes of UTF-8.
        *before, last = lines_of(text.encode()[: error.position].decode(errors="replace"))
        message = f"the character U+{ord(error.character) if isinstance(error.character, str) else error.character:04X}"
        hint = "remove it; check that the file is saved as UTF-8 text"
        location = SourceLocation(file, len(before) + 1, len(last) + 1)
        diagnostics.add(ErrorCode.SYNTAX, location, f"{message} is not allowed in YAML", hint=hint)
    except UnicodeEncodeError as error:
        *before, last = lines_of(text[: error.start])
        message = "an unpaired surrogate is not a character"
        diagnostics.add(
            ErrorCode.SYNTAX,
            SourceLocation(file, len(before) + 1, len(last) + 1),
            message,
            hint="save the file as UTF-8",
        )
    return None


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, split where YAML splits lines."""
    return _LINE_BREAK.split(text)


def attach_source_lines(diagnostics: Iterable[Diagnostic], texts: Mapping[str, str]) -> Iterator[Diagnostic]:
    """Yield diagnostics with the source lines that they refer to."""
    lines = {file: lines_of(text) for file, text in texts.items()}
    for diagnostic in diagnostics:
        source = lines.get(diagnostic.location.file, [])
        number = diagnostic.location.line - 1
        yield replace(diagnostic, line=source[number] if number < len(source) else "")


def _merge_bases(value: Node) -> dict[str, MapEntry]:
    """Return the entries that a merge key adds: those of a mapping, or of mappings of which the first wins."""
    bases = value.items if isinstance(value, ListNode) else (value,)
    merged: dict[str, MapEntry] = {}
    for base in reversed(bases):
        merged |= base.entries if isinstance(base, MapNode) else {}
    return merged


class _UnusableError(Exception):
    """The text cannot be parsed into a tree."""

    def __init__(self, location: SourceLocation, message: str, hint: str, code: ErrorCode = ErrorCode.SYNTAX) -> None:
        super().__init__(message)
        self.code = code
        self.location = location
        self.hint = hint


class _Anchored(Struct, frozen=True):
    """The node of an anchor, and what each of its aliases adds: nodes and levels."""

    node: Node
    nodes: int
    height: int


class _Composer:
    """Builds trees from the parser events of one text."""

    def __init__(self, text: str, file: str, diagnostics: Diagnostics, max_values: int, dialect: Dialect) -> None:
        self._dialect = dialect
        self._text = text
        self._file = file
        self._diagnostics = diagnostics
        self._max_values = max_values
        self._events: Iterator[_Event] = iter(yaml.parse(text, yaml.CBaseLoader))
        self._lines: list[str] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._nodes = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                yield self._node(next(self._events), 0)[0]

    def _node(self, event: _Event, depth: int) -> tuple[Node, int]:
        """Return the node that starts with an event, and its number of levels."""
        location = self._location(event)
        self._nodes += 1
        self._check_size(location, depth)
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event, location, depth)
        if event.tag is not None and not self._dialect.merge_keys:
            message = f"tags ({event.tag.replace('tag:yaml.org,2002:', '!!')}) are not supported"
            hint = "remove the tag; quote a value to make it a string"
            self._diagnostics.add(ErrorCode.SYNTAX, location, message, hint=hint)
        before = self._nodes
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node: Node
        if isinstance(event, yaml.MappingStartEvent):
            node, height = self._map(location, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            node, height = self._list(location, depth)
        else:
            node, height = self._scalar(event, location), 0
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(node, self._nodes - before, height)
        return node, height

    def _map(self, location: SourceLocation, depth: int) -> tuple[MapNode, int]:
        entries: dict[str, MapEntry] = {}
        merged: dict[str, MapEntry] = {}
        highest = 0
        while not isinstance(event := next(self._events), _BLOCK_END):
            key, _ = self._node(event, depth + 1)
            # The parser emits the events of a mapping in pairs, so a value follows each key.
            value, height = self._node(next(self._events), depth + 1)
            highest = max(highest, height)
            if not isinstance(key, ScalarNode) or isinstance(event, yaml.AliasEvent):
                hint = 'quote it if it is a string; a template needs quotes: "${name}"'
                self._diagnostics.add(ErrorCode.SYNTAX, self._location(event), "expected a string as key", hint=hint)
            elif key.text == "<<" and not event.style and self._dialect.merge_keys:
                merged = _merge_bases(value)
            elif key.text == "<<" and not event.style:
                hint = "repeat the keys, or move what all resources share to 'defaults'"
                message = "merge keys ('<<') are not supported"
                self._diagnostics.add(ErrorCode.SYNTAX, key.location, message, hint=hint, width=2)
                # Do not report the keys that it would add as missing.
                entries.update(value.entries if isinstance(value, MapNode) else {})
            elif key.text in entries:
                message = f"{key.text!r} is a duplicate key"
                hint = "remove one of the two; other YAML parsers silently use the last"
                first, width = entries[key.text].key, max(len(key.text), 1)
                self._diagnostics.add(
                    ErrorCode.DUPLICATE_KEY, key.location, message, hint=hint, related_location=first, width=width
                )
            else:
                entries[key.text] = MapEntry(key.location, value)
        return MapNode(location, merged | entries), highest + 1

    def _list(self, location: SourceLocation, depth: int) -> tuple[ListNode, int]:
        items, highest = [], 0
        while not isinstance(event := next(self._events), _BLOCK_END):
            item, height = self._node(event, depth + 1)
            items.append(item)
            highest = max(highest, height)
        return ListNode(location, tuple(items)), highest + 1

    def _aliased(self, event: _Event, location: SourceLocation, depth: int) -> tuple[Node, int]:
        if event.anchor not in self._anchors:
            hint = "quote a string that begins with '*', for example a glob"
            raise _UnusableError(
                location, f"the alias '*{event.anchor}' refers to an anchor that is not defined above", hint
            )
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise _UnusableError(
                location,
                f"the alias '*{event.anchor}' is inside the anchor that it refers to",
                "repeat the value instead",
            )
        self._nodes += anchored.nodes
        self._check_size(location, depth + anchored.height)
        return anchored.node, anchored.height

    def _check_size(self, location: SourceLocation, depth: int) -> None:
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise _UnusableError(location, message, "check for repeated brackets and anchors", ErrorCode.LIMIT)
        if self._nodes > self._max_values:
            message = f"the configuration has more than {MAX_CONFIG_VALUES} keys and values up to here"
            hint = "aliases of aliases multiply: use fewer aliases"
            raise _UnusableError(location, message, hint if self._anchors else _DIVIDE, ErrorCode.LIMIT)

    def _scalar(self, event: _Event, location: SourceLocation) -> ScalarNode:
        text = event.value
        if "\0" in text:
            message = "the string contains the character NUL, which no path, name or variable can contain"
            self._diagnostics.add(ErrorCode.SYNTAX, location, message, hint="remove the '\\0'")
        if not event.style and not (event.tag or "").endswith(":str"):
            value = self._dialect.resolve(text)
            shown = self._dialect.format(value, text)
            if shown != text:
                return ScalarNode(location, value, shown, None, text)
            return ScalarNode(location, value, text, location if self._is_exact(event, 0) else None)
        if event.style == "|":
            return ScalarNode(location, text, text, self._block_start(location, text))
        start = SourceLocation(location.file, location.line, location.column + 1) if self._is_exact(event, 2) else None
        return ScalarNode(location, text, text, start)

    def _is_exact(self, event: _Event, quotes: int) -> bool:
        # Escapes and line folds change the length.
        written: int = event.end_mark.index - event.start_mark.index - quotes
        return written == len(event.value) and bool(event.start_mark.line == event.end_mark.line)

    def _block_start(self, location: SourceLocation, text: str) -> SourceLocation | None:
        self._lines = self._lines or lines_of(self._text)
        for number, line in enumerate(text.split("\n"), location.line):
            if line.strip():
                return SourceLocation(location.file, location.line + 1, len(self._lines[number]) - len(line) + 1)
        return None

    def _location(self, event: _Event) -> SourceLocation:
        return SourceLocation(self._file, event.start_mark.line + 1, event.start_mark.column + 1)
