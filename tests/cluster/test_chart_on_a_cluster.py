"""The chart on a cluster: installation, changes, restarts, failures and removal while pods hold devices."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genplug.kubectl.admission_messages import explain_refusal
from genplug.record.facts import find_facts
from tests.cluster.claims import DRA_MINOR
from tests.cluster.cluster import (
    NAMESPACE,
    Cluster,
    build_container,
    build_pod,
    parse_device_numbers,
    poll_until,
)
from tests.cluster.conftest import CLUSTER_PARAMS, name_version
from tests.cluster.node import Node
from tests.cluster.tools import TOOLS
from tests.support.outputs import check_output

pytestmark = [pytest.mark.cluster, pytest.mark.helm, pytest.mark.image, pytest.mark.timeout(300)]

THINGS = {f"/dev/thing{number}": (240 << 8) + number for number in range(3)}
RESOURCES = {
    "test.example/fuse": {"devices": [{"glob": "/dev/fuse"}], "tokens": 10},
    "test.example/thing": {
        "devices": [{"glob": "/dev/thing*", "with": ["/dev/null"]}],
        "health": {
            "periodSeconds": 1,
            "failureThreshold": 1,
            "successThreshold": 1,
            "probes": [{"file": {"path": "/sys/class/net/node/ifalias", "notEquals": "failed"}}],
        },
        "allocate": {
            "env": {"THINGS": "${path}"},
            "mounts": [{"hostPath": "/srv/firmware", "containerPath": "/firmware", "readOnly": True}],
        },
    },
}
COUNTS = {"test.example/fuse": 10, "test.example/thing": 3}
VALUES: dict[str, Any] = {
    "image": {"repository": "registry.example/genplug", "tag": "test", "pullPolicy": "Never"},
    "config": {"resources": RESOURCES},
    "policy": {"mounts": {"allow": ["/srv/**"]}},
    "daemonset": {"hostMounts": ["/srv/firmware"]},
}


def build_values(**changes: Any) -> dict[str, Any]:
    return VALUES | {
        "config": {"resources": RESOURCES | {f"test.example/{name}": spec for name, spec in changes.items()}}
    }


@pytest.fixture(scope="module", autouse=True)
def install_chart(cluster: Cluster) -> Iterator[None]:
    for path, number in THINGS.items():
        cluster.machine.plug(path, number)
    cluster.machine.run("mkdir", "-p", "/srv/firmware")
    start = time.monotonic()
    cluster.install(VALUES)
    cluster.wait_allocatable("test.example/thing", 3)
    print(f"time from helm install to allocatable devices: {time.monotonic() - start:.1f} s")
    yield
    cluster.kubectl("delete", "pods", "--all", "--grace-period", "0", "--force")


@pytest.fixture(autouse=True)
def delete_pods(cluster: Cluster) -> Iterator[None]:
    """Delete the pods of each test, so that every test begins with all devices free."""
    yield
    cluster.kubectl("delete", "pods", "--all", "--grace-period", "0", "--force")


def test_pods_run_with_their_devices_environment_and_mounts(cluster: Cluster) -> None:
    command = "ls -l /dev; echo things=$THINGS; ls -d /firmware; exec sleep infinity"
    cluster.run_pods(
        build_pod("one", build_container(command=command, thing=1, fuse=1)),
        build_pod("two", build_container(command=command, thing=2)),
    )
    logs = {name: cluster.kubectl("logs", name) for name in ("one", "two")}
    numbers = {
        name: {key: value for key, value in parse_device_numbers(text).items() if "thing" in key}
        for name, text in logs.items()
    }
    assert [len(numbers["one"]), len(numbers["two"])] == [1, 2]
    assert numbers["one"] | numbers["two"] == {f"thing{number}": f"240:{number}" for number in range(3)}
    assert "fuse" in parse_device_numbers(logs["one"])
    assert "fuse" not in parse_device_numbers(logs["two"])
    assert f"things={','.join(f'/dev/{name}' for name in sorted(numbers['two']))}" in logs["two"]
    assert "/firmware" in logs["one"]


def test_pod_that_requests_too_many_devices_is_unschedulable(cluster: Cluster) -> None:
    cluster.control.apply(build_pod("greedy", build_container(thing=4)))
    cluster.wait("pod/greedy", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable")
    conditions = cluster.get("pod/greedy")["status"]["conditions"]
    [condition] = [condition for condition in conditions if condition["type"] == "PodScheduled"]
    assert "Insufficient test.example/thing" in condition["message"]
    description = cluster.kubectl("describe", f"node/{Node.name}")
    capacity = description.split("Allocatable:")[1].split("System Info:")[0].split()
    counts = {name: capacity[capacity.index(f"{name}:") + 1] for name in RESOURCES}
    status = cluster.read_status()
    assert counts == {resource["name"]: str(resource["healthy"]) for resource in status["resources"]}


def test_refusals_of_the_kubelet_are_explained(cluster: Cluster) -> None:
    """The pods name their node, so that only the kubelet checks them; its texts depend on its version."""
    cluster.run_pods(build_pod("holder", build_container(thing=2)))
    large = build_container() | {"resources": {"requests": {"cpu": "1000"}}}
    pods = {
        "notEnoughDevices": build_pod("devices", build_container(thing=2), nodeName=Node.name),
        "nodeFull": build_pod("cpu", large, nodeName=Node.name),
        "nodeAffinity": build_pod("selector", build_container(), nodeName=Node.name, nodeSelector={"zone": "other"}),
    }
    cluster.control.apply(*pods.values())
    for cause, pod in pods.items():
        name = pod["metadata"]["name"]
        cluster.wait(f"pod/{name}", "jsonpath={.status.phase}=Failed")
        status = cluster.get(f"pod/{name}")["status"]
        explanation = explain_refusal(status["reason"], status["message"])
        assert explanation, f"no explanation for {status['reason']}: {status['message']}"
        assert explanation.cause == cause


def run_pod_with_several_containers(cluster: Cluster, *, first: int = 0) -> None:
    """Run a pod with an init container, a sidecar and two containers, which use all devices.

    A kubelet that starts can reject a pod whose finished init container has devices (issue 138446 of Kubernetes), so
    the init container requests ``first`` devices only if a test does not restart the kubelet.
    """
    sidecar = build_container("sidecar", thing=1) | {"restartPolicy": "Always"}
    init = build_container("first", command="ls -l /dev", **({"thing": first} if first else {}))
    main, other = build_container("main", thing=1), build_container("other", thing=1)
    cluster.run_pods(build_pod("several", main, other, initContainers=[init, sidecar]))


def assert_every_container_has_a_device(cluster: Cluster) -> None:
    """Assert that each container of the pod has its own device, and that the node has all devices."""
    names = [
        cluster.run_in_container("several", "sh", "-c", "basename -a /dev/thing*; echo $THINGS", container=name).split()
        for name in ("main", "other", "sidecar")
    ]
    assert sorted(names) == [[f"thing{number}", f"/dev/thing{number}"] for number in range(3)], names
    for resource, count in COUNTS.items():
        cluster.wait_allocatable(resource, count)
    capacity = cluster.get(f"node/{Node.name}")["status"]["capacity"]
    assert {resource: int(capacity[resource]) for resource in COUNTS} == COUNTS


def test_81_init_containers_and_sidecars_receive_devices(cluster: Cluster) -> None:
    run_pod_with_several_containers(cluster, first=2)
    listing = parse_device_numbers(cluster.kubectl("logs", "several", "--container", "first"))
    assert len([name for name in listing if "thing" in name]) == 2
    assert_every_container_has_a_device(cluster)


@contextmanager
def edit_config(cluster: Cluster, old: str, new: str) -> Iterator[None]:
    """Replace a text in the ConfigMap as an operator does; leaving the context restores the ConfigMap."""
    target = ["configmap/genplug-config", "--namespace", NAMESPACE]
    text = cluster.get(*target)["data"]["genplug.yaml"]
    assert old in text
    for content in (text.replace(old, new), text):
        cluster.kubectl("patch", *target, "--patch", json.dumps({"data": {"genplug.yaml": content}}))
        if content != text:
            yield


def test_edited_configmap_changes_the_node_without_a_restart(cluster: Cluster) -> None:
    cluster.run_pods(build_pod("holder", build_container(thing=1)))
    pods, agents = cluster.get_container_ids(), [agent["metadata"]["uid"] for agent in cluster.get_agents()]
    start = time.monotonic()
    with edit_config(cluster, "tokens: 10", "tokens: 25"):
        cluster.wait_allocatable("test.example/fuse", 25)
        print(f"time from the edit of the ConfigMap to the allocatable count: {time.monotonic() - start:.1f} s")
        assert cluster.get_container_ids() == pods
        assert [agent["metadata"]["uid"] for agent in cluster.get_agents()] == agents
    cluster.wait_allocatable("test.example/fuse", 10)


def test_invalid_configmap_is_reported_and_changes_nothing(cluster: Cluster) -> None:
    with edit_config(cluster, "tokens: 10", "tokns: 10"):
        poll_until(lambda: "did you mean 'tokens'?" in cluster.read_status()["config"]["error"], 90)
        assert cluster.get_allocatable("test.example/fuse") == "10"
        cluster.run_pods(build_pod("late", build_container(fuse=1)))
    poll_until(lambda: cluster.read_status()["config"]["error"] == "", 90)


def test_misspelt_value_does_not_reach_the_cluster(cluster: Cluster) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        cluster.install(build_values(thing={"devices": [{"golb": "/dev/thing*"}]}))
    assert "golb" in "".join(raised.value.__notes__)
    assert cluster.get_allocatable("test.example/thing") == "3"


def test_81_killed_kubelet_keeps_pods_and_devices(cluster: Cluster) -> None:
    run_pod_with_several_containers(cluster)
    before = cluster.get_container_ids()
    print(f"time from the start of the kubelet to all registrations: {cluster.restart_kubelet():.1f} s")
    cluster.run_pods(build_pod("late", build_container(fuse=1)))
    assert before.items() <= cluster.get_container_ids().items()
    assert_every_container_has_a_device(cluster)


def test_deleted_agent_is_replaced_without_affecting_pods(cluster: Cluster) -> None:
    cluster.run_pods(build_pod("holder", build_container(thing=1)))
    before = cluster.get_container_ids()
    [agent] = cluster.get_agents()
    cluster.kubectl("delete", "pod", "--namespace", NAMESPACE, agent["metadata"]["name"])
    cluster.kubectl("rollout", "status", "daemonset/genplug", "--namespace", NAMESPACE, "--timeout", "60s")
    assert_serves_without_restarts(cluster, before)


def test_killed_agent_restarts_without_affecting_pods(cluster: Cluster) -> None:
    cluster.run_pods(build_pod("holder", build_container(thing=1)))
    before = cluster.get_container_ids()
    [agent] = cluster.get_agents()
    cluster.machine.run("pkill", "-KILL", "-f", "genplug run")
    for condition in ("jsonpath={.status.containerStatuses[0].restartCount}=1", "condition=Ready"):
        cluster.wait(f"pod/{agent['metadata']['name']}", condition, "--namespace", NAMESPACE)
    assert_serves_without_restarts(cluster, before)


def test_81_rollout_does_not_affect_pods(cluster: Cluster) -> None:
    run_pod_with_several_containers(cluster)
    before = cluster.get_container_ids()
    [agent] = cluster.get_agents()
    start = time.monotonic()
    cluster.install(VALUES | {"daemonset": VALUES["daemonset"] | {"podAnnotations": {"rolled": "out"}}})
    print(f"duration of the rollout of the DaemonSet: {time.monotonic() - start:.1f} s")
    [replacement] = cluster.get_agents()
    assert replacement["metadata"]["uid"] != agent["metadata"]["uid"]
    assert_serves_without_restarts(cluster, before)
    assert_every_container_has_a_device(cluster)


def assert_serves_without_restarts(cluster: Cluster, before: dict[str, str]) -> None:
    """Assert that new pods receive devices, that the previous containers still run, and that no stale socket exists."""
    cluster.run_pods(build_pod("late", build_container(fuse=1)))
    assert before.items() <= cluster.get_container_ids().items()
    sockets = {path.name for path in (cluster.machine.kubelet / "device-plugins").glob("*.sock")} - {"kubelet.sock"}
    assert len(sockets) == len(RESOURCES)


def test_removed_device_is_reported_on_the_node_and_in_the_pod_status(cluster: Cluster) -> None:
    cluster.run_pods(build_pod("holder", build_container(thing=3)))
    with unplug(cluster, "/dev/thing1"):
        seconds = cluster.wait_allocatable("test.example/thing", 2)
        print(f"time from the removal of a device to the allocatable count: {seconds:.1f} s")
        if cluster.minor >= 31:
            health = (
                "{.status.containerStatuses[0].allocatedResourcesStatus[0].resources[?(@.resourceID=='thing1')].health}"
            )
            cluster.wait("pod/holder", f"jsonpath={health}=Unhealthy")
    cluster.wait_allocatable("test.example/thing", 3)


def test_77_agent_without_privileges_uses_stat_and_sysfs_probes(cluster: Cluster) -> None:
    """SELinux is not enabled here, so this checks only that the pod in the API has the type."""
    [agent] = cluster.get_agents()
    [container] = agent["spec"]["containers"]
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["seLinuxOptions"] == {"type": "container_device_plugin_t"}
    processes = cluster.machine.run("pgrep", "--full", "genplug run").split()
    assert processes
    for process in processes:
        lines = cluster.machine.run("cat", f"/proc/{process}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        assert {int(value, 16) for name, value in status.items() if name.startswith("Cap")} == {0}
        # 2 is SECCOMP_MODE_FILTER.
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        mounts = cluster.machine.run("cat", f"/proc/{process}/mountinfo").splitlines()
        [root] = [fields for fields in map(str.split, mounts) if fields[4] == "/"]
        assert "ro" in root[5].split(",")
    with set_sysfs_attribute(cluster, "failed"):
        cluster.wait_allocatable("test.example/thing", 0)
        cluster.run_pods(build_pod("other", build_container(fuse=1)))
    cluster.wait_allocatable("test.example/thing", 3)
    with unplug(cluster, "/dev/thing1"):
        cluster.wait_allocatable("test.example/thing", 2)
    cluster.run_pods(build_pod("all", build_container(thing=3)))


@contextmanager
def set_sysfs_attribute(cluster: Cluster, text: str) -> Iterator[None]:
    """Set the attribute that the probe of the devices reads, and clear it when the context is left."""
    cluster.machine.run("ip", "link", "set", "node", "alias", text)
    try:
        yield
    finally:
        cluster.machine.run("ip", "link", "set", "node", "alias", "")


@contextmanager
def unplug(cluster: Cluster, path: str) -> Iterator[None]:
    """Remove a device node while the context is open."""
    cluster.machine.unplug(path)
    try:
        yield
    finally:
        cluster.machine.plug(path, THINGS[path])


def test_82_devices_of_the_kubelet_are_those_of_status_and_metrics(cluster: Cluster) -> None:
    # The kubelet ends the pods of the previous test after their removal from the API.
    poll_until(lambda: cluster.node.list_allocated_devices() == {})
    cluster.run_pods(build_pod("one", build_container(thing=2)), build_pod("two", build_container(fuse=1)))
    resources = cluster.read_status()["resources"]
    status = {resource["name"]: {device["id"] for device in resource["devices"]} for resource in resources}
    assert cluster.node.list_allocatable_devices() == status
    allocated = cluster.node.list_allocated_devices()
    assert {name: len(ids) for name, ids in allocated.items()} == {"test.example/thing": 2, "test.example/fuse": 1}
    assert all(ids <= status[name] for name, ids in allocated.items())
    assert_metrics_are_those_of_the_kubelet(cluster)
    with unplug(cluster, "/dev/thing0"):
        cluster.wait_allocatable("test.example/thing", 2)
        assert_metrics_are_those_of_the_kubelet(cluster)
    cluster.wait_allocatable("test.example/thing", 3)
    cluster.delete_pods("one", "two")
    poll_until(lambda: cluster.node.list_allocated_devices() == {})
    assert_metrics_are_those_of_the_kubelet(cluster)


def assert_metrics_are_those_of_the_kubelet(cluster: Cluster) -> None:
    """Assert that the numbers of healthy, used and free devices in the metrics are those of the pod-resources API."""
    allocatable, allocated = cluster.node.list_allocatable_devices(), cluster.node.list_allocated_devices()
    expected: dict[str, float] = {}
    for name in COUNTS:
        labels = f'{{resource="{name}"}}'
        healthy, used = allocatable[name], allocated.get(name, set())
        expected[f'genplug_devices{{resource="{name}",state="healthy"}}'] = len(healthy)
        expected[f"genplug_devices_in_use{labels}"] = len(used)
        expected[f"genplug_devices_free{labels}"] = len(healthy - used)
    metrics = cluster.read_metrics()
    assert {name: metrics[name] for name in expected} == expected


_PLUGIN = """\
#!/bin/sh
PYTHONPATH={root} exec {python} -m genplug.kubectl "$@"
"""


def test_kubectl_plugin_shows_devices_in_use_and_respects_rights(cluster: Cluster, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-genplug"
    plugin.write_text(_PLUGIN.format(root=Path(__file__).parents[2], python=sys.executable))
    plugin.chmod(0o755)
    environment = [f"PATH={tmp_path}:{TOOLS}:{os.environ['PATH']}", f"HOME={tmp_path}"]
    environment.append(f"KUBECONFIG={cluster.control.get_kubeconfig('admin')}")

    def run_plugin(*arguments: str) -> str:
        return cluster.machine.run("env", "-i", *environment, "kubectl", "genplug", "status", *arguments)

    def read_sums(*arguments: str) -> dict[str, tuple[int, int, int | None, int | None]]:
        [pool] = json.loads(run_plugin("-o", "json", *arguments))["pools"]
        keys = ("healthy", "unhealthy", "inUse", "free")
        return {entry["name"]: tuple(entry[key] for key in keys) for entry in pool["resources"]}

    cluster.run_pods(build_pod("user", build_container(thing=2)))
    poll_until(lambda: read_sums("thing") == {"test.example/thing": (3, 0, 2, 1)}, 90)
    text = run_plugin()
    print(text)
    assert text.startswith("1 node in 1 pool: ready; agents: 1 ready; 1 of 1 responded\n")
    assert re.search(rf"^default +{Node.name} +Ready +test.example/fuse +10 +0 +0 +10$", text, re.MULTILINE)
    # The role view contains neither nodes nor pods/exec.
    cluster.kubectl("create", "clusterrolebinding", "viewer", "--clusterrole", "view", "--user", "viewer")
    document = json.loads(run_plugin("-o", "json", "--as=viewer"))
    cluster.kubectl("create", "clusterrole", "nodes", "--verb=list", "--resource=nodes")
    cluster.kubectl("create", "clusterrolebinding", "nodes", "--clusterrole", "nodes", "--user", "viewer")
    sums = read_sums("--as=viewer")
    cluster.kubectl("delete", "clusterrolebinding,clusterrole", "viewer", "nodes", "--ignore-not-found")
    assert (document["ready"], document["agents"]["ready"], document["agents"]["responded"]) == (True, 1, 0)
    assert ['cannot list resource "nodes"' in note or '"pods/exec"' in note for note in document["notes"]] == [True] * 2
    assert sums == {"test.example/fuse": (10, 0, None, None), "test.example/thing": (3, 0, None, None)}


def test_changed_node_label_moves_the_node_to_another_pool(cluster: Cluster) -> None:
    pools = {"lab": {"config": {"resources": {"test.example/fuse": {"tokens": 3}, "test.example/thing": None}}}}
    cluster.install(VALUES | {"pools": pools})
    assert [agent["metadata"]["labels"]["genplug.io/pool"] for agent in cluster.get_agents()] == ["default"]
    cluster.kubectl("label", f"node/{Node.name}", "genplug.io/pool=lab")
    cluster.wait_allocatable("test.example/fuse", 3)
    cluster.wait_allocatable("test.example/thing", 0)
    cluster.kubectl("label", f"node/{Node.name}", "genplug.io/pool-")
    cluster.wait_allocatable("test.example/fuse", 10)
    cluster.wait_allocatable("test.example/thing", 3)
    cluster.install(VALUES)


def test_admission_policy_restricts_editors_and_namespaces(cluster: Cluster) -> None:
    if cluster.minor < 30:
        pytest.fail("expected Kubernetes 1.30 or newer, which has ValidatingAdmissionPolicy")
    policy = {
        "enabled": True,
        "editors": {"users": ["admin"], "groups": ["system:masters"]},
        "resources": {"test.example/thing": ["trusted"]},
    }
    cluster.install(VALUES | {"admissionPolicy": policy})
    cluster.kubectl("create", "namespace", "trusted")
    cluster.kubectl("create", "clusterrolebinding", "editor", "--clusterrole", "cluster-admin", "--user", "editor")
    edit = ["annotate", "--overwrite", "configmap/genplug-config", "--namespace", NAMESPACE, "edited=yes"]
    poll_until(lambda: "denied" in read_rejection(cluster, *edit, user="editor"), 30)
    request = json.dumps(build_pod("requester", build_container(thing=1)))
    assert "test.example/thing" in read_rejection(cluster, "apply", "--filename", "-", text=request)
    cluster.control.apply(build_pod("other", build_container(fuse=1)))
    trusted = build_pod("requester", build_container(thing=1))
    trusted["metadata"]["namespace"] = "trusted"
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", "trusted")
    cluster.control.apply(trusted)
    cluster.kubectl("delete", "namespace", "trusted")
    cluster.install(VALUES)


def read_rejection(cluster: Cluster, *arguments: str, **options: Any) -> str:
    """Return the output of kubectl if it fails, otherwise an empty text."""
    try:
        cluster.kubectl(*arguments, **options)
    except subprocess.CalledProcessError as error:
        return "".join(error.__notes__)
    return ""


@pytest.mark.parametrize("cluster", CLUSTER_PARAMS[:1], indirect=True, ids=name_version)
def test_dra_is_rejected_by_an_older_cluster_dra_24(cluster: Cluster) -> None:
    assert cluster.minor < DRA_MINOR
    with pytest.raises(subprocess.CalledProcessError) as error:
        cluster.install(VALUES | {"dra": {"enabled": "always"}})
    assert "does not serve the API resource.k8s.io/v1" in "".join(error.value.__notes__)
    assert cluster.is_ready()


def test_record_of_the_release_agrees_with_the_cluster(cluster: Cluster) -> None:
    record = json.loads(cluster.run_plugin("record", "genplug", "--namespace", NAMESPACE, "-o", "json"))
    check_output(record)
    facts = find_facts(record)
    assert [path for path, fact in facts.items() if not fact.get("source" if fact["known"] else "reason")] == []
    images = cluster.node.list_images()
    [image], [digest] = facts["plugin.image"]["value"], facts["plugin.imageDigests"]["value"]
    assert images[digest["digest"]] == images[image["image"]]
    status = cluster.read_status()
    configuration, policy = facts["configuration"]["value"]
    assert configuration["sameNodes"]["value"] == policy["sameNodes"]["value"] == [Node.name]
    assert facts["nodes.value[0].configuration"]["value"] == status["config"]["sha256"]
    assert {entry["name"] for entry in facts["resources"]["value"]} == set(RESOURCES)
    assert {mount["path"] for mount in facts["hostMounts"]["value"]} > {"/dev", "/sys", "/srv/firmware"}
    [rights] = facts["security.value[0].effective"]["value"]
    assert rights["rights"].startswith("capabilities none; seccomp filter; ")
    assert facts["access.serviceAccount"]["value"][0]["tokenMounted"] is False
    assert all(role["subject"].startswith("Group ") for role in facts["access.roles"]["value"])
    assert "Group system:masters" in {entry["subject"] for entry in facts["access.editors"]["value"]}


def test_helm_test_succeeds(cluster: Cluster) -> None:
    assert "Succeeded" in cluster.run_helm("test", "genplug", "--timeout", "60s")


def test_uninstallation_removes_sockets_and_allocatable_devices(cluster: Cluster) -> None:
    cluster.run_pods(build_pod("holder", build_container(thing=1)))
    before = cluster.get_container_ids()
    cluster.run_helm("uninstall", "genplug", "--wait")
    for name in RESOURCES:
        cluster.wait_allocatable(name, 0)
    directory = cluster.machine.kubelet / "device-plugins"
    assert {path.name for path in directory.iterdir()} == {"kubelet.sock", "kubelet_internal_checkpoint"}
    assert cluster.get_container_ids() == before
    cluster.wait("pods", "delete", "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/name=genplug")
    namespaced = cluster.kubectl(
        "get", "all,configmap,serviceaccount", "--namespace", NAMESPACE, "--output", "name"
    ).split()
    assert {name for name in namespaced if "genplug" in name} == set()
    cluster.install(VALUES)
    cluster.wait_allocatable("test.example/thing", 3)
