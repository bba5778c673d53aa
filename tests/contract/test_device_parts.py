"""Parts of a device that come and go: the device is what is there now."""

import shutil

import pytest

from genplug.testing.node.fake_node import FakeNode
from tests.support.pages import code_blocks, read_page
from tests.support.recipes import config_path
from tests.support.resources import X, build_x_config, list_host_paths, plug_devices
from tests.support.scans import limit_scans_to_one

SOUND = build_x_config(glob="/dev/snd", source="type: directory, nodes: [{path: '/dev/snd/*', optional: true}]")
PAIRS = build_x_config(glob="'/dev/{a,b}*'", source="groupBy: 'pair${index}'")
CAMERA, GPU = "devices.example.com/camera", "gpu.intel.com/i915"


async def allocate_paths(node: FakeNode, resource: str, device_id: str) -> list[str]:
    """Return the host paths of the device nodes that a container gets for an ID."""
    (response,) = (await node.kubelet.plugin(resource).allocate([[device_id]])).container_responses
    return list_host_paths(response)


def collect_healths(node: FakeNode, resource: str) -> list[list[bool]]:
    """Return the health of the devices of each list."""
    return [[device.healthy for device in message.devices.values()] for message in node.kubelet.messages(resource)]


async def test_directory_device_stays_healthy_when_its_nodes_come_and_go(node: FakeNode) -> None:
    plug_devices(node, "snd/pcmC0D0p", "snd/pcmC1D0p", "snd/timer", "x")
    config = SOUND.replace("devices: [", "devices: [{glob: /dev/x}, ")
    async with node.run_agent(config):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2)
        (sound,) = node.kubelet.devices(X).ids - {"x"}
        node.unplug("/dev/snd/pcmC1D0p")
        assert await allocate_paths(node, X, sound) == ["/dev/snd/pcmC0D0p", "/dev/snd/timer"]
        node.plug("/dev/snd/pcmC2D0p")
        # A list with a changed health of the directory would precede this list.
        node.unplug("/dev/x")
        await node.kubelet.wait_for_list(X, healthy={sound}, unhealthy={"x"})
        assert await allocate_paths(node, X, sound) == ["/dev/snd/pcmC0D0p", "/dev/snd/pcmC2D0p", "/dev/snd/timer"]
        assert collect_healths(node, X)[1:] == [[True, False]]


async def test_directory_device_that_loses_its_last_node_is_unhealthy_until_a_node_returns(node: FakeNode) -> None:
    plug_devices(node, "snd/pcmC0D0p")
    async with node.run_agent(SOUND):
        (sound,) = await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 1)
        node.unplug("/dev/snd/pcmC0D0p")
        await node.kubelet.wait_for_list(X, unhealthy={sound})
        node.plug("/dev/snd/pcmC7D0p")
        await node.kubelet.wait_for_list(X, healthy={sound})
        assert await allocate_paths(node, X, sound) == ["/dev/snd/pcmC7D0p"]


async def test_directories_of_the_documentation_live_with_changes(node: FakeNode) -> None:
    (config,) = (block for block in code_blocks(read_page("configuration"), "yaml") if "glob: /dev/snd" in block)
    plug_devices(node, "snd/controlC0", "input/event0", "input/mice", "dri/card0", "dri/renderD128")
    for directory, node_name in (("snd", "controlC0"), ("input", "event0"), ("dri", "card0")):
        node.link(f"/dev/{directory}/by-path/pci-1", f"../{node_name}")
    names = ("sound", "input", "graphics")
    directories = dict(zip(names, ("snd", "input", "dri"), strict=True))
    node.plug("/dev/dri/card1")
    async with node.run_agent(config):
        ids = {}
        for name in names:
            resource = f"devices.example.com/{name}"
            listed = await node.kubelet.wait_for_list(resource, lambda devices: len(devices.healthy) in {1, 10})
            ids[name] = min(listed)
        assert await allocate_paths(node, "devices.example.com/input", ids["input"]) == [
            "/dev/input/event0",
            "/dev/input/mice",
        ]
        node.unplug("/dev/input/mice")
        node.unplug("/dev/dri/card0")
        for name in names:
            node.plug(f"/dev/{directories[name]}/new")
        for name in names:
            resource, directory = f"devices.example.com/{name}", f"/dev/{directories[name]}"
            while f"{directory}/new" not in (paths := await allocate_paths(node, resource, ids[name])):
                pass
            assert {f"{directory}/mice", f"{directory}/card0"}.isdisjoint(paths)
            # No list has shown another ID or health.
            assert len(node.kubelet.messages(resource)) == 1


async def test_group_is_healthy_with_the_members_that_are_left(node: FakeNode) -> None:
    plug_devices(node, "a0", "b0", "a1")
    async with node.run_agent(PAIRS):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 2)
        first, second = node.kubelet.devices(X)
        node.unplug("/dev/b0")
        node.unplug("/dev/a1")
        await node.kubelet.wait_for_list(X, healthy={first}, unhealthy={second})
        assert await allocate_paths(node, X, first) == ["/dev/a0"]
        assert collect_healths(node, X) == [[True, True], [True, False]]


async def test_device_without_a_required_node_is_unhealthy_until_the_node_returns(node: FakeNode) -> None:
    plug_devices(node, "x0", "control")
    config = build_x_config(source="nodes: ['${path}', /dev/control]")
    async with node.run_agent(config):
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 1)
        node.unplug("/dev/control")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.unhealthy) == 1)
        node.plug("/dev/control")
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 1)


async def test_container_of_a_pool_gets_the_devices_that_are_left(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_scans_to_one(monkeypatch)
    plug_devices(node, "x0", "x1", "x2")
    async with node.run_agent(build_x_config("tokens: 1")):
        (token,) = await node.kubelet.wait_for_list(X, lambda devices: len(devices.healthy) == 1)
        # The scan that finds this device is the last.
        node.plug("/dev/x3")
        while "/dev/x3" not in await allocate_paths(node, X, token):
            pass
        node.unplug("/dev/x0")
        node.unplug("/dev/x2")
        assert await allocate_paths(node, X, token) == ["/dev/x1", "/dev/x3"]
        assert node.kubelet.devices(X).healthy == {token}


def plug_camera(node: FakeNode, media: int) -> None:
    """Plug a USB camera whose media node has this number."""
    usb = "/sys/devices/usb1/1-4"
    node.write(f"{usb}/idVendor", "046d\n")
    node.write(f"{usb}/serial", "A1B2\n")
    node.write(f"{usb}/devpath", "4\n")
    video = f"{usb}/1-4:1.0/video4linux/video0"
    node.write(f"{video}/index", "0\n")
    node.write(f"{video}/dev", "81:0\n")
    node.link(f"{video}/subsystem", "../../../../../../class/video4linux")
    node.link(f"{video}/device", "../../../1-4:1.0")
    node.write(f"{usb}/1-4:1.0/media{media}/dev", f"510:{media}\n")
    node.write("/sys/class/video4linux/.keep", "")
    node.link("/sys/dev/char/81:0", "../../devices/usb1/1-4/1-4:1.0/video4linux/video0")
    node.plug(f"/dev/media{media}", major=510, minor=media)
    node.plug("/dev/video0", major=81, minor=0)


async def test_camera_whose_media_node_has_another_number_after_a_replug_is_healthy(node: FakeNode) -> None:
    plug_camera(node, 0)
    async with node.run_agent(config_path("video-capture").read_text()):
        (camera,) = await node.kubelet.wait_for_list(CAMERA, lambda devices: len(devices.healthy) == 1)
        assert await allocate_paths(node, CAMERA, camera) == ["/dev/video0", "/dev/media0"]
        shutil.rmtree(node.locate("/sys/devices/usb1/1-4"))
        node.unplug("/dev/media0")
        node.unplug("/dev/video0")
        await node.kubelet.wait_for_list(CAMERA, unhealthy={camera})
        plug_camera(node, 1)
        await node.kubelet.wait_for_list(CAMERA, healthy={camera})
        assert await allocate_paths(node, CAMERA, camera) == ["/dev/video0", "/dev/media1"]


def plug_gpu(node: FakeNode, card: int) -> None:
    """Create the nodes of an Intel GPU whose card has this number, in the order in which the driver registers them."""
    function = "/sys/devices/pci0000:00/0000:00:02.0"
    node.write(f"{function}/vendor", "0x8086\n")
    node.write("/sys/bus/pci/drivers/i915/.keep", "")
    node.link(f"{function}/driver", "../../../bus/pci/drivers/i915")
    node.write("/sys/bus/pci/.keep", "")
    node.link(f"{function}/subsystem", "../../../bus/pci")
    node.link("/sys/bus/pci/devices/0000:00:02.0", "../../../devices/pci0000:00/0000:00:02.0")
    node.write(f"{function}/drm/card{card}/dev", f"226:{card}\n")
    node.write(f"{function}/drm/renderD128/dev", "226:128\n")
    node.link(f"{function}/drm/renderD128/device", "../../../0000:00:02.0")
    node.link("/sys/dev/char/226:128", "../../devices/pci0000:00/0000:00:02.0/drm/renderD128")
    node.plug(f"/dev/dri/card{card}", major=226, minor=card)
    node.plug("/dev/dri/renderD128", major=226, minor=128)


async def test_gpu_whose_card_has_another_number_after_a_driver_reload_is_healthy(node: FakeNode) -> None:
    plug_gpu(node, 0)
    config = config_path("intel-gpu").read_text().split("    health:\n")[0]
    async with node.run_agent(config):
        (gpu,) = await node.kubelet.wait_for_list(GPU, lambda devices: len(devices.healthy) == 1)
        assert "/dev/dri/card0" in await allocate_paths(node, GPU, gpu)
        shutil.rmtree(node.locate("/sys/devices/pci0000:00/0000:00:02.0/drm"))
        node.unplug("/dev/dri/card0")
        node.unplug("/dev/dri/renderD128")
        await node.kubelet.wait_for_list(GPU, unhealthy={gpu})
        plug_gpu(node, 1)
        await node.kubelet.wait_for_list(GPU, healthy={gpu})
        assert "/dev/dri/card1" in await allocate_paths(node, GPU, gpu)
