"""Dynamic Resource Allocation by the chart on a cluster: claims, extended resources, restarts, rights and removal.

A number at the end of a test's name is that of an acceptance point of the driver.
"""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genplug.allocation.slices import SliceScope
from tests.cluster.claims import (
    API,
    DRA_MINOR,
    TAINTS_MINOR,
    add_numa_devices,
    build_claim_container,
    build_claim_pod,
    build_request,
    build_template,
    list_published,
    list_slices,
    read_event,
)
from tests.cluster.cluster import (
    NAMESPACE,
    Cluster,
    build_container,
    build_limits,
    build_pod,
    parse_device_numbers,
    poll_until,
)
from tests.cluster.conftest import VERSIONS, create_machine, name_version
from tests.cluster.node import Node, read_minor
from tests.cluster.tools import TOOLS
from tests.support.slices import PUBLISHED_RECIPES, build_random_slices, build_recipe_slices

pytestmark = [pytest.mark.cluster, pytest.mark.helm, pytest.mark.image, pytest.mark.timeout(300)]

RANDOM_CONFIGURATIONS = 200
SHARED_REQUESTS_MINOR = 36
THING, LANE, FUSE = "test.example/thing", "test.example/lane", "test.example/fuse"
NODES = {"thing0": 0, "thing1": 1, "thing2": 1, "thing3": 1, "lane0": 0, "lane1": 1}
"""The NUMA node of each device; its position is the minor number."""
PUBLISH = {"attributes": {"model": "${name}"}}
CONFIG: dict[str, Any] = {
    THING: {
        "serve": "dra",
        "aliases": ["test.example/old-thing"],
        "devices": [{"glob": "/dev/thing*", "with": ["/dev/fuse"]}],
        "share": {"overlap": True},
        "publish": PUBLISH,
        "health": {"removalGracePeriodSeconds": 600},
        "allocate": {
            "env": {"THINGS": "${path}"},
            "mounts": [{"hostPath": "/srv/firmware", "containerPath": "/firmware", "readOnly": True}],
        },
    },
    LANE: {"serve": "dra", "devices": [{"glob": "/dev/lane*"}], "publish": PUBLISH},
    FUSE: {"devices": [{"glob": "/dev/fuse"}], "tokens": 10, "share": {"overlap": True}},
}
VALUES: dict[str, Any] = {
    "image": {"repository": "registry.example/genplug", "tag": "test", "pullPolicy": "Never"},
    "config": {"resources": CONFIG},
    "policy": {"mounts": {"allow": ["/srv/**"]}},
    "daemonset": {"hostMounts": ["/srv/firmware"]},
}
DRA_VERSIONS: list[Path | None] = [version for version in VERSIONS if read_minor(version) >= DRA_MINOR] or [None]
OLDEST_AND_NEWEST = [DRA_VERSIONS[0], DRA_VERSIONS[-1]]
on_oldest_and_newest = pytest.mark.parametrize(
    "dra", [DRA_VERSIONS[0], DRA_VERSIONS[-1]], indirect=True, ids=name_version
)
on_newest = pytest.mark.parametrize("dra", DRA_VERSIONS[-1:], indirect=True, ids=name_version)


@pytest.fixture(
    scope="module",
    params=DRA_VERSIONS,
    ids=name_version,
)
def dra(request: pytest.FixtureRequest, busybox: Path, genplug_image: Path) -> Iterator[Cluster]:
    """Return a cluster with genplug and resources by DRA."""
    with create_machine() as machine:
        cluster = Cluster(machine, request.param, TOOLS)
        for minor, (name, _) in enumerate(NODES.items()):
            machine.plug(f"/dev/{name}", (240 << 8) + minor)
        devices = enumerate(NODES.values())
        add_numa_devices(machine, {minor: (f"0000:41:{minor:02}.0", node) for minor, node in devices})
        machine.run("mkdir", "-p", "/srv/firmware")
        cluster.start(busybox, genplug_image)
        cluster.install(VALUES)
        poll_until(lambda: len(list_published(cluster, THING)) + len(list_published(cluster, LANE)) == len(NODES), 30)
        yield cluster


@pytest.fixture(autouse=True)
def delete_pods(dra: Cluster) -> Iterator[None]:
    """Delete the pods of each test, and wait until their claims are unprepared."""
    yield
    delete_all(dra)


def delete_all(cluster: Cluster) -> None:
    for kind in ("pods", "resourceclaims", "resourceclaimtemplates"):
        cluster.kubectl("delete", kind, "--all", "--grace-period", "1", "--wait")
    # The last test removes the agents.
    if cluster.get_agents():
        poll_until(lambda: not cluster.read_status()["dra"]["claims"], 30)


def list_devices(cluster: Cluster, pod: str, container: str = "main") -> dict[str, str]:
    """Return the device numbers of the devices in a container by name."""
    numbers = parse_device_numbers(cluster.run_in_container(pod, "ls", "-l", "/dev", container=container))
    return {name: number for name, number in numbers.items() if name in NODES or name == "fuse"}


def find_by_model(cluster: Cluster, resource: str) -> dict[str, dict[str, Any]]:
    """Return the published devices of a resource by the attribute that has the name of the device node."""
    devices = list_published(cluster, resource).values()
    return {device["attributes"]["model"]["string"]: device for device in devices}


def wait_until_pending(cluster: Cluster, pod: str, reason: str) -> None:
    cluster.wait(f"pod/{pod}", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable")
    [condition] = [c for c in cluster.get(f"pod/{pod}")["status"]["conditions"] if c["type"] == "PodScheduled"]
    assert reason in condition["message"]


def test_published_devices_have_the_attributes_of_their_hardware_dra_01(dra: Cluster) -> None:
    devices = find_by_model(dra, THING)
    assert sorted(devices) == [name for name in NODES if name.startswith("thing")]
    assert devices["thing2"]["attributes"] == {
        "resource": {"string": THING},
        "device": {"string": devices["thing2"]["name"]},
        "model": {"string": "thing2"},
        "resource.kubernetes.io/numaNode": {"int": 1},
        "resource.kubernetes.io/pciBusID": {"string": "0000:41:02.0"},
        "resource.kubernetes.io/pcieRoot": {"string": "pci0000:40"},
    }
    assert list_owners(dra) == {("Node", dra.get(f"node/{Node.name}")["metadata"]["uid"])}
    # Resources that are served by DRA are not resources of the node.
    assert (dra.get_allocatable(THING), dra.get_allocatable(FUSE)) == (None, "10")


def test_claim_with_a_selector_gets_its_device_dra_03(dra: Cluster) -> None:
    selector = 'device.attributes["genplug.io"].model == "thing2"'
    dra.control.apply(build_template("thing", build_request(THING, 1, selector)))
    start = time.monotonic()
    dra.run_pods(build_claim_pod("selecting", "thing"))
    print(f"time from the pod with a claim to its start: {time.monotonic() - start:.1f} s")
    assert list_devices(dra, "selecting") == {"thing2": "240:2", "fuse": "10:229"}
    assert dra.run_in_container("selecting", "sh", "-c", "echo $THINGS; ls -d /firmware").split() == [
        "/dev/thing2",
        "/firmware",
    ]
    [claim] = dra.read_status()["dra"]["claims"]
    assert claim["pods"] == ["selecting"]


def test_limits_are_allocated_by_dra_04(dra: Cluster) -> None:
    first = build_container("first", command="ls -l /dev", thing=1)
    pod = build_pod(
        "limits", build_container(thing=2), build_container("other", thing=1), initContainers=[first],
        terminationGracePeriodSeconds=1,
    )  # fmt: skip
    start = time.monotonic()
    dra.run_pods(pod)
    print(f"time from the pod with limits to its start: {time.monotonic() - start:.1f} s")
    main, other = (set(list_devices(dra, "limits", name)) - {"fuse"} for name in ("main", "other"))
    assert (len(main), len(other)) == (2, 1)
    assert not main & other
    init = parse_device_numbers(dra.kubectl("logs", "limits", "--container", "first"))
    # Since Kubernetes 1.36, an init container uses a request of a later container; before, it has its own.
    found = {name for name in init if name.startswith("thing")}
    assert (found <= main | other) if dra.minor >= SHARED_REQUESTS_MINOR else (len(found) == 1)
    assert found


def test_alias_and_name_share_a_pool_dra_05(dra: Cluster) -> None:
    def build(name: str, **limits: int) -> dict[str, Any]:
        return build_pod(name, build_container() | build_limits(**limits), terminationGracePeriodSeconds=1)

    dra.run_pods(build("new", thing=2), build("old", **{"old-thing": 2}))
    new, old = (set(list_devices(dra, name)) - {"fuse"} for name in ("new", "old"))
    assert (len(new), len(old), len(new | old)) == (2, 2, 4)
    dra.control.apply(build("late", **{"old-thing": 2}))
    wait_until_pending(dra, "late", "cannot allocate all claims")
    dra.kubectl("delete", "pod", "new", "--grace-period", "1")
    dra.wait("pod/late", "condition=Ready")


@on_oldest_and_newest
def test_constraint_selects_devices_of_one_numa_node_dra_06(dra: Cluster) -> None:
    requests = (build_request(THING, 1, name="thing"), build_request(LANE, 1, name="lane"))
    numa = [{"requests": ["thing", "lane"], "matchAttribute": "resource.kubernetes.io/numaNode"}]
    dra.control.apply(build_template("pair", *requests, constraints=numa))
    containers = [build_claim_container(name, request=name) for name in ("thing", "lane")]
    dra.run_pods(build_claim_pod("first", "pair", *containers), build_claim_pod("second", "pair", *containers))
    found = []
    for pod in ("first", "second"):
        thing, lane = (set(list_devices(dra, pod, name)) - {"fuse"} for name in ("thing", "lane"))
        assert (len(thing), len(lane)) == (1, 1)
        assert {NODES[name] for name in thing} == {NODES[name] for name in lane}
        found += [*thing, *lane]
    assert len(set(found)) == 4
    # Two things and two lanes are free or used; no lane of a third NUMA node exists.
    dra.control.apply(build_claim_pod("third", "pair", *containers))
    wait_until_pending(dra, "third", "cannot allocate all claims")


@on_oldest_and_newest
def test_slice_that_was_changed_or_deleted_is_restored_dra_11(dra: Cluster) -> None:
    before = list_published(dra, LANE)
    [name] = [
        entry["metadata"]["name"] for entry in list_slices(dra) if entry["spec"]["pool"]["name"].endswith(f"/{LANE}")
    ]
    dra.kubectl("delete", "resourceslice", name)
    print(
        f"time until a deleted slice is restored: {poll_until(lambda: list_published(dra, LANE) == before, 10):.1f} s"
    )
    [name] = [
        entry["metadata"]["name"] for entry in list_slices(dra) if entry["spec"]["pool"]["name"].endswith(f"/{LANE}")
    ]
    patch = json.dumps([{"op": "remove", "path": "/spec/devices/0"}])
    dra.kubectl("patch", "resourceslice", name, "--type", "json", "--patch", patch)
    print(
        f"time until a changed slice is restored: {poll_until(lambda: list_published(dra, LANE) == before, 10):.1f} s"
    )


@contextmanager
def stop_agents(cluster: Cluster) -> Iterator[None]:
    """Stop all agents as by a node selector; leaving the context starts them again and waits until they are ready."""
    target = ("daemonset/genplug", "--namespace", NAMESPACE)

    def select(labels: Mapping[str, str | None]) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": labels}}}}
        cluster.kubectl("patch", *target, "--patch", json.dumps(patch))

    select({"away": "true"})
    poll_until(lambda: not cluster.get("pods", "--namespace", NAMESPACE)["items"])
    try:
        yield
    finally:
        select({"away": None})
    poll_until(lambda: len(cluster.get_agents()) == 1)
    poll_until(cluster.is_ready)


def read_versions(cluster: Cluster) -> dict[str, str]:
    """Return the version of each slice by its name."""
    return {entry["metadata"]["name"]: entry["metadata"]["resourceVersion"] for entry in list_slices(cluster)}


@on_oldest_and_newest
def test_claims_survive_a_rollout_dra_12(dra: Cluster) -> None:
    dra.control.apply(build_template("thing", build_request(THING)))
    dra.run_pods(build_claim_pod("holder", "thing"))
    waiting = build_claim_container(command="until [ -e /stop ]; do sleep 0.1; done")
    dra.run_pods(build_claim_pod("restarted", "thing", waiting, restartPolicy="Always"))
    held = {pod: list_devices(dra, pod) for pod in ("holder", "restarted")}
    versions, [holder, _] = read_versions(dra), sorted(dra.get_container_ids().items())
    with stop_agents(dra):
        dra.run_in_container("restarted", "touch", "/stop")
        dra.wait("pod/restarted", "jsonpath={.status.containerStatuses[0].restartCount}=1")
        dra.wait("pod/restarted", "condition=Ready")
        assert list_devices(dra, "restarted") == held["restarted"]
        files = {path: path.read_bytes() for path in (dra.machine.directory / "run/cdi").glob("dra_genplug.io_*.json")}
        assert len(files) == len(held)
        for path in files:
            path.unlink()
    assert {path: path.read_bytes() for path in files} == files
    assert {pod: list_devices(dra, pod) for pod in held} == held
    assert read_versions(dra) == versions
    assert holder in dra.get_container_ids().items()


@on_oldest_and_newest
def test_pod_ends_when_the_driver_is_back_dra_16(dra: Cluster) -> None:
    dra.control.apply(build_template("thing", build_request(THING)))
    dra.run_pods(build_claim_pod("ending", "thing"))
    with stop_agents(dra):
        dra.kubectl("delete", "pod", "ending", "--grace-period", "1", "--wait=false")
        poll_until(lambda: "dra" in read_event(dra, "ending", "FailedKillPod").lower() or is_stopped(dra, "ending"))
        assert dra.get("pod/ending")["metadata"]["deletionTimestamp"]
    start = time.monotonic()
    dra.wait("pod/ending", "delete")
    print(f"time from the ready agent to the end of a pod with a claim: {time.monotonic() - start:.1f} s")
    assert not list((dra.machine.directory / "run/cdi").glob("dra_genplug.io_*.json"))


def is_stopped(cluster: Cluster, pod: str) -> bool:
    """Return whether no container of a pod runs, although the pod still exists."""
    return not [
        line for line in cluster.node.run_ctr("tasks", "list").splitlines() if "RUNNING" in line and pod in line
    ]


@on_oldest_and_newest
def test_unplugged_device_is_not_allocated_dra_19(dra: Cluster) -> None:
    def has_taint() -> bool:
        device = find_by_model(dra, LANE).get("lane1")
        return device is None if dra.minor < TAINTS_MINOR else bool(device and device.get("taints"))

    dra.machine.unplug("/dev/lane1")
    print(f"time from the unplugged device to its taint: {poll_until(has_taint, 10):.1f} s")
    dra.control.apply(build_template("lanes", build_request(LANE, 2)))
    dra.control.apply(build_claim_pod("both", "lanes"))
    wait_until_pending(dra, "both", "cannot allocate all claims")
    dra.machine.plug("/dev/lane1", (240 << 8) + 5)
    poll_until(lambda: not has_taint(), 10)
    dra.wait("pod/both", "condition=Ready")


@on_oldest_and_newest
def test_slices_of_recipes_and_of_random_configurations_are_accepted_dra_02(dra: Cluster, tmp_path: Path) -> None:
    uid = dra.get(f"node/{Node.name}")["metadata"]["uid"]
    scope = SliceScope("other.example", Node.name, uid)
    slices = [document for name in PUBLISHED_RECIPES for document in build_recipe_slices(name, tmp_path / name, scope)]
    slices += build_random_slices(scope, RANDOM_CONFIGURATIONS)
    for number, document in enumerate(slices):
        document["metadata"]["name"] = f"slice-{number}"
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": slices})
    created = dra.kubectl("create", "--dry-run=server", "--output=name", "--filename=-", text=text, seconds=300)
    assert len(created.splitlines()) == len(slices)
    print(f"{len(slices)} slices are accepted")


def read_rejection(cluster: Cluster, *arguments: str, text: str | None = None) -> str:
    """Return the error of a kubectl command, or an empty text if the command succeeds."""
    try:
        cluster.kubectl(*arguments, text=text)
    except subprocess.CalledProcessError as error:
        return "".join(error.__notes__)
    return ""


def build_slice(name: str, node: str = Node.name, driver: str = "genplug.io") -> str:
    """Return a ResourceSlice as JSON."""
    pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": driver, "nodeName": node, "pool": pool, "devices": [{"name": "device"}]}
    return json.dumps({"apiVersion": API, "kind": "ResourceSlice", "metadata": {"name": name}, "spec": spec})


@on_oldest_and_newest
def test_agent_may_write_slices_of_its_node_and_driver_only_dra_18(dra: Cluster) -> None:
    [agent] = dra.get_agents()
    account = ["create", "token", "genplug", "--namespace", NAMESPACE]
    bound = ["--bound-object-kind", "Pod", "--bound-object-name", agent["metadata"]["name"]]
    token, loose = (dra.kubectl(*account, *options).strip() for options in (bound, []))
    create = ["create", "--validate=false", "--dry-run=server", "--filename", "-"]

    def reject(*arguments: str, text: str | None = None, token: str = token) -> str:
        return read_rejection(dra, "--token", token, *arguments, text=text)

    assert "of this node only" in reject(*create, text=build_slice("foreign", node="node-2"))
    assert "of the driver genplug.io only" in reject(*create, text=build_slice("other", driver="other.example"))
    assert "names no node" in reject(*create, text=build_slice("loose"), token=loose)
    dra.kubectl("create", "--filename", "-", text=build_slice("foreign", node="node-2"))
    assert "of this node only" in reject("delete", "resourceslice", "foreign")
    dra.kubectl("delete", "resourceslice", "foreign")
    assert not reject(*create, text=build_slice("own"))
    for resource in ("resourceclaims", "pods", "secrets", "deviceclasses"):
        assert "Forbidden" in reject("get", resource, "--all-namespaces")
    assert not reject("get", "resourceslices")
    assert not reject("get", "node", Node.name)


@on_newest
def test_agent_without_permissions_states_the_rule_dra_18(dra: Cluster) -> None:
    role = dra.get("clusterrolebinding", "--selector", "app.kubernetes.io/name=genplug")["items"]
    dra.kubectl("delete", "clusterrolebinding", *(item["metadata"]["name"] for item in role))
    dra.kubectl("delete", "pods", "--namespace", NAMESPACE, "--all")
    poll_until(lambda: len(dra.get_agents()) == 1)
    poll_until(lambda: "forbidden" in read_publish_error(dra))
    assert re.search(r"403 .*cannot get resource .*Grant the verbs of the chart", read_publish_error(dra))
    dra.control.apply(*(item | {"metadata": {"name": item["metadata"]["name"]}} for item in role))
    # This agent sends the next request after a minute.
    dra.kubectl("delete", "pods", "--namespace", NAMESPACE, "--all")
    poll_until(lambda: len(dra.get_agents()) == 1)
    poll_until(dra.is_ready, 90)


def read_publish_error(cluster: Cluster) -> str:
    """Return why the agent does not publish its devices, or an empty text."""
    try:
        dra = cluster.read_status()["dra"]
    except subprocess.CalledProcessError:
        # The container does not run yet.
        return ""
    return str(dra["publisher"]["error"]) if dra else ""


@on_newest
def test_slices_end_with_their_node_and_are_published_for_the_next_dra_24(dra: Cluster) -> None:
    dra.kubectl("delete", "node", Node.name)
    seconds = poll_until(lambda: not list_slices(dra), 30)
    print(f"time from the deleted node to the deletion of its slices: {seconds:.1f} s")
    # A kubelet registers its node when it starts.
    assert dra.node.kubelet
    dra.node.kubelet.stop(signal.SIGKILL)
    dra.node.start_kubelet()
    dra.wait(f"node/{Node.name}", "create")
    dra.wait(f"node/{Node.name}", "condition=Ready")
    poll_until(lambda: bool(list_slices(dra)))
    assert list_owners(dra) == {("Node", dra.get(f"node/{Node.name}")["metadata"]["uid"])}


def list_owners(cluster: Cluster) -> set[tuple[str, str]]:
    """Return the kind and the UID of each owner of a slice."""
    references = [reference for entry in list_slices(cluster) for reference in entry["metadata"]["ownerReferences"]]
    return {(reference["kind"], reference["uid"]) for reference in references}


@on_newest
def test_removed_chart_leaves_no_slices_dra_24(dra: Cluster) -> None:
    dra.run_helm("uninstall", "genplug", "--wait")
    seconds = poll_until(lambda: not list_slices(dra), 60)
    print(f"time from the removed chart to the deletion of its slices: {seconds:.1f} s")
    assert not dra.get("deviceclasses")["items"]
