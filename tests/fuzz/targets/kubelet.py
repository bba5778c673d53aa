"""The answers of the pod-resources API, and the files of the kubelet and of the container runtime."""

import json
from functools import cache
from pathlib import Path

import yaml
from google.protobuf.message import DecodeError

from genplug.agent.settings import Settings
from genplug.doctor.facts import Machine, UnknownFactError
from genplug.doctor.kubelet import CHECKPOINT, DEFAULT_CONFIG, read_kubelet, read_registered
from genplug.doctor.runtime import CONTAINERD_FILES, CRIO_FILE, read_runtime
from genplug.kubelet.api import genplug_podresources_v1_pb2 as pb
from genplug.kubelet.pod_resources import decode_uses
from tests.fuzz.documents import document_mutator
from tests.fuzz.scratch import scratch_directory
from tests.fuzz.target import Target
from tests.support.dra_status import DRA

_CHECKPOINT = {
    "Data": {
        "PodDeviceEntries": [
            {"PodUID": "a", "ContainerName": "b", "ResourceName": "e.io/x", "DeviceIDs": {"0": ["x0"]}}
        ],
        "RegisteredDevices": {"e.io/x": ["x0", "x1"], "e.io/y": None},
    },
    "Checksum": 1,
}
_KUBELET = {
    "kind": "KubeletConfiguration",
    "featureGates": {"DevicePluginCDIDevices": True, "KubeletPodResourcesGet": False},
}


def run_pod_resources(content: bytes) -> None:
    uses = decode_uses(content)
    for use in uses.devices:
        assert len(set(use.ids)) == len(use.ids)
    DRA.list_device_uses(uses.claims)


def list_pod_resources() -> list[bytes]:
    def container(name: str, *devices: tuple[str, list[str]]) -> pb.ContainerResources:
        found = [pb.ContainerDevices(resource_name=resource, device_ids=ids) for resource, ids in devices]
        return pb.ContainerResources(name=name, devices=found)

    claim = pb.DynamicResource(
        claim_name="training",
        claim_namespace="default",
        claim_resources=[
            pb.ClaimResource(driver_name="genplug.io", pool_name="node-1/example.com/gpu", device_name="gpu0")
        ],
    )
    pod_with_claim = pb.PodResources(
        name="a", namespace="default", containers=[pb.ContainerResources(name="c", dynamic_resources=[claim, claim])]
    )
    pod = pb.PodResources(
        name="a", namespace="b", containers=[container("c", ("e.io/x", ["x0"]), ("e.io/x", ["x1"])), container("d")]
    )
    responses = [pb.ListPodResourcesResponse(pod_resources=pods) for pods in ([], [pod], [pod, pod], [pod_with_claim])]
    return [response.SerializeToString() for response in responses]


@cache
def _machine() -> Machine:
    """Return a machine whose files a target writes."""
    root = scratch_directory("kubelet")
    for path in (DEFAULT_CONFIG, *CONTAINERD_FILES[:1], CRIO_FILE, "/plugins/x", "/proc/x"):
        Path(f"{root}{path}").parent.mkdir(parents=True, exist_ok=True)
    return Machine(Settings((), root=root, device_plugins_dir=root / "plugins"), proc=root / "proc")


def run_checkpoint(content: bytes) -> None:
    machine = _machine()
    (machine.settings.plugins_dir / CHECKPOINT).write_bytes(content)
    for name, ids in read_registered(machine).items():
        assert isinstance(name, str)
        assert all(isinstance(device_id, str) for device_id in ids)


def run_kubelet_config(content: bytes) -> None:
    machine = _machine()
    Path(f"{machine.settings.root}{DEFAULT_CONFIG}").write_bytes(content)
    assert all(isinstance(value, bool) for value in read_kubelet(machine).features.values())


def run_runtime_config(content: bytes) -> None:
    """Read a configuration of containerd, or of CRI-O if it begins with a number sign."""
    machine = _machine()
    is_crio = content.startswith(b"#")
    for path in (CRIO_FILE, CONTAINERD_FILES[0]):
        Path(f"{machine.settings.root}{path}").unlink(missing_ok=True)
    Path(f"{machine.settings.root}{CRIO_FILE if is_crio else CONTAINERD_FILES[0]}").write_bytes(content)
    runtime = read_runtime(machine)
    assert runtime.name == ("CRI-O" if is_crio else "containerd")


def list_runtime_configs() -> list[bytes]:
    return [
        b'version = 2\nimports = ["/etc/c/*.toml"]\n[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = true\n',
        b'version = 3\n[plugins."io.containerd.cri.v1.runtime"]\ncdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]\n',
        b'#\n[crio.runtime]\ncdi_spec_dirs = ["/etc/cdi"]\n',
    ]


TARGETS = (
    Target(
        "pod-resources",
        "answers of the pod-resources API",
        run_pod_resources,
        list_pod_resources,
        allowed=(DecodeError,),
        words=("e.io/x", "x0", "\x0a\x03", "\x12\x01", "\x1a\x0e"),
        max_bytes=2048,
    ),
    Target(
        "checkpoint",
        "checkpoints of the kubelet",
        run_checkpoint,
        lambda: [json.dumps(_CHECKPOINT).encode(), b"{}"],
        allowed=(UnknownFactError,),
        words=('"Data":', '"RegisteredDevices":', "null", "[", "{"),
        mutate=document_mutator(values=[_CHECKPOINT]),
        short_runs=300,
    ),
    Target(
        "kubelet-config",
        "configuration files of the kubelet",
        run_kubelet_config,
        lambda: [yaml.safe_dump(_KUBELET).encode(), json.dumps(_KUBELET).encode()],
        words=("featureGates:\n  ", "&a ", "*a", "!!timestamp ", "2001-99-99", "!!int ", "<<: ", "? ", "0x", "1:99"),
        mutate=document_mutator(values=[_KUBELET]),
        short_runs=300,
    ),
    Target(
        "runtime-config",
        "configuration files of the container runtime",
        run_runtime_config,
        list_runtime_configs,
        allowed=(OSError,),
        words=(
            "version = ",
            "imports = [",
            "[plugins.",
            '"io.containerd.grpc.v1.cri"',
            "enable_cdi = true",
            "..",
            "**",
            "*",
            "\\u0000",
        ),
        max_bytes=2048,
    ),
)
