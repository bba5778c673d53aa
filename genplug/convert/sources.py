"""Finds configurations in files, ConfigMaps, the arguments of workloads, and custom resources."""

import re
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.diagnostics import Diagnostics
from genplug.config.manifest import MAX_BYTES
from genplug.config.yaml_tree import Dialect, ListNode, MapEntry, MapNode, Node, ScalarNode, parse_documents
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.location import SourceLocation

MAX_VALUES = 200_000
"""The maximum number of keys and values of a file: that of a manifest."""
DIALECT = Dialect(merge_keys=True)
"""The other plugins read YAML with merge keys and tags."""

_OPTION = re.compile(r"--?(?P<name>[A-Za-z][\w.-]*)(?P<equals>=)?")
_FILE = re.compile(r"\.(?:ya?ml|json)\Z")


class Option(Struct, frozen=True):
    """An option of a command line: its name without dashes, and its value, or None for a switch."""

    name: str
    location: SourceLocation
    value: ScalarNode | None = None

    @property
    def text(self) -> str:
        """The text of the value; ``true`` for a switch."""
        return "true" if self.value is None else self.value.text


class Program(Struct, frozen=True):
    """A container of a workload: its name, its image, its words and its environment variables."""

    name: str
    image: str
    words: tuple[ScalarNode, ...]
    environment: tuple[tuple[ScalarNode, ScalarNode], ...]
    location: SourceLocation

    def options(self, switches: frozenset[str] = frozenset()) -> list[Option]:
        """Return the options in the words; ``switches`` are the names of options without a value."""
        found = []
        words = list(self.words)
        while words:
            word = words.pop(0)
            option = _OPTION.match(word.text)
            if option is None:
                continue
            value = None
            if option["equals"]:
                value = _cut(word, option.end())
            elif option.end() != len(word.text):
                continue
            elif option["name"] not in switches and words and not _is_option(words[0]):
                value = words.pop(0)
            found.append(Option(option["name"], word.location, value))
        return found


class Source(Struct, frozen=True):
    """The content of a file.

    - ``trees``: documents that are not Kubernetes objects, and the parsed files in ConfigMaps.
    - ``objects``: Kubernetes objects except ConfigMaps.
    - ``programs``: the containers of the objects, and those of documents that are parts of a pod.
    """

    file: str
    trees: tuple[Node, ...]
    objects: tuple[MapNode, ...]
    programs: tuple[Program, ...]

    @property
    def start(self) -> SourceLocation:
        """The start of the file."""
        return SourceLocation(self.file, 1, 1)

    def kinds(self, group: str) -> list[MapNode]:
        """Return the objects of an API group."""
        return [found for found in self.objects if text_of(found.get("apiVersion")).partition("/")[0] == group]


def read_source(text: str, file: str, diagnostics: Diagnostics) -> Source:
    """Return the content of a text; errors are recorded."""
    documents = parse_documents(text, file, diagnostics, MAX_BYTES, MAX_VALUES, dialect=DIALECT) or []
    trees: list[Node] = []
    objects: list[MapNode] = []
    programs: list[Program] = []
    for document in documents:
        for tree in _split_list(document):
            if not isinstance(tree, MapNode) or not _is_object(tree):
                trees.append(tree)
                programs.extend(_programs(tree))
            elif text_of(tree.get("kind")) == "ConfigMap":
                trees.extend(_config_map_trees(tree, diagnostics))
            else:
                objects.append(tree)
                programs.extend(_programs(tree))
    trees = [tree for tree in trees if not (isinstance(tree, ScalarNode) and not tree.text)]
    return Source(file, tuple(trees), tuple(objects), tuple(programs))


def parse_nested(scalar: ScalarNode, diagnostics: Diagnostics) -> Node | None:
    """Return the tree of a text that contains a document, with locations in the file around it."""
    nested = Diagnostics()
    documents = parse_documents(scalar.text, scalar.location.file, nested, MAX_BYTES, MAX_VALUES, dialect=DIALECT)
    for diagnostic in nested.found:
        _add(diagnostics, replace(diagnostic, location=_relocate(scalar, diagnostic.location), width=1))
    return _relocate_tree(documents[0], scalar) if documents else None


def find(tree: Node | None, *path: str) -> Node | None:
    """Return the node at a path of keys, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, MapNode) else None
    return tree


def text_of(node: Node | None) -> str:
    """Return the text of a scalar, or an empty text."""
    return node.text if isinstance(node, ScalarNode) else ""


def walk(tree: Node) -> Iterator[MapNode]:
    """Yield every mapping of a tree."""
    pending: list[Node] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, MapNode):
            yield node
            pending.extend(entry.value for entry in node.entries.values())
        elif isinstance(node, ListNode):
            pending.extend(node.items)


def map_locations(node: Node, change: Callable[[SourceLocation], SourceLocation]) -> Node:
    """Return a tree with other locations."""
    if isinstance(node, MapNode):
        entries = {
            key: MapEntry(change(entry.key), map_locations(entry.value, change)) for key, entry in node.entries.items()
        }
        return MapNode(change(node.location), entries)
    if isinstance(node, ListNode):
        return ListNode(change(node.location), tuple(map_locations(item, change) for item in node.items))
    start = None if node.start is None else change(node.start)
    return replace(node, location=change(node.location), start=start)


def _add(diagnostics: Diagnostics, found: Diagnostic) -> None:
    diagnostics.add(found.code, found.location, found.message, hint=found.hint, width=found.width)  # type: ignore[arg-type] # the parser adds errors only


def _relocate(scalar: ScalarNode, location: SourceLocation) -> SourceLocation:
    if scalar.start is None:
        return scalar.location
    line, column = scalar.start.line + location.line - 1, scalar.start.column + location.column - 1
    return SourceLocation(scalar.start.file, line, column)


def _relocate_tree(tree: Node, scalar: ScalarNode) -> Node:
    return map_locations(tree, lambda location: _relocate(scalar, location))


def _cut(word: ScalarNode, offset: int) -> ScalarNode:
    """Return the part of a scalar from an offset."""
    start = None if word.start is None else word.at(offset)
    text = word.text[offset:]
    return ScalarNode(start or word.location, text, text, start)


def _is_option(word: ScalarNode) -> bool:
    return _OPTION.match(word.text) is not None


def _is_object(tree: Node) -> bool:
    return isinstance(tree, MapNode) and "apiVersion" in tree.entries and "kind" in tree.entries


def _split_list(tree: Node) -> Iterator[Node]:
    """Yield a document, or the objects of a list of objects."""
    items = tree.get("items") if isinstance(tree, MapNode) else None
    if _is_object(tree) and isinstance(items, ListNode):
        for item in items.items:
            yield from _split_list(item)
    else:
        yield tree


def _config_map_trees(config_map: MapNode, diagnostics: Diagnostics) -> Iterator[Node]:
    data = config_map.get("data")
    scalars = [
        (key, entry.value)
        for key, entry in (data.entries.items() if isinstance(data, MapNode) else ())
        if isinstance(entry.value, ScalarNode)
    ]
    for key, scalar in scalars:
        # A key without an extension can be a configuration, too, for example the name of a node.
        sink = diagnostics if _FILE.search(key) else Diagnostics()
        if (tree := parse_nested(scalar, sink)) is not None:
            yield tree


def _programs(tree: Node) -> Iterator[Program]:
    for part in walk(tree):
        for key in ("initContainers", "containers"):
            containers = part.get(key)
            for container in containers.items if isinstance(containers, ListNode) else ():
                if isinstance(container, MapNode):
                    yield _read_container(container, text_of(container.get("name")))
    if isinstance(tree, MapNode) and not _is_object(tree):
        for name, entry in tree.entries.items():
            if isinstance(entry.value, MapNode) and isinstance(entry.value.get("args"), ListNode):
                yield _read_container(entry.value, name)


def _read_container(container: MapNode, name: str) -> Program:
    words = [word for key in ("command", "args") for word in _scalars(container.get(key))]
    environment = []
    variables = container.get("env")
    for variable in variables.items if isinstance(variables, ListNode) else ():
        found, value = find(variable, "name"), find(variable, "value")
        if isinstance(found, ScalarNode) and isinstance(value, ScalarNode):
            environment.append((found, value))
    image = text_of(container.get("image"))
    return Program(name, image, tuple(words), tuple(environment), container.location)


def _scalars(node: Node | None) -> Sequence[ScalarNode]:
    items = node.items if isinstance(node, ListNode) else ()
    return [item for item in items if isinstance(item, ScalarNode)]
