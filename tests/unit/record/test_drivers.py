"""The versions of drivers and firmware on the file trees of machines."""

from pathlib import Path
from typing import Any

import pytest

from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.record.drivers import DeviceDrivers, DriverVersion, describe_devices, describe_drivers
from genplug.record.facts import Fact, Known, Unknown
from genplug.spec import limits
from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import CONFIG_HEADER
from tests.support.recipes import load_recipe
from tests.support.sysroots import extract_sysroot

NVIDIA = """\
/dev/nvidia0 char 195:0
/sys/dev/char/195:0 -> ../../devices/pci0000:3a/0000:3b:00.0
/sys/devices/pci0000:3a/0000:3b:00.0/vendor = 0x10de
/sys/devices/pci0000:3a/0000:3b:00.0/driver -> ../../../bus/pci/drivers/nvidia
/sys/bus/pci/drivers/nvidia/module -> ../../../../module/nvidia
/sys/module/nvidia/taint = POE
/proc/driver/nvidia/version = NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\\nGCC
/proc/driver/nvidia/gpus/0000:3b:00.0/information = Model:  A100\\nVideo BIOS:  92.00.45\\nGPU Firmware:  570.124.06
"""


def describe(text: str, root: Path) -> tuple[DeviceDrivers, ...]:
    host = Host.at(root)
    devices: tuple[DeviceDrivers, ...] = value_of(describe_devices(discover(load_text(text, "c.yaml"), host), host))
    return devices


def value_of(fact: Fact) -> Any:
    assert isinstance(fact, Known), fact
    return fact.value


def config(glob: str) -> str:
    return f"{CONFIG_HEADER}resources: {{a.io/x: {{devices: [{{glob: '{glob}'}}]}}}}\n"


def firmware(device: DeviceDrivers) -> dict[str, str]:
    return {version.name: version.version for version in value_of(device.firmware)}


def test_driver_of_nvidia_has_the_version_of_procfs_and_its_marks(tmp_path: Path) -> None:
    build_tree(NVIDIA, tmp_path)
    host = Host.at(tmp_path)
    devices = describe_devices(discover(load_text(config("/dev/nvidia*"), "c.yaml"), host), host)
    [device] = value_of(devices)
    assert value_of(device.drivers) == ("nvidia",)
    assert firmware(device) == {"GPU Firmware": "570.124.06", "Video BIOS": "92.00.45"}
    assert device.identity == {"pciAddress": "0000:3b:00.0", "pciVendor": "0x10de"}
    drivers: tuple[DriverVersion, ...] = value_of(describe_drivers(devices, host))
    assert [driver.driver for driver in drivers] == ["nvidia"]
    assert drivers[0].version == Known("570.124.06", "/proc/driver/nvidia/version")
    assert value_of(drivers[0].taints) == ("proprietary", "out-of-tree", "unsigned")


def test_version_of_a_module_precedes_that_of_procfs(tmp_path: Path) -> None:
    build_tree(NVIDIA + "/sys/module/nvidia/version = 580.1\n/sys/module/nvidia/srcversion = 5F1\n", tmp_path)
    host = Host.at(tmp_path)
    devices = describe_devices(discover(load_text(config("/dev/nvidia*"), "c.yaml"), host), host)
    [driver] = value_of(describe_drivers(devices, host))
    assert driver.version == Known("580.1", "/sys/module/nvidia/version")
    assert driver.source_checksum == Known("5F1", "/sys/module/nvidia/srcversion")


@pytest.mark.parametrize(
    ("node", "directory", "file", "value"),
    [
        ("char 231:192", "/sys/devices/pci0/0000:17:00.0/infiniband/mlx5_0", "fw_ver", "20.31.1014"),
        ("char 241:0", "/sys/devices/pci0/0000:17:00.0/nvme/nvme0", "firmware_rev", "E2010650"),
        ("char 226:0", "/sys/devices/pci0/0000:17:00.0", "vbios_version", "115-D163A10"),
        ("char 226:0", "/sys/devices/pci0/0000:17:00.0/fw_version", "smc_fw_version", "0x00542700"),
        ("char 250:0", "/sys/devices/pci0/0000:17:00.0/accel/accel0", "fw_os_ver", "1.18.0"),
        ("char 189:1", "/sys/devices/pci0/0000:17:00.0", "bcdDevice", "0600"),
    ],
)
def test_firmware_is_found_below_the_function(tmp_path: Path, node: str, directory: str, file: str, value: str) -> None:
    function = "/sys/devices/pci0/0000:17:00.0"
    numbers = node.partition(" ")[2]
    tree = f"/dev/x {node}\n/sys/dev/char/{numbers} -> ../../..{function}\n{function}/vendor = 0x1\n"
    # The bridge above has a version of its own.
    build_tree(f"{tree}{directory}/{file} = {value}\n/sys/devices/pci0/fw_ver = bridge\n", tmp_path)
    [device] = describe(config("/dev/x"), tmp_path)
    assert firmware(device) == {file: value}


def test_real_machine_has_the_firmware_of_its_adapters(tmp_path: Path) -> None:
    extract_sysroot("infiniband-amdgpu", tmp_path)
    source = "{glob: '/sys/class/infiniband/*', type: directory}"
    text = f"{CONFIG_HEADER}resources: {{a.io/x: {{devices: [{source}], allocate: {{env: {{A: '${{name}}'}}}}}}}}\n"
    devices = describe(text, tmp_path)
    assert {device.paths[0]: firmware(device)["fw_ver"] for device in devices} == {
        "/sys/class/infiniband/hfi1_0": "1.27.0",
        "/sys/class/infiniband/mlx4_0": "2.31.5050",
        "/sys/class/infiniband/mlx5_0": "14.28.2006",
    }


def test_recipe_of_amd_gpus_names_the_driver_of_each_device(tmp_path: Path) -> None:
    build_machine("amd-gpu", tmp_path)
    host = Host.at(tmp_path)
    devices = value_of(describe_devices(discover(load_recipe("amd-gpu"), host), host))
    assert {driver for device in devices for driver in value_of(device.drivers)} == {"amdgpu"}


def test_virtual_device_has_reasons_instead_of_versions(tmp_path: Path) -> None:
    build_tree(
        "/dev/fuse char 10:229\n/sys/dev/char/10:229 -> ../../devices/virtual/misc/fuse\n"
        "/sys/devices/virtual/misc/fuse/dev = 10:229\n",
        tmp_path,
    )
    [device] = describe(config("/dev/fuse"), tmp_path)
    assert isinstance(device.drivers, Unknown)
    assert isinstance(device.firmware, Unknown)


def test_built_in_driver_has_no_module(tmp_path: Path) -> None:
    build_tree(
        "/dev/x char 240:0\n/sys/dev/char/240:0 -> ../../devices/platform/x\n"
        "/sys/devices/platform/x/driver -> ../../../bus/platform/drivers/x\n/sys/bus/platform/drivers/x/ directory\n",
        tmp_path,
    )
    host = Host.at(tmp_path)
    devices = describe_devices(discover(load_text(config("/dev/x"), "c.yaml"), host), host)
    [driver] = value_of(describe_drivers(devices, host))
    assert driver.module == Unknown(
        "the driver 'x' has no link to a module, like a driver that is built into the kernel"
    )


def test_too_many_devices_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.record.drivers.MAX_RECORDED_DEVICES", 1)
    assert limits.MAX_RECORDED_DEVICES > 1
    build_tree("/dev/x0 char 240:0\n/dev/x1 char 240:1\n", tmp_path)
    host = Host.at(tmp_path)
    fact = describe_devices(discover(load_text(config("/dev/x*"), "c.yaml"), host), host)
    assert fact == Unknown("the node has 2 devices, and a record at most 1")
