"""The parts of the objects of a release, and of the records of its nodes, that a record of the release consists of.

The objects and records are input: a key that is missing or has another type counts as empty.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_text, read_texts
from genplug.kubectl.objects import CONTAINER, POOL_LABEL
from genplug.record.facts import Fact, Known, Unknown

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
NO_RECORD = "no agent returned a record"
NODE_RECORDS = "'genplug record' in the containers of the agents"
"""The source of facts that the records of nodes contain."""


class NodeAnswer(Struct, frozen=True):
    """The pod of an agent, and the record that it returned, or why it returned none."""

    pod: JSON
    record: JSON | Unknown

    @property
    def node(self) -> str:
        """The name of the node."""
        return read_text(read_map(self.pod, "spec"), "nodeName")

    @property
    def pool(self) -> str:
        """The name of the pool."""
        return read_labels(self.pod).get(POOL_LABEL, "")


def read_labels(item: JSON) -> dict[str, str]:
    """Return the labels of an object."""
    return read_texts(read_map(item, "metadata"), "labels")


def read_annotations(item: JSON) -> dict[str, str]:
    """Return the annotations of an object."""
    return read_texts(read_map(item, "metadata"), "annotations")


def read_name(item: JSON) -> str:
    """Return the name of an object."""
    return read_text(read_map(item, "metadata"), "name")


def read_pool(item: JSON) -> str:
    """Return the name of the pool of a DaemonSet or pod, from its label."""
    return read_labels(item).get(POOL_LABEL, "")


def read_pod_spec(daemon_set: JSON) -> JSON:
    """Return the ``spec`` of the pod template of a DaemonSet."""
    return read_map(read_map(read_map(daemon_set, "spec"), "template"), "spec")


def find_agent_container(spec: JSON) -> JSON:
    """Return the container of the agent in the ``spec`` of a pod: by its name, else the first container."""
    containers = list(read_maps(spec, "containers"))
    return next((container for container in containers if read_text(container, "name") == CONTAINER), {}) or (
        containers[0] if containers else {}
    )


def read_account(daemon_set: JSON) -> str:
    """Return the name of the service account of a DaemonSet."""
    return read_text(read_pod_spec(daemon_set), "serviceAccountName") or "default"


def list_field_managers(item: JSON) -> tuple[str, ...]:
    """Return the programs that changed an object; kubectl prints them with ``--show-managed-fields``."""
    entries = read_maps(read_map(item, "metadata"), "managedFields")
    return tuple(sorted({read_text(entry, "manager") for entry in entries if read_text(entry, "manager")}))


def describe_label(item: JSON, label: str) -> Fact:
    """Return the value of a label of an object."""
    value = read_labels(item).get(label)
    return (
        Known(value, f"label '{label}'") if value else Unknown(f"the object {read_name(item)} has no label '{label}'")
    )


def read_words(parent: JSON, key: str) -> list[str]:
    """Return the texts in the list of a key."""
    value = parent.get(key)
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def read_fact(document: JSON, *path: str) -> Any:  # noqa: ANN401 - a value of a document
    """Return the value of a known fact in the record of a node, or None."""
    for key in path:
        document = read_map(document, key)
    return document.get("value") if document.get("known") is True else None


def read_fact_list(document: JSON, *path: str) -> list[JSON]:
    """Return the objects in the list of a known fact in the record of a node."""
    value = read_fact(document, *path)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def copy_fact(document: JSON, *path: str) -> Fact:
    """Return a fact of the record of a node."""
    for key in path:
        document = read_map(document, key)
    if document.get("known") is True:
        return Known(document.get("value"), read_text(document, "source"))
    return Unknown(read_text(document, "reason") or f"the record of the node has no field '{'.'.join(path)}'")


def count_entries(found: Iterable[tuple[str, dict[str, Any]]], items: str) -> Iterator[dict[str, Any]]:
    """Yield each distinct entry once, with the number of its nodes, and with its number if ``items`` is a key."""
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for node, entry in found:
        groups.setdefault(json.dumps(entry, sort_keys=True), (entry, []))[1].append(node)
    for _, (entry, nodes) in sorted(groups.items(), key=lambda group: _sort_key(group[1][0])):
        yield {**entry, **({items: len(nodes)} if items else {}), "nodes": len(set(nodes))}


def _sort_key(entry: JSON) -> list[str]:
    return [json.dumps(value, sort_keys=True) for value in entry.values()]
