"""Merges trees: mappings merge key by key, everything else is replaced, ``null`` deletes. Locations are kept."""

from collections.abc import Sequence
from functools import reduce

from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode

NOT_DEFAULTS = ("devices", "aliases")
"""Keys of a resource that ``defaults`` cannot set."""


def merge(trees: Sequence[MapNode]) -> MapNode:
    """Merge trees (at least one); later trees override earlier trees.

    A ``null`` is kept, because it must delete what ``defaults`` set, too.
    """
    return reduce(_merge_two, trees)


def apply_defaults(tree: MapNode) -> MapNode:
    """Return the tree with ``defaults`` applied to each resource."""
    defaults, resources = shared_defaults(tree), tree.get("resources")
    if defaults is None or not isinstance(resources, MapNode):
        return tree
    entries = {
        name: MapEntry(entry.key, _apply_defaults(defaults, entry.value)) for name, entry in resources.entries.items()
    }
    resources_entry = MapEntry(tree.entries["resources"].key, MapNode(resources.location, entries))
    return MapNode(tree.location, {**tree.entries, "resources": resources_entry})


def shared_defaults(tree: MapNode) -> MapNode | None:
    """Return the ``defaults`` that apply to resources, or None if there are none."""
    defaults = tree.get("defaults")
    if not isinstance(defaults, MapNode):
        return None
    return MapNode(defaults.location, {key: e for key, e in defaults.entries.items() if key not in NOT_DEFAULTS})


def drop_nulls(tree: MapNode) -> MapNode:
    """Return the tree without keys whose value is ``null``."""
    entries = {}
    for key, entry in tree.entries.items():
        if is_null(entry.value):
            continue
        entries[key] = MapEntry(entry.key, drop_nulls(entry.value)) if isinstance(entry.value, MapNode) else entry
    return MapNode(tree.location, entries)


def is_null(node: Node) -> bool:
    """Return whether a node is ``null``."""
    return isinstance(node, ScalarNode) and node.value is None


def _apply_defaults(base: MapNode, resource: Node) -> Node:
    # Keep the location of the resource even if it defines no keys.
    return MapNode(resource.location, _merge_two(base, resource).entries) if isinstance(resource, MapNode) else resource


def _merge_two(base: MapNode, override: MapNode) -> MapNode:
    entries = dict(base.entries)
    for key, entry in override.entries.items():
        lower = entries.get(key)
        if lower is not None and isinstance(lower.value, MapNode) and isinstance(entry.value, MapNode):
            entries[key] = MapEntry(entry.key, _merge_two(lower.value, entry.value))
        else:
            entries[key] = entry
    return MapNode(override.location, entries)
