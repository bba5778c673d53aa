"""Reads the mappings of a foreign file: values by key and type, and the keys that no converter reads.

A value of another type is an error, because the other plugin rejects it too. An unknown key is a remark, because most
plugins ignore it.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from genplug.config.schema import did_you_mean
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode
from genplug.convert.conversion import Draft, Kind, Path, Report
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.location import SourceLocation

_INTEGER = re.compile(r"-?\d{1,18}\Z")
_TRUTH = {"true": True, "false": False}


def type_name(node: Node) -> str:
    """Return the type of a node for messages, with its article."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(node.value), "null")


def is_null(node: Node | None) -> bool:
    """Return whether a value is missing or null."""
    return node is None or (isinstance(node, ScalarNode) and node.value is None)


class Section(Struct):
    """A mapping of a foreign file, at a path of keys; ``read`` are the keys that a converter has read."""

    tree: MapNode
    report: Report
    path: str = ""
    read: dict[str, None] = {}

    @property
    def location(self) -> SourceLocation:
        """Where the mapping is."""
        return self.tree.location

    def key_path(self, key: str) -> str:
        """Return the path of a key in the file."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Return whether a key has a value other than null."""
        return not is_null(self.tree.get(key))

    def locate(self, key: str) -> SourceLocation:
        """Return where a key is, or where the mapping is if the key is missing."""
        entry = self.tree.entries.get(key)
        return entry.key if entry is not None else self.location

    def node(self, key: str) -> Node | None:
        """Return the value of a key, or None if it is missing or null."""
        self.read[key] = None
        found = self.tree.get(key)
        return None if is_null(found) else found

    def error(self, key: str, message: str, hint: str = "", code: ErrorCode = ErrorCode.WRONG_VALUE) -> None:
        """Record an error of the source at a key."""
        self.report.diagnostics.add(
            code, self.locate(key), message, key_path=self.key_path(key), hint=hint, width=max(len(key), 1)
        )

    def scalar(self, key: str) -> ScalarNode | None:
        """Return the scalar of a key; record an error if the value is a mapping or a list."""
        found = self.node(key)
        if found is None or isinstance(found, ScalarNode):
            return found
        self._wrong_type(key, "a string", found)
        return None

    def text(self, key: str, default: str = "") -> str:
        """Return the text of a key."""
        found = self.scalar(key)
        return default if found is None else found.text

    def required(self, key: str) -> str:
        """Return the text of a key; record an error if it is missing or empty."""
        found = self.text(key).strip()
        if not found and not isinstance(self.tree.get(key), ListNode | MapNode):
            self.error(key, f"expected a value for '{key}', which {self.report.plugin} requires", code=_MISSING)
        return found

    def number(self, key: str, default: int) -> int:
        """Return the integer of a key."""
        found = self.scalar(key)
        if found is None:
            return default
        if not _INTEGER.match(found.text):
            self._wrong_type(key, "a whole number", found)
            return default
        return int(found.text)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return the boolean of a key."""
        found = self.scalar(key)
        if found is None:
            return default
        if found.text.lower() not in _TRUTH:
            self._wrong_type(key, "true or false", found)
            return default
        return _TRUTH[found.text.lower()]

    def texts(self, key: str) -> list[ScalarNode]:
        """Return the strings in a list."""
        found = self.node(key)
        if found is None:
            return []
        if not isinstance(found, ListNode):
            self._wrong_type(key, "a list of strings", found)
            return []
        for item in found.items:
            if not isinstance(item, ScalarNode):
                self._wrong_type(key, "a list of strings", item)
        return [item for item in found.items if isinstance(item, ScalarNode)]

    def section(self, key: str) -> "Section | None":
        """Return the mapping of a key."""
        found = self.node(key)
        if found is None or isinstance(found, MapNode):
            return None if found is None else Section(found, self.report, self.key_path(key))
        self._wrong_type(key, "a mapping", found)
        return None

    def sections(self, key: str, *, is_single_allowed: bool = False) -> "list[Section]":
        """Return the mappings in a list; with ``is_single_allowed``, a mapping is a list with one item."""
        found = self.node(key)
        if found is None:
            return []
        if isinstance(found, MapNode) and is_single_allowed:
            return [Section(found, self.report, self.key_path(key))]
        if not isinstance(found, ListNode):
            self._wrong_type(key, "a list of mappings", found)
            return []
        return sections_of(found, self.report, self.key_path(key))

    def unsupported(self, key: str, message: str, action: str, *, draft: Draft | None = None, at: Path = ()) -> None:
        """Remark that a key is not expressed."""
        self._remark(Kind.UNSUPPORTED, key, message, action, draft, at)

    def note(self, key: str, message: str, action: str = "", *, draft: Draft | None = None, at: Path = ()) -> None:
        """Remark that a key is expressed in another way, or that genplug does not need it."""
        self._remark(Kind.NOTE, key, message, action, draft, at)

    def notes(self, messages: dict[str, str], *, draft: Draft | None = None) -> None:
        """Remark for each key that is present that genplug does not need it; the messages are by key."""
        for key, message in messages.items():
            if self.has(key):
                self.note(key, message, draft=draft)
            self.read[key] = None

    def unsupported_keys(self, messages: dict[str, tuple[str, str]], *, draft: Draft | None = None) -> None:
        """Remark for each key that is present that it is not expressed; the messages and actions are by key."""
        for key, (message, action) in messages.items():
            if self.has(key):
                self.unsupported(key, message, action, draft=draft)
            self.read[key] = None

    def finish(self, *, draft: Draft | None = None, at: Path = ()) -> None:
        """Remark each key that has not been read."""
        for key, entry in self.tree.entries.items():
            if key not in self.read:
                action = did_you_mean(key, self.read)
                message = f"{self.report.plugin} has no key {key!r} here and ignores it"
                self.report.remark(Kind.UNKNOWN, entry.key, message, action, key=self.key_path(key), draft=draft, at=at)

    def _remark(  # noqa: PLR0913, PLR0917 - the fields of a remark
        self, kind: Kind, key: str, message: str, action: str, draft: Draft | None, at: Path
    ) -> None:
        self.read[key] = None
        location = self.locate(key)
        self.report.remark(kind, location, message, action, key=self.key_path(key), draft=draft, at=at)

    def _wrong_type(self, key: str, expected: str, found: Node) -> None:
        self.report.diagnostics.add(
            ErrorCode.WRONG_TYPE,
            found.location,
            f"expected {expected}, found {type_name(found)}",
            key_path=self.key_path(key),
        )


_MISSING = ErrorCode.MISSING_KEY


def sections_of(tree: ListNode, report: Report, path: str) -> list[Section]:
    """Return the mappings in a list; record an error for each other item."""
    return list(_iterate_sections(tree.items, report, path))


def _iterate_sections(items: Sequence[Node], report: Report, path: str) -> Iterator[Section]:
    for number, item in enumerate(items):
        if isinstance(item, MapNode):
            yield Section(item, report, f"{path}[{number}]")
        else:
            report.diagnostics.add(
                ErrorCode.WRONG_TYPE,
                item.location,
                f"expected a mapping, found {type_name(item)}",
                key_path=f"{path}[{number}]",
            )
