"""Devices that appear, disappear and change, from kernel events to the list of the kubelet."""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.mounts import mount_tmpfs
from tests.support.resources import X_CONFIG, XY_CONFIG, X, build_x_config, plug_devices, write_policy

SERIAL_CONFIG = CONFIG_HEADER + (
    f"resources:\n  {X}:\n    devices: [{{glob: '/dev/ttyUSB*', id: '${{usb.serial}}'}}]\n"
    "    allocate: {env: {PORT: '${path}'}}\n    topology: none\n"
)


def plug_serial_adapter(node: FakeNode, number: int, serial: str) -> None:
    """Create the device node and the sysfs directory of a USB serial adapter."""
    usb = f"/sys/devices/usb1/1-{number}"
    node.write(f"{usb}/idVendor", "0403\n")
    node.write(f"{usb}/serial", serial)
    node.write(f"{usb}/tty/ttyUSB{number}/dev", f"188:{number}\n")
    node.link(f"/sys/dev/char/188:{number}", f"../../devices/usb1/1-{number}/tty/ttyUSB{number}")
    node.plug(f"/dev/ttyUSB{number}", major=188, minor=number)


async def test_replugged_device_keeps_its_id_under_another_number(node: FakeNode) -> None:
    plug_serial_adapter(node, 0, "A50285BI")
    async with node.run_agent(SERIAL_CONFIG):
        (device_id,) = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        node.unplug("/dev/ttyUSB0")
        await node.kubelet.wait_for_list(X, unhealthy={device_id})
        plug_serial_adapter(node, 3, "A50285BI")
        await node.kubelet.wait_for_list(X, healthy={device_id})
        allocation = await node.kubelet.admit(X, ids={device_id})
        assert allocation.response.envs == {"PORT": "/dev/ttyUSB3"}


async def test_changed_attribute_changes_the_listed_devices(node: FakeNode) -> None:
    config = build_x_config(source="where: {attr.state: enabled}")
    for number, state in enumerate(("enabled", "disabled")):
        node.write(f"/sys/devices/x{number}/state", state)
        node.link(f"/sys/dev/char/240:{number}", f"../../devices/x{number}")
        node.plug(f"/dev/x{number}", major=240, minor=number)
    # A value that changes in sysfs has no event.
    async with node.run_agent(config, rescan_seconds=0.1):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.write("/sys/devices/x1/state", "enabled")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


async def test_device_plugged_during_reload_is_listed(node: FakeNode) -> None:
    plug_devices(node, "x0", "y0")
    # Without rescans, the agent depends on events.
    async with node.run_agent(X_CONFIG, rescan_seconds=3600.0):
        await node.kubelet.wait_for_list(X, healthy={"x0"})
        node.write_config(XY_CONFIG)
        node.plug("/dev/x1")
        await node.kubelet.wait_for_list("example.com/y", healthy={"y0"})
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1"})


@contextmanager
def open_tap(name: str) -> Iterator[None]:
    """Create a network device, which has a directory in sysfs while its file is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF, a tap without header
        yield
    finally:
        os.close(file)


@pytest.mark.root
async def test_sysfs_device_is_listed_on_a_uevent_without_inotify_events(node: FakeNode) -> None:
    config = build_x_config("allocate: {env: {X: x}}", glob="/sys/class/net/gptap*", source="id: '${name}'")
    # On the sysfs of this machine; without rescans, the agent depends on events.
    async with node.run_agent(config, root=Path("/"), rescan_seconds=3600.0):
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(X)))
        assert not node.kubelet.devices(X)
        with open_tap("gptap0"):
            (device_id,) = await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        await node.kubelet.wait_for_list(X, unhealthy={device_id})


async def test_sockets_and_directories_reach_a_container_as_mounts(node: FakeNode) -> None:
    policy = write_policy(node, "mounts: {allow: [/run/v]}\n")
    mounts = "mounts: [{hostPath: '${path}', containerPath: '/in${path}'}]"
    config = f"{CONFIG_HEADER}resources:\n" + "".join(
        f"  example.com/{kind}: {{devices: [{{glob: '/run/v/*', type: {kind}}}], allocate: {{{mounts}}}}}\n"
        for kind in ("socket", "directory")
    )
    node.locate("/run/v/directory").mkdir(parents=True)
    node.write("/run/v/file", "")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.locate("/run/v/s.sock")))
        async with node.run_agent(config, policy=policy):
            for kind, name in (("socket", "s.sock"), ("directory", "directory")):
                resource = f"example.com/{kind}"
                (device_id,) = await node.kubelet.wait_for_list(resource, lambda listed: len(listed.healthy) == 1)
                allocation = await node.kubelet.admit(resource, ids={device_id}, pod=kind)
                (mount,) = allocation.response.mounts
                assert (mount.host_path, mount.container_path) == (f"/run/v/{name}", f"/in/run/v/{name}")
            node.unplug("/run/v/s.sock")
            await node.kubelet.wait_for_list("example.com/socket", lambda listed: len(listed.unhealthy) == 1)


def build_attribute_config(path: str) -> str:
    """Return a configuration of devices whose ID is the serial number in a file, or ``none``."""
    attributes = f"{{serial: {{path: '{path}', find: 'ID_SERIAL=(.+)'}}}}"
    return build_x_config(source=f"attributes: {attributes}, id: '${{serial|default:none}}', verbatimId: true")


UDEV = "/run/udev/data/c${major}:${minor}"
"""The record of udev for a device node (systemd, src/libsystemd/sd-device/sd-device.c: device_get_device_id)."""


async def test_attribute_of_the_udev_database_is_read_when_udev_has_written_it(node: FakeNode) -> None:
    """udev writes the record after the kernel's event, and its directory with the first record."""
    async with node.run_agent(build_attribute_config(UDEV), rescan_seconds=600.0):
        await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(X)))
        node.plug("/dev/x0", major=240, minor=7)
        await node.kubelet.wait_for_list(X, healthy={"none"})
        node.write("/run/udev/data/c240:7", "E:ID_SERIAL=A1\n")
        await node.kubelet.wait_for_list(X, lambda devices: "A1" in devices.healthy)
        # udev replaces the record by a rename.
        node.write("/run/udev/data/.#c240:7", "E:ID_SERIAL=B2\n")
        node.locate("/run/udev/data/.#c240:7").rename(node.locate("/run/udev/data/c240:7"))
        await node.kubelet.wait_for_list(X, lambda devices: "B2" in devices.healthy)


async def test_attribute_is_read_again_when_its_file_is_written_in_place(node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.write("/srv/x0", "ID_SERIAL=A1")
    policy = write_policy(node, "read: {allow: [/srv/**]}\n")
    async with node.run_agent(build_attribute_config("/srv/${name}"), policy=policy, rescan_seconds=600.0):
        await node.kubelet.wait_for_list(X, lambda devices: "A1" in devices.healthy)
        node.write("/srv/x0", "ID_SERIAL=B2")
        await node.kubelet.wait_for_list(X, lambda devices: "B2" in devices.healthy)


@pytest.mark.parametrize("path", ["/srv/${name}", "/srv/${name}*"])
async def test_attribute_is_read_again_when_a_symlink_or_its_target_changes(node: FakeNode, path: str) -> None:
    node.plug("/dev/x0")
    node.write("/opt/a/x0", "ID_SERIAL=A1")
    node.write("/opt/b/x0", "ID_SERIAL=C3")
    node.link("/opt/current", "/opt/a")
    node.link("/srv/x0", "/opt/current/x0")
    policy = write_policy(node, "read: {allow: [/srv/**, /opt/**]}\n")
    async with node.run_agent(build_attribute_config(path), policy=policy, rescan_seconds=600.0):
        await node.kubelet.wait_for_list(X, lambda devices: "A1" in devices.healthy)
        node.write("/opt/a/x0", "ID_SERIAL=B2")
        await node.kubelet.wait_for_list(X, lambda devices: "B2" in devices.healthy)
        node.link("/opt/current", "/opt/b")
        await node.kubelet.wait_for_list(X, lambda devices: "C3" in devices.healthy)


@pytest.mark.root
async def test_attribute_of_sysfs_that_is_written_after_the_event_is_read_soon(node: FakeNode) -> None:
    with mount_tmpfs(node.locate("/sys"), "size=1m"):
        async with node.run_agent(build_attribute_config("/sys/x/${name}"), rescan_seconds=600.0):
            await node.kubelet.wait_for(lambda: bool(node.kubelet.messages(X)))
            node.plug("/dev/x0")
            await node.kubelet.wait_for_list(X, healthy={"none"})
            node.write("/sys/x/x0", "ID_SERIAL=A1")
            await node.kubelet.wait_for_list(X, lambda devices: "A1" in devices.healthy)


@pytest.mark.root
async def test_reload_scans_for_devices(node: FakeNode) -> None:
    node.plug("/dev/x0")
    with mount_tmpfs(node.locate("/sys"), "size=1m"):
        node.write("/sys/x/x0", "ID_SERIAL=A1")
        async with node.run_agent(build_attribute_config("/sys/x/${name}"), rescan_seconds=600.0) as agent:
            await node.kubelet.wait_for_list(X, lambda devices: "A1" in devices.healthy)
            node.write("/sys/x/x0", "ID_SERIAL=B2")
            agent.reload()
            await node.kubelet.wait_for_list(X, lambda devices: "B2" in devices.healthy)
