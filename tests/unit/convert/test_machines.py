"""A converted configuration offers the devices that the original plugin offers on the same machine."""

from pathlib import Path

import pytest

from genplug.allocation.offer import build_offer
from genplug.convert.formats import convert_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.health.presence import evaluate_health
from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.file_trees import build_tree
from tests.unit.convert.test_fixtures import load_conversion

FUNCTIONS = {"0000:3b:01.0", "0000:3b:01.1"}
CASES: dict[str, tuple[str, str, dict[str, int | set[str]]]] = {
    "kernel drivers of network functions": (
        "sriov-netdev",
        '{"resourceList": [{"resourceName": "net", "selectors": [{"drivers": ["iavf"], "pfNames": ["ens1f0"]}]}]}',
        {"intel.com/net": FUNCTIONS},
    ),
    "numbers of network functions": (
        "sriov-netdev",
        (
            '{"resourceList": [{"resourceName": "net", "selectors": {"vendors": ["8086"], "rootDevices": '
            '["0000:3b:00.0#1-2"]}}]}'
        ),
        {"intel.com/net": {"0000:3b:01.1", "0000:3b:01.2"}},
    ),
    "functions of a vendor, without physical functions that have virtual functions": (
        "sriov-netdev",
        '{"resourceList": [{"resourceName": "net", "selectors": [{"vendors": ["8086"]}]}]}',
        {"intel.com/net": FUNCTIONS | {"0000:3b:01.2", "0000:3b:11.0", "0000:d8:01.0"}},
    ),
    "functions for DPDK": (
        "sriov-vfio",
        (
            '{"resourceList": [{"resourceName": "dpdk", "resourcePrefix": "a.example", "selectors": [{"drivers": '
            '["vfio-pci"], "devices": ["1889"]}]}]}'
        ),
        # A second function is in the group of 0000:d8:01.0.
        {"a.example/dpdk": FUNCTIONS | {"0000:5e:01.0", "0000:d8:01.0"}},
    ),
    "shared adapters": (
        "rdma-shared",
        (
            '{"configList": [{"resourceName": "hca", "rdmaHcaMax": 63, "selectors": {"vendors": ["15b3"], "deviceIDs": '
            '["101d"], "linkTypes": ["ether"]}}]}'
        ),
        {"rdma/hca": 63},
    ),
    "whole cards of NVIDIA": ("nvidia-gpu", "version: v1\nflags: {migStrategy: none}\n", {"nvidia.com/gpu": 2}),
    "shared cards of NVIDIA": (
        "nvidia-gpu-shared",
        "version: v1\nsharing: {timeSlicing: {renameByDefault: true, resources: [{name: gpu, replicas: 5}]}}\n",
        {"nvidia.com/gpu.shared": 10},
    ),
    "cards of Intel": (
        "intel-gpu",
        "apiVersion: deviceplugin.intel.com/v1\nkind: GpuDevicePlugin\nspec: {sharedDevNum: 3}\n",
        {"gpu.intel.com/i915": 6, "gpu.intel.com/xe": 6},
    ),
    "pass-through": (
        "nvidia-passthrough",
        "permittedHostDevices: {pciHostDevices: [{pciVendorSelector: '10DE:2236', resourceName: nvidia.com/A10}]}\n",
        {"nvidia.com/A10": 2},
    ),
    "pools of generic-device-plugin": (
        "fuse-kvm-tun",
        (
            "devices:\n- {name: fuse, groups: [{count: 12, paths: [{path: /dev/fuse}]}]}\n"
            "- {name: vm, groups: [{paths: [{path: /dev/kvm}, {path: /dev/vhost-net}]}]}\n"
        ),
        {"squat.ai/fuse": 12, "squat.ai/vm": 1},
    ),
    "resources with common nodes": (
        "fuse-kvm-tun",
        (
            "- {name: net, groups: [{count: 3, paths: [{path: /dev/net}]}]}\n"
            "- {name: tun, groups: [{count: 2, paths: [{path: /dev/net/tun}]}]}\n"
            "- {name: any, groups: [{paths: [{path: /dev/vhost*}]}, {paths: [{path: /dev/fuse}]}]}\n"
        ),
        {"squat.ai/net": 3, "squat.ai/tun": 2, "squat.ai/any": 2},
    ),
    "serial ports of generic-device-plugin": (
        "usb-serial",
        (
            "- name: serial\n  groups:\n  - {count: 2, paths: [{path: /dev/ttyUSB*}]}\n"
            "  - {count: 2, paths: [{path: /dev/ttyACM*}]}\n"
        ),
        {"squat.ai/serial": 6},
    ),
    "regular expressions of smarter-device-manager": (
        "edge-io",
        (
            "- {devicematch: '^gpiochip[0-9]*$', nummaxdevices: 20}\n- {devicematch: 'i2c-(1|20)$', nummaxdevices: 2}\n"
            "- {devicematch: '^watchdog$', nummaxdevices: 1}\n"
        ),
        {
            "smarter-devices/gpiochip0": 20,
            "smarter-devices/gpiochip1": 20,
            "smarter-devices/i2c-1": 2,
            "smarter-devices/i2c-20": 2,
            "smarter-devices/watchdog": 1,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_conversion_offers_the_devices_of_the_original_plugin(case: str, tmp_path: Path) -> None:
    machine, text, expected = CASES[case]
    build_machine(machine, tmp_path)
    inventory = discover(load_conversion(convert_text(text, "a.yaml")), Host.at(tmp_path, node_name="node-a"))
    health = evaluate_health(inventory, None, {}, 0.0)
    offers = {name: build_offer(health.resources[name], devices) for name, devices in health.devices.items()}
    found = {
        name: set(offer.grants) if isinstance(expected.get(name), set) else len(offer.grants)
        for name, offer in offers.items()
    }
    assert found == expected


CAMERA = """\
/dev/video{number} char 81:{number}
/sys/dev/char/81:{number} -> ../../devices/usb1/1-{number}/1-{number}:1.0/video4linux/video{number}
/sys/class/video4linux/video{number} -> ../../devices/usb1/1-{number}/1-{number}:1.0/video4linux/video{number}
/sys/devices/usb1/1-{number}/idVendor = {vendor}
/sys/devices/usb1/1-{number}/idProduct = 0825
/sys/devices/usb1/1-{number}/1-{number}:1.0/video4linux/video{number}/index = {index}
/sys/devices/usb1/1-{number}/1-{number}:1.0/video4linux/video{number}/dev = 81:{number}
/sys/devices/usb1/1-{number}/1-{number}:1.0/video4linux/video{number}/uevent = MAJOR=81\\nDEVNAME=video{number}
/run/udev/data/c81:{number} = E:ID_V4L_PRODUCT=Cam {number}\\nG:seat
"""
CAMERAS = [("0", "046d"), ("1", "046d"), ("0", "1bcf")]
RULES = {
    'SUBSYSTEM=="video4linux", ATTR{index}=="0", ATTRS{idVendor}=="046d"': ["video0"],
    'SUBSYSTEM=="video4linux", ATTR{index}!="0"': ["video1"],
    'KERNEL=="video[12]"': ["video1", "video2"],
    'SUBSYSTEM=="video4linux", ENV{ID_V4L_PRODUCT}=="Cam 2"': ["video2"],
    'SUBSYSTEM=="video4linux", ATTRS{idVendor}=="1bcf|046d", KERNEL!="video0"': ["video1", "video2"],
    'SUBSYSTEM=="video4linux", TAG=="seat", KERNELS=="1-1"': ["video1"],
    'SUBSYSTEM=="video4linux", TAG!="seat"': [],
    'SUBSYSTEM=="video4linux", ATTRS{serial}!="A1"': ["video0", "video1", "video2"],
}


@pytest.mark.parametrize("rule", RULES)
def test_rule_of_akri_selects_the_nodes_of_cameras(rule: str, tmp_path: Path) -> None:
    cameras = [CAMERA.format(number=n, index=index, vendor=vendor) for n, (index, vendor) in enumerate(CAMERAS)]
    build_tree("".join(cameras), tmp_path)
    text = (
        "apiVersion: akri.sh/v0\nkind: Configuration\nmetadata: {name: cam}\nspec:\n  discoveryHandler:\n"
        f"    name: udev\n    discoveryDetails: |\n      udevRules: ['{rule}']\n"
    )
    inventory = discover(load_conversion(convert_text(text, "a.yaml")), Host.at(tmp_path, node_name="node-a"))
    nodes = [node.path for found in inventory.devices.values() for device in found for node in device.nodes]
    assert nodes == [f"/dev/{name}" for name in RULES[rule]]
