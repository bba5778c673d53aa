"""The chart on a whole cluster: installed, edited, restarted, broken and removed while pods hold devices."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.cluster import NAMESPACE, Cluster, container, device_numbers, pod, seconds_until
from tests.cluster.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.helm, pytest.mark.image, pytest.mark.timeout(300)]

THINGS = {f"/dev/thing{number}": (240 << 8) + number for number in range(3)}
RESOURCES = {
    "test.example/fuse": {"devices": [{"glob": "/dev/fuse"}], "tokens": 10},
    "test.example/thing": {
        "devices": [{"glob": "/dev/thing*", "with": ["/dev/null"]}],
        "allocate": {
            "env": {"THINGS": "${path}"},
            "mounts": [{"hostPath": "/srv/firmware", "containerPath": "/firmware", "readOnly": True}],
        },
    },
}
VALUES: dict[str, Any] = {
    "image": {"repository": "registry.example/genplug", "tag": "test", "pullPolicy": "Never"},
    "config": {"resources": RESOURCES},
    "policy": {"mounts": {"allow": ["/srv/**"]}},
    "daemonset": {"hostMounts": ["/srv/firmware"]},
}


def with_resources(**changes: Any) -> dict[str, Any]:
    return VALUES | {
        "config": {"resources": RESOURCES | {f"test.example/{name}": one for name, one in changes.items()}}
    }


@pytest.fixture(scope="module", autouse=True)
def installed(cluster: Cluster) -> Iterator[None]:
    for path, number in THINGS.items():
        cluster.machine.plug(path, number)
    cluster.machine.run("mkdir", "-p", "/srv/firmware")
    began = time.monotonic()
    cluster.install(VALUES)
    cluster.until_allocatable("test.example/thing", 3)
    print(f"helm install to allocatable devices: {time.monotonic() - began:.1f} s")
    yield
    cluster.kubectl("delete", "pods", "--all", "--grace-period", "0", "--force")


@pytest.fixture(autouse=True)
def undisturbed(cluster: Cluster) -> Iterator[None]:
    """Every test starts without pods of its own, with all devices there and the values above."""
    yield
    cluster.kubectl("delete", "pods", "--all", "--grace-period", "0", "--force")


def test_pods_run_with_their_devices_environment_and_mounts(cluster: Cluster) -> None:
    look = "ls -l /dev; echo things=$THINGS; ls -d /firmware; exec sleep infinity"
    cluster.run(
        pod("one", container(command=look, thing=1, fuse=1)),
        pod("two", container(command=look, thing=2)),
    )
    said = {name: cluster.kubectl("logs", name) for name in ("one", "two")}
    given = {
        name: {key: value for key, value in device_numbers(text).items() if "thing" in key}
        for name, text in said.items()
    }
    assert [len(given["one"]), len(given["two"])] == [1, 2]
    assert given["one"] | given["two"] == {f"thing{number}": f"240:{number}" for number in range(3)}
    assert "fuse" in device_numbers(said["one"])
    assert "fuse" not in device_numbers(said["two"])
    assert f"things={','.join(f'/dev/{name}' for name in sorted(given['two']))}" in said["two"]
    assert "/firmware" in said["one"]


def test_a_pod_that_asks_for_too_many_waits_and_everybody_tells_the_same_number(cluster: Cluster) -> None:
    cluster.control.apply(pod("greedy", container(thing=4)))
    cluster.wait("pod/greedy", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable")
    [condition] = [one for one in cluster.get("pod/greedy")["status"]["conditions"] if one["type"] == "PodScheduled"]
    assert "Insufficient test.example/thing" in condition["message"]
    described = cluster.kubectl("describe", f"node/{Node.name}")
    capacity = described.split("Allocatable:")[1].split("System Info:")[0].split()
    told = {name: capacity[capacity.index(f"{name}:") + 1] for name in RESOURCES}
    assert told == {one["name"]: str(one["healthy"]) for one in cluster.status()["resources"]}


def test_init_containers_and_sidecars_get_devices_too(cluster: Cluster) -> None:
    sidecar = container("sidecar", thing=1) | {"restartPolicy": "Always"}
    look = container("first", command="ls -l /dev", thing=2)
    one = pod("several", container("main", thing=1), container("other", thing=1), initContainers=[look, sidecar])
    cluster.run(one)
    assert (
        len([name for name in device_numbers(cluster.kubectl("logs", "several", "-c", "first")) if "thing" in name])
        == 2
    )
    seen = [
        {
            name
            for name in device_numbers(cluster.inside("several", "ls", "-l", "/dev", container=each))
            if "thing" in name
        }
        for each in ("main", "other", "sidecar")
    ]
    assert [len(names) for names in seen] == [1, 1, 1]
    assert set.union(*seen) == {"thing0", "thing1", "thing2"}


@contextmanager
def edited_config(cluster: Cluster, old: str, new: str) -> Iterator[None]:
    """Edit the ConfigMap as an operator does, and put it back."""
    target = ["configmap/genplug-config", "--namespace", NAMESPACE]
    text = cluster.get(*target)["data"]["genplug.yaml"]
    assert old in text
    for one in (text.replace(old, new), text):
        cluster.kubectl("patch", *target, "--patch", json.dumps({"data": {"genplug.yaml": one}}))
        if one != text:
            yield


def test_an_edited_config_map_changes_the_node_and_restarts_nothing(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=1)))
    pods, agents = cluster.container_ids(), [one["metadata"]["uid"] for one in cluster.agents()]
    began = time.monotonic()
    with edited_config(cluster, "tokens: 10", "tokens: 25"):
        cluster.until_allocatable("test.example/fuse", 25)
        print(f"ConfigMap edited to allocatable on the node: {time.monotonic() - began:.1f} s, mostly the kubelet's")
        assert cluster.container_ids() == pods
        assert [one["metadata"]["uid"] for one in cluster.agents()] == agents
    cluster.until_allocatable("test.example/fuse", 10)


def test_a_broken_config_map_changes_nothing_and_is_told(cluster: Cluster) -> None:
    with edited_config(cluster, "tokens: 10", "tokns: 10"):
        seconds_until(lambda: "did you mean 'tokens'?" in cluster.status()["config"]["error"], 90)
        assert cluster.allocatable("test.example/fuse") == "10"
        cluster.run(pod("late", container(fuse=1)))
    seconds_until(lambda: cluster.status()["config"]["error"] == "", 90)


def test_a_typo_in_the_values_does_not_reach_the_cluster(cluster: Cluster) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        cluster.install(with_resources(thing={"devices": [{"golb": "/dev/thing*"}]}))
    assert "golb" in "".join(raised.value.__notes__)
    assert cluster.allocatable("test.example/thing") == "3"


def test_a_kubelet_that_is_killed_finds_pods_and_devices_again(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=2)))
    before = cluster.container_ids()
    print(f"kubelet started again to every resource registered: {cluster.restart_kubelet():.1f} s")
    cluster.run(pod("late", container(thing=1)))
    assert before.items() <= cluster.container_ids().items()
    held = {name: cluster.inside(name, "sh", "-c", "echo $THINGS").strip() for name in ("holder", "late")}
    assert sorted(",".join(held.values()).split(",")) == sorted(THINGS)


def test_a_deleted_agent_comes_back_and_takes_no_pod_along(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=1)))
    before = cluster.container_ids()
    [agent] = cluster.agents()
    cluster.kubectl("delete", "pod", "--namespace", NAMESPACE, agent["metadata"]["name"])
    cluster.kubectl("rollout", "status", "daemonset/genplug", "--namespace", NAMESPACE, "--timeout", "60s")
    assert_serving_again(cluster, before)


def test_an_agent_that_is_killed_comes_back_and_takes_no_pod_along(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=1)))
    before = cluster.container_ids()
    [agent] = cluster.agents()
    cluster.machine.run("pkill", "-KILL", "-f", "genplug run")
    for condition in ("jsonpath={.status.containerStatuses[0].restartCount}=1", "condition=Ready"):
        cluster.wait(f"pod/{agent['metadata']['name']}", condition, "--namespace", NAMESPACE)
    assert_serving_again(cluster, before)


def test_a_roll_out_takes_no_pod_along(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=1)))
    before = cluster.container_ids()
    [agent] = cluster.agents()
    began = time.monotonic()
    cluster.install(VALUES | {"daemonset": VALUES["daemonset"] | {"podAnnotations": {"rolled": "out"}}})
    print(f"roll-out of the DaemonSet on the node: {time.monotonic() - began:.1f} s")
    [rolled] = cluster.agents()
    assert rolled["metadata"]["uid"] != agent["metadata"]["uid"]
    assert_serving_again(cluster, before)


def assert_serving_again(cluster: Cluster, before: dict[str, str]) -> None:
    """New pods get devices, what ran before runs on, and nothing of the old agent is left."""
    cluster.run(pod("late", container(thing=1)))
    assert before.items() <= cluster.container_ids().items()
    sockets = {one.name for one in (cluster.machine.kubelet / "device-plugins").glob("*.sock")} - {"kubelet.sock"}
    assert len(sockets) == len(RESOURCES)


def test_a_device_that_vanishes_is_told_to_the_node_and_to_its_pod(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=3)))
    gone = "/dev/thing1"
    cluster.machine.unplug(gone)
    try:
        print(f"device removed to allocatable on the node: {cluster.until_allocatable('test.example/thing', 2):.1f} s")
        if cluster.minor >= 31:
            told = (
                "{.status.containerStatuses[0].allocatedResourcesStatus[0].resources[?(@.resourceID=='thing1')].health}"
            )
            cluster.wait("pod/holder", f"jsonpath={told}=Unhealthy")
    finally:
        cluster.machine.plug(gone, THINGS[gone])
    cluster.until_allocatable("test.example/thing", 3)


def test_what_the_kubelet_gave_away_is_what_genplug_counts(cluster: Cluster) -> None:
    cluster.run(pod("one", container(thing=2)), pod("two", container(fuse=1)))
    status = {one["name"]: {device["id"] for device in one["devices"]} for one in cluster.status()["resources"]}
    assert cluster.node.allocatable_devices() == status
    given = cluster.node.given_devices()
    assert {name: len(ids) for name, ids in given.items()} == {"test.example/thing": 2, "test.example/fuse": 1}
    assert all(ids <= status[name] for name, ids in given.items())


def test_a_node_follows_its_label_from_one_pool_to_another(cluster: Cluster) -> None:
    pools = {"lab": {"config": {"resources": {"test.example/fuse": {"tokens": 3}, "test.example/thing": None}}}}
    cluster.install(VALUES | {"pools": pools})
    assert [one["metadata"]["labels"]["genplug.io/pool"] for one in cluster.agents()] == ["default"]
    cluster.kubectl("label", f"node/{Node.name}", "genplug.io/pool=lab")
    cluster.until_allocatable("test.example/fuse", 3)
    cluster.until_allocatable("test.example/thing", 0)
    cluster.kubectl("label", f"node/{Node.name}", "genplug.io/pool-")
    cluster.until_allocatable("test.example/fuse", 10)
    cluster.until_allocatable("test.example/thing", 3)
    cluster.install(VALUES)


def test_only_those_named_may_edit_the_configuration_and_ask_for_a_resource(cluster: Cluster) -> None:
    if cluster.minor < 30:
        pytest.fail("ValidatingAdmissionPolicy is part of Kubernetes since 1.30")
    guard = {
        "enabled": True,
        "editors": {"users": ["admin"], "groups": ["system:masters"]},
        "resources": {"test.example/thing": ["trusted"]},
    }
    cluster.install(VALUES | {"admissionPolicy": guard})
    cluster.kubectl("create", "namespace", "trusted")
    cluster.kubectl("create", "clusterrolebinding", "editor", "--clusterrole", "cluster-admin", "--user", "editor")
    edit = ["annotate", "--overwrite", "configmap/genplug-config", "--namespace", NAMESPACE, "edited=yes"]
    seconds_until(lambda: "denied" in refusal(cluster, *edit, user="editor"), 30)
    asking = json.dumps(pod("asks", container(thing=1)))
    assert "test.example/thing" in refusal(cluster, "apply", "--filename", "-", text=asking)
    cluster.control.apply(pod("other", container(fuse=1)))
    trusted = pod("asks", container(thing=1))
    trusted["metadata"]["namespace"] = "trusted"
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", "trusted")
    cluster.control.apply(trusted)
    cluster.kubectl("delete", "namespace", "trusted")
    cluster.install(VALUES)


def refusal(cluster: Cluster, *arguments: str, **given: Any) -> str:
    """What kubectl says where it fails; nothing where it does not."""
    try:
        cluster.kubectl(*arguments, **given)
    except subprocess.CalledProcessError as error:
        return "".join(error.__notes__)
    return ""


def test_helm_test_passes(cluster: Cluster) -> None:
    assert "Succeeded" in cluster.helm("test", "genplug", "--timeout", "60s")


def test_uninstalling_leaves_no_socket_and_no_promise(cluster: Cluster) -> None:
    cluster.run(pod("holder", container(thing=1)))
    before = cluster.container_ids()
    cluster.helm("uninstall", "genplug", "--wait")
    for name in RESOURCES:
        cluster.until_allocatable(name, 0)
    directory = cluster.machine.kubelet / "device-plugins"
    assert {one.name for one in directory.iterdir()} == {"kubelet.sock", "kubelet_internal_checkpoint"}
    assert cluster.container_ids() == before
    cluster.wait("pods", "delete", "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/name=genplug")
    namespaced = cluster.kubectl(
        "get", "all,configmap,serviceaccount", "--namespace", NAMESPACE, "--output", "name"
    ).split()
    assert {name for name in namespaced if "genplug" in name} == set()
    cluster.install(VALUES)
    cluster.until_allocatable("test.example/thing", 3)
