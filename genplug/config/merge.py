"""Merging of trees: maps merge key by key, all else is replaced, ``null`` deletes. Places go with their values."""

from collections.abc import Sequence
from functools import reduce

from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode

NOT_DEFAULTS = ("devices", "aliases")
"""Keys of a resource that belong to it alone."""


def merge(trees: Sequence[MapNode]) -> MapNode:
    """Return what several trees (at least one) say together, later ones over earlier ones.

    A ``null`` stays in it as what it deletes with: it has to delete in ``defaults`` too.
    """
    return reduce(_over, trees)


def apply_defaults(tree: MapNode) -> MapNode:
    """Return the tree with ``defaults`` laid under each resource."""
    defaults, resources = shared_defaults(tree), tree.get("resources")
    if defaults is None or not isinstance(resources, MapNode):
        return tree
    entries = {
        name: MapEntry(entry.key, _laid_under(defaults, entry.value)) for name, entry in resources.entries.items()
    }
    resources_entry = MapEntry(tree.entries["resources"].key, MapNode(resources.location, entries))
    return MapNode(tree.location, {**tree.entries, "resources": resources_entry})


def shared_defaults(tree: MapNode) -> MapNode | None:
    """Return those ``defaults`` that resources can share; None where there are none."""
    defaults = tree.get("defaults")
    if not isinstance(defaults, MapNode):
        return None
    return MapNode(defaults.location, {key: e for key, e in defaults.entries.items() if key not in NOT_DEFAULTS})


def drop_nulls(tree: MapNode) -> MapNode:
    """Return the tree without the keys that are ``null``."""
    entries = {}
    for key, entry in tree.entries.items():
        if is_null(entry.value):
            continue
        entries[key] = MapEntry(entry.key, drop_nulls(entry.value)) if isinstance(entry.value, MapNode) else entry
    return MapNode(tree.location, entries)


def is_null(node: Node) -> bool:
    """Say whether a node is ``null``."""
    return isinstance(node, ScalarNode) and node.value is None


def _laid_under(base: MapNode, resource: Node) -> Node:
    # A resource without keys of its own has a place of its own all the same.
    return MapNode(resource.location, _over(base, resource).entries) if isinstance(resource, MapNode) else resource


def _over(base: MapNode, top: MapNode) -> MapNode:
    entries = dict(base.entries)
    for key, entry in top.entries.items():
        below = entries.get(key)
        if below is not None and isinstance(below.value, MapNode) and isinstance(entry.value, MapNode):
            entries[key] = MapEntry(entry.key, _over(below.value, entry.value))
        else:
            entries[key] = entry
    return MapNode(top.location, entries)
