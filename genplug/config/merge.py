"""Merging of trees: maps key by key, everything else is replaced, ``null`` deletes. Places go with their values."""

from collections.abc import Iterable

from genplug.config.document import Entry, MapNode, Node, ScalarNode

NOT_DEFAULTS = ("devices", "aliases")
"""Keys of a resource that belong to it alone."""


def merged(trees: Iterable[MapNode]) -> MapNode:
    """Return what several trees say together, later ones over earlier ones. Takes at least one."""
    result, *others = trees
    for other in others:
        result = _over(result, other)
    return _without_nulls(result)


def with_defaults(tree: MapNode) -> MapNode:
    """Return the tree with ``defaults`` laid under each resource."""
    defaults, resources = tree.get("defaults"), tree.get("resources")
    if not isinstance(defaults, MapNode) or not isinstance(resources, MapNode):
        return tree
    base = MapNode(defaults.place, {key: e for key, e in defaults.entries.items() if key not in NOT_DEFAULTS})
    entries = {name: Entry(entry.key, _laid_under(base, entry.value)) for name, entry in resources.entries.items()}
    whole = dict(tree.entries)
    whole["resources"] = Entry(whole["resources"].key, MapNode(resources.place, entries))
    return MapNode(tree.place, whole)


def is_null(node: Node) -> bool:
    """Say whether a node is ``null``."""
    return isinstance(node, ScalarNode) and node.value is None


def _laid_under(base: MapNode, resource: Node) -> Node:
    if not isinstance(resource, MapNode):
        return resource
    over = _over(base, resource)
    return _without_nulls(MapNode(resource.place, over.entries))


def _over(base: MapNode, top: MapNode) -> MapNode:
    entries = dict(base.entries)
    for key, entry in top.entries.items():
        below = entries.get(key)
        if below is not None and isinstance(below.value, MapNode) and isinstance(entry.value, MapNode):
            entries[key] = Entry(entry.key, _over(below.value, entry.value))
        else:
            entries[key] = entry
    return MapNode(top.place, entries)


def _without_nulls(tree: MapNode) -> MapNode:
    entries = {}
    for key, entry in tree.entries.items():
        if is_null(entry.value):
            continue
        value = _without_nulls(entry.value) if isinstance(entry.value, MapNode) else entry.value
        entries[key] = Entry(entry.key, value)
    return MapNode(tree.place, entries)
