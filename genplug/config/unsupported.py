"""What the language has and this version does not do: refused at its place, with what to do instead, never ignored."""

from collections.abc import Iterator

from genplug.config.document import Entry, ListNode, MapNode, Node, ScalarNode, plain
from genplug.config.problem import Code, Problems

_WAITS = "remove it; what it asks for would not happen, and nobody would be told"
_HEALTH = (
    "periodSeconds",
    "timeoutSeconds",
    "failureThreshold",
    "successThreshold",
    "onError",
    "sticky",
    "probes",
)


def note_unsupported(node: MapNode, where: str, problems: Problems) -> None:
    """Note every key of a resource (or of ``defaults``) that this version cannot honour."""
    for path, entry, hint in _found(node):
        message = f"{path!r} is not supported yet"
        width = len(path.rpartition(".")[2])
        problems.add(Code.NOT_SUPPORTED, entry.key, message, tree=f"{where}.{path}", hint=hint, width=width)


def _found(node: MapNode) -> Iterator[tuple[str, Entry, str]]:
    yield from _keys(node, "", ("slices", "aliases", "preStart"), _WAITS)
    yield from _keys(node.get("share"), "share.", ("maxPerContainer",), _WAITS)
    yield from _unless(node.get("share"), "share.", "distinct", value=False)
    yield from _keys(node.get("allocate"), "allocate.", ("cdiDevices",), "let 'nodes' and 'mounts' say what it needs")
    yield from _unless(node.get("allocate"), "allocate.", "inject", value="nodes")
    yield from _unless(node, "", "topology", value="none")
    yield from _unless(node.get("preferredAllocation"), "preferredAllocation.", "policy", value="none")
    yield from _keys(node.get("preferredAllocation"), "preferredAllocation.", ("by",), _WAITS)
    yield from _keys(node.get("health"), "health.", _HEALTH, "remove it; today the nodes' presence is what is probed")
    devices = node.get("devices")
    for number, source in enumerate(devices.items if isinstance(devices, ListNode) else ()):
        hint = "this version knows path, name, index, type, major, minor and target"
        yield from _keys(source, f"devices[{number}].", ("attributes",), hint)


def _keys(node: Node | None, prefix: str, keys: tuple[str, ...], hint: str) -> Iterator[tuple[str, Entry, str]]:
    if isinstance(node, MapNode):
        for key in keys:
            if key in node.entries:
                yield f"{prefix}{key}", node.entries[key], hint


def _unless(node: Node | None, prefix: str, key: str, *, value: object) -> Iterator[tuple[str, Entry, str]]:
    if isinstance(node, MapNode) and key in node.entries:
        written = node.entries[key].value
        if isinstance(written, ScalarNode) and plain(written) != value:
            yield f"{prefix}{key}", node.entries[key], f"this version has '{key}: {str(value).lower()}' only; remove it"
