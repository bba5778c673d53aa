"""Device nodes that containers do not get: by their numbers under any path, and by the rules of the policy."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.hardware.denied_node_table import ACCESSES_STORAGE, EXPOSES_HOST
from genplug.hardware.denied_nodes import denied_node_error
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.inventory import Kind, PathInfo
from genplug.spec.globs import Glob
from genplug.spec.model import CandidateType
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.support.hardware import (
    NAME,
    NodeTree,
    build_config,
    build_node_spec,
    build_resource,
    build_source,
    discover_sources,
    find_reason,
)

PERMISSIVE_POLICY = Policy("policy.yaml", block=True, allow=(Glob.parse("/**"),))

ALWAYS_DENIED = {
    "/dev/mem": (1, 1),
    "/dev/kmem": (1, 2),
    "/dev/port": (1, 4),
    "/dev/kmsg": (1, 11),
    "/dev/ptyp0": (2, 0),
    "/dev/ttyef": (3, 255),
    "/dev/tty0": (4, 0),
    "/dev/tty63": (4, 63),
    "/dev/tty": (5, 0),
    "/dev/console": (5, 1),
    "/dev/ptmx": (5, 2),
    "/dev/vcs": (7, 0),
    "/dev/vcsa63": (7, 191),
    "/dev/uinput": (10, 223),
    "/dev/oldmem": (1, 12),
    "/dev/hvc0": (229, 0),
    "/dev/3270/tty1": (227, 1),
    "/dev/3270/tub": (228, 0),
    "/dev/uhid": (10, 239),
    "/dev/vhci": (10, 137),
    "/dev/cpu/0/msr": (202, 0),
    "/dev/cpu/0/cpuid": (203, 0),
    # Their numbers are assigned at boot.
    "/dev/vc-mem": (238, 0),
    "/dev/vcio": (10, 262),
    "/dev/xen/privcmd": (10, 259),
    "/dev/ublk-control": (10, 260),
    "/dev/ipmi0": (253, 0),
    "/dev/hvcs3": (252, 3),
    "/dev/usbmon0": (251, 0),
    "/dev/vmbus/hv_kvp": (10, 263),
    "/dev/fwctl/fwctl0": (250, 1),
    "/dev/switchtec0": (249, 1),
    "/dev/opal-prd": (10, 264),
    "/dev/teepriv0": (248, 16),
    "/dev/ecryptfs": (10, 265),
    "/dev/misc/dlm-control": (10, 266),
    "/dev/loop-control": (10, 237),
    "/dev/pts/0": (136, 0),
    "/dev/pts/2047": (143, 255),
}
BLOCK = {
    "/dev/sda": (8, 0),
    "/dev/loop0": (7, 0),
    "/dev/md0": (9, 0),
    "/dev/nvme0n1": (259, 0),
    "/dev/dm-0": (253, 0),
    "/dev/vda": (254, 0),
    # The numbers 1:3 are those of the null device among character devices.
    "/dev/ram3": (1, 3),
}
DISK_CONTROL = {
    "/dev/mapper/control": (10, 236),
    "/dev/sg0": (21, 0),
    "/dev/raw/raw1": (162, 1),
    "/dev/nvme0": (240, 0),
    "/dev/nvme-fabrics": (10, 122),
    "/dev/ng0n1": (241, 0),
    "/dev/bsg/0:0:0:0": (242, 0),
    "/dev/mtd0": (90, 0),
    "/dev/ubi0_0": (243, 1),
    "/dev/ubi_ctrl": (10, 261),
    "/dev/nst0": (9, 128),
    "/dev/sch0": (86, 0),
    "/dev/ses0": (244, 0),
    "/dev/megaraid_sas_ioctl_node": (245, 0),
    "/dev/mpt3ctl": (10, 222),
    "/dev/aac0": (246, 0),
    "/dev/mmcblk0rpmb": (247, 0),
    "/dev/ndctl0": (248, 0),
    "/dev/zfs": (10, 249),
}
ALLOWED = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/ttyS0": (4, 64),
    "/dev/ttyUSB0": (188, 0),
    "/dev/ttyACM0": (166, 0),
    "/dev/fuse": (10, 229),
    "/dev/kvm": (10, 232),
    "/dev/net/tun": (10, 200),
    "/dev/nvidia0": (195, 0),
    "/dev/nvidiactl": (195, 255),
    "/dev/nvidia-uvm": (510, 0),
    "/dev/infiniband/uverbs0": (231, 192),
    "/dev/infiniband/rdma_cm": (10, 58),
    "/dev/dax0.0": (252, 0),
    "/dev/video0": (81, 0),
    "/dev/dri/renderD128": (226, 128),
    "/dev/vfio/vfio": (10, 196),
    "/dev/input/event0": (13, 64),
    "/dev/watchdog0": (249, 0),
    "/dev/gpiochip0": (254, 0),
    "/dev/bus/usb/001/002": (189, 1),
    "/dev/cpu_dma_latency": (10, 125),
    "/dev/cxl/mem0": (250, 0),
    "/dev/tee0": (248, 0),
    "/dev/tpmrm0": (253, 65536),
    "/dev/fb0": (29, 0),
}


NO_SYSFS = Host(Path("/nonexistent"))


def char_info(path: str, numbers: tuple[int, int]) -> PathInfo:
    return PathInfo.of(path, Kind.CHAR, *numbers)


def read_device_numbers() -> Iterator[tuple[str, str, str]]:
    """Yield number, name and verdict of each character device with an assigned number."""
    for line in (Path(__file__).parent / "device_numbers.txt").read_text().splitlines():
        if not line.startswith("#"):
            number, rest = line.split(maxsplit=1)
            name, verdict = re.split(r"\s{2,}|(?<=\S)\s+(?=offered|host|storage)", rest.strip(), maxsplit=1)
            yield number, name, verdict


def add_sysfs_device(tree: NodeTree, numbers: str, name: str, subsystem: str) -> None:
    """Add the directory of a character device in /sys, with its subsystem (``class/tty``)."""
    tree.write(f"/sys/devices/any/{name}/dev", f"{numbers}\n")
    (tree.root / "sys" / subsystem).mkdir(parents=True, exist_ok=True)
    tree.link(f"/sys/devices/any/{name}/subsystem", f"../../../{subsystem}")
    tree.link(f"/sys/dev/char/{numbers}", f"../../devices/any/{name}")


@pytest.mark.parametrize(("path", "numbers"), ALWAYS_DENIED.items(), ids=ALWAYS_DENIED)
def test_node_that_controls_the_host_is_denied_under_any_policy(path: str, numbers: tuple[int, int]) -> None:
    for policy in (DEFAULT_POLICY, PERMISSIVE_POLICY):
        reason = denied_node_error(char_info(path, numbers), policy, NO_SYSFS)
        assert reason.startswith(f"refused by the built-in list: char {numbers[0]}:{numbers[1]} is ")


@pytest.mark.parametrize(("path", "numbers"), BLOCK.items(), ids=BLOCK)
def test_block_device_is_denied_unless_the_policy_allows_it(path: str, numbers: tuple[int, int]) -> None:
    info = PathInfo.of(path, Kind.BLOCK, *numbers)
    reason = f"refused by 'devices.block' of the default policy: block {numbers[0]}:{numbers[1]} is a block device"
    assert denied_node_error(info, DEFAULT_POLICY, NO_SYSFS).startswith(reason)
    assert not denied_node_error(info, PERMISSIVE_POLICY, NO_SYSFS)


@pytest.mark.parametrize(("path", "numbers"), DISK_CONTROL.items(), ids=DISK_CONTROL)
def test_node_that_controls_disks_is_denied_like_a_block_device(path: str, numbers: tuple[int, int]) -> None:
    assert denied_node_error(char_info(path, numbers), DEFAULT_POLICY, NO_SYSFS).startswith(
        "refused by 'devices.block' of the default policy"
    )
    assert not denied_node_error(char_info(path, numbers), PERMISSIVE_POLICY, NO_SYSFS)


@pytest.mark.parametrize(("path", "numbers"), ALLOWED.items(), ids=ALLOWED)
def test_common_device_node_is_allowed_by_default(path: str, numbers: tuple[int, int]) -> None:
    assert not denied_node_error(char_info(path, numbers), DEFAULT_POLICY, NO_SYSFS)


@pytest.mark.parametrize(("number", "name", "verdict"), tuple(read_device_numbers()), ids=lambda text: text)
def test_device_with_an_assigned_number_is_offered_or_denied_as_listed(number: str, name: str, verdict: str) -> None:
    major, _, minors = number.partition(":")
    kind, _, entry = verdict.partition(" ")
    descriptions = {table_entry.name: table_entry.what for table_entry in (*EXPOSES_HOST, *ACCESSES_STORAGE)}
    for minor in {int(text) for text in minors.split("-")}:
        # Another name: the number alone decides.
        reason = denied_node_error(char_info("/dev/any", (int(major), minor)), DEFAULT_POLICY, NO_SYSFS)
        if kind == "offered":
            assert not reason, name
        else:
            rule = {"host": "the built-in list", "storage": "'devices.block' of the default policy"}[kind]
            assert reason.startswith(f"refused by {rule}: char {major}:{minor} is {descriptions[entry]}"), name
            assert bool(denied_node_error(char_info("/dev/any", (int(major), minor)), PERMISSIVE_POLICY, NO_SYSFS)) == (
                kind == "host"
            )


@pytest.mark.parametrize(("path", "numbers"), ALWAYS_DENIED.items(), ids=ALWAYS_DENIED)
def test_policy_lifts_the_refusal_of_one_entry(path: str, numbers: tuple[int, int]) -> None:
    info = char_info(path, numbers)
    names = [
        entry.name
        for entry in EXPOSES_HOST
        if not denied_node_error(info, replace(PERMISSIVE_POLICY, unsafe=(entry.name,)), NO_SYSFS)
    ]
    assert len(names) == 1
    assert f'["{names[0]}"]' in denied_node_error(info, DEFAULT_POLICY, NO_SYSFS)


SUBSYSTEMS = {
    "class/nvme": "'devices.block'",
    "class/nvme-generic": "'devices.block'",
    "class/bsg": "'devices.block'",
    "class/mtd": "'devices.block'",
    "class/ubi": "'devices.block'",
    "class/scsi_tape": "'devices.block'",
    "bus/mmc_rpmb": "'devices.block'",
    "class/ipmi": "the built-in list",
    "class/mei": "the built-in list",
    "class/ublk-char": "the built-in list",
    "class/vc-mem": "the built-in list",
    "class/usbmon": "the built-in list",
    "class/fwctl": "the built-in list",
    "class/switchtec": "the built-in list",
    "class/dax": "",
    "class/watchdog": "",
}


@pytest.mark.parametrize(("subsystem", "rule"), SUBSYSTEMS.items(), ids=SUBSYSTEMS)
def test_node_with_a_number_of_the_boot_is_recognized_by_its_subsystem(
    tree: NodeTree, subsystem: str, rule: str
) -> None:
    tree.plug("/dev/harmless", "511:7")
    add_sysfs_device(tree, "511:7", "harmless", subsystem)
    found = discover_sources(tree, build_source("/dev/harmless"), policy=DEFAULT_POLICY)
    assert bool(found.devices[NAME]) == (not rule)
    assert f"refused by {rule}" in find_reason(found, "/dev/harmless") or not rule


def test_node_is_recognized_by_the_name_that_the_kernel_gives_it(tree: NodeTree) -> None:
    tree.plug("/dev/harmless", "10:260")
    add_sysfs_device(tree, "10:260", "xen!privcmd", "class/misc")
    reason = find_reason(discover_sources(tree, build_source("/dev/harmless")), "/dev/harmless")
    assert "char 10:260 is the hypervisor of the host" in reason


def test_node_without_a_class_is_recognized_by_its_driver(tree: NodeTree) -> None:
    tree.plug("/dev/a", "240:0")
    tree.plug("/dev/b", "239:0")
    tree.write(
        "/proc/devices",
        "Character devices:\n  1 mem\n240 megaraid_sas_ioctl\n\nBlock devices:\n239 megaraid_sas_ioctl\n",
    )
    found = discover_sources(tree, build_source("/dev/[ab]"), policy=DEFAULT_POLICY)
    assert "a node for commands to a disk controller" in find_reason(found, "/dev/a")
    assert [device.id for device in found.devices[NAME]] == ["b"]


def test_serial_port_is_denied_while_the_kernel_uses_it_as_a_console(tree: NodeTree) -> None:
    for number in range(2):
        tree.plug(f"/dev/ttyS{number}", f"4:{64 + number}")
        add_sysfs_device(tree, f"4:{64 + number}", f"ttyS{number}", "class/tty")
    tree.write("/sys/class/tty/console/active", "tty0 ttyS1\n")
    found = discover_sources(tree, build_source("/dev/ttyS*"))
    assert [device.candidates for device in found.devices[NAME]] == [("/dev/ttyS0",)]
    assert "an active console of the host" in find_reason(found, "/dev/ttyS1")


def test_usb_device_with_a_disk_is_denied_like_a_block_device(tree: NodeTree) -> None:
    for number, interface in ((1, "08"), (2, "03")):
        tree.plug(f"/dev/bus/usb/001/00{number}", f"189:{number}")
        add_sysfs_device(tree, f"189:{number}", f"1-{number}", "bus/usb")
        tree.write(f"/sys/devices/any/1-{number}/1-{number}:1.0/bInterfaceClass", f"{interface}\n")
    found = discover_sources(tree, build_source("/dev/bus/usb/*/*"), policy=DEFAULT_POLICY)
    assert [device.candidates for device in found.devices[NAME]] == [("/dev/bus/usb/001/002",)]
    assert "'devices.block' of the default policy: char 189:1 is a USB device with a disk" in find_reason(
        found, "/dev/bus/usb/001/001"
    )


def test_denied_node_is_excluded_under_another_path(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB7", "1:1")
    tree.plug("/dev/tty0", "4:0")
    tree.link("/dev/serial/by-id/mine", "../../tty0")
    found = discover_sources(tree, build_source("/dev/ttyUSB*", "/dev/serial/by-id/*"))
    assert found.devices == {NAME: ()}
    assert "char 1:1 is /dev/mem, the memory of the host" in find_reason(found, "/dev/ttyUSB7")
    assert "char 4:0 is a console of the host" in find_reason(found, "/dev/serial/by-id/mine")


def test_device_that_includes_a_denied_node_is_excluded(tree: NodeTree) -> None:
    for number in range(2):
        tree.plug(f"/dev/x{number}", f"240:{number}")
    tree.plug("/dev/mem", "1:1")
    tree.link("/dev/with1", "mem")
    for spec in (
        build_source("/dev/x*", companions=(build_node_spec("/dev/with${index}", optional=True),)),
        build_source(
            "/dev/x*", nodes=(build_node_spec("${path}"), build_node_spec("/dev/with${index}", optional=True))
        ),
    ):
        found = discover_sources(tree, spec)
        assert [device.candidates for device in found.devices[NAME]] == [("/dev/x0",)]
        assert find_reason(found, "/dev/x1") == (
            "it includes /dev/with1, refused by the built-in list: char 1:1 is /dev/mem, the memory of the host; "
            "only a policy with 'devices: {unsafe: [\"/dev/mem\"]}' allows it"
        )


def test_denied_candidate_is_allowed_if_no_container_gets_it(tree: NodeTree) -> None:
    tree.plug("/dev/sda", "8:0", kind="block")
    tree.plug("/dev/x", "240:0")
    spec = build_source("/dev/sda", type=CandidateType.BLOCK, nodes=(build_node_spec("/dev/x"),))
    found = discover(build_config(build_resource(NAME, spec, policy=DEFAULT_POLICY)), tree.host)
    assert [device_node.path for device in found.devices[NAME] for device_node in device.nodes] == ["/dev/x"]


def test_denied_device_takes_neither_id_nor_node_from_another(tree: NodeTree) -> None:
    tree.plug("/dev/a", "4:0")
    tree.plug("/dev/b", "240:0")
    tree.plug("/dev/x1", "240:1")
    first = build_resource(
        NAME, build_source("/dev/x1", companions=(build_node_spec("/dev/a"),)), build_source("/dev/[ab]", id="one")
    )
    found = discover(build_config(first, build_resource("b.example/y", build_source("/dev/x1"))), tree.host)
    assert [device.candidates for device in found.devices[NAME]] == [("/dev/b",)]
    assert not found.devices[NAME][0].faults
    assert [device.candidates for device in found.devices["b.example/y"]] == [("/dev/x1",)]
    assert not found.conflicts


def test_policy_globs_are_matched_against_the_symlink_target(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    tree.plug("/dev/y", "240:2")
    tree.plug("/run/node", "240:3")
    tree.link("/dev/x9", "y")
    tree.link("/dev/x8", "/run/node")
    policy = Policy("policy.yaml", allow=(Glob.parse("/dev/x*"),), deny=(Glob.parse("/dev/**/x1"),))
    found = discover(build_config(build_resource(NAME, build_source("/dev/x*"), policy=policy)), tree.host)
    assert [device.id for device in found.devices[NAME]] == ["x0"]
    assert find_reason(found, "/dev/x1") == "refused by 'devices.deny' of policy.yaml: '/dev/**/x1'"
    assert find_reason(found, "/dev/x9") == "refused by 'devices.allow' of policy.yaml, which allows /dev/x*"
    by_default = discover(build_config(build_resource(NAME, build_source("/dev/x*"), policy=DEFAULT_POLICY)), tree.host)
    assert [device.candidates for device in by_default.devices[NAME]] == [("/dev/x0",), ("/dev/x1",), ("/dev/x9",)]
    assert "'devices.allow' of the default policy, which allows /dev/**" in find_reason(by_default, "/dev/x8")


@pytest.mark.root
def test_denied_real_node_is_recognized_by_its_numbers(tree: NodeTree) -> None:
    for path, numbers in {**ALWAYS_DENIED, **DISK_CONTROL}.items():
        tree.mknod(path, *numbers, stat.S_IFCHR)
    for path, numbers in BLOCK.items():
        tree.mknod(path, *numbers, stat.S_IFBLK)
    tree.mknod("/dev/fuse", 10, 229, stat.S_IFCHR)
    (tree.root / ".genplug-stand-ins").unlink()
    found = discover(
        build_config(build_resource(NAME, build_source("/dev/**"), policy=DEFAULT_POLICY)), Host.at(tree.root)
    )
    assert [device.id for device in found.devices[NAME]] == ["fuse"]
    assert not [
        path for path in (*ALWAYS_DENIED, *DISK_CONTROL, *BLOCK) if "refused by" not in find_reason(found, path)
    ]
    assert os.major((tree.root / "dev/mem").stat().st_rdev) == 1
