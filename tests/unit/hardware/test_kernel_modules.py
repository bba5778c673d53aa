"""Hints about missing device nodes: the kernel module that creates the node."""

import pytest

from genplug.hardware.kernel_modules import missing_node_hint
from tests.support.hardware import NodeTree, build_node_spec, build_source, discover_sources, list_devices


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("/dev/infiniband/rdma_cm", "rdma_ucm"),
        ("/dev/infiniband/uverbs3", "ib_uverbs"),
        ("/dev/infiniband/uverbs[0-9]*", "ib_uverbs"),
        ("/dev/infiniband/issm0", "ib_umad"),
        ("/dev/vfio/vfio", "vfio"),
        ("/dev/net/tun", "tun"),
        ("/dev/kvm", "kvm_intel or kvm_amd"),
        ("/dev/fuse", "fuse"),
        ("/dev/vhost-net", "vhost_net"),
        ("/dev/vhost-vdpa-0", "vhost_vdpa"),
        ("/dev/kfd", "amdgpu"),
        ("/dev/i2c-*", "i2c_dev"),
    ],
)
def test_hint_names_the_module_of_a_known_node(path: str, module: str) -> None:
    assert missing_node_hint(path) == f"load the kernel module {module} on the node, which creates it"


@pytest.mark.parametrize(
    ("path", "command", "module"),
    [
        ("/dev/nvidia-uvm", "nvidia-modprobe -u -c 0", "nvidia_uvm"),
        ("/dev/nvidia-modeset", "nvidia-modprobe -m", "nvidia_modeset"),
        ("/dev/nvidiactl", "nvidia-modprobe -c 0", "nvidia"),
        ("/dev/nvidia[0-9]*", "nvidia-modprobe -c NUMBER", "nvidia"),
    ],
)
def test_hint_names_the_command_for_nodes_of_nvidia(path: str, command: str, module: str) -> None:
    expected = f"run '{command}' on the node, which loads the kernel module {module} and creates it"
    assert missing_node_hint(path) == expected


@pytest.mark.parametrize(
    "path", ["/dev/x0", "/dev/vfio/12", "/dev/nvidia-caps/nvidia-cap1", "/dev/infiniband", "/x/kvm"]
)
def test_unknown_node_has_no_hint(path: str) -> None:
    assert missing_node_hint(path) == ""


def test_fault_of_a_missing_companion_names_its_module(tree: NodeTree) -> None:
    tree.plug("/dev/infiniband/uverbs0", "231:192")
    source = build_source(
        "/dev/infiniband/uverbs*",
        companions=(build_node_spec("/dev/infiniband/rdma_cm"), build_node_spec("/dev/infiniband/umad*")),
    )
    [device] = list_devices(discover_sources(tree, source))
    assert device.faults[0] == (
        "companion /dev/infiniband/rdma_cm does not exist: "
        "load the kernel module rdma_ucm on the node, which creates it"
    )
    assert device.faults[1].endswith(": load the kernel module ib_umad on the node, which creates it")


def test_fault_of_a_missing_node_names_its_module(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    [device] = list_devices(discover_sources(tree, build_source("/dev/x*", nodes=(build_node_spec("/dev/net/tun"),))))
    assert device.faults == ("/dev/net/tun does not exist: load the kernel module tun on the node, which creates it",)
