"""Hardware that comes, goes and is renumbered: what the kernel tells, the kubelet hears, under the same ID."""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from genplug.agent import Agent
from genplug.testing.node.fake_node import FakeNode

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
X = "example.com/x"
SERIAL = HEAD + (
    f"  {X}:\n    devices: [{{glob: '/dev/ttyUSB*', id: '${{usb.serial}}'}}]\n"
    "    allocate: {env: {PORT: '${path}'}}\n    topology: none\n"
)


def plug_serial(node: FakeNode, number: int, serial: str) -> None:
    usb = f"/sys/devices/usb1/1-{number}"
    node.write(f"{usb}/idVendor", "0403\n")
    node.write(f"{usb}/serial", serial)
    node.write(f"{usb}/tty/ttyUSB{number}/dev", f"188:{number}\n")
    node.link(f"/sys/dev/char/188:{number}", f"../../devices/usb1/1-{number}/tty/ttyUSB{number}")
    node.plug(f"/dev/ttyUSB{number}", major=188, minor=number)


async def test_replugged_device_keeps_its_id_under_another_number(node: FakeNode) -> None:
    plug_serial(node, 0, "A50285BI")
    async with node.run_agent(SERIAL):
        [before] = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        node.unplug("/dev/ttyUSB0")
        await node.kubelet.wait_for_list(X, unhealthy={before})
        plug_serial(node, 3, "A50285BI")
        await node.kubelet.wait_for_list(X, healthy={before})
        given = await node.kubelet.admit(X, ids={before})
        assert given.response.envs == {"PORT": "/dev/ttyUSB3"}


async def test_changed_attribute_changes_the_listed_devices(node: FakeNode) -> None:
    config = HEAD + f"  {X}: {{devices: [{{glob: '/dev/x*', where: {{attr.state: enabled}}}}]}}\n"
    for number, state in enumerate(("enabled", "disabled")):
        node.write(f"/sys/devices/x{number}/state", state)
        node.link(f"/sys/dev/char/240:{number}", f"../../devices/x{number}")
        node.plug(f"/dev/x{number}", major=240, minor=number)
    # Of a value that changes in /sys no event tells.
    async with node.run_agent(config, rescan=0.1):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.write("/sys/devices/x1/state", "enabled")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_device_plugged_during_reload_is_listed(node: FakeNode) -> None:
    config = HEAD + f"  {X}: {{devices: [{{glob: '/dev/x*'}}]}}\n"
    more = config + "  example.com/y: {devices: [{glob: '/dev/y*'}]}\n"
    node.plug("/dev/x0")
    node.plug("/dev/y0")
    # Without the net only events tell.
    async with node.run_agent(config, rescan=3600.0):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.write_config(more)
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list("example.com/y", healthy={"y0"})
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


@contextmanager
def tap(name: str) -> Iterator[None]:
    """A network device of the kernel's: it is in /sys as long as its file is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF, a tap without header
        yield
    finally:
        os.close(file)


@pytest.mark.root
async def test_sysfs_device_is_listed_on_a_uevent_without_inotify_events(node: FakeNode) -> None:
    config = (
        HEAD
        + f"  {X}: {{devices: [{{glob: '/sys/class/net/gptap*', id: '${{name}}'}}], allocate: {{env: {{X: x}}}}}}\n"
    )
    node.write_config(config)
    await node.kubelet.start()
    # The real /sys; the net behind the events is out of the way.
    async with node.run_agent(config, root=node.root.__class__("/"), rescan=3600.0) as agent:
        await node.kubelet.wait_for_list(X, lambda listed: not listed.ids)
        assert isinstance(agent, Agent)
        with tap("gptap0"):
            [one] = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        await node.kubelet.wait_for_list(X, unhealthy={one})


async def test_sockets_and_directories_reach_a_container_as_mounts(node: FakeNode) -> None:
    policy = node.directory / "policy.yaml"
    policy.write_text("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nmounts: {allow: [/run/v]}\n")
    mount = "mounts: [{hostPath: '${path}', containerPath: '/in${path}'}]"
    config = HEAD + "".join(
        f"  example.com/{kind}: {{devices: [{{glob: '/run/v/*', type: {kind}}}], allocate: {{{mount}}}}}\n"
        for kind in ("socket", "directory")
    )
    node.locate("/run/v/directory").mkdir(parents=True)
    node.write("/run/v/file", "neither")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.locate("/run/v/s.sock")))
        async with node.run_agent(config, policy=policy):
            for kind, name in (("socket", "s.sock"), ("directory", "directory")):
                [one] = await node.kubelet.wait_for_list(f"example.com/{kind}", lambda listed: len(listed.healthy) == 1)
                [given] = (await node.kubelet.admit(f"example.com/{kind}", ids={one}, pod=kind)).response.mounts
                assert (given.host_path, given.container_path) == (f"/run/v/{name}", f"/in/run/v/{name}")
            node.unplug("/run/v/s.sock")
            await node.kubelet.wait_for_list("example.com/socket", lambda listed: len(listed.unhealthy) == 1)
