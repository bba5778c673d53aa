"""The real kubelet without an API server: static pods get what a configuration says, whoever restarts."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import container, device_numbers, pod, seconds_until
from tests.cluster.machine import Program
from tests.cluster.node import Node

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
THINGS = {f"/dev/thing{number}": (240 << 8) + number for number in range(3)}
GENPLUG = Path(sys.executable).with_name("genplug")


def start_genplug(node: Node) -> Program:
    config = node.machine.directory / "genplug.yaml"
    config.write_text(CONFIG)
    program = node.machine.start("genplug", GENPLUG, "run", "--config", config, "--listen", "127.0.0.1:9808")
    program.until(lambda: is_ready(node), "readiness")
    return program


def is_ready(node: Node) -> bool:
    try:
        return node.machine.run("wget", "-q", "-O", "-", "http://127.0.0.1:9808/readyz").startswith("ready")
    except Exception:  # noqa: BLE001 - not even listening yet
        return False


LOOK = "ls -l /dev; echo things=$THINGS; exec sleep infinity"
TWO, ONE = pod("two", container(command=LOOK, thing=2)), pod("one", container(command=LOOK, thing=1, fuse=1))


@pytest.fixture(scope="module")
def genplug(node: Node) -> Program:
    """genplug on the node, with two pods that hold devices."""
    for path, number in THINGS.items():
        node.machine.plug(path, number)
    program = start_genplug(node)
    run(node, ONE, TWO)
    seconds_until(lambda: {"one", "two"} <= set(running(node)))
    return program


def run(node: Node, *pods: dict[str, Any]) -> None:
    for one in pods:
        part = node.manifests / f".{one['metadata']['name']}.part"
        part.write_text(json.dumps(one))
        part.rename(node.manifests / f"{one['metadata']['name']}.json")
    for one in pods:
        seconds_until(lambda one=one: said(node, one) != "")


def said(node: Node, one: dict[str, Any]) -> str:
    """What the main container of a pod printed, without the runtime's time stamps."""
    logs = (node.machine.directory / "log/pods").glob(f"default_{one['metadata']['name']}-*/main/*.log")
    return "".join(line.split(" ", 3)[3] for log in logs for line in log.read_text().splitlines(keepends=True))


def running(node: Node) -> dict[str, str]:
    """Which container each pod runs, as the kubelet tells on its read-only port."""
    answer = json.loads(node.machine.run("wget", "-q", "-O", "-", "http://127.0.0.1:10255/pods"))
    return {
        one["metadata"]["name"].removesuffix(f"-{node.name}"): status["containerID"]
        for one in answer["items"] or ()
        for status in one["status"].get("containerStatuses", ())
        if "running" in status["state"]
    }


@pytest.mark.usefixtures("genplug")
def test_static_pods_get_their_nodes_and_their_environment(node: Node) -> None:
    seconds_until(lambda: "things=" in said(node, ONE) and "things=" in said(node, TWO))
    one, two = device_numbers(said(node, ONE)), device_numbers(said(node, TWO))
    given = [{name for name in numbers if name.startswith("thing")} for numbers in (one, two)]
    assert [len(names) for names in given] == [1, 2]
    assert given[0] | given[1] == {"thing0", "thing1", "thing2"}
    assert {name: two[name] for name in given[1]} == {name: f"240:{name[-1]}" for name in given[1]}
    assert "fuse" in one
    assert "fuse" not in two
    assert f"things={','.join(f'/dev/{name}' for name in sorted(given[1]))}" in said(node, TWO)


@pytest.mark.usefixtures("genplug")
def test_a_kubelet_that_is_killed_finds_everything_again(node: Node) -> None:
    before = running(node)
    assert node.kubelet
    node.kubelet.end(signal.SIGKILL)
    seconds_until(lambda: not is_ready(node))
    began = time.monotonic()
    node.start_kubelet()
    seconds_until(lambda: is_ready(node))
    print(f"kubelet started again: every resource is registered after {time.monotonic() - began:.2f} s")
    seconds_until(lambda: running(node) == before)
    run(node, pod("late", container(command="echo started; exec sleep infinity", fuse=1)))


def test_genplug_that_is_killed_takes_no_pod_along(node: Node, genplug: Program) -> None:
    before = running(node)
    genplug.end(signal.SIGKILL)
    start_genplug(node)
    run(node, pod("later", container(command="echo started; exec sleep infinity", fuse=1)))
    seconds_until(lambda: "later" in running(node))
    assert before.items() <= running(node).items()
