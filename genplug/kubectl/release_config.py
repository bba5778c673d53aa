"""The ConfigMaps in the record of a release, compared with the digests that the agents have."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.files import ConfigFile, is_config_file, node_of
from genplug.config.load import load_texts
from genplug.kubectl.json_values import JSON, read_map, read_maps, read_text, read_texts
from genplug.kubectl.release_objects import (
    MANAGED_BY_LABEL,
    NodeAnswer,
    describe_label,
    find_agent_container,
    list_field_managers,
    read_fact,
    read_fact_list,
    read_pod_spec,
    read_pool,
    read_words,
)
from genplug.record.facts import Fact, Known, Unknown


def list_config_maps(daemon_set: JSON) -> Iterator[tuple[str, str]]:
    """Yield the use and the name of each ConfigMap that the agents of a DaemonSet read.

    The options of the agent name the directories, and the container mounts the volumes there.
    """
    spec = read_pod_spec(daemon_set)
    container = find_agent_container(spec)
    arguments = read_words(container, "args")
    uses = {"--config": "configuration", "--policy": "policy"}
    paths = {value: uses[option] for option, value in pairwise(arguments) if option in uses}
    mounts = {read_text(mount, "name"): read_text(mount, "mountPath") for mount in read_maps(container, "volumeMounts")}
    for volume in read_maps(spec, "volumes"):
        name, directory = read_text(read_map(volume, "configMap"), "name"), mounts.get(read_text(volume, "name"))
        use = next((use for path, use in paths.items() if f"{path}/".startswith(f"{directory}/")), None)
        if name and directory and use:
            yield use, name


def list_configurations(
    config_maps: Mapping[str, JSON | Unknown], answers: Sequence[NodeAnswer], daemon_set: JSON
) -> Iterator[dict[str, Any]]:
    """Yield the ConfigMaps of a pool, each with the nodes whose agents have its content."""
    pool = read_pool(daemon_set)
    for use, name in list_config_maps(daemon_set):
        found = config_maps.get(name, Unknown(f"the ConfigMap {name} was not read"))
        own = [answer for answer in answers if answer.pool == pool]
        yield {"pool": pool, "use": use, "configMap": name, **_describe_config_map(found, use, own)}


def _describe_config_map(config_map: JSON | Unknown, use: str, answers: Sequence[NodeAnswer]) -> dict[str, Fact]:
    if isinstance(config_map, Unknown):
        keys = ("resourceVersion", "managedBy", "fieldManagers", "files", "sameNodes", "differentNodes")
        return dict.fromkeys(keys, config_map)
    metadata, data = read_map(config_map, "metadata"), read_texts(config_map, "data")
    managers = list_field_managers(config_map)
    files = tuple(
        {"path": name, "sha256": Known(_digest(text), f"key '{name}' of the ConfigMap")}
        for name, text in sorted(data.items())
    )
    same, different = _compare_nodes(data, use, answers)
    return {
        "resourceVersion": Known(read_text(metadata, "resourceVersion"), "the ConfigMap"),
        "managedBy": describe_label(config_map, MANAGED_BY_LABEL),
        "fieldManagers": Known(managers, "'managedFields' of the ConfigMap")
        if managers
        else Unknown("the ConfigMap has no 'managedFields'"),
        "files": Known(files, "the ConfigMap"),
        "sameNodes": same,
        "differentNodes": different,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _compare_nodes(data: Mapping[str, str], use: str, answers: Sequence[NodeAnswer]) -> tuple[Fact, Fact]:
    """Return the nodes whose agents have the content of a ConfigMap, and those with another content."""
    same: list[str] = []
    different: list[dict[str, str]] = []
    unknown: list[str] = []
    for answer in answers:
        expected, found = _expected_digest(data, use, answer), _found_digest(use, answer)
        if expected is None or found is None:
            unknown.append(answer.node)
        elif expected == found:
            same.append(answer.node)
        else:
            different.append({"node": answer.node, "expected": expected, "found": found})
    source = "digests of the ConfigMap and of the agents"
    if unknown:
        source += f"; not known: {', '.join(sorted(unknown))}"
    if answers and len(unknown) == len(answers):
        reason = Unknown("no agent of the pool returned a digest, or the ConfigMap is not a valid configuration")
        return reason, reason
    return Known(tuple(sorted(same)), source), Known(tuple(sorted(different, key=lambda entry: entry["node"])), source)


def _expected_digest(data: Mapping[str, str], use: str, answer: NodeAnswer) -> str | None:
    """Return the digest that the agent of a node has after it read a ConfigMap."""
    if use == "policy":
        return _digest(data["policy.yaml"]) if "policy.yaml" in data else None
    names = [name for name in sorted(data) if is_config_file(name) and node_of(name) in (None, answer.node)]
    names.sort(key=lambda name: node_of(name) is not None)
    try:
        return load_texts([ConfigFile(name, data[name]) for name in names], None).sha256
    except ConfigInvalidError:
        return None


def _found_digest(use: str, answer: NodeAnswer) -> str | None:
    """Return the digest of the active configuration of an agent, or of the policy file in its container."""
    if isinstance(answer.record, Unknown):
        return None
    if use == "configuration":
        value = read_fact(answer.record, "configuration", "activeSha256")
    else:
        files = read_fact_list(answer.record, "policy", "file")
        value = read_fact(files[0], "sha256") if files else None
    return value if isinstance(value, str) else None
