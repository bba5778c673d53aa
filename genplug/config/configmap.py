"""Configurations inside ConfigMap manifests, as kubectl and ``helm template`` print them, with positions in that file.

Each ``data`` key that names a configuration file is one; its text is put back on the lines and columns of the manifest
that it came from, so that every message points into the file that the operator has open.
"""

import textwrap
from collections.abc import Mapping

from attrs import frozen

from genplug.config.document import MapNode, Node, ScalarNode, read_all
from genplug.config.problem import Problems
from genplug.config.sources import OVERLAY, Text, is_config_file


@frozen
class Manifest:
    """One ConfigMap's files: those of every node, and those of single nodes by their keys (``node.<node-name>.yaml``)."""

    name: str
    base: tuple[Text, ...]
    overlays: Mapping[str, Text]


def is_manifest(text: str, file: str) -> bool:
    """Say whether a text is of Kubernetes objects and no configuration of its own."""
    trees = read_all(text, file, Problems()) or []
    return any(isinstance(tree, MapNode) and "kind" in tree.entries and not _is_config(tree) for tree in trees)


def manifests(text: str, file: str) -> tuple[Manifest, ...]:
    """Return the ConfigMaps of a stream that hold configurations; objects of other kinds are passed over."""
    trees = read_all(text, file, Problems()) or []
    found = (_manifest(tree, text, file) for tree in trees if isinstance(tree, MapNode))
    return tuple(one for one in found if one.base or one.overlays)


def _is_config(tree: MapNode) -> bool:
    return _value(tree.get("kind")) == "DevicePluginConfig" or "resources" in tree.entries


def _manifest(tree: MapNode, text: str, file: str) -> Manifest:
    metadata = tree.get("metadata")
    name = _value(metadata.get("name")) if isinstance(metadata, MapNode) else ""
    data = tree.get("data")
    if _value(tree.get("kind")) != "ConfigMap" or not isinstance(data, MapNode):
        return Manifest(name, (), {})
    lines = text.split("\n")
    texts = [
        (key, Text(file, _in_place(entry.value, lines)))
        for key, entry in sorted(data.entries.items())
        if is_config_file(key) and isinstance(entry.value, ScalarNode)
    ]
    return Manifest(
        name,
        tuple(one for key, one in texts if not key.startswith(OVERLAY)),
        {key: one for key, one in texts if key.startswith(OVERLAY)},
    )


def _in_place(node: ScalarNode, lines: list[str]) -> str:
    """Return a scalar's text with as many lines and columns before it as the manifest has.

    A literal block stands in the manifest line by line, indented: indentation at the top level of YAML is free as long
    as it is the same everywhere, so its lines are taken as they are. Any other style is moved to its first line.
    """
    wanted = node.text.rstrip("\n").split("\n")
    block = lines[node.place.line : node.place.line + len(wanted)]
    if textwrap.dedent("\n".join(block)).split("\n") == wanted:
        return "\n" * node.place.line + "\n".join(block) + "\n"
    return "\n" * (node.place.line - 1) + node.text


def _value(node: Node | None) -> str:
    return node.text if isinstance(node, ScalarNode) else ""
