"""On real device nodes: those of this machine under the root ``/``, and nodes that change under the program's feet."""

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
from genplug.testing.kubelet.records import AdmissionError
from genplug.testing.node.fake_node import FakeNode

pytestmark = pytest.mark.root

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
X = "example.com/x"
CONFIG = HEAD + "resources: {example.com/x: {devices: [{glob: /dev/x*}]}}"

EVERYWHERE = ("/dev/full", "/dev/null", "/dev/zero")
RESOURCES = {
    "example.com/everywhere": "/dev/{null,zero,full}",
    "example.com/fuse": "/dev/fuse",
    "example.com/kvm": "/dev/kvm",
    "example.com/tun": "/dev/net/tun",
    "example.com/loop": "/dev/loop[0-9]*",
}
REAL = (
    f"{HEAD}defaults: {{allocate: {{env: {{PATHS: '${{path}}', NUMBERS: '${{major}}:${{minor}}'}}}}}}\nresources:\n"
    + "".join(f"  {name}: {{devices: [{{glob: '{one}'}}]}}\n" for name, one in RESOURCES.items())
)
# Loop devices are block devices.
POLICY = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\ndevices: {block: true}\n"


@pytest.fixture
def policy(node: FakeNode) -> Path:
    path = node.directory / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
async def real() -> AsyncIterator[FakeNode]:
    """A node whose devices are real nodes, or an error."""
    async with FakeNode(stand_ins=False) as node:
        yield node


def numbers(path: str) -> str:
    found = Path(path).stat()
    kind = "char" if stat.S_ISCHR(found.st_mode) else "block"
    return f"{kind} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def found(pattern: str) -> tuple[str, ...]:
    return tuple(map(str, Path("/dev").glob(pattern)))


async def until_all_listed(node: FakeNode, present: Mapping[str, Sequence[str]]) -> None:
    for resource, paths in present.items():
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(resource)))  # noqa: B023 - awaited here
        assert len(node.kubelet.devices(resource).healthy) == len(paths)


def on_this_machine() -> dict[str, tuple[str, ...]]:
    """The device nodes of this machine that each resource is to offer, from the file system itself."""
    missing = [path for path in EVERYWHERE if not Path(path).exists()]
    assert not missing, f"this machine's /dev lacks {missing}, which every Linux has: run this where /dev is a real one"
    present = {
        "example.com/everywhere": EVERYWHERE,
        "example.com/fuse": found("fuse"),
        "example.com/kvm": found("kvm"),
        "example.com/tun": found("net/tun"),
        "example.com/loop": found("loop[0-9]*"),
    }
    lacking = "this machine has none of /dev/fuse, /dev/kvm, /dev/net/tun and /dev/loop0: modprobe fuse, tun or loop"
    assert sum(map(len, present.values())) > len(EVERYWHERE), lacking
    return present


async def plan(config: Path, *arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "plan", "--config", str(config), "-o", "json", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(output))


def as_planned(answer: pb.ContainerAllocateResponse) -> dict[str, object]:
    """An answer to Allocate in the words of ``genplug plan``."""
    return {
        "envs": dict(answer.envs),
        "mounts": [],
        "devices": [
            {"container_path": one.container_path, "host_path": one.host_path, "permissions": one.permissions}
            for one in answer.devices
        ],
        "annotations": {},
    }


async def test_device_nodes_of_this_machine_are_listed_with_their_numbers(node: FakeNode, policy: Path) -> None:
    present = on_this_machine()
    async with node.run_agent(REAL, root=Path("/"), policy=policy) as agent:
        await until_all_listed(node, present)
        for resource, paths in present.items():
            assert agent.snapshot is not None
            found = agent.snapshot.inventory.devices[resource]
            assert {device.id for device in found} == node.kubelet.devices(resource).ids
            nodes = [node for device in found for node in device.nodes]
            looks = {one.path: f"{one.info.kind} {one.info.major}:{one.info.minor}" for one in nodes}
            assert looks == {path: numbers(path) for path in paths}
        planned = await plan(node.config_dir, "--policy", str(policy))
    shown = {
        one["path"]: one["numbers"]
        for resource in planned["resources"]
        for device in resource["devices"]
        for one in device["nodes"]
    }
    assert shown == {path: numbers(path) for paths in present.values() for path in paths}


async def test_plan_prints_the_allocate_responses_of_this_machine(node: FakeNode, policy: Path) -> None:
    present = {resource: paths for resource, paths in on_this_machine().items() if paths}
    async with node.run_agent(REAL, root=Path("/"), policy=policy):
        await until_all_listed(node, present)
        requests = [argument for resource in present for argument in ("--allocate", f"{resource}=1")]
        printed = await plan(
            node.config_dir, "--policy", str(policy), *requests, "--allocate", "example.com/everywhere=3"
        )
        assert [one["resource"] for one in printed["containers"]] == [*present, "example.com/everywhere"]
        for one in printed["containers"]:
            resource, ids = one.pop("resource"), one.pop("ids")
            client = node.kubelet.plugin(resource)
            [preferred] = (
                await client.get_preferred_allocation(node.kubelet.devices(resource), (), len(ids))
            ).container_responses
            assert ids == list(preferred.deviceIDs)
            [answer] = (await client.allocate([ids])).container_responses
            assert one == as_planned(answer)
            assert {device.host_path for device in answer.devices} <= set(present[resource])
            assert answer.envs["PATHS"] == ",".join(device.host_path for device in answer.devices)
        last = printed["containers"][-1]["devices"]
        assert [device["host_path"] for device in last] == list(EVERYWHERE)


def vanish(_node: FakeNode) -> None:
    """Unplugging is what every change begins with."""


CHANGES: dict[str, tuple[Callable[[FakeNode], object], str]] = {
    "it vanished": (vanish, "/dev/x0 does not exist"),
    "it changed its numbers": (
        lambda node: node.plug("/dev/x0", minor=77),
        "/dev/x0 is now char 240:77 and was char 240:0 when it was found",
    ),
    "it became a block device": (lambda node: node.plug("/dev/x0", kind="block"), "/dev/x0 is now block 240:0"),
    "it became a directory": (lambda node: node.locate("/dev/x0").mkdir(), "/dev/x0 is now a directory"),
    "it became a file": (lambda node: node.write("/dev/x0", "char 240:0"), "/dev/x0 is now a regular file"),
    "it became a link to the disk": (lambda node: node.link("/dev/x0", "/dev/sda"), "/dev/x0 is now block 8:0"),
    "it became a link to memory": (lambda node: node.link("/dev/x0", "mem"), "/dev/x0 is now char 1:1"),
    "it became a link to its neighbor": (lambda node: node.link("/dev/x0", "x1"), "/dev/x0 is now char 240:1"),
    "it became a link to nowhere": (lambda node: node.link("/dev/x0", "/dev/y"), "is a symlink to /dev/y, which does"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
async def test_59_device_node_that_changed_since_the_list_is_not_allocated(
    real: FakeNode, change: Callable[[FakeNode], object], reason: str
) -> None:
    for name in ("x0", "x1"):
        real.plug(f"/dev/{name}")
    real.plug("/dev/sda", major=8, minor=0, kind="block")
    real.plug("/dev/mem", major=1, minor=1)
    async with real.run_agent(CONFIG):
        await real.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        # After a change that was found, the next look is a second away.
        real.plug("/dev/x2")
        await real.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
        real.unplug("/dev/x0")
        change(real)
        with pytest.raises(AdmissionError) as rejected:
            await real.kubelet.admit(X, ids={"x0"}, pod="late")
        assert real.kubelet.devices(X).healthy == {"x0", "x1", "x2"}
        assert reason in rejected.value.cause
        assert "example.com/x device x0 cannot be allocated to a container" in rejected.value.cause
        await real.kubelet.admit(X, ids={"x1"}, pod="early")


async def test_59_moved_device_node_is_allocated_at_its_new_path(real: FakeNode) -> None:
    real.plug("/dev/x0")
    async with real.run_agent(CONFIG):
        await real.kubelet.wait_for_list(X, healthy={"x0"})
        # After a change that was found, the next look is a second away.
        real.plug("/dev/x1")
        await real.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        real.plug("/dev/moved", minor=0)
        real.unplug("/dev/x0")
        real.link("/dev/x0", "moved")
        allocation = await real.kubelet.admit(X, ids={"x0"})
    [device] = allocation.response.devices
    assert (device.host_path, device.container_path) == ("/dev/moved", "/dev/x0")


async def test_device_node_with_changed_numbers_is_allocated_after_a_rescan(real: FakeNode) -> None:
    real.plug("/dev/x0")
    async with real.run_agent(CONFIG):
        await real.kubelet.wait_for_list(X, healthy={"x0"})
        real.unplug("/dev/x0")
        real.plug("/dev/x0", minor=77)
        # Found no earlier than the change before it.
        real.plug("/dev/x1")
        await real.kubelet.wait_for_list(X, healthy={"x0", "x1"})
        allocation = await real.kubelet.admit(X, ids={"x0"})
    assert [device.host_path for device in allocation.response.devices] == ["/dev/x0"]
