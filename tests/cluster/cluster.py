"""A cluster of one node, and the operations that the tests perform on it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster import images
from tests.cluster.control_plane import ControlPlane
from tests.cluster.machine import Machine
from tests.cluster.node import Node

CHART = Path(__file__).parents[2] / "deploy/helm/genplug"
NAMESPACE = "genplug"
NOT_READY = 4
"""Exit code of ``genplug status`` for an agent that is not ready."""


class Cluster:
    """A machine with a control plane, containerd, a kubelet and the objects that Helm installs.

    With ``has_short_periods`` the kubelet synchronizes more often; see :class:`Node`.
    """

    def __init__(self, machine: Machine, binaries: Path, tools: Path, *, has_short_periods: bool = True) -> None:
        self.machine = machine
        self.control = ControlPlane(machine, binaries, tools / "kubectl")
        user = self.control.get_kubeconfig(f"system:node:{Node.name}")
        self.node = Node(machine, binaries, images.BUSYBOX, user, has_short_periods=has_short_periods)
        self._helm, self._kubectl = tools / "helm4", tools / "kubectl"
        self.kubectl = self.control.kubectl
        self.get = self.control.get
        self.wait = self.control.wait

    @property
    def minor(self) -> int:
        """The minor version of Kubernetes."""
        return int(json.loads(self.kubectl("get", "--raw", "/version"))["minor"].rstrip("+"))

    def start(self, *archives: Path) -> None:
        """Start all programs, load images, and wait until the node is ready and pods can be created."""
        self.control.start()
        self.node.start()
        for archive in archives:
            self.node.import_image(archive)
        self.wait(f"node/{Node.name}", "create")
        self.wait(f"node/{Node.name}", "condition=Ready")
        self.wait("serviceaccount/default", "create")

    def run_helm(self, *arguments: str | Path, values: Mapping[str, object] | None = None) -> str:
        """Run helm with the values on its standard input and return its output."""
        options = ["--values", "-"] if values is not None else []
        return self.machine.run(
            "env", f"KUBECONFIG={self.control.get_kubeconfig('admin')}", f"HOME={self.machine.directory}",
            self._helm, "--namespace", NAMESPACE, *arguments, *options,
            text=None if values is None else json.dumps(values),
        )  # fmt: skip

    def run_plugin(self, *arguments: str) -> str:
        """Run ``kubectl genplug`` of this checkout as an administrator and return its output."""
        return self.machine.run(
            "env", f"KUBECONFIG={self.control.get_kubeconfig('admin')}", f"PYTHONPATH={CHART.parents[2]}",
            sys.executable, "-m", "genplug.kubectl", *arguments, f"--kubectl={self._kubectl}",
        )  # fmt: skip

    def install(self, values: Mapping[str, object]) -> None:
        """Install or upgrade the chart and wait until the pods are ready."""
        self.run_helm(
            "upgrade", "--install", "--create-namespace", "genplug", CHART, "--wait", "--timeout", "90s", values=values
        )

    def get_agents(self) -> list[dict[str, Any]]:
        """Return the agent pods that are not being deleted."""
        pods = self.get("pods", "--namespace", NAMESPACE, "--selector", "app.kubernetes.io/name=genplug")["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def read_status(self) -> dict[str, Any]:
        """Return the output of ``genplug status -o json`` in the agent pod."""
        [agent] = self.get_agents()
        name = agent["metadata"]["name"]
        command = ("exec", "--namespace", NAMESPACE, name, "--", "genplug", "status", "-o", "json")
        try:
            output = self.kubectl(*command)
        except subprocess.CalledProcessError as error:
            if error.returncode != NOT_READY:
                raise
            output = error.stdout
        status: dict[str, Any] = json.loads(output)
        return status

    def is_ready(self) -> bool:
        """Return whether the agent's /readyz succeeds; this works without a kubelet too."""
        [agent] = self.get_agents()
        if "podIP" not in agent["status"]:
            return False
        url = f"http://{agent['status']['podIP']}:9808/readyz"
        try:
            return self.machine.run("wget", "--quiet", "--output-document=-", url).startswith("ready")
        except subprocess.CalledProcessError:
            return False

    def read_metrics(self) -> dict[str, float]:
        """Return the value of each sample of the agent's /metrics by its name with its labels."""
        [agent] = self.get_agents()
        url = f"http://{agent['status']['podIP']}:9808/metrics"
        page = self.machine.run("wget", "--quiet", "--output-document=-", url)
        samples = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def restart_kubelet(self) -> float:
        """Kill and start the kubelet; return the seconds from its start until every resource is registered."""
        assert self.node.kubelet
        self.node.kubelet.stop(signal.SIGKILL)
        poll_until(lambda: not self.is_ready())
        start = time.monotonic()
        self.node.start_kubelet()
        poll_until(self.is_ready)
        return time.monotonic() - start

    def get_allocatable(self, resource: str) -> str | None:
        """Return the allocatable count of a resource on the node, or None if the node does not have the resource."""
        allocatable: dict[str, str] = self.get(f"node/{Node.name}")["status"]["allocatable"]
        return allocatable.get(resource)

    def wait_allocatable(self, resource: str, count: int, seconds: float = 90) -> float:
        """Wait until the allocatable count of a resource on the node is ``count``; return the seconds it took."""
        start = time.monotonic()
        path = resource.replace(".", r"\.")
        self.wait(f"node/{Node.name}", f"jsonpath={{.status.allocatable.{path}}}={count}", seconds=seconds)
        return time.monotonic() - start

    def run_pods(self, *pods: dict[str, Any]) -> None:
        """Create pods and wait until they are ready."""
        self.control.apply(*pods)
        for pod in pods:
            self.wait(f"pod/{pod['metadata']['name']}", "condition=Ready")

    def delete_pods(self, *names: str) -> None:
        """Delete pods without a grace period and wait until they are gone."""
        self.kubectl("delete", "pod", "--grace-period", "0", "--force", *names)

    def create_node(
        self, name: str, *, labels: Mapping[str, str] = {}, taints: Sequence[object] = (), **resources: int
    ) -> None:
        """Create a node without a kubelet, with devices; the control plane keeps it ready."""
        prefix = "devices.example.com"
        amounts = {
            "cpu": "8",
            "memory": "32Gi",
            "pods": "110",
            **{f"{prefix}/{key}": str(count) for key, count in resources.items()},
        }
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        self.control.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **labels}},
                "spec": {"taints": list(taints)},
            }
        )
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
        self.kubectl("patch", "node", name, "--subresource=status", "--patch", json.dumps({"status": status}))

    def delete_node(self, name: str) -> None:
        """Delete a node without a kubelet, with its pods, which no kubelet ends."""
        self.kubectl("delete", "node", name)
        selector = f"--field-selector=spec.nodeName={name}"
        self.kubectl("delete", "pods", "--all-namespaces", selector, "--grace-period=0", "--force")

    def run_in_container(self, pod: str, *command: str, container: str = "main") -> str:
        """Run a command in a container and return its output."""
        return self.kubectl("exec", pod, "--container", container, "--", *command)

    def get_container_ids(self) -> dict[str, str]:
        """Return the ID and the number of restarts of each container, by ``pod/container``."""
        return {
            f"{pod['metadata']['name']}/{status['name']}": f"{status['containerID']} {status['restartCount']}"
            for pod in self.get("pods")["items"]
            for status in pod["status"].get("containerStatuses", ())
        }


def build_container(name: str = "main", command: str = "exec sleep infinity", **resources: int) -> dict[str, Any]:
    """Return a container that requests devices; for the resources see :func:`build_limits`."""
    return {
        "name": name,
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
    } | build_limits(**resources)


def build_limits(**resources: int) -> dict[str, Any]:
    """Return the limits of a container: ``fuse=1`` requests one ``test.example/fuse``."""
    return {"resources": {"limits": {f"test.example/{name}": count for name, count in resources.items()}}}


def build_pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a pod without an API token and without a grace period."""
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


def poll_until(holds: Callable[[], bool], seconds: float = 60) -> float:
    """Poll until a condition without an event holds; return the seconds it took.

    Raises:
        TimeoutError: The condition did not hold in time.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - start


def parse_device_numbers(listing: str) -> dict[str, str]:
    """Return the device numbers (major:minor) by name from the output of ``ls -l``."""
    return {
        words[-1]: f"{words[4].rstrip(',')}:{words[5]}"
        for words in map(str.split, listing.splitlines())
        if words and words[0].startswith("c")
    }
