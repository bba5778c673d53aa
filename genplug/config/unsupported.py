"""What the language has and this version does not do: refused at its place, with what to do instead, never ignored."""

from collections.abc import Iterator, Mapping

from genplug.config.document import Entry, ListNode, MapNode, Node, ScalarNode
from genplug.config.problem import Code, Problems

_NUMBERS = "remove it; today a device is healthy while its nodes exist, and that is looked at by events"
_KEYS: Mapping[str, Mapping[str, str]] = {
    "": {
        "slices": "write 'replicas' with the number, in a resource for each number",
        "aliases": "write a second resource of that name with its own devices",
        "preStart": "let an init container of the pod do it",
    },
    "allocate": {"cdiDevices": "write what the container needs as 'nodes', 'env' and 'mounts'"},
    "health": {
        "periodSeconds": _NUMBERS,
        "timeoutSeconds": _NUMBERS,
        "failureThreshold": _NUMBERS,
        "successThreshold": _NUMBERS,
        "onError": _NUMBERS,
        "sticky": _NUMBERS,
        "probes": "remove it; today a device is healthy while its nodes exist",
    },
}
"""Part of a resource to its keys that this version does not have, and what to do today."""
_VALUES: Mapping[tuple[str, str], tuple[object, str]] = {
    ("allocate", "inject"): ("nodes", "remove it; nodes are named in the answer to the kubelet"),
    ("", "topology"): ("none", "remove it or write 'none'; the kubelet is told no NUMA node"),
}
"""Part and key to the one value that this version has."""
_ATTRIBUTES = "select and name by path, name, index, type, major, minor and target"


def note_unsupported(node: MapNode, where: str, problems: Problems) -> None:
    """Note every key of a resource (or of ``defaults``) that this version cannot honour."""
    for path, value, entry, hint in _found(node):
        message, width = f"{path + value!r} is not supported yet", len(path.rpartition(".")[2])
        problems.add(Code.NOT_SUPPORTED, entry.key, message, tree=f"{where}.{path}", hint=hint, width=width)


def own_attributes(tree: Node) -> frozenset[str]:
    """Return the names of all attributes that a configuration defines."""
    if isinstance(tree, ListNode):
        return frozenset().union(*map(own_attributes, tree.items))
    if not isinstance(tree, MapNode):
        return frozenset()
    own = tree.get("attributes")
    inner = (own_attributes(entry.value) for entry in tree.entries.values())
    return frozenset(own.entries if isinstance(own, MapNode) else ()).union(*inner)


def _found(node: MapNode) -> Iterator[tuple[str, str, Entry, str]]:
    for part, keys in _KEYS.items():
        for key, entry in _entries(node, part):
            if key in keys:
                yield _path(part, key), "", entry, keys[key]
            elif (known := _VALUES.get((part, key))) and isinstance(entry.value, ScalarNode):
                value, hint = known
                if entry.value.value != value:
                    yield _path(part, key), f": {entry.value.text}", entry, hint
    devices = node.get("devices")
    for number, source in enumerate(devices.items if isinstance(devices, ListNode) else ()):
        if isinstance(source, MapNode) and "attributes" in source.entries:
            yield f"devices[{number}].attributes", "", source.entries["attributes"], _ATTRIBUTES


def _entries(node: MapNode, part: str) -> Iterator[tuple[str, Entry]]:
    inner = node.get(part) if part else node
    if isinstance(inner, MapNode):
        yield from inner.entries.items()


def _path(part: str, key: str) -> str:
    return f"{part}.{key}" if part else key
