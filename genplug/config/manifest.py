"""Configurations inside ConfigMap manifests, as kubectl and ``helm template`` print them, with positions in that file.

Each ``data`` key that names a configuration file is one; a ConfigMap of policies is decoded as such. What is wrong in
it is told at its place in the manifest: a literal block (``|``) stands there line by line; in a value of another style
only the value itself can be pointed at.
"""

import re
from collections.abc import Iterator, Mapping

from attrs import evolve, frozen

from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, Diagnostics, ErrorCode
from genplug.config.files import ConfigFile, is_config_file, node_of
from genplug.config.load import load_texts
from genplug.config.policy import decode_policy, is_policy
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, attach_source_lines, lines_of, parse_documents
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY, Policy

MAX_BYTES = 16 << 20
"""What ``helm template`` prints of a large chart, its definitions of custom resources included."""
_KIND = re.compile(r"""^["']?kind["']?[ \t]*:[ \t]*["']?(ConfigMap|ConfigMapList|List)\b""", re.MULTILINE)
_JSON_KIND = re.compile(r'"kind"\s*:\s*"(ConfigMap|ConfigMapList|List)"')
_OURS = ("DevicePluginConfig", "genplug.io/")


@frozen
class Manifest:
    """One ConfigMap: its files by what messages call them, those of every node first, and which node one is for."""

    file: str
    lines: tuple[str, ...]
    scalars: Mapping[str, ScalarNode]
    nodes: Mapping[str, str]

    @property
    def policies(self) -> tuple[str, ...]:
        """The files, if all are policies. Among a configuration's files one is a mistake, and ``load`` tells it."""
        return tuple(self.scalars) if all(is_policy(one.text) for one in self.scalars.values()) else ()

    def policy(self, name: str) -> Policy:
        """Decode one of the policies.

        Raises:
            ConfigInvalidError: with every mistake found, at its place in the manifest.
        """
        try:
            return decode_policy(ConfigFile(name, self.scalars[name].text))
        except ConfigInvalidError as error:
            raise ConfigInvalidError(map(self._moved, error.problems)) from None

    def load(self, node_name: str | None, policy: Policy | None = DEFAULT_POLICY) -> Config:
        """Decode what a node of this name would be given, as with :func:`~genplug.config.load.load_texts`.

        Raises:
            ConfigInvalidError: with every mistake found, at its place in the manifest.
        """
        names = [name for name in self.scalars if self.nodes.get(name) in (None, node_name)]
        try:
            return load_texts([ConfigFile(name, self.scalars[name].text) for name in names], policy)
        except ConfigInvalidError as error:
            raise ConfigInvalidError(map(self._moved, error.problems)) from None

    def _moved(self, problem: Diagnostic) -> Diagnostic:
        location = self._place(problem.location)
        first = self._place(problem.related_location) if problem.related_location else None
        is_exact = self.scalars[problem.location.file].start is not None
        width = problem.width if is_exact else 1
        return evolve(
            problem, location=location, related_location=first, width=width, line=self.lines[location.line - 1]
        )

    def _place(self, location: SourceLocation) -> SourceLocation:
        scalar = self.scalars[location.file]
        if scalar.start is None:
            return scalar.location
        start = scalar.start
        return SourceLocation(self.file, start.line + location.line - 1, start.column + location.column - 1)


def is_manifest(text: str) -> bool:
    """Say whether a text looks like Kubernetes objects with a ConfigMap among them."""
    return (_JSON_KIND if text.lstrip().startswith("{") else _KIND).search(text) is not None


def manifests(text: str, file: str) -> tuple[Manifest, ...]:
    """Return the ConfigMaps of a text that hold configurations; objects of other kinds are passed over.

    Raises:
        ConfigInvalidError: the text is no YAML, no ConfigMap in it holds a configuration, or one has a key twice.
    """
    problems = Diagnostics()
    trees = parse_documents(text, file, problems, MAX_BYTES)
    lines = tuple(lines_of(text))
    if trees is None:
        # What was noted before is about objects that may be none of ours.
        raise ConfigInvalidError(attach_source_lines(Diagnostics(problems.found[-1:]), {file: text}))
    config_maps = [one for tree in trees for one in _config_maps(tree)]
    found = [_manifest(one, file, lines) for one in config_maps]
    ours = [one for one in found if any(word in scalar.text for scalar in one.scalars.values() for word in _OURS)]
    # A single ConfigMap is meant, whatever is in it; of many, dashboards and scripts are other people's.
    chosen = tuple(ours or (one for one in found if len(found) == 1 and one.scalars))
    if not chosen:
        message = "no ConfigMap in it holds a configuration"
        hint = "'data' needs a key that ends in .yaml, .yml or .json, with a configuration as its text"
        raise ConfigInvalidError(
            [Diagnostic(ErrorCode.NO_RESOURCES, SourceLocation(file, 1, 1), message, hint=hint, line=lines[0])]
        )
    keys = {key for one, tree in zip(found, config_maps, strict=True) if one in chosen for key in _keys(tree)}
    if twice := [one for one in problems.found if one.related_location in keys]:
        raise ConfigInvalidError(attach_source_lines(Diagnostics(twice), {file: text}))
    return chosen


def _keys(config_map: MapNode) -> Iterator[SourceLocation]:
    for part in (config_map, config_map.get("data")):
        if isinstance(part, MapNode):
            yield from (entry.key for entry in part.entries.values())


def _config_maps(tree: Node | None) -> Iterator[MapNode]:
    if not isinstance(tree, MapNode):
        return
    items = tree.get("items")
    for item in items.items if isinstance(items, ListNode) else ():
        yield from _config_maps(item)
    if _text(tree.get("kind")) == "ConfigMap":
        yield tree


def _manifest(tree: MapNode, file: str, lines: tuple[str, ...]) -> Manifest:
    metadata, data = tree.get("metadata"), tree.get("data")
    config_map = _text(metadata.get("name")) if isinstance(metadata, MapNode) else ""
    entries = sorted(data.entries.items()) if isinstance(data, MapNode) else []
    # What a kubelet makes of the keys are files of these names.
    keys = [key for key, entry in entries if is_config_file(key) and isinstance(entry.value, ScalarNode)]
    keys.sort(key=lambda key: node_of(key) is not None)
    names = {f"{file}[{config_map}/{key}]": key for key in keys}
    scalars = {name: entry.value for name, key in names.items() for one, entry in entries if one == key}
    nodes = {name: node for name, key in names.items() if (node := node_of(key)) is not None}
    return Manifest(file, lines, scalars, nodes)  # type: ignore[arg-type] # only keys with scalars were taken


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, ScalarNode) else ""
