"""The record of a release is built from objects and records with any content."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from genplug.kubectl.release_access import RoleObjects
from genplug.kubectl.release_objects import NodeAnswer
from genplug.kubectl.release_record import ReleaseObjects, build_release_record
from genplug.record.facts import find_facts
from genplug.record.formats import format_markdown
from genplug.record.node import Generation
from tests.unit.kubectl.test_record import CONFIG, NODE_RECORD, make_binding, make_object, make_release_pod
from tests.unit.kubectl.test_record import make_release_set as make_daemon_set

GENERATION = Generation("2026-11-27T18:00:00Z", "kubectl genplug record", "0.1.0")
JUNK: tuple[Any, ...] = (None, 7, "x", [], {}, [7], {"x": 7}, ["x", {"x": []}])


def make_parts() -> dict[str, Any]:
    """Return an object of each kind, by the name of its field."""
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "pool", "operator": "In", "values": ["a"]}]}]}}  # fmt: skip
    subject = {"kind": "ServiceAccount", "name": "genplug", "namespace": "genplug"}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["update"]}]
    validations = [{"expression": "x"}]
    peers = {"podSelector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y"]}]}}
    return {
        "daemon_sets": make_daemon_set(affinity={"nodeAffinity": affinity}),
        "pod": make_release_pod("node-1"),
        "record": json.loads(Path(NODE_RECORD).read_text()),
        "nodes": make_object("Node", "node-1", status={"nodeInfo": {"kernelVersion": "6.0"}}),
        "config_map": make_object("ConfigMap", "genplug-config", data={"genplug.yaml": CONFIG}),
        "account": make_object("ServiceAccount", "genplug", automountServiceAccountToken=False),
        "roles": make_object("ClusterRole", "edit", rules=rules),
        "bindings": make_binding("editors", "edit", subject),
        "policies": make_object("ValidatingAdmissionPolicy", "a.genplug", spec={"validations": validations}),
        "policy_bindings": make_object("X", "a", spec={"policyName": "a.genplug", "validationActions": ["Deny"]}),
        "network": make_object("NetworkPolicy", "a", spec={**peers, "ingress": [{"ports": [{"port": 1}]}]}),
        "quotas": make_object("ResourceQuota", "a", "team", spec={"hard": {"requests.example.com/fuse": 1}}),
    }


def build(parts: dict[str, Any]) -> dict[str, Any]:
    objects = ReleaseObjects(
        namespace="genplug",
        daemon_sets=[parts["daemon_sets"]],
        answers=[NodeAnswer(parts["pod"], parts["record"])],
        nodes=[parts["nodes"]],
        config_maps={"genplug-config": parts["config_map"]},
        accounts={"genplug": parts["account"]},
        roles=RoleObjects([], [parts["roles"]], [], [parts["bindings"]]),
        admission_policies=[parts["policies"]],
        admission_bindings=[parts["policy_bindings"]],
        network_policies=[parts["network"]],
        quotas=[parts["quotas"]],
    )
    return build_release_record(GENERATION, objects).as_json()


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in an object."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from list_paths(inner, (*path, key))


@pytest.mark.parametrize("name", make_parts())
def test_value_of_any_type_gives_a_record(name: str) -> None:
    parts = make_parts()
    for number, path in enumerate(list_paths(parts[name])):
        # Each path gets one of the values: all of them would take a minute.
        junk = JUNK[number % len(JUNK)]
        changed = deepcopy(parts[name])
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = junk
        try:
            document = build({**parts, name: changed})
            assert format_markdown(document)
        except Exception as error:
            error.add_note(f"with {junk!r} at {'.'.join(map(str, path))}")
            raise
        assert "deployment.tool" in find_facts(document)
