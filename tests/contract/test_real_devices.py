"""Real device nodes: those of this machine, and nodes that change between a scan and Allocate (point 59)."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet import AdmissionError
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.resources import X_CONFIG, X, list_host_paths, plug_devices, write_policy
from tests.support.scans import limit_scans_to_one

pytestmark = pytest.mark.root

STANDARD_NODES = ("/dev/full", "/dev/null", "/dev/zero")
GLOBS = {
    "example.com/standard": "/dev/{null,zero,full}",
    "example.com/fuse": "/dev/fuse",
    "example.com/kvm": "/dev/kvm",
    "example.com/tun": "/dev/net/tun",
    "example.com/loop": "/dev/loop[0-9]*",
}
MACHINE_CONFIG = (
    CONFIG_HEADER
    + "defaults: {allocate: {env: {PATHS: '${path}', NUMBERS: '${major}:${minor}'}}}\nresources:\n"
    + "".join(f"  {name}: {{devices: [{{glob: '{glob}'}}]}}\n" for name, glob in GLOBS.items())
)


@pytest.fixture
def policy(node: FakeNode) -> Path:
    """Give a policy that allows block devices, which loop devices are."""
    return write_policy(node, "devices: {block: true}\n")


@pytest.fixture
async def real_node() -> AsyncIterator[FakeNode]:
    """Give a fake node whose devices are real device nodes and not stand-ins."""
    async with FakeNode(stand_ins=False) as node:
        yield node


def read_numbers(path: str) -> str:
    """Return the type and the numbers of a device node of this machine."""
    status = Path(path).stat()
    kind = "char" if stat.S_ISCHR(status.st_mode) else "block"
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def list_machine_nodes() -> dict[str, tuple[str, ...]]:
    """Return the device nodes of this machine that each resource has to offer."""
    missing = [path for path in STANDARD_NODES if not Path(path).exists()]
    assert not missing, f"/dev lacks {missing}, which every Linux has: run this test where /dev is complete"
    patterns = {name: glob.removeprefix("/dev/") for name, glob in GLOBS.items() if "{" not in glob}
    nodes = {name: tuple(map(str, Path("/dev").glob(pattern))) for name, pattern in patterns.items()}
    assert any(nodes.values()), "/dev has none of fuse, kvm, net/tun and loop0: run modprobe fuse, tun or loop"
    return {"example.com/standard": STANDARD_NODES} | nodes


async def wait_for_lists(node: FakeNode, nodes: Mapping[str, Sequence[str]]) -> None:
    """Wait until every resource has a list, and check the number of its devices."""
    for resource, paths in nodes.items():
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(resource)))  # noqa: B023 - awaited here
        assert len(node.kubelet.devices(resource).healthy) == len(paths)


async def run_plan(config: Path, *arguments: str) -> dict[str, Any]:
    """Return the JSON document that ``genplug plan`` prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "plan", "--config", str(config), "-o", "json", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(output))


def format_as_plan(response: pb.ContainerAllocateResponse) -> dict[str, object]:
    """Return a response to Allocate in the form of ``genplug plan``."""
    return {
        "envs": dict(response.envs),
        "mounts": [],
        "devices": [
            {
                "containerPath": device.container_path,
                "hostPath": device.host_path,
                "permissions": device.permissions,
            }
            for device in response.devices
        ],
        "annotations": {},
        "cdiDevices": [],
    }


async def test_device_nodes_of_this_machine_are_listed_with_their_numbers(node: FakeNode, policy: Path) -> None:
    machine_nodes = list_machine_nodes()
    async with node.run_agent(MACHINE_CONFIG, root=Path("/"), policy=policy) as agent:
        await wait_for_lists(node, machine_nodes)
        for resource, paths in machine_nodes.items():
            assert agent.snapshot is not None
            devices = agent.snapshot.inventory.devices[resource]
            assert {device.id for device in devices} == node.kubelet.devices(resource).ids
            infos = {found.path: found.info for device in devices for found in device.nodes}
            found_numbers = {path: f"{info.kind} {info.major}:{info.minor}" for path, info in infos.items()}
            assert found_numbers == {path: read_numbers(path) for path in paths}
        plan = await run_plan(node.config_dir, "--policy", str(policy))
    printed_numbers = {
        printed["path"]: printed["numbers"]
        for resource in plan["resources"]
        for device in resource["devices"]
        for printed in device["nodes"]
    }
    assert printed_numbers == {path: read_numbers(path) for paths in machine_nodes.values() for path in paths}


async def test_plan_prints_the_allocate_responses_of_this_machine(node: FakeNode, policy: Path) -> None:
    machine_nodes = {resource: paths for resource, paths in list_machine_nodes().items() if paths}
    async with node.run_agent(MACHINE_CONFIG, root=Path("/"), policy=policy):
        await wait_for_lists(node, machine_nodes)
        requests = [argument for resource in machine_nodes for argument in ("--allocate", f"{resource}=1")]
        requests += ["--allocate", "example.com/standard=3"]
        plan = await run_plan(node.config_dir, "--policy", str(policy), *requests)
        containers = plan["containers"]
        assert [container["resource"] for container in containers] == [*machine_nodes, "example.com/standard"]
        for container in containers:
            resource, ids = container.pop("resource"), container.pop("ids")
            client = node.kubelet.plugin(resource)
            preferred = await client.get_preferred_allocation(node.kubelet.devices(resource), (), len(ids))
            assert ids == list(preferred.container_responses[0].deviceIDs)
            (response,) = (await client.allocate([ids])).container_responses
            assert container == format_as_plan(response)
            host_paths = list_host_paths(response)
            assert set(host_paths) <= set(machine_nodes[resource])
            assert response.envs["PATHS"] == ",".join(host_paths)
        assert [device["hostPath"] for device in containers[-1]["devices"]] == list(STANDARD_NODES)


def change_nothing(_node: FakeNode) -> None:
    """Do nothing: the test unplugs the device before each change."""


CHANGES: dict[str, tuple[Callable[[FakeNode], object], str]] = {
    "removed": (change_nothing, "/dev/x0 does not exist"),
    "other numbers": (
        lambda node: node.plug("/dev/x0", minor=77),
        "/dev/x0 is now char 240:77 and was char 240:0 when it was found",
    ),
    "block device": (lambda node: node.plug("/dev/x0", kind="block"), "/dev/x0 is now block 240:0"),
    "directory": (lambda node: node.locate("/dev/x0").mkdir(), "/dev/x0 is now a directory"),
    "regular file": (lambda node: node.write("/dev/x0", "char 240:0"), "/dev/x0 is now a regular file"),
    "symlink to a disk": (lambda node: node.link("/dev/x0", "/dev/sda"), "/dev/x0 is now block 8:0"),
    "symlink to the memory": (lambda node: node.link("/dev/x0", "mem"), "/dev/x0 is now char 1:1"),
    "symlink to another device": (lambda node: node.link("/dev/x0", "x1"), "/dev/x0 is now char 240:1"),
    "dangling symlink": (lambda node: node.link("/dev/x0", "/dev/y"), "is a symlink to /dev/y, which does"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
async def test_59_device_node_that_changed_since_the_list_is_not_allocated(
    real_node: FakeNode, change: Callable[[FakeNode], object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_scans_to_one(monkeypatch)
    plug_devices(real_node, "x0", "x1")
    real_node.plug("/dev/sda", major=8, minor=0, kind="block")
    real_node.plug("/dev/mem", major=1, minor=1)
    async with real_node.run_agent(X_CONFIG):
        await real_node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        # The scan that finds this device is the last.
        real_node.plug("/dev/x2")
        await real_node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
        real_node.unplug("/dev/x0")
        change(real_node)
        with pytest.raises(AdmissionError) as rejected:
            await real_node.kubelet.admit(X, ids={"x0"}, pod="late")
        assert real_node.kubelet.devices(X).healthy == {"x0", "x1", "x2"}
        assert reason in rejected.value.cause
        assert "example.com/x device x0 cannot be allocated to a container" in rejected.value.cause
        await real_node.kubelet.admit(X, ids={"x1"}, pod="early")


async def test_59_moved_device_node_is_allocated_at_its_new_path(
    real_node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_scans_to_one(monkeypatch)
    real_node.plug("/dev/x0")
    async with real_node.run_agent(X_CONFIG):
        await real_node.kubelet.wait_for_list(X, healthy={"x0"})
        # The scan that finds this device is the last.
        real_node.plug("/dev/x1")
        await real_node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        real_node.plug("/dev/moved", minor=0)
        real_node.unplug("/dev/x0")
        real_node.link("/dev/x0", "moved")
        allocation = await real_node.kubelet.admit(X, ids={"x0"})
    [device] = allocation.response.devices
    assert (device.host_path, device.container_path) == ("/dev/moved", "/dev/x0")


async def test_device_node_with_changed_numbers_is_allocated_after_a_rescan(real_node: FakeNode) -> None:
    real_node.plug("/dev/x0")
    async with real_node.run_agent(X_CONFIG):
        await real_node.kubelet.wait_for_list(X, healthy={"x0"})
        real_node.unplug("/dev/x0")
        real_node.plug("/dev/x0", minor=77)
        # The scan that finds this device has found the other numbers too.
        real_node.plug("/dev/x1")
        await real_node.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        allocation = await real_node.kubelet.admit(X, ids={"x0"})
    assert list_host_paths(allocation.response) == ["/dev/x0"]
