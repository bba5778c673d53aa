"""Which device nodes nobody gets: by the kernel's numbers, whatever they are called, and by the rules of a policy."""

import os
import stat

import pytest

from genplug.hardware.denied_nodes import node_denial_reason
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory, Kind, PathInfo
from genplug.spec.globs import Glob
from genplug.spec.model import CandidateType
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.support.hardware import NodeTree, config, node, resource, source

X = "a.example/x"
EVERYTHING = Policy("policy.yaml", block=True, allow=(Glob.parse("/**"),))

NEVER = {
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
    # A number that is a character device's with another meaning: null is 1:3.
    "/dev/ram3": (1, 3),
}
TO_THE_DISKS = {
    "/dev/mapper/control": (10, 236),
    "/dev/sg0": (21, 0),
    "/dev/raw/raw1": (162, 1),
    "/dev/nvme0": (240, 0),
    "/dev/nvme-fabrics": (10, 122),
    "/dev/ng0n1": (241, 0),
    "/dev/bsg/0:0:0:0": (242, 0),
}
HARMLESS = {
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
}


def char(path: str, numbers: tuple[int, int]) -> PathInfo:
    return PathInfo(path, Kind.CHAR, *numbers)


def reason(inventory: Inventory, path: str) -> str:
    [considered] = [one for one in inventory.outcomes if one.path == path]
    return considered.reason if considered.device is None else ""


@pytest.mark.parametrize(("path", "numbers"), NEVER.items(), ids=NEVER)
def test_what_gives_a_container_the_host_is_given_by_no_policy(path: str, numbers: tuple[int, int]) -> None:
    for policy in (DEFAULT_POLICY, EVERYTHING):
        said = node_denial_reason(char(path, numbers), policy)
        assert said.startswith(
            f"refused by the built-in list, which no policy can change: char {numbers[0]}:{numbers[1]} is "
        )


@pytest.mark.parametrize(("path", "numbers"), BLOCK.items(), ids=BLOCK)
def test_block_devices_are_given_only_where_a_policy_says_so(path: str, numbers: tuple[int, int]) -> None:
    look = PathInfo(path, Kind.BLOCK, *numbers)
    said = f"refused by 'devices.block' of the default policy: block {numbers[0]}:{numbers[1]} is a block device"
    assert node_denial_reason(look, DEFAULT_POLICY).startswith(said)
    assert not node_denial_reason(look, EVERYTHING)


@pytest.mark.parametrize(("path", "numbers"), TO_THE_DISKS.items(), ids=TO_THE_DISKS)
def test_what_reaches_the_disks_without_being_one_counts_as_one(path: str, numbers: tuple[int, int]) -> None:
    assert node_denial_reason(char(path, numbers), DEFAULT_POLICY).startswith(
        "refused by 'devices.block' of the default policy"
    )
    assert not node_denial_reason(char(path, numbers), EVERYTHING)


@pytest.mark.parametrize(("path", "numbers"), HARMLESS.items(), ids=HARMLESS)
def test_what_people_want_to_hand_out_is_allowed_by_default(path: str, numbers: tuple[int, int]) -> None:
    assert not node_denial_reason(char(path, numbers), DEFAULT_POLICY)


def test_another_name_or_a_link_hides_nothing(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB7", "1:1")
    tree.plug("/dev/tty0", "4:0")
    tree.link("/dev/serial/by-id/mine", "../../tty0")
    found = discover(config(resource(X, source("/dev/ttyUSB*", "/dev/serial/by-id/*"))), tree.host)
    assert found.devices == {X: ()}
    assert "char 1:1 is /dev/mem, the memory of the host" in reason(found, "/dev/ttyUSB7")
    assert "char 4:0 is a console of the host" in reason(found, "/dev/serial/by-id/mine")


def test_a_device_that_would_bring_such_a_node_is_left_out_whole_and_the_others_are_not(tree: NodeTree) -> None:
    for number in range(2):
        tree.plug(f"/dev/x{number}", f"240:{number}")
    tree.plug("/dev/mem", "1:1")
    tree.link("/dev/with1", "mem")
    for spec in (
        source("/dev/x*", companions=(node("/dev/with${index}", optional=True),)),
        source("/dev/x*", nodes=(node("${path}"), node("/dev/with${index}", optional=True))),
    ):
        found = discover(config(resource(X, spec)), tree.host)
        assert [device.candidates for device in found.devices[X]] == [("/dev/x0",)]
        assert reason(found, "/dev/x1") == (
            "it includes /dev/with1, refused by the built-in list, which no policy can change: "
            "char 1:1 is /dev/mem, the memory of the host"
        )


def test_what_is_only_looked_at_may_be_anything(tree: NodeTree) -> None:
    tree.plug("/dev/sda", "8:0", kind="block")
    tree.plug("/dev/x", "240:0")
    spec = source("/dev/sda", type=CandidateType.BLOCK, nodes=(node("/dev/x"),))
    found = discover(config(resource(X, spec, policy=DEFAULT_POLICY)), tree.host)
    assert [one.path for device in found.devices[X] for one in device.nodes] == ["/dev/x"]


def test_a_refused_device_takes_no_id_and_no_node_from_another(tree: NodeTree) -> None:
    tree.plug("/dev/a", "4:0")
    tree.plug("/dev/b", "240:0")
    tree.plug("/dev/x1", "240:1")
    first = resource(X, source("/dev/x1", companions=(node("/dev/a"),)), source("/dev/[ab]", id="one"))
    found = discover(config(first, resource("b.example/y", source("/dev/x1"))), tree.host)
    assert [device.candidates for device in found.devices[X]] == [("/dev/b",)]
    assert not found.devices[X][0].faults
    assert [device.candidates for device in found.devices["b.example/y"]] == [("/dev/x1",)]
    assert not found.conflicts


def test_the_globs_of_a_policy_are_compared_with_where_a_link_leads(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/x1", "240:1")
    tree.plug("/dev/y", "240:2")
    tree.plug("/run/node", "240:3")
    tree.link("/dev/x9", "y")
    tree.link("/dev/x8", "/run/node")
    policy = Policy("policy.yaml", allow=(Glob.parse("/dev/x*"),), deny=(Glob.parse("/dev/**/x1"),))
    found = discover(config(resource(X, source("/dev/x*"), policy=policy)), tree.host)
    assert [device.id for device in found.devices[X]] == ["x0"]
    assert reason(found, "/dev/x1") == "refused by 'devices.deny' of policy.yaml: '/dev/**/x1'"
    assert reason(found, "/dev/x9") == "refused by 'devices.allow' of policy.yaml, which allows /dev/x*"
    by_default = discover(config(resource(X, source("/dev/x*"), policy=DEFAULT_POLICY)), tree.host)
    assert [device.candidates for device in by_default.devices[X]] == [("/dev/x0",), ("/dev/x1",), ("/dev/x9",)]
    assert "'devices.allow' of the default policy, which allows /dev/**" in reason(by_default, "/dev/x8")


@pytest.mark.root
def test_real_nodes_are_known_by_their_real_numbers(tree: NodeTree) -> None:
    for path, numbers in {**NEVER, **TO_THE_DISKS}.items():
        tree.mknod(path, *numbers, stat.S_IFCHR)
    for path, numbers in BLOCK.items():
        tree.mknod(path, *numbers, stat.S_IFBLK)
    tree.mknod("/dev/fuse", 10, 229, stat.S_IFCHR)
    (tree.root / ".genplug-stand-ins").unlink()
    found = discover(config(resource(X, source("/dev/**"), policy=DEFAULT_POLICY)), Host.at(tree.root))
    assert [device.id for device in found.devices[X]] == ["fuse"]
    assert not [path for path in (*NEVER, *TO_THE_DISKS, *BLOCK) if "refused by" not in reason(found, path)]
    assert os.major((tree.root / "dev/mem").stat().st_rdev) == 1
