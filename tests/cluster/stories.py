"""Twelve stories: a pod does not receive a device, or a node loses one, each made for real on a cluster.

``docs/how-to/pending-pods.md`` shows the command of each story with its output, and :mod:`tests.cluster.test_stories`
plays the stories and compares.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.cluster import images
from tests.cluster.cluster import NAMESPACE, Cluster, build_pod, poll_until
from tests.cluster.node import Node

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/how-to/pending-pods.md"
DOMAIN = "devices.example.com"
DEVICES = {f"/dev/{name}": (240 << 8) + number for number, name in enumerate(("camera0", "camera1", "camera2", "dsp0"))}
VALUES: dict[str, Any] = {
    "image": {"repository": "registry.example/genplug", "tag": "test", "pullPolicy": "Never"},
    "config": {
        "resources": {
            f"{DOMAIN}/camera": {"devices": [{"glob": "/dev/camera*"}]},
            f"{DOMAIN}/fuse": {"devices": [{"glob": "/dev/fuse"}], "tokens": 4, "share": {"maxPerContainer": 1}},
            f"{DOMAIN}/dsp": {"devices": [{"glob": "/dev/dsp0"}]},
        }
    },
    "policy": {"resources": [f"{DOMAIN}/camera", f"{DOMAIN}/dsp", f"{DOMAIN}/fuse"]},
    "daemonset": {"auditDir": "/var/log/genplug"},
    "pools": {"lab": {}},
}
_UNSCHEDULABLE = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable"
_PLUGIN = """\
#!/bin/sh
PYTHONPATH={repository} exec {python} -c 'import sys; from genplug.kubectl.main import main; sys.exit(main())' "$@"
"""


class Story(Struct, frozen=True):
    """A story: ``play`` makes the situation and leaves it, and the commands show its cause."""

    name: str
    commands: tuple[str, ...]
    play: Callable[[Cluster], AbstractContextManager[None]]


STORIES: dict[str, Story] = {}


def story(*commands: str) -> Callable[[Callable[[Cluster], Iterator[None]]], Callable[[Cluster], Iterator[None]]]:
    """Add a generator, which makes a situation, yields and leaves it, to the stories under its name."""

    def add(play: Callable[[Cluster], Iterator[None]]) -> Callable[[Cluster], Iterator[None]]:
        name = play.__name__.removeprefix("play_").replace("_", "-")
        STORIES[name] = Story(name, commands, contextmanager(play))
        return play

    return add


def build_device_pod(name: str, **spec_and_devices: Any) -> dict[str, Any]:
    """Return a pod that requests devices: ``camera=1`` requests one ``devices.example.com/camera``."""
    devices = {key: value for key, value in spec_and_devices.items() if isinstance(value, int) and key != "priority"}
    limits = {f"{DOMAIN}/{key}": count for key, count in devices.items()}
    container = {
        "name": "main",
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
        "resources": {"limits": limits},
    }
    return build_pod(name, container, **{key: value for key, value in spec_and_devices.items() if key not in devices})


def create_waiting(cluster: Cluster, pod: dict[str, Any]) -> None:
    """Create a pod and wait until the scheduler has found no node for it."""
    cluster.control.apply(pod)
    cluster.wait(f"pod/{pod['metadata']['name']}", _UNSCHEDULABLE)


def create_refused(cluster: Cluster, pod: dict[str, Any]) -> None:
    """Create a pod and wait until the kubelet has refused it."""
    cluster.control.apply(pod)
    cluster.wait(f"pod/{pod['metadata']['name']}", "jsonpath={.status.phase}=Failed")


@contextmanager
def keep_unplugged(cluster: Cluster, path: str) -> Iterator[None]:
    """Remove a device node while the context is open."""
    resource = f"{DOMAIN}/{path.removeprefix('/dev/').rstrip('0123456789')}"
    count = int(cluster.get_allocatable(resource) or 0)
    cluster.machine.unplug(path)
    cluster.wait_allocatable(resource, count - 1)
    yield
    cluster.machine.plug(path, DEVICES[path])
    cluster.wait_allocatable(resource, count)


@contextmanager
def edit_config_map(cluster: Cluster, name: str, old: str, new: str) -> Iterator[None]:
    """Replace a text in a ConfigMap, and restore it when the context is left."""
    target = [f"configmap/{name}", "--namespace", NAMESPACE]
    [(key, text)] = cluster.get(*target)["data"].items()
    assert old in text, text
    cluster.kubectl("patch", *target, "--patch", json.dumps({"data": {key: text.replace(old, new)}}))
    # The kubelet updates the ConfigMap of a changed pod immediately.
    cluster.kubectl("annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", f"edited={abs(hash(new))}")
    yield
    cluster.kubectl("patch", *target, "--patch", json.dumps({"data": {key: text}}))
    cluster.kubectl("annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", "edited=no")


@story("kubectl genplug pending train-0")
def play_by_name(cluster: Cluster) -> Iterator[None]:
    create_waiting(cluster, build_device_pod("train-0", camra=1))
    yield


@story("kubectl genplug pending train-0")
def play_by_count(cluster: Cluster) -> Iterator[None]:
    create_waiting(cluster, build_device_pod("train-0", camera=4))
    yield


@story("kubectl genplug pending train-0")
def play_by_health(cluster: Cluster) -> Iterator[None]:
    with keep_unplugged(cluster, "/dev/camera1"):
        create_waiting(cluster, build_device_pod("train-0", camera=3))
        yield


@story("kubectl genplug pending train-0")
def play_by_taint(cluster: Cluster) -> Iterator[None]:
    cluster.create_node("node-2", taints=[{"key": "dedicated", "value": "lab", "effect": "NoSchedule"}], camera=4)
    create_waiting(cluster, build_device_pod("train-0", camera=4))
    yield
    cluster.delete_node("node-2")


@story("kubectl genplug pending deployment/web")
def play_by_quota(cluster: Cluster) -> Iterator[None]:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "devices", "namespace": "default"},
        "spec": {"hard": {f"requests.{DOMAIN}/camera": "2"}},
    }
    cluster.control.apply(quota)
    used = f"requests.{DOMAIN}/camera".replace(".", r"\.")
    cluster.wait("resourcequota/devices", f"jsonpath={{.status.used.{used}}}=0")
    cluster.run_pods(build_device_pod("holder", camera=2))
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": build_device_pod("web", camera=1)["spec"]}
    template["spec"].pop("terminationGracePeriodSeconds")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    cluster.control.apply(deployment)
    cluster.wait("deployment/web", "condition=ReplicaFailure")
    yield
    cluster.kubectl("delete", "deployment/web", "resourcequota/devices")


@story("kubectl genplug pending train-0")
def play_by_use(cluster: Cluster) -> Iterator[None]:
    cluster.run_pods(build_device_pod("label-studio", camera=1), build_device_pod("train-1", camera=2))
    create_waiting(cluster, build_device_pod("train-0", camera=2))
    yield


@story("kubectl genplug why train-0")
def play_refused_by_the_kubelet(cluster: Cluster) -> Iterator[None]:
    cluster.run_pods(build_device_pod("label-studio", camera=2))
    create_refused(cluster, build_device_pod("train-0", camera=2, nodeName=Node.name))
    yield


@story("kubectl genplug why train-0")
def play_refused_by_genplug(cluster: Cluster) -> Iterator[None]:
    create_refused(cluster, build_device_pod("train-0", fuse=2))
    yield


@story(
    "kubectl exec --namespace genplug daemonset/genplug -- genplug status -o wide dsp",
    "kubectl exec --namespace genplug daemonset/genplug -- genplug audit --device dsp0 --since 12h",
)
def play_device_lost_at_night(cluster: Cluster) -> Iterator[None]:
    cluster.run_pods(build_device_pod("train-0", dsp=1))
    with keep_unplugged(cluster, "/dev/dsp0"):
        yield


@story("kubectl genplug status")
def play_policy_slip(cluster: Cluster) -> Iterator[None]:
    with edit_config_map(cluster, "genplug-policy", "/dsp", "/dps"):
        cluster.wait_allocatable(f"{DOMAIN}/dsp", 0)
        yield
    cluster.wait_allocatable(f"{DOMAIN}/dsp", 1)


@story("kubectl genplug status")
def play_bad_edit_of_a_pool(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("label", f"node/{Node.name}", "genplug.io/pool=lab")
    cluster.kubectl("rollout", "status", "daemonset/genplug-lab", "--namespace", NAMESPACE)
    poll_until(lambda: is_in_pool(cluster, "lab"), 60)
    with edit_config_map(cluster, "genplug-lab-config", "tokens: 4", "tokns: 4"):
        poll_until(lambda: "tokns" in cluster.read_status()["config"]["error"], 90)
        yield
    cluster.kubectl("label", f"node/{Node.name}", "genplug.io/pool-")
    poll_until(lambda: is_in_pool(cluster, "default"), 60)


@story("kubectl genplug status")
def play_agent_missing_on_a_node(cluster: Cluster) -> Iterator[None]:
    cluster.create_node("node-2", camera=4)
    cluster.wait("daemonset/genplug", "jsonpath={.status.currentNumberScheduled}=2", "--namespace", NAMESPACE)
    yield
    cluster.delete_node("node-2")


def is_in_pool(cluster: Cluster, pool: str) -> bool:
    """Return whether the only agent is that of a pool, and ready."""
    agents = cluster.get_agents()
    return [agent["metadata"]["labels"]["genplug.io/pool"] for agent in agents] == [pool] and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in agents[0]["status"].get("conditions", ())
    )


def install(cluster: Cluster, python: str, kubectl: Path) -> None:
    """Plug the devices, install the chart, and put kubectl with the plugin into the PATH of :func:`run_shell`."""
    for path, number in DEVICES.items():
        cluster.machine.plug(path, number)
    programs = cluster.machine.directory / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(kubectl)
    plugin = programs / "kubectl-genplug"
    plugin.write_text(_PLUGIN.format(repository=REPOSITORY, python=python))
    plugin.chmod(0o755)
    cluster.install(VALUES)
    cluster.wait_allocatable(f"{DOMAIN}/camera", 3)


def run_shell(cluster: Cluster, command: str) -> str:
    """Run a command line as an operator does; return its output with any exit code."""
    directory = cluster.machine.directory
    environment = f"KUBECONFIG={cluster.control.get_kubeconfig('admin')} HOME={directory} PATH={directory}/bin:$PATH"
    return cluster.machine.run("sh", "-c", f"export {environment}; {command} 2>/dev/null || true")


def stabilize(text: str) -> str:
    """Return an output with what differs between two runs replaced: ages, times, checksums and names of agents."""
    text = re.sub(r"\b(genplug(?:-lab)?)-[a-z0-9]{5}\b", r"\1-x7k2p", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "2026-11-27T03:12:05Z", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "cd21c7131904", text)
    text = re.sub(r"\b(for|changed) (?:\d+[dhms]){1,2}\b", r"\1 5m", text)
    # The ages in a column keep their width.
    return re.sub(r"\b(?:\d+[dhms]){1,2}\b(?=  |$)", lambda age: "5m".ljust(len(age[0])), text, flags=re.MULTILINE)


def run_commands(cluster: Cluster, story: Story) -> str:
    """Return the commands of a story with their stabilized outputs, as they are in the page."""
    return "\n".join(f"$ {command}\n{stabilize(run_shell(cluster, command).strip())}\n" for command in story.commands)


def read_page() -> dict[str, str]:
    """Return the commands and outputs of each story in the page, by the name of the story."""
    return dict(re.findall(r"<!-- story: (\S+) -->\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL))


def write_page(name: str, text: str) -> None:
    """Replace the commands and outputs of a story in the page."""
    pattern = rf"(<!-- story: {re.escape(name)} -->\n\n```text\n).*?```"
    page, count = re.subn(pattern, lambda match: f"{match[1]}{text}```", PAGE.read_text(), flags=re.DOTALL)
    assert count == 1, f"{PAGE} has no place for the story {name}"
    PAGE.write_text(page)
