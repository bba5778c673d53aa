"""YAML with positions: text in, a frozen tree out in which every key and value knows its place.

Strict where YAML is treacherous (config-language: One file): only JSON-like scalars are anything but strings, so the
PCI address ``0000:00:02.0`` is no number; a key stands once; nothing expands without bound. JSON is read by the same
reader.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import yaml
from attrs import frozen

from genplug.config.place import Place
from genplug.config.problem import Code, Problem, Problems

MOST_BYTES = 1 << 20
"""A ConfigMap holds no more."""
MOST_NODES = 200_000
MOST_DEPTH = 50

Scalar = str | int | float | bool | None

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: Mapping[str, Scalar] = {"true": True, "false": False, "null": None, "": None, "~": None}


@frozen
class ScalarNode:
    """A scalar: its value, and where the first character of its text stands (behind the quote, if there is one)."""

    place: Place
    value: Scalar
    text: str
    inside: Place
    is_plain: bool


@frozen
class ListNode:
    """A list of nodes."""

    place: Place
    items: tuple["Node", ...]


@frozen
class Entry:
    """A key's place and its value."""

    key: Place
    value: "Node"


@frozen
class MapNode:
    """A map in the order of the file."""

    place: Place
    entries: Mapping[str, Entry]

    def get(self, key: str) -> "Node | None":
        """Return the value of a key, or None where it is not."""
        entry = self.entries.get(key)
        return entry.value if entry else None


Node: TypeAlias = ScalarNode | ListNode | MapNode
Plain: TypeAlias = Scalar | list["Plain"] | dict[str, "Plain"]


def plain(node: Node) -> Plain:
    """Return a tree without its places, as dicts and lists."""
    if isinstance(node, MapNode):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.value


class _UnusableError(Exception):
    """The text cannot be made a tree at all."""


def read(text: str, file: str, problems: Problems) -> Node | None:
    """Return the tree of a text; None, and a problem noted, where there is none."""
    trees = read_all(text, file, problems)
    if trees and len(trees) > 1:
        problems.add(Code.SYNTAX, trees[1].place, "a second document in one file", hint="remove the '---' before it")
    return trees[0] if trees else None


def read_all(text: str, file: str, problems: Problems) -> list[Node] | None:
    """Return the tree of each document in a text; None, and a problem noted, where it cannot be read."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        message = f"the file is larger than {MOST_BYTES >> 20} MiB, more than a ConfigMap can hold"
        problems.add(Code.UNREADABLE, Place(file, 1, 1), message)
        return None
    try:
        found = [node for node in yaml.compose_all(text, yaml.CBaseLoader) if node is not None]
        return [_Reader(file, problems).node(node, 0) for node in found]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        problems.add(Code.SYNTAX, place, f"this is not YAML: {_in_words(error)}", hint=_syntax_hint(error, text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"a character that YAML does not allow: {error.character!r}"
        problems.add(Code.SYNTAX, Place(file, line, 1), message, hint="save the file as UTF-8 text")
    except (_UnusableError, RecursionError):
        message = "it is nested or repeated too deep"
        problems.add(Code.SYNTAX, Place(file, 1, 1), message, hint="write it without so many anchors or levels")
    except (yaml.YAMLError, ValueError) as error:
        problems.add(Code.SYNTAX, Place(file, 1, 1), f"this is not YAML: {error}")
    return None


def with_lines(problems: Problems, texts: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the problems with the source lines that they speak of."""
    from attrs import evolve  # noqa: PLC0415 - only where something is wrong

    lines = {file: text.split("\n") for file, text in texts.items()}
    for problem in problems.found:
        source = lines.get(problem.place.file, [])
        number = problem.place.line - 1
        yield evolve(problem, line=source[number].rstrip("\r") if number < len(source) else "")


class _Reader:
    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._nodes = 0

    def node(self, node: yaml.Node, depth: int) -> Node:
        # An anchor's node is read again for each alias: the count bounds what aliases of aliases expand to.
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > MOST_DEPTH:
            raise _UnusableError
        place = Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, place, depth)
        if isinstance(node, yaml.SequenceNode):
            return ListNode(place, tuple(self.node(item, depth + 1) for item in node.value))
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - YAML has three kinds of nodes
        return self._scalar(node, place)

    def _map(self, node: yaml.MappingNode, place: Place, depth: int) -> MapNode:
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            where = Place(self._file, key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(Code.SYNTAX, where, "a key must be a plain text", hint="quote it, or use a list")
                continue
            name = str(key.value)
            if name == "<<" and not key.style:
                hint = "write the keys out, or put what resources share under 'defaults'"
                self._problems.add(Code.SYNTAX, where, "merge keys ('<<') are not part of this language", hint=hint)
                continue
            if name in entries:
                first = entries[name].key
                message = f"{name!r} stands here a second time; the first is at {first.line}:{first.column}"
                hint = "keep one of them; YAML would silently use the last"
                self._problems.add(Code.DUPLICATE_KEY, where, message, hint=hint, width=len(name))
                continue
            entries[name] = Entry(where, self.node(value, depth + 1))
        return MapNode(place, entries)

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> ScalarNode:
        text = str(node.value)
        if not node.style and node.tag in ("", "tag:yaml.org,2002:str", None):
            return ScalarNode(place, _resolved(text), text, place, is_plain=True)
        if node.style in ("|", ">"):
            inside = Place(self._file, place.line + 1, 1)
        else:
            inside = Place(self._file, place.line, place.column + 1)
        return ScalarNode(place, text, text, inside, is_plain=False)


def _resolved(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def _in_words(error: yaml.MarkedYAMLError) -> str:
    said = str(error.problem or error.context or "it cannot be read")
    context = f" {error.context}" if error.context and error.problem else ""
    return f"{said}{context}"


def _syntax_hint(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.split("\n")
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(error.problem):
        return "indent with spaces; YAML does not allow tabs"
    if "${" in line or "{" in line:
        return "quote a value that starts with or contains '{', '*', '&' or ': '"
    if "alias" in str(error.problem) or "*" in line:
        return "quote a value that starts with '*'"
    return "check indentation, quotes and brackets here and on the line before"
