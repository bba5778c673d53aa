"""Recipes of video and USB devices: which nodes belong to which recipe, and IDs that do not change."""

from pathlib import Path

import pytest

from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.file_trees import build_tree
from tests.support.recipes import load_recipe

CAMERA = "devices.example.com/camera"
WEBCAM = """
/dev/video0 char 81:0
/dev/media0 char 240:0
/sys/bus/pci/ directory
/sys/class/video4linux/ directory
/sys/bus/usb/devices/usb{bus} -> ../../../devices/{controller}/usb{bus}
/sys/bus/usb/devices/{bus}-1 -> ../../../devices/{controller}/usb{bus}/{bus}-1
/sys/dev/char/81:0 -> ../../devices/{controller}/usb{bus}/{bus}-1/{bus}-1:1.0/video4linux/video0
/sys/devices/pci0000:00/0000:00:14.0/subsystem -> ../../../bus/pci
/sys/devices/{controller}/usb{bus}/serial = {serial}
/sys/devices/{controller}/usb{bus}/{bus}-1/idVendor = 046d
/sys/devices/{controller}/usb{bus}/{bus}-1/busnum = {bus}
/sys/devices/{controller}/usb{bus}/{bus}-1/devpath = 1
/sys/devices/{controller}/usb{bus}/{bus}-1/speed = 480
/sys/devices/{controller}/usb{bus}/{bus}-1/{bus}-1:1.0/bInterfaceNumber = 00
/sys/devices/{controller}/usb{bus}/{bus}-1/{bus}-1:1.0/media0/dev = 240:0
/sys/devices/{controller}/usb{bus}/{bus}-1/{bus}-1:1.0/video4linux/video0/index = 0
/sys/devices/{controller}/usb{bus}/{bus}-1/{bus}-1:1.0/video4linux/video0/subsystem -> {up}class/video4linux
"""
PROCESSOR = """
/dev/video{n} char 81:{n}
/sys/class/video4linux/ directory
/sys/bus/platform/drivers/{driver}/ directory
/sys/dev/char/81:{n} -> ../../devices/platform/f{n}.block/video4linux/video{n}
/sys/devices/platform/f{n}.block/subsystem -> ../../../bus/platform
/sys/devices/platform/f{n}.block/driver -> ../../../bus/platform/drivers/{driver}
/sys/devices/platform/f{n}.block/video4linux/video{n}/index = 0
/sys/devices/platform/f{n}.block/video4linux/video{n}/name = {name}
/sys/devices/platform/f{n}.block/video4linux/video{n}/subsystem -> ../../../../../class/video4linux
"""


def find_nodes(recipe: str, root: Path) -> dict[str, list[str]]:
    """Return the paths of the nodes and companions of each device that a recipe offers, by ID."""
    inventory = discover(load_recipe(recipe), Host.at(root))
    return {
        device.id: [node.path for node in (*device.nodes, *device.companions)]
        for devices in inventory.devices.values()
        for device in devices
    }


def webcam(bus: int, controller: str = "pci0000:00/0000:00:14.0", serial: str = "0000:00:14.0") -> str:
    levels = 6 + controller.count("/") + 1
    return WEBCAM.format(bus=bus, controller=controller, serial=serial, up="../" * levels)


def test_raspberry_pi_offers_no_camera_without_a_receiver(tmp_path: Path) -> None:
    build_machine("v4l2-codec", tmp_path)
    assert find_nodes("video-capture", tmp_path) == {}


def test_raspberry_pi_camera_has_the_nodes_of_the_image_processor(tmp_path: Path) -> None:
    build_machine("v4l2-codec", tmp_path)
    (nodes,) = find_nodes("mipi-camera", tmp_path).values()
    assert set(nodes) == {
        *("/dev/video0", "/dev/video1", "/dev/v4l-subdev0", "/dev/media4"),
        *("/dev/video13", "/dev/video14", "/dev/video15", "/dev/video16", "/dev/media1"),
        *("/dev/dma_heap/linux,cma", "/dev/dma_heap/system"),
    }


def test_camera_recipe_leaves_out_receivers_for_mipi(tmp_path: Path) -> None:
    build_machine("mipi-camera", tmp_path)
    assert list(find_nodes("video-capture", tmp_path).values()) == [["/dev/video9", "/dev/media1"]]
    assert find_nodes("v4l2-codec", tmp_path) == {}


def test_receiver_without_a_media_node_is_unhealthy(tmp_path: Path) -> None:
    build_machine("mipi-camera", tmp_path)
    (tmp_path / "dev/media0").unlink()
    inventory = discover(load_recipe("mipi-camera"), Host.at(tmp_path))
    (device,) = inventory.devices["devices.example.com/mipi-camera"]
    assert "/dev/media0" in "; ".join(device.faults)


@pytest.mark.parametrize(
    ("controller", "serial"),
    [("pci0000:00/0000:00:14.0", "0000:00:14.0"), ("platform/soc/3f980000.usb", "3f980000.usb")],
)
def test_camera_keeps_its_id_when_the_number_of_its_bus_changes(controller: str, serial: str, tmp_path: Path) -> None:
    ids: set[str] = set()
    for bus in (1, 2):
        build_tree(webcam(bus, controller, serial), tmp_path / str(bus))
        ids |= find_nodes("video-capture", tmp_path / str(bus)).keys()
    assert len(ids) == 1


def test_cameras_at_the_same_port_of_two_controllers_have_different_ids(tmp_path: Path) -> None:
    ids: set[str] = set()
    for controller in ("xhci-hcd.0", "xhci-hcd.1"):
        build_tree(webcam(1, f"platform/{controller}", controller), tmp_path / controller)
        ids |= find_nodes("video-capture", tmp_path / controller).keys()
    assert len(ids) == 2


CORAL = """
/sys/bus/usb/devices/1-1 -> ../../../devices/platform/{controller}/usb1/1-1
/sys/bus/usb/devices/usb1 -> ../../../devices/platform/{controller}/usb1
/sys/devices/platform/{controller}/usb1/serial = {controller}
/sys/devices/platform/{controller}/usb1/1-1/busnum = 1
/sys/devices/platform/{controller}/usb1/1-1/devpath = 1
/sys/devices/platform/{controller}/usb1/1-1/uevent = MAJOR=189\\nMINOR={minor}\\nDEVNAME={node}\\nPRODUCT={product}/100
/dev/{node} char 189:{minor}
"""


def coral(root: Path, controller: str, product: str, node: str) -> dict[str, list[str]]:
    tree = CORAL.format(controller=controller, product=product, node=node, minor=int(node.rpartition("/")[2]) - 1)
    build_tree(tree, root)
    return find_nodes("edge-inference", root)


def test_coral_keeps_its_id_when_its_firmware_is_loaded(tmp_path: Path) -> None:
    before = coral(tmp_path / "before", "xhci-hcd.0", "1a6e/89a", "bus/usb/001/004")
    after = coral(tmp_path / "after", "xhci-hcd.0", "18d1/9302", "bus/usb/001/005")
    assert before.keys() == after.keys()
    assert [*before.values(), *after.values()] == [["/dev/bus/usb/001/004"], ["/dev/bus/usb/001/005"]]
    other = coral(tmp_path / "other", "xhci-hcd.1", "18d1/9302", "bus/usb/001/004")
    assert other.keys().isdisjoint(after)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("bcm2835-codec", "bcm2835-codec-decode"),
        ("bcm2835-isp", "bcm2835-isp-output0"),
        ("rpi-hevc-dec", "rpi-hevc-dec"),
        ("pispbe", "pispbe-input"),
        ("hantro-vpu", "rockchip,rk3399-vpu-enc"),
        ("rkvdec", "rkvdec"),
        ("rockchip-rga", "rockchip-rga"),
        ("qcom-venus", "qcom-venus-decoder"),
        ("mtk-vcodec-enc", "mtk-vcodec-enc"),
        ("cedrus", "cedrus"),
        ("coda", "coda-video-encoder"),
        ("s5p-mfc", "s5p-mfc-dec"),
        ("mxc-jpeg", "mxc-jpeg-dec"),
        ("amphion-vpu", "amphion-vpu-decoder"),
        ("meson-ge2d", "meson-ge2d"),
        ("vim2m", "vim2m"),
        # Not in the list of the recipe: its name shows what it is.
        ("next-generation", "next-h266-decoder"),
    ],
)
def test_memory_to_memory_device_is_not_a_camera(driver: str, name: str, tmp_path: Path) -> None:
    build_tree(PROCESSOR.format(driver=driver, name=name, n=7), tmp_path)
    assert find_nodes("video-capture", tmp_path) == {}


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("rkisp1", "rkisp1_mainpath"),
        ("sun6i-csi", "sun6i-csi-capture"),
        ("stm32-dcmi", "stm32_dcmi"),
        ("vivid", "vivid"),
    ],
)
def test_camera_of_a_system_on_a_chip_is_found(driver: str, name: str, tmp_path: Path) -> None:
    build_tree(PROCESSOR.format(driver=driver, name=name, n=7), tmp_path)
    assert list(find_nodes("video-capture", tmp_path).values()) == [["/dev/video7"]]


def test_node_without_capture_in_the_data_of_udev_is_not_a_camera(tmp_path: Path) -> None:
    tree = PROCESSOR.format(driver="unknown", name="unknown", n=7)
    build_tree(tree + "/run/udev/data/c81:7 = E:ID_V4L_CAPABILITIES=:video_output:", tmp_path / "output")
    build_tree(tree + "/run/udev/data/c81:7 = E:ID_V4L_CAPABILITIES=:capture:", tmp_path / "capture")
    assert find_nodes("video-capture", tmp_path / "output") == {}
    assert len(find_nodes("video-capture", tmp_path / "capture")) == 1


def test_each_virtual_camera_is_a_device(tmp_path: Path) -> None:
    lines = ["/sys/class/video4linux/ directory"]
    for number in (4, 5):
        directory = f"devices/virtual/video4linux/video{number}"
        lines += [
            f"/dev/video{number} char 81:{number}",
            f"/sys/dev/char/81:{number} -> ../../{directory}",
            f"/sys/{directory}/index = 0",
            f"/sys/{directory}/name = Dummy video device (0x000{number})",
            f"/sys/{directory}/subsystem -> ../../../../class/video4linux",
        ]
    build_tree("\n".join(lines), tmp_path)
    assert find_nodes("video-capture", tmp_path) == {"video4": ["/dev/video4"], "video5": ["/dev/video5"]}
