"""``kubectl genplug status``: the agents and devices of all nodes, with a stand-in for kubectl."""

import contextlib
import hashlib
import io
import json
import os
import pkgutil
import pty
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.kubectl.main import COMMANDS, main
from tests.support.golden import check_golden
from tests.support.kubectl import (
    KubectlStandIn,
    Object,
    make_agent_pod,
    make_daemon_set,
    make_node,
    make_resource,
    make_status,
)
from tests.support.outputs import check_output
from tests.support.pages import ROOT

GOLDEN = Path(__file__).parent / "golden"
NO_EXEC = (
    'error: unable to upgrade connection: pods "genplug-node-1" is forbidden: User "operator" cannot create resource '
    '"pods/exec" in API group "" in the namespace "genplug"'
)
"""The message of kubectl 1.37 and an API server 1.34."""
NEWER, OLDER = (hashlib.sha256(text).hexdigest() for text in (b"newer", b"older"))
Run = Callable[..., int]


def require_pool(operator: str) -> dict[str, Any]:
    """Return the affinity that the chart gives to a pool."""
    term = {"matchExpressions": [{"key": "pool", "operator": operator, "values": ["gpu"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}


def fill(kubectl: KubectlStandIn, nodes: int = 2, **capacity: int) -> list[str]:
    """Answer as a cluster with an agent on each node, and return the names of the nodes."""
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    kubectl.list("daemonsets", make_daemon_set(desired=nodes, ready=nodes))
    kubectl.list(
        "nodes",
        *(make_node(name, capacity={f"a.io/{key}": count for key, count in capacity.items()}) for name in names),
    )
    kubectl.list("pods", *map(make_agent_pod, names))
    for name in names:
        kubectl.status(f"genplug-{name}", make_status(name, [make_resource("a.io/x", healthy=2, used=1)]))
    return names


def fill_pools(kubectl: KubectlStandIn) -> None:
    """Answer as a cluster of two pools with each kind of failure."""
    lost = "Kubelet stopped posting node status."
    kubectl.list(
        "nodes",
        make_node("cpu-1"),
        make_node("cpu-2"),
        make_node("cpu-3", unready=lost),
        *(make_node(f"gpu-{number}", labels={"pool": "gpu"}) for number in range(1, 5)),
    )
    kubectl.list(
        "daemonsets",
        make_daemon_set("genplug", pod_spec=require_pool("NotIn")),
        make_daemon_set("genplug-gpu", pool="gpu", pod_spec=require_pool("In")),
    )
    crashing = ("CrashLoopBackOff", "back-off 5m0s restarting failed container=genplug")
    kubectl.list(
        "pods",
        *(make_agent_pod(f"cpu-{number}") for number in (1, 2, 3)),
        *(make_agent_pod(f"gpu-{number}", daemon_set="genplug-gpu", pool="gpu") for number in (1, 2)),
        make_agent_pod("gpu-3", daemon_set="genplug-gpu", pool="gpu", waiting=crashing),
    )
    serial = make_resource("example.com/serial", healthy=4, used=1)
    kubectl.status("genplug-cpu-1", make_status("cpu-1", [serial], sha256=NEWER))
    kubectl.status(
        "genplug-cpu-2", make_status("cpu-2", [serial], sha256=NEWER, unready=["kubelet: kubelet.sock does not exist"])
    )
    refused = "Error from server: error dialing backend: dial tcp 10.0.0.3:10250: connect: connection refused"
    kubectl.answer("exec *genplug-cpu-3", stderr=refused, code=1)
    xid = make_resource("nvidia.com/gpu", healthy=7, unhealthy=1, used=3, reason="XID 79 in the kernel log")
    kubectl.status("genplug-gpu-gpu-1", make_status("gpu-1", [xid], sha256=NEWER))
    older = make_status(
        "gpu-2",
        [make_resource("nvidia.com/gpu", healthy=8, used=8)],
        sha256=OLDER,
        version="0.0.9",
        files=["/etc/genplug/genplug.yaml", "/etc/genplug/node.gpu-2.yaml"],
        loaded_at="2026-11-20T00:00:00Z",
    )
    kubectl.status("genplug-gpu-gpu-2", older)


@pytest.fixture
def run(kubectl: KubectlStandIn) -> Run:
    return lambda *arguments: main(["status", f"--kubectl={kubectl.program}", *arguments])


def read_document(run: Run, capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> Any:
    assert run("-o", "json", *arguments) == code
    document = json.loads(capsys.readouterr().out)
    check_output(document)
    return document


def by_node(document: Any) -> dict[str, Any]:
    return {node["name"]: node for pool in document["pools"] for node in pool["nodes"]}


@pytest.mark.parametrize("output", ["table", "wide", "json"])
def test_cluster_with_each_failure_is_shown(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    fill_pools(kubectl)
    assert run("-o", output) == 4
    printed = capsys.readouterr()
    check_golden(GOLDEN / f"status-{output}.{'json' if output == 'json' else 'txt'}", printed.out)
    assert printed.err == ""
    if output == "json":
        check_output(json.loads(printed.out))
    if output == "table":
        assert max(map(len, printed.out.splitlines())) <= 120


def test_guide_shows_the_table_of_this_cluster() -> None:
    page = (ROOT / "docs/how-to/cluster-status.md").read_text()
    assert f"```text\n{(GOLDEN / 'status-table.txt').read_text()}```\n" in page


def test_package_has_the_program_that_kubectl_searches_for() -> None:
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert pkgutil.resolve_name(programs["kubectl-genplug"]) is main


def test_plugin_imports_only_dependencies_in_pure_python() -> None:
    commands = "; ".join(f"import genplug.kubectl.commands.{name}" for name in COMMANDS)
    script = f"import sys; import genplug.kubectl.main; {commands}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    packages = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert packages & {"grpc", "google", "re2", "bracex", "jsonschema", "watchdog", "prometheus_client"} == set()


def test_documents_of_the_stand_in_fit_the_schema_of_the_agent() -> None:
    check_output(make_status("node-1", [make_resource("a.io/x", healthy=1, unhealthy=1, used=1)]))


def test_ready_cluster_exits_with_0(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill(kubectl)
    assert run() == 0
    assert capsys.readouterr().out.startswith("2 nodes in 1 pool: ready; agents: 2 ready; 2 of 2 responded\n")


def test_yaml_is_the_same_document(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill(kubectl)
    document = read_document(run, capsys, code=0)
    assert run("-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == document


def test_options_of_kubectl_are_passed_to_each_call(kubectl: KubectlStandIn, run: Run) -> None:
    fill(kubectl, 1)
    options = ("--context=test", "--as=operator", "--as-group=a", "--as-group=b", "--request-timeout=5s")
    assert run(*options, "-n", "genplug") == 0
    calls = kubectl.calls()
    passed = "--context=test --as=operator --request-timeout=5s --as-group=a --as-group=b "
    assert [call for call in calls if not call.startswith(passed)] == []
    listed = "--namespace=genplug --selector=genplug.io/pool --chunk-size=500 -o json"
    assert sorted(call.removeprefix(passed) for call in calls) == [
        "exec --namespace=genplug genplug-node-1 --container=genplug -- genplug status -o json",
        f"get daemonsets.apps {listed}",
        "get nodes --chunk-size=500 -o json",
        f"get pods {listed}",
    ]


def test_without_exec_right_the_numbers_are_those_of_the_nodes(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = fill(kubectl, 50, x=3)
    half = [make_node(name, capacity={"a.io/x": 3, "cpu": 8}, allocatable={"a.io/x": 2}) for name in nodes]
    kubectl.list("nodes", *half)
    kubectl.answer("exec", stderr=NO_EXEC, code=1)
    document = read_document(run, capsys, "--concurrency=2", code=0)
    assert document["devices"] == {"healthy": 100, "unhealthy": 50, "inUse": None, "free": None}
    [note] = document["notes"]
    assert note.startswith("devices in use, reasons, configurations and versions are not known, and the other numbers")
    assert note.endswith(f"are those of the Kubernetes nodes: failed: {NO_EXEC}")
    # The other agents are not queried.
    assert len([call for call in kubectl.calls() if call.startswith("exec")]) <= 2


def test_policy_that_forbids_a_single_pod_does_not_hide_the_others(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(kubectl, 3)
    denied = 'Error from server (Forbidden): admission webhook "exec.example.com" denied the request'
    kubectl.answer("exec *genplug-node-1 ", stderr=denied, code=1)
    nodes = by_node(read_document(run, capsys, "--concurrency=1", code=4))
    assert {name: node["agent"]["state"] for name, node in nodes.items()} == {
        "node-1": "Unreachable",
        "node-2": "Ready",
        "node-3": "Ready",
    }
    assert nodes["node-1"]["agent"]["reasons"] == [f"pod genplug-node-1: failed: {denied}"]


def test_without_the_right_to_list_nodes_missing_agents_are_counted(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(kubectl)
    kubectl.list("daemonsets", make_daemon_set(desired=3, ready=2))
    kubectl.forbid("get nodes")
    document = read_document(run, capsys, code=4)
    assert document["agents"] | {"expected": 3, "ready": 2, "missing": 1} == document["agents"]
    assert "cannot list resource" in document["notes"][0]
    assert run() == 4
    assert "default: 1 agent missing on nodes that are not known" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["daemonsets", "pods"])
def test_error_of_a_list_ends_the_command_with_1(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    fill(kubectl)
    kubectl.answer(f"get {what}", stderr="Unable to connect to the server: dial tcp: no route to host", code=1)
    assert run() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no route to host; check the context with 'kubectl config current-context'" in printed.err


def test_cluster_without_a_release_is_not_ready(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for what in ("daemonsets", "pods", "nodes"):
        kubectl.list(what)
    assert run() == 4
    assert "found no DaemonSet with the label genplug.io/pool in any namespace" in capsys.readouterr().err


def test_agent_that_hangs_is_unreachable(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill(kubectl)
    kubectl.hang("exec *genplug-node-2 ")
    nodes = by_node(read_document(run, capsys, "--timeout=0.3", code=4))
    assert nodes["node-2"]["agent"]["reasons"] == ["pod genplug-node-2: did not end within 0.3 s"]
    assert nodes["node-1"]["agent"]["state"] == "Ready"


def test_node_whose_kubelet_is_lost_is_not_queried(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(kubectl)
    lost = make_node("node-2", unready="Kubelet stopped posting node status.")
    lost["status"]["conditions"][0]["status"] = "Unknown"
    kubectl.list("nodes", make_node("node-1"), lost)
    nodes = by_node(read_document(run, capsys, code=4))
    assert nodes["node-2"]["agent"]["state"] == "Unreachable"
    assert nodes["node-2"]["agent"]["reasons"] == ["the node is not ready: Kubelet stopped posting node status."]
    assert [call for call in kubectl.calls() if "genplug-node-2" in call] == []


def test_newest_pod_of_a_node_counts_during_an_update(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(kubectl, 1)
    ending = make_agent_pod("node-1", name="ending", created="2026-11-27T18:00:00Z")
    ending["metadata"]["deletionTimestamp"] = "2026-11-27T19:00:00Z"
    for pods in ([ending, make_agent_pod("node-1")], [make_agent_pod("node-1"), ending]):
        kubectl.list("pods", *pods)
        assert by_node(read_document(run, capsys, code=0))["node-1"]["agent"]["pod"] == "genplug-node-1"


def test_pod_that_waits_for_room_belongs_to_its_node(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(kubectl, 1)
    pod = make_agent_pod("", name="genplug-abcde")
    fields = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]
    pod["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": fields}}
    }
    reason = "0/1 nodes are available: 1 Insufficient cpu."
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason}],
    }
    kubectl.list("pods", pod)
    agent = by_node(read_document(run, capsys, code=4))["node-1"]["agent"]
    assert agent["reasons"] == [f"pod genplug-abcde: is not scheduled: {reason}"]
    assert agent["state"] == "Missing"


def test_words_select_resources(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill_pools(kubectl)
    document = read_document(run, capsys, "GPU", code=4)
    assert [pool["name"] for pool in document["pools"]] == ["gpu"]
    assert read_document(run, capsys, "serial", "gpu", code=4) == read_document(run, capsys, code=4)


def test_pools_and_nodes_can_be_selected(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill_pools(kubectl)
    assert list(by_node(read_document(run, capsys, "--pool=default", code=4))) == ["cpu-1", "cpu-2", "cpu-3"]
    before = len(kubectl.calls())
    assert list(by_node(read_document(run, capsys, "--node=cpu-1", "--node=gpu-1", code=0))) == ["cpu-1", "gpu-1"]
    assert len([call for call in kubectl.calls()[before:] if call.startswith("exec")]) == 2


def test_selector_selects_nodes(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill(kubectl, 3)
    kubectl.list("nodes --chunk-size=500 --selector=zone=a", make_node("node-2", labels={"zone": "a"}))
    assert list(by_node(read_document(run, capsys, "-l", "zone=a", code=0))) == ["node-2"]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("gpux", "expected words of resource names, found example.com/serial, nvidia.com/gpu"),
        ("--pool=gpux", "unknown pool gpux; the cluster has default, gpu"),
        ("--node=gpux", "no pool has the node gpux; check the labels and taints of the node"),
    ],
)
def test_unknown_name_is_a_usage_error(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str], argument: str, expected: str
) -> None:
    fill_pools(kubectl)
    assert run(argument) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"kubectl genplug status: {expected}\n")


def test_missing_kubectl_is_one_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["status", f"--kubectl={tmp_path}/kubectl"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "no such program; install kubectl, or pass its path with --kubectl PATH" in printed.err


def test_texts_of_agents_are_escaped(kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill(kubectl, 1)
    hostile = "a\x1b[2J\nb"
    resource = make_resource("a.io/x", healthy=0, unhealthy=1, reason=hostile)
    kubectl.status("genplug-node-1", make_status("node-1", [resource], version=hostile, error=hostile))
    for output in ("table", "wide", "json", "yaml"):
        assert run("-o", output) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_progress_is_shown_on_a_terminal_only(kubectl: KubectlStandIn) -> None:
    fill(kubectl, 3)
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "genplug.kubectl", "status", f"--kubectl={kubectl.program}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower) as process:
        os.close(follower)
        printed = b""
        while b"3/3 agents" not in printed:
            printed += os.read(leader, 4096)
        process.communicate()
    os.close(leader)
    assert process.returncode == 0
    assert printed.startswith(b"\r\x1b[K[..............................] 0/3 agents")


def fail(kubectl: KubectlStandIn, node: str, failure: str) -> None:
    """Make the query of the agent of a node fail."""
    pattern = f"exec *genplug-{node} "
    match failure:
        case "error":
            kubectl.answer(pattern, stderr="error: Internal error occurred: error executing command", code=1)
        case "exit":
            kubectl.answer(pattern, stderr="command terminated with exit code 1", code=1)
        case "garbage":
            kubectl.answer(pattern, b"\xff\x00{{{")
        case "half":
            kubectl.answer(pattern, json.dumps(make_status(node))[:100])
        case "other":
            kubectl.answer(pattern, json.dumps({"kind": "Status", "resources": 5, "ready": True, "config": []}), code=1)


FAILURES = ("no pod", "crash", "error", "exit", "garbage", "half", "other")


@given(st.dictionaries(st.sampled_from([f"node-{number}" for number in range(1, 7)]), st.sampled_from(FAILURES)))
@settings(max_examples=15, deadline=None)
def test_any_failing_nodes_are_named_and_the_others_are_right(failures: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        kubectl = KubectlStandIn(Path(directory))
        names = fill(kubectl, 6)
        kubectl.list("pods", *make_pods(names, failures))
        for node, failure in failures.items():
            fail(kubectl, node, failure)
        document = json.loads(fetch_output(kubectl, "json"))
        table = fetch_output(kubectl, "table")
    states = re.findall(r"^default +(node-\d) +(\w+)", table, re.MULTILINE)
    assert [name for name, _ in states] == names
    assert {name for name, state in states if state != "Ready"} == set(failures)
    nodes = by_node(document)
    assert {name for name in nodes if nodes[name]["agent"]["state"] != "Ready"} == set(failures)
    assert all(nodes[name]["agent"]["reasons"] for name in failures)
    assert list(nodes) == names
    right = {"name": "a.io/x", "healthy": 2, "unhealthy": 0, "inUse": 1, "free": 1, "source": "agent", "remarks": []}
    assert all(nodes[name]["resources"] == [right] for name in names if name not in failures)
    others = len(names) - len(failures)
    assert document["devices"] == {"healthy": 2 * others, "unhealthy": 0, "inUse": others, "free": others}
    assert document["ready"] is not bool(failures)


def make_pods(names: list[str], failures: Mapping[str, str]) -> list[Object]:
    crash = ("CrashLoopBackOff", "back-off")
    return [
        make_agent_pod(name, waiting=crash if failures.get(name) == "crash" else None)
        for name in names
        if failures.get(name) != "no pod"
    ]


def fetch_output(kubectl: KubectlStandIn, output: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(["status", f"--kubectl={kubectl.program}", "-o", output])
    return printed.getvalue()


def test_device_that_is_no_longer_listed_does_not_count_as_in_use(
    kubectl: KubectlStandIn, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(kubectl, 1)
    resource = make_resource("a.io/x", healthy=2, unhealthy=1, used=1)
    resource["inUse"][0]["devices"] += ["device-2", "removed"]
    kubectl.status("genplug-node-1", make_status("node-1", [resource]))
    devices = read_document(run, capsys, code=0)["devices"]
    assert devices == {"healthy": 2, "unhealthy": 1, "inUse": 2, "free": 1}
