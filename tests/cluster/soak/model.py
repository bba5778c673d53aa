"""The state that the node must reach after the changes of a soak."""

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from tests.cluster.cluster import build_container, build_limits, build_pod

DOMAIN = "test.example"
MOTOR, LIDAR, FUSE = f"{DOMAIN}/motor", f"{DOMAIN}/lidar", f"{DOMAIN}/fuse"
EXCLUSIVE = {MOTOR: "motor", LIDAR: "lidar"}
"""Resources whose devices belong to one container at a time, with the prefix of their device nodes in ``/dev``."""
DEVICES = (*(f"motor{number}" for number in range(6)), *(f"lidar{number}" for number in range(3)))
"""Device nodes in ``/dev`` of the machine."""
PROBED_FILE = "/sys/class/net/node/ifalias"
FAILED_VALUE = "failed"
ROLLOUT_ANNOTATION = "rollouts"
"""An annotation of the pods of the DaemonSet with the number of rollouts."""


class Configuration(Struct, frozen=True):
    """A valid configuration of the soak."""

    tokens: int = 10
    motors: str = "motor*"

    def build(self) -> dict[str, Any]:
        """Return the resources of the configuration."""
        probe = {"file": {"path": PROBED_FILE, "notEquals": FAILED_VALUE}}
        health = {"periodSeconds": 1, "failureThreshold": 1, "successThreshold": 1, "probes": [probe]}
        return {
            MOTOR: {
                "devices": [{"glob": f"/dev/{self.motors}", "with": ["/dev/null"]}],
                "allocate": {"env": {"MOTORS": "${path}"}},
            },
            LIDAR: {"devices": [{"glob": "/dev/lidar*"}], "health": health},
            FUSE: {"devices": [{"glob": "/dev/fuse"}], "tokens": self.tokens},
        }

    def render(self) -> str:
        """Return the configuration file."""
        document = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig", "resources": self.build()}
        return json.dumps(document)


class Pod(Struct, frozen=True):
    """A pod of the soak. ``requests`` has the devices of each container by resource."""

    name: str
    requests: Mapping[str, Mapping[str, int]]

    def build(self) -> dict[str, Any]:
        """Return the object for the API server."""
        containers = {
            name: build_container(name) | build_limits(**_shorten(devices)) for name, devices in self.requests.items()
        }
        first = []
        if "first" in containers:
            first.append(containers.pop("first") | {"command": ["sh", "-c", "ls /dev"]})
        if "sidecar" in containers:
            first.append(containers.pop("sidecar") | {"restartPolicy": "Always"})
        # With a grace period of 0, the API server removes a pod before the kubelet has ended its containers.
        spec: dict[str, Any] = {"terminationGracePeriodSeconds": 1}
        return build_pod(self.name, *containers.values(), **(spec | ({"initContainers": first} if first else {})))

    def count(self, resource: str) -> int:
        """Return how many devices the scheduler reserves: those of the containers, or of the init container."""
        counts = {name: devices.get(resource, 0) for name, devices in self.requests.items()}
        first = counts.pop("first", 0)
        return max(first, sum(counts.values()))


def _shorten(devices: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix(f"{DOMAIN}/"): count for name, count in devices.items() if count}


class World(Struct):
    """The state of the machine and of the API server that the actions of a soak have made."""

    plugged: set[str] = field(default_factory=lambda: set(DEVICES))
    has_failed_probe: bool = False
    written: Configuration | None = field(default_factory=Configuration)
    """The configuration in the ConfigMap; None if its text is invalid."""
    active: Configuration | None = field(default_factory=Configuration)
    """The configuration that the agent serves; None if the agent has started with an invalid text."""
    pods: dict[str, Pod] = {}
    """The pods that exist, in the order of their creation."""
    replugs: int = 0
    created: int = 0
    rollouts: int = 0
    was_agent_killed: bool = False
    """Whether the present pod of the agent has restarted. The kubelet delays a second restart (back-off)."""

    def restart_agent(self) -> None:
        """Handle the start of another process of the agent, which has no previous configuration."""
        self.active = self.written

    @property
    def healthy(self) -> dict[str, int]:
        """The number of healthy devices of each resource."""
        if self.active is None:
            return dict.fromkeys((MOTOR, LIDAR, FUSE), 0)
        return {name: len(ids) for name, ids in self.healthy_ids.items()} | {FUSE: self.active.tokens}

    @property
    def healthy_ids(self) -> dict[str, set[str]]:
        """The IDs of the healthy devices of each exclusive resource."""
        if self.active is None:
            return {MOTOR: set(), LIDAR: set()}
        lidars = set() if self.has_failed_probe else {name for name in self.plugged if name.startswith("lidar")}
        return {MOTOR: set(fnmatch.filter(self.plugged, self.active.motors)), LIDAR: lidars}
