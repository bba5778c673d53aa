"""``kubectl genplug pending`` as an operator calls it, with a stand-in for kubectl."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from genplug.kubectl.main import main
from tests.support.golden import check_golden
from tests.support.kubectl import (
    KubectlStandIn,
    Object,
    make_agent_pod,
    make_node,
    make_pod,
    make_resource,
    make_status,
)

THING = "test.example/thing"
GOLDEN = Path(__file__).parent / "golden"
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas/pending.schema.json").read_text())
NOT_FOUND = 'Error from server (NotFound): pods "trian-0" not found'


def build_container(count: int) -> Object:
    return {"name": "main", "resources": {"requests": {THING: str(count)}, "limits": {THING: str(count)}}}


def build_waiting(name: str, count: int, **options: Any) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    status = {"phase": "Pending", "conditions": [condition]}
    return make_pod(name, namespace="ml", containers=[build_container(count)], status=status, **options)


@pytest.fixture
def cluster(kubectl: KubectlStandIn) -> KubectlStandIn:
    """Return a kubectl of a cluster of two nodes: on one a device is unhealthy, and the other is cordoned."""
    kubectl.list(
        "nodes",
        make_node("node-1", capacity={THING: 3}, allocatable={THING: 2}),
        make_node("node-2", capacity={THING: 3}, is_unschedulable=True),
    )
    kubectl.list(
        "pods --all-namespaces",
        make_agent_pod("node-1"),
        make_pod("holder", namespace="ml", node="node-1", containers=[build_container(1)]),
        build_waiting("train-0", 2),
        build_waiting("train-1", 3, created="2026-11-27T17:00:01Z"),
    )
    kubectl.answer("get pod train-0", json.dumps(build_waiting("train-0", 2)))
    kubectl.answer("get pod train-1", json.dumps(build_waiting("train-1", 3)))
    kubectl.status("genplug-node-1", make_status("node-1", [make_resource(THING, healthy=2, unhealthy=1)]))
    return kubectl


def run(kubectl: KubectlStandIn, *arguments: str) -> int:
    return main(["pending", *arguments, f"--kubectl={kubectl.program}"])


def test_pod_with_the_label_of_an_agent_is_not_asked(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"genplug.io/pool": "default"}
    false = make_pod("false", namespace="zoo", node="node-1", labels=labels, owner=("DaemonSet", "x", "uid"))
    holder = make_pod("holder", namespace="ml", node="node-1", containers=[build_container(1)])
    cluster.list("pods --all-namespaces", make_agent_pod("node-1"), holder, build_waiting("train-1", 3), false)
    assert run(cluster, "train-1", "--namespace=ml") == 0
    assert "/dev/x is gone" in capsys.readouterr().out
    assert [call for call in cluster.calls() if call.startswith("exec") and "false" in call] == []


def test_pod_is_explained_with_the_reasons_of_the_agent(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cluster, "train-1", "--namespace=ml") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert output.startswith(
        f"ml/train-1: The pod requests 3 {THING}, and only 2 of 3 on node-1 are healthy: device-2: /dev/x is gone "
        "(since 2026-11-27T17:22:17Z)."
    )
    asked = [call for call in cluster.calls() if call.startswith("exec")]
    assert len(asked) == 1


def test_document_has_the_schema(cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cluster, "train-0", "--namespace=ml", "-o", "json") == 0
    output = capsys.readouterr().out
    jsonschema.validate(json.loads(output), SCHEMA)
    check_golden(GOLDEN / "pending.json", output)


def test_yaml_is_the_same_document(cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    run(cluster, "train-0", "-o", "yaml")
    assert capsys.readouterr().out.startswith("apiVersion: genplug.io/v1alpha1\nkind: PendingReport\nitems:\n- target:")


def test_all_pods_that_wait_are_listed_without_asking_agents(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cluster) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAMESPACE", "POD", "AGE", "REQUESTS", "CAUSE"]
    assert [line.split()[1] for line in lines[1:] if line.startswith("ml")] == ["train-0", "train-1"]
    assert not [call for call in cluster.calls() if call.startswith("exec")]


def test_listed_pods_of_a_controller_have_their_own_names(
    kubectl: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = ("Job", "train", "uid-train")
    kubectl.list("nodes", make_node("node-1", capacity={THING: 1}))
    kubectl.list("pods", *(build_waiting(f"train-{number}", 2, owner=owner) for number in range(3)))
    assert run(kubectl, "-o", "json") == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [item["target"]["name"] for item in items] == ["train-0", "train-1", "train-2"]
    assert {item["cause"] for item in items} == {"tooMany"}


def test_no_pod_that_waits_is_a_message(kubectl: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl.list("nodes", make_node("node-1"))
    kubectl.list("pods", make_pod("waiting-for-cpu"))
    assert run(kubectl) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "kubectl genplug pending: no pod that requests extended resources waits\n"


def test_pod_without_a_known_cause_exits_with_4(kubectl: KubectlStandIn) -> None:
    kubectl.list("nodes", make_node("node-1", capacity={THING: 3}))
    kubectl.list("pods --all-namespaces")
    kubectl.answer("get pod train-0", json.dumps(build_waiting("train-0", 2)))
    assert run(kubectl, "train-0") == 4


@pytest.mark.parametrize(
    ("name", "namespace", "hint"),
    [
        ("trian-0", "ml", "did you mean train-0, train-1?"),
        ("train-0", "default", "the pod exists in the namespace ml: pass --namespace ml"),
        ("train-9", "genplog", "the namespace genplog has no pod: did you mean --namespace genplug?"),
    ],
)
def test_missing_pod_has_a_suggestion(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str], name: str, namespace: str, hint: str
) -> None:
    cluster.answer(f"get pod {name} ", stderr=NOT_FOUND, code=1)
    assert run(cluster, name, f"--namespace={namespace}") == 1
    assert hint in capsys.readouterr().err


def test_operator_without_rights_on_other_namespaces_sees_what_is_not_known(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.list("pods --namespace=ml", build_waiting("train-0", 2))
    cluster.forbid("get pods --all-namespaces", resource="pods")
    run(cluster, "train-0", "--namespace=ml")
    assert "the pods of other namespaces are not known, so devices in use can look free" in capsys.readouterr().out


def test_agent_that_does_not_answer_is_named(cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answer("exec", stderr="Error from server: no route to host", code=1)
    assert run(cluster, "train-1", "--namespace=ml") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "the agent genplug/genplug-node-1 did not answer: failed: Error from server: no route to host" in output


def test_unknown_type_is_a_usage_error(kubectl: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run(kubectl, "service/web")
    assert raised.value.code == 2
    assert "expected POD or TYPE/NAME with a TYPE of daemonset, deployment" in capsys.readouterr().err


def build_deployment(replicas: int, failure: str = "") -> Object:
    conditions = [{"type": "ReplicaFailure", "status": "True", "message": failure}] if failure else []
    return {
        "kind": "Deployment",
        "metadata": {"namespace": "ml", "name": "web", "uid": "uid-web"},
        "spec": {"replicas": replicas},
        "status": {"conditions": conditions},
    }


REPLICA_SET = {
    "kind": "ReplicaSet",
    "metadata": {"namespace": "ml", "name": "web-1", "uid": "uid-rs", "ownerReferences": [{"uid": "uid-web"}]},
    "spec": {"replicas": 2},
}
QUOTA_ERROR = (
    f'pods "web-x" is forbidden: exceeded quota: devices, requested: requests.{THING}=1, '
    f"used: requests.{THING}=1, limited: requests.{THING}=1"
)


def test_workload_without_pods_is_explained_by_the_error_of_its_controller(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answer("get deployment.apps web", json.dumps(build_deployment(2, QUOTA_ERROR)))
    cluster.list("replicasets.apps", REPLICA_SET)
    cluster.list("events")
    assert run(cluster, "deploy/web", "--namespace=ml") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert output.startswith("ml/web: The API server creates no pod, because the ResourceQuota devices is used up")


def test_workload_with_waiting_pods_is_explained_by_the_oldest_of_them(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = ("ReplicaSet", "web-1", "uid-rs")
    cluster.answer("get deployment.apps web", json.dumps(build_deployment(2)))
    cluster.list("replicasets.apps", REPLICA_SET)
    cluster.list("events")
    pods = [build_waiting("web-1-b", 4, owner=owner), build_waiting("web-1-a", 4, owner=owner)]
    cluster.list("pods --all-namespaces", *pods)
    assert run(cluster, "deployment/web", "--namespace=ml") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert f"ml/web: The pod requests 4 {THING}, and no node has more than 3 (node-1, node-2)." in output
    assert "2 pods of Deployment web wait; this is about web-1-a" in output
