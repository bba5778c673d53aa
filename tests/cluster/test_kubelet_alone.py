"""A real kubelet without an API server: static pods receive devices, also after restarts of kubelet and genplug."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import build_container, build_pod, parse_device_numbers, poll_until
from tests.cluster.conftest import NODE_PARAMS, name_version
from tests.cluster.machine import Program
from tests.cluster.node import Node, read_minor

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CONFIG = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  test.example/fuse:
    devices: [{glob: /dev/fuse}]
    tokens: 10
  test.example/thing:
    devices: [{glob: "/dev/thing*", with: [/dev/null]}]
    allocate: {env: {THINGS: "${path}"}}
"""
THINGS = {f"/dev/thing{number}": (240 << 8) + number for number in range(6)}
COUNTS = {"test.example/fuse": 10, "test.example/thing": len(THINGS)}
_SIDECARS_MINOR = 29
WITHOUT_DRA = [path for path in NODE_PARAMS if path and read_minor(path) == 30]
GENPLUG = Path(sys.executable).with_name("genplug")


def start_genplug(node: Node) -> Program:
    config = node.machine.directory / "genplug.yaml"
    config.write_text(CONFIG)
    account = node.machine.directory / "service-account"
    if not account.exists():
        write_service_account(account)
    options: list[str | Path] = [
        "--listen",
        "127.0.0.1:9808",
        "--node-name",
        node.name,
        "--service-account-dir",
        account,
    ]
    # No API server listens there.
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    program = node.machine.start("genplug", GENPLUG, "run", "--config", config, *options, environment=environment)
    program.wait_until(lambda: is_ready(node), "readiness")
    return program


def write_service_account(directory: Path) -> None:
    """Write the files of a service account, which a resource that is served by DRA needs."""
    directory.mkdir()
    (directory / "token").write_text("token")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -keyout ca.key -out ca.crt"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=directory)


def is_ready(node: Node) -> bool:
    try:
        return node.machine.run("wget", "-q", "-O", "-", "http://127.0.0.1:9808/readyz").startswith("ready")
    except Exception:  # noqa: BLE001 - the agent may not listen yet
        return False


COMMAND = "ls -l /dev; echo things=$THINGS; exec sleep infinity"
TWO, ONE = (
    build_pod("two", build_container(command=COMMAND, thing=2)),
    build_pod("one", build_container(command=COMMAND, thing=1, fuse=1)),
)


@pytest.fixture(scope="module")
def genplug(node: Node) -> Program:
    """Return genplug, which runs on the node with two pods that hold devices."""
    for path, number in THINGS.items():
        node.machine.plug(path, number)
    program = start_genplug(node)
    run_pods(node, ONE, TWO, build_pod_with_several_containers(node))
    poll_until(lambda: {"one/main", "two/main", "several/main", "several/other"} <= set(list_containers(node)))
    return program


def build_pod_with_several_containers(node: Node) -> dict[str, Any]:
    """Return a pod with an init container, two containers and, if the kubelet has them enabled, a sidecar."""
    # A kubelet that starts rejects a pod whose finished init container has devices, if it is faster than the plugin.
    first = [build_container("first", command="true")]
    if node.minor >= _SIDECARS_MINOR:
        first.append(build_container("sidecar", fuse=1) | {"restartPolicy": "Always"})
    main, other = build_container("main", command=COMMAND, thing=1), build_container("other", command=COMMAND, thing=1)
    return build_pod("several", main, other, initContainers=first)


def assert_counts(node: Node) -> None:
    """Assert that the kubelet has all devices, and that the pods hold those that they request."""
    poll_until(lambda: {name: len(ids) for name, ids in node.list_allocatable_devices().items()} == COUNTS)
    assert len(node.list_allocated_devices()["test.example/thing"]) == 5


def run_pods(node: Node, *pods: dict[str, Any]) -> None:
    """Run static pods and wait until each of them has written a log."""
    for pod in pods:
        part = node.manifests / f".{pod['metadata']['name']}.part"
        part.write_text(json.dumps(pod))
        part.rename(node.manifests / f"{pod['metadata']['name']}.json")
    poll_until(lambda: all(read_log(node, pod) for pod in pods))


def read_log(node: Node, pod: dict[str, Any]) -> str:
    """Return the log of a pod's main container without the time stamps of the runtime."""
    return read_container_log(node, pod, "main")


def read_container_log(node: Node, pod: dict[str, Any], container: str) -> str:
    """Return the log of a container of a pod without the time stamps of the runtime."""
    logs = (node.machine.directory / "log/pods").glob(f"default_{pod['metadata']['name']}-*/{container}/*.log")
    return "".join(line.split(" ", 3)[3] for log in logs for line in log.read_text().splitlines(keepends=True))


def list_containers(node: Node) -> dict[str, str]:
    """Return the ID of each running container by ``pod/container``, from the kubelet's read-only port."""
    response = json.loads(node.machine.run("wget", "-q", "-O", "-", "http://127.0.0.1:10255/pods"))
    return {
        f"{pod['metadata']['name'].removesuffix(f'-{node.name}')}/{status['name']}": status["containerID"]
        for pod in response["items"] or ()
        for status in pod["status"].get("containerStatuses", ())
        if "running" in status["state"]
    }


@pytest.mark.usefixtures("genplug")
def test_81_static_pods_receive_device_nodes_and_environment(node: Node) -> None:
    several = build_pod_with_several_containers(node)
    containers = ((ONE, "main"), (TWO, "main"), (several, "main"), (several, "other"))
    poll_until(lambda: all("things=" in read_container_log(node, *container) for container in containers))
    first, second = parse_device_numbers(read_log(node, ONE)), parse_device_numbers(read_log(node, TWO))
    names = [{name for name in numbers if name.startswith("thing")} for numbers in (first, second)]
    assert [len(group) for group in names] == [1, 2]
    assert len(names[0] | names[1]) == 3
    assert {name: second[name] for name in names[1]} == {name: f"240:{name[-1]}" for name in names[1]}
    assert "fuse" in first
    assert "fuse" not in second
    assert f"things={','.join(f'/dev/{name}' for name in sorted(names[1]))}" in read_log(node, TWO)
    listings = [parse_device_numbers(read_container_log(node, several, name)) for name in ("main", "other")]
    things = [{name for name in numbers if name.startswith("thing")} for numbers in listings]
    assert [len(group) for group in things] == [1, 1]
    assert len(set.union(*names, *things)) == 5
    assert_counts(node)


@pytest.mark.usefixtures("genplug")
def test_81_killed_kubelet_keeps_containers_and_registers_resources_again(node: Node) -> None:
    before = list_containers(node)
    assert node.kubelet
    node.kubelet.stop(signal.SIGKILL)
    poll_until(lambda: not is_ready(node))
    start = time.monotonic()
    node.start_kubelet()
    poll_until(lambda: is_ready(node))
    print(f"time from the start of the kubelet to all registrations: {time.monotonic() - start:.2f} s")
    poll_until(lambda: list_containers(node) == before)
    assert_counts(node)
    run_pods(node, build_pod("late", build_container(command="echo started; exec sleep infinity", fuse=1)))


def test_81_killed_genplug_does_not_affect_pods(node: Node, genplug: Program) -> None:
    before = list_containers(node)
    genplug.stop(signal.SIGKILL)
    start_genplug(node)
    run_pods(node, build_pod("later", build_container(command="echo started; exec sleep infinity", fuse=1)))
    poll_until(lambda: "later/main" in list_containers(node))
    assert before.items() <= list_containers(node).items()
    assert_counts(node)


@pytest.mark.parametrize("node", WITHOUT_DRA, indirect=True, ids=name_version)
@pytest.mark.usefixtures("genplug")
def test_kubelet_without_dra_is_reported_and_other_resources_are_served_dra_24(node: Node) -> None:
    config = node.machine.directory / "genplug.yaml"
    config.write_text(CONFIG.replace("tokens: 10", "tokens: 10\n    serve: dra"))
    seconds = poll_until(lambda: "upgrade Kubernetes to 1.34 or later" in read_reasons(node), 30)
    print(f"time from the changed file to the reported error: {seconds:.1f} s")
    assert len(node.list_allocatable_devices()["test.example/thing"]) == len(THINGS)
    config.write_text(CONFIG)
    poll_until(lambda: is_ready(node))
    assert_counts(node)


def read_reasons(node: Node) -> str:
    """Return why genplug is not ready."""
    status = json.loads(node.machine.run("wget", "-q", "-O", "-", "http://127.0.0.1:9808/statusz"))
    return "\n".join(status["unready"])
