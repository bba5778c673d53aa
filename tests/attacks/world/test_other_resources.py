"""A fault at any boundary of a resource: another resource is listed and allocated meanwhile, and the agent runs on."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest

from genplug.observe.events import Event
from genplug.testing.node.events import record_events
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.hanging_files import HangingFiles
from tests.support.configs import CONFIG_HEADER
from tests.support.events import drain_events
from tests.support.mounts import bind_mount, mount_tmpfs
from tests.support.resources import X, Y, plug_devices, write_policy
from tests.support.sockets import list_plugin_sockets

pytestmark = [pytest.mark.root, pytest.mark.fuse]

Fault = Callable[[FakeNode], AbstractAsyncContextManager[None]]
POLICY = "read: {allow: ['/mnt/**']}\nmounts: {allow: [/mnt]}\n"
PLAIN = ""
CDI = "allocate: {inject: cdi}"
MOUNT = "allocate: {mounts: [{hostPath: /mnt/x/lib, containerPath: /opt/lib}]}"
ATTRIBUTE = "attributes: {a: {path: '/mnt/x/state'}}, where: {a: ok}"
ALIAS = "aliases: [example.com/old]"


def fill(directory: Path) -> None:
    """Use all inodes of a small file system."""
    with suppress(OSError):
        for number in range(1000):
            (directory / f"full-{number}").touch()


def remove_socket(node: FakeNode) -> None:
    """Remove the socket of example.com/x, unless the resource is between two sockets."""
    for name in list_plugin_sockets(node.kubelet):
        if "example-com-x" in name:
            (node.kubelet.plugins_dir / name).unlink(missing_ok=True)


@asynccontextmanager
async def refuse_register(node: FakeNode) -> AsyncIterator[None]:
    node.kubelet.faults.refuse_register("\x1b[31mno\n" * 1000, X)
    node.kubelet.cancel_stream(X)
    yield
    node.kubelet.faults.clear(X)


@asynccontextmanager
async def hang_register(node: FakeNode) -> AsyncIterator[None]:
    gate = node.kubelet.faults.hang_register(X)
    node.kubelet.cancel_stream(X)
    await gate.wait_reached()
    yield
    node.kubelet.faults.clear(X)


@asynccontextmanager
async def ignore_register(node: FakeNode) -> AsyncIterator[None]:
    node.kubelet.faults.ignore_register(X)
    remove_socket(node)
    yield
    node.kubelet.faults.clear(X)
    remove_socket(node)


@asynccontextmanager
async def stop_reading(node: FakeNode) -> AsyncIterator[None]:
    node.kubelet.faults.stop_reading(X)
    node.plug("/dev/x1")
    yield
    node.unplug("/dev/x1")
    node.kubelet.faults.clear(X)


@asynccontextmanager
async def answer_pod_resources_with_garbage(node: FakeNode) -> AsyncIterator[None]:
    """Answer pod-resources with bytes that are not a message."""
    kubelet = node.kubelet
    kubelet.pod_resources_socket.unlink()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(range(256)))
        await reader.read(100)
        writer.close()

    async with await asyncio.start_unix_server(answer, kubelet.pod_resources_socket):
        await kubelet.plugin(X).allocate([["x0"]])
        yield


@asynccontextmanager
async def full_plugin_directory(node: FakeNode) -> AsyncIterator[None]:
    remove_socket(node)
    fill(node.kubelet.plugins_dir)
    yield
    for path in node.kubelet.plugins_dir.glob("full-*"):
        path.unlink()


@asynccontextmanager
async def full_cdi_directory(node: FakeNode) -> AsyncIterator[None]:
    with mount_tmpfs(node.locate("/var/run/cdi"), "size=4k,nr_inodes=2"):
        fill(node.locate("/var/run/cdi"))
        node.plug("/dev/x1")
        yield
    node.unplug("/dev/x1")


@asynccontextmanager
async def read_only_cdi_directory(node: FakeNode) -> AsyncIterator[None]:
    directory = node.locate("/var/run/cdi")
    moved = directory.with_name("moved")
    directory.rename(moved)
    with bind_mount(moved, directory, "ro"):
        node.plug("/dev/x1")
        yield
    directory.rmdir()
    moved.rename(directory)
    node.unplug("/dev/x1")


@asynccontextmanager
async def file_as_cdi_directory(node: FakeNode) -> AsyncIterator[None]:
    directory = node.locate("/var/run/cdi")
    directory.rename(directory.with_name("moved"))
    directory.write_text("a file")
    node.plug("/dev/x1")
    yield
    directory.unlink()
    directory.with_name("moved").rename(directory)
    node.unplug("/dev/x1")


def replace_device(make: Callable[[Path], object]) -> Fault:
    @asynccontextmanager
    async def fault(node: FakeNode) -> AsyncIterator[None]:
        path = node.locate("/dev/x0")
        path.unlink()
        make(path)
        yield
        path.unlink()
        node.plug("/dev/x0")

    return fault


def replace_file(make: Callable[[Path], object]) -> Fault:
    @asynccontextmanager
    async def fault(node: FakeNode) -> AsyncIterator[None]:
        path = node.locate("/mnt/x/lib")
        path.unlink()
        make(path)
        with pytest.raises(grpc.aio.AioRpcError):
            await node.kubelet.plugin(X).allocate([["x0"]])
        yield
        path.unlink()
        path.touch()

    return fault


@asynccontextmanager
async def hang_attribute(node: FakeNode) -> AsyncIterator[None]:
    directory = node.locate("/mnt/x")
    directory.rename(directory.with_name("moved"))
    with HangingFiles(directory, {"state": "ok"}) as files:
        files.hang("state")
        node.plug("/dev/x1")
        await asyncio.to_thread(files.wait_for_reader, "state")
        yield
    directory.rmdir()
    directory.with_name("moved").rename(directory)
    node.unplug("/dev/x1")


def fail_attribute(number: int) -> Fault:
    @asynccontextmanager
    async def fault(node: FakeNode) -> AsyncIterator[None]:
        directory = node.locate("/mnt/x")
        directory.rename(directory.with_name("moved"))
        with HangingFiles(directory, {"state": "ok"}) as files:
            files.fail("state", number)
            node.plug("/dev/x1")
            yield
        directory.rmdir()
        directory.with_name("moved").rename(directory)
        node.unplug("/dev/x1")

    return fault


FAULTS: dict[str, tuple[str, Fault]] = {
    "register refused": (PLAIN, refuse_register),
    "register hangs": (PLAIN, hang_register),
    "register ignored": (PLAIN, ignore_register),
    "list not read": (PLAIN, stop_reading),
    "pod resources garbage": (ALIAS, answer_pod_resources_with_garbage),
    "plugin directory ENOSPC": (PLAIN, full_plugin_directory),
    "CDI directory ENOSPC": (CDI, full_cdi_directory),
    "CDI directory EROFS": (CDI, read_only_cdi_directory),
    "CDI directory ENOTDIR": (CDI, file_as_cdi_directory),
    "device ELOOP": (PLAIN, replace_device(lambda path: path.symlink_to(path.name))),
    "device ENOENT": (PLAIN, replace_device(lambda path: path.symlink_to("missing"))),
    "device ENAMETOOLONG": (PLAIN, replace_device(lambda path: path.symlink_to("a" * 255 + "/" + "b" * 300))),
    "device a pipe": (PLAIN, replace_device(os.mkfifo)),
    "mount source ENOENT": (MOUNT, replace_file(lambda path: path.symlink_to("missing"))),
    "mount source ELOOP": (MOUNT, replace_file(lambda path: path.symlink_to(path.name))),
    "attribute hangs": (ATTRIBUTE, hang_attribute),
    **{
        f"attribute {errno.errorcode[number]}": (ATTRIBUTE, fail_attribute(number))
        for number in (errno.EIO, errno.EACCES, errno.ENODEV, errno.ESTALE, errno.ENOMEM)
    },
}


async def serve_other(node: FakeNode, number: int) -> None:
    """Check that example.com/y is listed and allocated."""
    node.plug(f"/dev/y{number}")
    await node.kubelet.wait_for_list(Y, healthy={f"y{index}" for index in range(number + 1)})
    response = await node.kubelet.plugin(Y).allocate([[f"y{number}"]])
    assert [device.host_path for device in response.container_responses[0].devices] == [f"/dev/y{number}"]


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_of_a_resource_stops_no_other(node: FakeNode, name: str) -> None:
    options, fault = FAULTS[name]
    plug_devices(node, "x0", "y0")
    node.write("/mnt/x/state", "ok")
    node.write("/mnt/x/lib", "")
    node.write("/var/run/cdi/other.txt", "")
    source = f", {options}" if options is ATTRIBUTE else ""
    resource = f", {options}" if options not in (PLAIN, ATTRIBUTE) else ""
    config = (
        f"{CONFIG_HEADER}resources:\n  {X}: {{devices: [{{glob: '/dev/x*'{source}}}]{resource}}}\n"
        f"  {Y}: {{devices: [{{glob: '/dev/y*'}}]}}\n"
    )
    node.kubelet.plugins_dir.mkdir(parents=True)
    with ExitStack() as mounts:
        mounts.enter_context(mount_tmpfs(node.kubelet.plugins_dir, "nr_inodes=32"))
        async with node.kubelet, node.run_agent(config, policy=write_policy(node, POLICY), poll_seconds=0.5) as agent:
            events = record_events(agent)
            await node.kubelet.wait_for_list(X, healthy={"x0"})
            await node.kubelet.wait_for_list(Y, healthy={"y0"})
            async with fault(node):
                await serve_other(node, 1)
                await serve_other(node, 2)
            # The fault ends, and the resource is served again.
            await node.kubelet.wait_for_list(X, lambda devices: "x0" in devices.healthy, timeout=20)
            await serve_other(node, 3)
            # The part that fails expects the error: no task has to be started again.
            assert not {Event.INTERNAL_ERROR, Event.SYSTEM_ERROR} & set(drain_events(events))
