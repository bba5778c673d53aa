"""Numbers with more digits than ``int`` accepts, in files that describe devices."""

from msgspec.structs import replace

from genplug.hardware.discovery import discover
from genplug.spec.policy import DEFAULT_POLICY
from genplug.spec.template import Template
from tests.support.hardware import (
    NAME,
    NodeTree,
    build_config,
    build_resource,
    build_source,
    discover_sources,
    find_reason,
)

DIGITS = "1" * 5000


def plug(tree: NodeTree, file: str, text: str) -> None:
    """Plug /dev/x0 with a file in its directory in /sys."""
    tree.plug("/dev/x0", "240:0")
    tree.write(f"/sys/devices/x0/{file}", text)
    tree.link("/sys/dev/char/240:0", "../../devices/x0")


def test_number_of_slices_with_thousands_of_digits_is_a_fault_of_the_device(tree: NodeTree) -> None:
    plug(tree, "n", DIGITS[:3000])
    resource = replace(build_resource(NAME, build_source("/dev/x0")), slices=Template.parse("${attr.n}${attr.n}"))
    found = discover(build_config(resource), tree.host)
    [device] = found.devices[NAME]
    assert device.slices == 1
    assert device.faults[0].endswith("expected a number from 1 to 1000")


def test_numa_node_with_thousands_of_digits_is_unknown(tree: NodeTree) -> None:
    plug(tree, "numa_node", DIGITS)
    resource = replace(build_resource(NAME, build_source("/dev/x0")), has_topology=True)
    [device] = discover(build_config(resource), tree.host).devices[NAME]
    assert device.numa == ()


def test_driver_with_a_number_of_thousands_of_digits_is_ignored(tree: NodeTree) -> None:
    tree.plug("/dev/a", "240:0")
    tree.write("/proc/devices", f"Character devices:\n{DIGITS} x\n240 megaraid_sas_ioctl\n")
    found = discover_sources(tree, build_source("/dev/a"), policy=DEFAULT_POLICY)
    assert "a node for commands to a disk controller" in find_reason(found, "/dev/a")
