"""Compares a node with the model: what must hold at every moment, and what must hold after the node has settled."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from genplug.kubectl.admission_messages import explain_refusal
from genplug.observe.events import Event
from tests.cluster.cluster import NAMESPACE, Cluster
from tests.cluster.soak.model import EXCLUSIVE, FUSE, ROLLOUT_ANNOTATION, World
from tests.cluster.soak.observation import LiveContainer, Observation

_INTERNAL_ERROR = re.compile(rf'"event": ?"{Event.INTERNAL_ERROR.code}"')


class Checks:
    """The checks of one soak, with what they have seen before."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        self._cluster = cluster
        self._world = world
        self._containers: dict[str, str] = {}
        self._reported: set[str] = set()
        self.is_calm = False
        """Whether the present step only creates and deletes pods, so that the kubelet has no reason to refuse a pod."""
        self.ran: set[str] = set()
        """Names of pods that have run."""
        self.refused: dict[str, str] = {}
        """Causes by the name of the pod that the kubelet refused."""
        self.rejected: set[str] = set()
        """Names of pods that ran until a kubelet that started rejected them because of a finished init container."""

    def find_violations(self, seen: Observation) -> list[str]:
        """Return what must not happen at any moment, also while the node changes."""
        return [
            *find_shared_devices(seen.live),
            *find_running_pods_without_devices(self._world, seen),
            *self._find_ended_containers(seen),
            *self._find_internal_errors(),
        ]

    def find_deviations(self, seen: Observation) -> list[str]:
        """Return the differences from the model that must end when the node settles."""
        return [
            *compare_node(self._world, seen),
            *self._compare_pods(seen),
            *compare_allocations(self._world, seen),
            *self._compare_agent(seen),
        ]

    def _find_ended_containers(self, seen: Observation) -> Iterator[str]:
        """Yield the pods of which a container has ended or started again, although no action deletes them."""
        for name, pod in seen.pods.items():
            if name not in self._world.pods or "deletionTimestamp" in pod["metadata"]:
                continue
            if name in self.ran and pod["status"].get("phase") != "Running":
                if self._is_known_rejection(name, pod["status"]):
                    self.rejected.add(name)
                    continue
                yield f"pod {name}: expected that it continues to run, found {_describe_phase(pod)}"
            if pod["status"].get("phase") == "Running":
                self.ran.add(name)
            for status in pod["status"].get("containerStatuses", ()):
                container = status.get("containerID")
                if "running" not in status["state"]:
                    continue
                first = self._containers.setdefault(f"{name}/{status['name']}", container)
                if container != first or status["restartCount"]:
                    yield f"pod {name}: expected that container {status['name']} does not restart, found a restart"

    def _is_known_rejection(self, name: str, status: Mapping[str, Any]) -> bool:
        """Return whether a kubelet that started has rejected a pod because of a finished init container.

        The kubelet allocates the devices of the init container again, which fails if a device is not healthy now (issue
        138446 of Kubernetes; docs/internals/kubelet-contract.md §3).
        """
        has_devices = any(self._world.pods[name].requests.get("first", {}).values())
        return has_devices and explain_refusal(status.get("reason", ""), status.get("message", "")) is not None

    def _find_internal_errors(self) -> Iterator[str]:
        logs = (self._cluster.machine.directory / "log/pods").glob(f"{NAMESPACE}_*/genplug/*.log")
        for path in logs:
            for line in _read_lines(path):
                if _INTERNAL_ERROR.search(line) and line not in self._reported:
                    self._reported.add(line)
                    yield f"the agent logged an internal error: {line}"

    def _compare_pods(self, seen: Observation) -> Iterator[str]:
        for name in seen.pods.keys() - self._world.pods.keys():
            yield f"pod {name}: expected that it is deleted, found {_describe_phase(seen.pods[name])}"
        for name in self._world.pods:
            if name not in seen.pods:
                yield f"pod {name}: expected a pod, found none"
                continue
            pod = seen.pods[name]
            match pod["status"].get("phase"):
                case "Running":
                    if not _has_condition(pod, "Ready", "True"):
                        yield f"pod {name}: expected that it is ready, found {_describe_phase(pod)}"
                case "Failed":
                    yield from self._check_refusal(name, pod["status"])
                case _:
                    yield from self._check_pending(name, seen)

    def _check_refusal(self, name: str, status: Mapping[str, Any]) -> Iterator[str]:
        explanation = explain_refusal(status.get("reason", ""), status.get("message", ""))
        if explanation is None:
            text = f"{status.get('reason')}: {status.get('message')}"
            yield f"pod {name}: expected a known refusal of the kubelet, found {text}"
        elif name not in self.rejected:
            # The scheduler counts the devices of pods without those that have become unhealthy.
            if name not in self.refused and self.is_calm and explanation.cause != "notEnoughDevices":
                text = f"{status.get('reason')}: {status.get('message')}"
                yield f"pod {name}: expected that it runs, because nothing else has changed, found {text}"
                return
            self.refused[name] = explanation.cause

    def _check_pending(self, name: str, seen: Observation) -> Iterator[str]:
        pod = seen.pods[name]
        if not _has_condition(pod, "PodScheduled", "False"):
            if not self._waits_for_device(pod, seen):
                yield f"pod {name}: expected that it runs, found {_describe_phase(pod)}"
            return
        short = [
            resource
            for resource, healthy in self._world.healthy.items()
            if healthy - count_reserved(self._world, seen, resource) < self._world.pods[name].count(resource)
        ]
        if not short:
            yield f"pod {name}: expected a node, because enough devices are free, found that it is unschedulable"

    def _waits_for_device(self, pod: Mapping[str, Any], seen: Observation) -> bool:
        """Return whether a device was removed after its allocation: the kubelet tries again to create the container."""
        allocated = {
            device
            for (uid, _), devices in seen.checkpoint.items()
            if uid == pod["metadata"]["uid"]
            for device in chain.from_iterable(devices.get(resource, ()) for resource in EXCLUSIVE)
        }
        return not allocated <= self._world.plugged

    def _compare_agent(self, seen: Observation) -> Iterator[str]:
        world = self._world
        agents = [agent for agent in seen.agents if "deletionTimestamp" not in agent["metadata"]]
        if len(agents) != 1 or len(seen.agents) != 1:
            yield f"expected one pod of the agent, found {len(seen.agents)}"
            return
        rollouts = agents[0]["metadata"].get("annotations", {}).get(ROLLOUT_ANNOTATION, "0")
        if rollouts != str(world.rollouts):
            yield f"agent: expected the pod of rollout {world.rollouts}, found that of rollout {rollouts}"
        if (is_ready := _has_condition(agents[0], "Ready", "True")) != (world.active is not None):
            yield f"agent: expected that it is {'' if world.active else 'not '}ready, found {is_ready}"
        expected: dict[str, float] = {"genplug_config_last_reload_successful": world.written is not None}
        if world.active is not None:
            for resource, healthy in world.healthy.items():
                free = seen.allocatable.get(resource, set()) - set().union(*list_allocated(seen, resource))
                expected[f'genplug_devices{{resource="{resource}",state="healthy"}}'] = healthy
                expected[f'genplug_devices_free{{resource="{resource}"}}'] = len(free)
        metrics = self._cluster.read_metrics()
        for name, value in expected.items():
            if metrics.get(name) != value:
                yield f"metric {name}: expected {value:g}, found {metrics.get(name)}"
        sockets = 0 if world.active is None else len(world.healthy)
        if len(seen.sockets) != sockets:
            yield f"expected {sockets} sockets of the agent, found {sorted(seen.sockets)}"


def list_allocated(seen: Observation, resource: str) -> list[set[str]]:
    """Return the devices of each container that has devices of a resource."""
    return [devices[resource] for devices in seen.allocated.values() if resource in devices]


def count_reserved(world: World, seen: Observation, resource: str) -> int:
    """Return how many devices of a resource the scheduler reserves: those of pods with a node that have not ended."""
    return sum(
        world.pods[name].count(resource)
        for name, pod in seen.pods.items()
        if name in world.pods and pod["spec"].get("nodeName") and pod["status"].get("phase") in {"Pending", "Running"}
    )


def find_shared_devices(live: Mapping[str, LiveContainer]) -> Iterator[str]:
    """Yield the devices that two running containers have, by name and by number."""
    owners: dict[str | int, str] = {}
    for container, state in live.items():
        for name, number in state.devices.items():
            if not name.startswith(tuple(EXCLUSIVE.values())):
                continue
            for key in (name, number):
                if (other := owners.setdefault(key, container)) != container:
                    yield f"device {name}: expected one container, found {other[:12]} and {container[:12]}"


def find_running_pods_without_devices(world: World, seen: Observation) -> Iterator[str]:
    for name, pod in seen.pods.items():
        statuses = [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]
        for status in statuses:
            live = seen.live.get(status.get("containerID", "").rpartition("/")[2])
            if name not in world.pods or "running" not in status["state"] or live is None:
                continue
            requests = world.pods[name].requests[status["name"]]
            expected = {prefix: requests.get(resource, 0) for resource, prefix in EXCLUSIVE.items()}
            expected["fuse"] = int(requests.get(FUSE, 0) > 0)
            found = {prefix: sum(device.startswith(prefix) for device in live.devices) for prefix in expected}
            if found != expected:
                yield f"pod {name}: expected that container {status['name']} has {expected}, found {found}"


def compare_node(world: World, seen: Observation) -> Iterator[str]:
    for resource, count in world.healthy.items():
        allocatable = seen.node["status"]["allocatable"].get(resource, "0")
        if allocatable != str(count):
            yield f"node status: expected {count} allocatable {resource}, found {allocatable}"
        listed = seen.allocatable.get(resource, set())
        if len(listed) != count or world.healthy_ids.get(resource, listed) != listed:
            expected = sorted(world.healthy_ids.get(resource, ())) or count
            yield f"kubelet: expected the healthy devices {expected} of {resource}, found {sorted(listed)}"


def compare_allocations(world: World, seen: Observation) -> Iterator[str]:
    """Compare the devices in the containers with the pod-resources API and the checkpoint of the kubelet."""
    running = {name: pod for name, pod in seen.pods.items() if pod["status"].get("phase") == "Running"}
    for name, container in seen.allocated:
        if name not in seen.pods or seen.pods[name]["status"].get("phase") not in {"Pending", "Running"}:
            yield f"pod-resources API: expected no devices of pod {name}, found some of container {container}"
    for name, pod in running.items():
        if name not in world.pods:
            continue
        for status in [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]:
            live = seen.live.get(status.get("containerID", "").rpartition("/")[2])
            if status["name"] == "first":
                continue
            if live is None:
                yield f"pod {name}: expected a process of container {status['name']}, found none"
                continue
            allocated = seen.allocated.get((name, status["name"]), {})
            if allocated != seen.checkpoint.get((pod["metadata"]["uid"], status["name"]), {}):
                yield f"pod {name}: expected that checkpoint and pod-resources API agree on container {status['name']}"
            devices = set(chain.from_iterable(allocated.get(resource, ()) for resource in EXCLUSIVE))
            found = {device for device in live.devices if device != "fuse"}
            if found != devices:
                yield f"pod {name}: expected the devices {sorted(devices)} in {status['name']}, found {sorted(found)}"
            tokens = world.pods[name].requests[status["name"]].get(FUSE, 0)
            if len(allocated.get(FUSE, ())) != tokens:
                yield f"pod {name}: expected {tokens} of {FUSE} in {status['name']}, found {allocated.get(FUSE)}"


def _has_condition(pod: Mapping[str, Any], kind: str, status: str) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(condition["type"] == kind and condition["status"] == status for condition in conditions)


def _describe_phase(pod: Mapping[str, Any]) -> str:
    status = pod["status"]
    return ", ".join(filter(None, (status.get("phase", "no phase"), status.get("reason"), status.get("message"))))


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        # The kubelet has removed the log of a pod.
        return []
