"""``kubectl genplug why`` as an operator calls it, with a stand-in for kubectl."""

import json
from pathlib import Path

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
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas/refusal.schema.json").read_text())
REFUSAL = f"{THING} device device-1 cannot be allocated to a container: /dev/device1 does not exist"
MESSAGE = (
    f"Pod was rejected: Allocate failed due to rpc error: code = FailedPrecondition desc = {REFUSAL}, which is "
    "unexpected"
)


def build_failed(name: str = "train-0", message: str = MESSAGE, reason: str = "UnexpectedAdmissionError") -> Object:
    status = {"phase": "Failed", "reason": reason, "message": message}
    return make_pod(name, namespace="ml", node="node-1", status=status)


@pytest.fixture
def cluster(kubectl: KubectlStandIn) -> KubectlStandIn:
    """Return a kubectl of a cluster in which genplug refused a pod and reports an unhealthy device."""
    resource = make_resource(THING, healthy=1, unhealthy=1, reason="/dev/device1 is gone")
    resource["lastRefusal"] = {"time": "2026-11-27T17:22:18Z", "message": REFUSAL}
    kubectl.answer("get node node-1", json.dumps(make_node("node-1", capacity={THING: 2}, allocatable={THING: 1})))
    kubectl.list("pods --all-namespaces --selector=genplug.io/pool", make_agent_pod("node-1"))
    kubectl.status("genplug-node-1", make_status("node-1", [resource]))
    kubectl.answer("get pod train-0", json.dumps(build_failed()))
    return kubectl


def run(kubectl: KubectlStandIn, *arguments: str) -> int:
    return main(["why", *arguments, f"--kubectl={kubectl.program}"])


def test_refusal_is_explained_with_the_present_state(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cluster, "train-0", "--namespace=ml") == 0
    check_golden(GOLDEN / "why.txt", capsys.readouterr().out)


def test_pod_with_the_label_of_an_agent_is_not_asked(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"genplug.io/pool": "default"}
    false = make_pod("false", namespace="attacker", node="node-1", labels=labels, owner=("DaemonSet", "x", "uid"))
    cluster.list("pods --all-namespaces --selector=genplug.io/pool", false, make_agent_pod("node-1"))
    assert run(cluster, "train-0", "--namespace=ml") == 0
    check_golden(GOLDEN / "why.txt", capsys.readouterr().out)
    assert [call for call in cluster.calls() if call.startswith("exec") and "false" in call] == []


def test_document_has_the_schema(cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cluster, "pod/train-0", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    assert (document["cause"], document["refused"], document["node"]) == ("deviceGone", True, "node-1")


def test_unknown_text_exits_with_4(cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answer("get pod train-0", json.dumps(build_failed(message="Pod was rejected: something new")))
    assert run(cluster, "train-0") == 4
    assert "with a text that this version of genplug does not know" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "Pending"}, "it waits for a node. what to do: see why it waits: kubectl genplug pending"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "it is Failed with the reason DeadlineExceeded."),
    ],
)
def test_pod_that_was_not_refused_exits_with_4(
    kubectl: KubectlStandIn, capsys: pytest.CaptureFixture[str], status: Object, text: str
) -> None:
    kubectl.answer("get pod train-0", json.dumps(make_pod("train-0", status=status)))
    assert run(kubectl, "train-0") == 4
    assert text in " ".join(capsys.readouterr().out.split())


def test_container_that_does_not_start_is_explained(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"endpoint not found in cache for a registered resource: {THING}"
    waiting = {"reason": "CreateContainerConfigError", "message": message}
    status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]}
    pod = make_pod("train-0", namespace="ml", node="node-1", containers=[{"name": "main"}], status=status)
    cluster.answer("get pod train-0", json.dumps(pod))
    assert run(cluster, "train-0") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "its container main does not start. The container restarts, and no device plugin has served" in output


def test_node_that_does_not_exist_is_named(cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answer("get node node-1", stderr='Error from server (NotFound): nodes "node-1" not found', code=1)
    assert run(cluster, "train-0") == 0
    assert "the node node-1 does not exist any longer" in capsys.readouterr().out


def test_operator_without_rights_on_nodes_sees_the_explanation(
    cluster: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbid("get node node-1", verb="get")
    assert run(cluster, "train-0") == 0
    assert "the node is not known: failed: Error from server (Forbidden)" in capsys.readouterr().out


def test_all_refused_pods_are_listed(kubectl: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    ended = build_failed("ended", message="", reason="DeadlineExceeded")
    kubectl.list("pods --all-namespaces", ended, build_failed("train-0"), build_failed("train-1"))
    assert run(kubectl) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAMESPACE", "POD", "NODE", "CAUSE"]
    assert [line.split()[1] for line in lines[1:] if line.startswith("ml")] == ["train-0", "train-1"]


def test_no_refused_pod_is_a_message(kubectl: KubectlStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl.list("pods --namespace=ml")
    assert run(kubectl, "--namespace=ml") == 0
    assert capsys.readouterr().err == "kubectl genplug why: no failed pod was refused by the kubelet\n"
