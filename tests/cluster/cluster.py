"""A whole cluster of one node, and what the tests ask of it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster import images
from tests.cluster.control_plane import ControlPlane
from tests.cluster.machine import Machine
from tests.cluster.node import Node

CHART = Path(__file__).parents[2] / "deploy/helm/genplug"
NAMESPACE = "genplug"


class Cluster:
    """One machine with a control plane, containerd, a kubelet (hasty or not), and what helm installs there."""

    def __init__(self, machine: Machine, binaries: Path, tools: Path, *, is_hasty: bool = True) -> None:
        self.machine = machine
        self.control = ControlPlane(machine, binaries, tools / "kubectl")
        user = self.control.kubeconfig(f"system:node:{Node.name}")
        self.node = Node(machine, binaries, images.BUSYBOX, user, is_hasty=is_hasty)
        self._helm = tools / "helm4"
        self.kubectl = self.control.kubectl
        self.get = self.control.get
        self.wait = self.control.wait

    @property
    def minor(self) -> int:
        """The second number of the version of Kubernetes."""
        return int(json.loads(self.kubectl("get", "--raw", "/version"))["minor"].rstrip("+"))

    def start(self, *archives: Path) -> None:
        """Start everything, load images, and wait for the node and for what pods need of a namespace."""
        self.control.start()
        self.node.start()
        for archive in archives:
            self.node.load(archive)
        self.wait(f"node/{Node.name}", "create")
        self.wait(f"node/{Node.name}", "condition=Ready")
        self.wait("serviceaccount/default", "create")

    def helm(self, *arguments: str | Path, values: Mapping[str, object] | None = None) -> str:
        """Run helm; the values are given as a file on its standard input."""
        given = ["--values", "-"] if values is not None else []
        return self.machine.run(
            "env", f"KUBECONFIG={self.control.kubeconfig('admin')}", f"HOME={self.machine.directory}",
            self._helm, "--namespace", NAMESPACE, *arguments, *given,
            text=None if values is None else json.dumps(values),
        )  # fmt: skip

    def install(self, values: Mapping[str, object]) -> None:
        """Install the chart, or change what is installed, and wait until the pods are ready."""
        self.helm(
            "upgrade", "--install", "--create-namespace", "genplug", CHART, "--wait", "--timeout", "90s", values=values
        )

    def agents(self) -> list[dict[str, Any]]:
        """Give the pods of the chart, those that are being deleted left out."""
        pods = self.get("pods", "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/name=genplug")["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def status(self) -> dict[str, Any]:
        """Ask genplug itself, as an operator does."""
        [agent] = self.agents()
        name = agent["metadata"]["name"]
        return json.loads(self.kubectl("exec", "--namespace", NAMESPACE, name, "--", "genplug", "status", "-o", "json"))

    def is_ready(self) -> bool:
        """Ask the agent's readiness page as the kubelet's probe does, which works without a kubelet too."""
        [agent] = self.agents()
        page = f"http://{agent['status']['podIP']}:9808/readyz"
        try:
            return self.machine.run("wget", "--quiet", "--output-document=-", page).startswith("ready")
        except subprocess.CalledProcessError:
            return False

    def restart_kubelet(self) -> float:
        """Kill the kubelet and start it again; give the seconds until every resource is registered."""
        assert self.node.kubelet
        self.node.kubelet.end(signal.SIGKILL)
        seconds_until(lambda: not self.is_ready())
        began = time.monotonic()
        self.node.start_kubelet()
        seconds_until(self.is_ready)
        return time.monotonic() - began

    def allocatable(self, resource: str) -> str | None:
        """How many of a resource the node has for pods, None if it knows no such resource."""
        return self.get(f"node/{Node.name}")["status"]["allocatable"].get(resource)

    def until_allocatable(self, resource: str, count: int, seconds: float = 90) -> float:
        """Wait by a watch until the node has so many of a resource; give the seconds it took."""
        began = time.monotonic()
        path = resource.replace(".", r"\.")
        self.wait(f"node/{Node.name}", f"jsonpath={{.status.allocatable.{path}}}={count}", seconds=seconds)
        return time.monotonic() - began

    def run(self, *pods: dict[str, Any]) -> None:
        """Create pods and wait until they are ready."""
        self.control.apply(*pods)
        for one in pods:
            self.wait(f"pod/{one['metadata']['name']}", "condition=Ready")

    def delete(self, *names: str) -> None:
        """Delete pods of the tests at once and wait until they are gone."""
        self.kubectl("delete", "pod", "--grace-period", "0", "--force", *names)

    def inside(self, pod: str, *command: str, container: str = "main") -> str:
        """Run a command in a container."""
        return self.kubectl("exec", pod, "--container", container, "--", *command)

    def container_ids(self) -> dict[str, str]:
        """Which containers run in the tests' pods, by pod and container, with their number of restarts."""
        return {
            f"{pod['metadata']['name']}/{one['name']}": f"{one['containerID']} {one['restartCount']}"
            for pod in self.get("pods")["items"]
            for one in pod["status"].get("containerStatuses", ())
        }


def container(name: str = "main", command: str = "exec sleep infinity", **resources: int) -> dict[str, Any]:
    """Make a container that asks for resources, named with ``__`` for ``.`` and ``/`` in turn by ``asks``."""
    return {
        "name": name,
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
    } | asks(**resources)


def asks(**resources: int) -> dict[str, Any]:
    """Make the limits of a container: ``fuse=1`` asks for one ``test.example/fuse``."""
    return {"resources": {"limits": {f"test.example/{name}": count for name, count in resources.items()}}}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Make a pod without a token and without patience."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": list(containers),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
        }
        | spec,
    }


def seconds_until(holds: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for something that nothing tells of; give the seconds it took.

    Raises:
        TimeoutError: it did not hold in time.
    """
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - began


def device_numbers(listing: str) -> dict[str, str]:
    """Read names and numbers of device nodes out of what ``ls -l`` prints."""
    return {
        words[-1]: f"{words[4].rstrip(',')}:{words[5]}"
        for words in map(str.split, listing.splitlines())
        if words and words[0].startswith("c")
    }


TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))
