"""What the language has and this version does not do: refused at its place, with what to do instead, never ignored."""

from collections.abc import Mapping

from genplug.config.document import MapNode
from genplug.config.problem import Code, Problems
from genplug.config.texts import entries

_NUMBERS = "remove it; today a device is healthy while its nodes exist, and that is looked at by events"
_HEALTH: Mapping[str, str] = {
    "periodSeconds": _NUMBERS,
    "timeoutSeconds": _NUMBERS,
    "failureThreshold": _NUMBERS,
    "successThreshold": _NUMBERS,
    "onError": _NUMBERS,
    "sticky": _NUMBERS,
    "probes": "remove it; today a device is healthy while its nodes exist",
}
"""Keys of ``health`` that this version does not have, and what to do today."""


def note_unsupported(node: MapNode, where: str, problems: Problems) -> None:
    """Note every key of a resource (or of ``defaults``) that this version cannot honour."""
    for key, entry in entries(node.get("health")):
        if key in _HEALTH:
            message, tree = f"'health.{key}' is not supported yet", f"{where}.health.{key}"
            problems.add(Code.NOT_SUPPORTED, entry.key, message, tree=tree, hint=_HEALTH[key], width=len(key))
