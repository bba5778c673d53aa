"""containerd and a kubelet on the machine of a test."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import grpc

from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.api.services import POD_RESOURCES, method_path
from tests.cluster.machine import ADDRESS, SERVICE_NETWORK, Machine, Program
from tests.cluster.tools import find_containerd

_CONTAINERD = """
version = 2
root = "{directory}/containerd"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
oom_score = 0
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  disable_apparmor = true
  disable_hugetlb_controller = true
  restrict_oom_score_adj = true
  enable_selinux = false
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni.d"
"""

_CONTAINERD_ENDPOINT = "unix:///run/containerd.sock"
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.77.0.0/24"}]],
                # To the API server.
                "routes": [{"dst": SERVICE_NETWORK}],
                "dataDir": "/run/cni-ipam",
            },
        },
        {"type": "loopback"},
    ],
}


def select_features(binaries: Path) -> dict[str, bool]:
    """Return the feature gates to enable in all programs of a version, which are off by default in some versions.

    They show the health of devices in the status of pods, and allocate ``limits`` by DRA.
    """
    minor = read_minor(binaries)
    return {gate: True for gate, first in _GATES.items() if first <= minor}


def read_minor(binaries: Path) -> int:
    """Return the minor version of Kubernetes of a directory with its programs."""
    return int(binaries.name.split(".")[1])


_GATES = {"ResourceHealthStatus": 31, "DRAExtendedResource": 34}
"""The feature gates to enable, and the first minor version that has them."""
_ENDPOINT_IN_CONFIG_MINOR = 27


class Node:
    """containerd and the kubelet of one machine.

    ``binaries`` is the directory with the programs of a Kubernetes version. With ``kubeconfig`` the kubelet is a node
    of a cluster; without it, the kubelet runs only the static pods in ``manifests``. With ``has_short_periods`` it
    reports the node status every second instead of every 10 seconds, and reads changed ConfigMaps every 5 seconds
    instead of every 60.
    """

    name = "node-1"

    def __init__(
        self,
        machine: Machine,
        binaries: Path,
        sandbox: str,
        kubeconfig: Path | None = None,
        *,
        has_short_periods: bool = True,
    ) -> None:
        self._periods = {"nodeStatusUpdateFrequency": "1s", "syncFrequency": "5s"} if has_short_periods else {}
        self.machine = machine
        self.manifests = machine.directory / "manifests"
        self._binaries = binaries
        self.minor = read_minor(binaries)
        self._sandbox = sandbox
        self._kubeconfig = kubeconfig
        self.kubelet: Program | None = None

    def start(self) -> None:
        """Start containerd, then the kubelet."""
        directory = self.machine.directory
        self.manifests.mkdir()
        (directory / "cni.d").mkdir()
        (directory / "cni.d/pods.conflist").write_text(json.dumps(_NETWORK))
        config = directory / "containerd.toml"
        config.write_text(_CONTAINERD.format(directory=directory, sandbox=self._sandbox, snapshotter="overlayfs"))
        programs = find_containerd()
        # containerd searches its PATH for the shim.
        path = {"PATH": f"{programs}:{os.environ['PATH']}"}
        self.containerd = self.machine.start(
            "containerd", programs / "containerd", "--config", config, environment=path
        )
        self.containerd.wait_until((directory / "run/containerd.sock").exists, "its socket")
        self.start_kubelet()

    def import_image(self, archive: Path) -> None:
        """Import an image archive."""
        self.run_ctr("images", "import", archive)

    def list_images(self) -> dict[str, str]:
        """Return the digest of each image in containerd by its names, of which the image ID of the kubelet is one."""
        rows = (line.split() for line in self.run_ctr("images", "list").splitlines()[1:])
        return {row[0]: row[2] for row in rows}

    def run_ctr(self, *arguments: str | Path) -> str:
        """Run a command of containerd's client in the kubelet's namespace and return its output."""
        options = ("--address", "/run/containerd.sock", "--namespace", "k8s.io")
        return self.machine.run(find_containerd() / "ctr", *options, *arguments)

    def start_kubelet(self) -> None:
        """Start the kubelet, for the first time or again."""
        directory = self.machine.directory
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "address": "0.0.0.0",
            "readOnlyPort": 10255,
            "healthzPort": 10248,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.machine.control_group,
            "failSwapOn": False,
            "failCgroupV1": False,
            "staticPodPath": str(self.manifests),
            "containerRuntimeEndpoint": _CONTAINERD_ENDPOINT,
            "volumePluginDir": str(directory / "volume-plugins"),
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "10Mi"},
            "featureGates": select_features(self._binaries),
            "registerNode": self._kubeconfig is not None,
            "fileCheckFrequency": "1s",
        } | self._periods
        (directory / "kubelet.json").write_text(json.dumps(config))
        arguments: list[str | Path] = ["--config", directory / "kubelet.json", "--root-dir", "/var/lib/kubelet",
                     "--hostname-override", self.name, "--node-ip", ADDRESS, "--v", "2"]  # fmt: skip
        if self.minor < _ENDPOINT_IN_CONFIG_MINOR:
            arguments += ["--container-runtime-endpoint", _CONTAINERD_ENDPOINT]
        if self._kubeconfig:
            arguments += ["--kubeconfig", self._kubeconfig]
        self.kubelet = self.machine.start("kubelet", self._binaries / "kubelet", *arguments)
        self.kubelet.wait_until(
            (self.machine.kubelet / "device-plugins/kubelet.sock").exists, "its device plugin socket"
        )

    def list_allocatable_devices(self) -> dict[str, set[str]]:
        """Return the allocatable devices by resource, from the kubelet's pod-resources API."""
        response = pb.AllocatableResourcesResponse.FromString(self.call_pod_resources("GetAllocatableResources"))
        return _group_by_resource(response.devices)

    def list_allocated_devices(self) -> dict[str, set[str]]:
        """Return the devices that pods hold by resource, from the kubelet's pod-resources API."""
        response = pb.ListPodResourcesResponse.FromString(self.call_pod_resources("List"))
        return _group_by_resource(
            devices for pod in response.pod_resources for container in pod.containers for devices in container.devices
        )

    def call_pod_resources(self, method: str) -> bytes:
        """Return the response of the kubelet's pod-resources API to a method without a request."""
        with grpc.insecure_channel(f"unix:{self.machine.kubelet}/pod-resources/kubelet.sock") as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                method_path(POD_RESOURCES, method), request_serializer=None, response_deserializer=None
            )
            return call(b"", timeout=10)


def _group_by_resource(listed: Iterable[pb.ContainerDevices]) -> dict[str, set[str]]:
    by_resource: dict[str, set[str]] = {}
    for devices in listed:
        by_resource.setdefault(devices.resource_name, set()).update(devices.device_ids)
    return by_resource
