"""The identity of hardware in the audit log, from the files of a node."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.agent.audit_hardware import MAX_VALUE_CHARACTERS, describe_device, read_hardware
from genplug.agent.audit_recorder import DEVICES_PER_RECORD
from genplug.audit.records import Assignment, Fields, Hardware, Origin, RecordType, cut_text, encode_record
from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.spec.limits import MAX_AUDIT_IDS, MAX_AUDIT_RECORD_BYTES
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules
from tests.support.configs import CONFIG_HEADER
from tests.support.hardware import BLOCK_POLICY, NodeTree

PCI = "/sys/devices/pci0000:00/0000:00:14.0"
USB = f"{PCI}/usb1/1-1"


@pytest.fixture
def tree(tmp_path: Path) -> NodeTree:
    return NodeTree(tmp_path)


def add_usb_adapter(tree: NodeTree, serial: str) -> None:
    tree.plug("/dev/ttyUSB0", "188:0")
    port = f"{USB}/1-1:1.0/ttyUSB0"
    tree.make_directory(f"{port}/tty/ttyUSB0")
    tree.link("/sys/dev/char/188:0", f"{port}/tty/ttyUSB0")
    # The hub has a serial number, too: its PCI address.
    for directory, value in ((f"{PCI}/usb1", "0000:00:14.0"), (USB, serial)):
        tree.write(f"{directory}/idVendor", "0403\n")
        if value:
            tree.write(f"{directory}/serial", f"{value}\n")
    tree.write(f"{PCI}/vendor", "0x8086\n")


def read(tree: NodeTree, source: str, policy: Policy | None = None) -> Hardware:
    config = load_text(CONFIG_HEADER + f"resources: {{example.com/x: {{devices: [{{{source}}}]}}}}\n", "a.yaml", policy)
    inventory = discover(config, tree.host)
    [device] = inventory.devices["example.com/x"]
    [hardware] = read_hardware([(device, inventory.resources["example.com/x"])], tree.host)
    return hardware


def test_usb_adapter_has_its_serial_number_port_and_controller(tree: NodeTree) -> None:
    add_usb_adapter(tree, "FT4Q1A2B")
    hardware = read(tree, "glob: /dev/ttyUSB*")
    assert hardware.attributes == {
        "pci.address": ("0000:00:14.0",),
        "pci.vendor": ("0x8086",),
        "usb.port": ("1-1",),
        "usb.serial": ("FT4Q1A2B",),
    }
    assert (hardware.paths, hardware.numbers) == (("/dev/ttyUSB0",), ("char 188:0",))


def test_usb_adapter_without_a_serial_number_does_not_have_that_of_its_hub(tree: NodeTree) -> None:
    add_usb_adapter(tree, "")
    attributes = read(tree, "glob: /dev/ttyUSB*").attributes
    assert not {"usb.serial", "attr.serial"} & attributes.keys()


def test_controller_has_the_serial_number_of_its_directory_and_the_version_of_its_driver(tree: NodeTree) -> None:
    tree.plug("/dev/nvme0", "239:0")
    function = "/sys/devices/pci0000:00/0000:3b:00.0"
    tree.make_directory(f"{function}/nvme/nvme0")
    tree.link("/sys/dev/char/239:0", f"{function}/nvme/nvme0")
    tree.write(f"{function}/nvme/nvme0/serial", "S5G6NE0M\n")
    tree.make_directory("/sys/bus/pci/drivers/nvme")
    tree.link(f"{function}/driver", "/sys/bus/pci/drivers/nvme")
    tree.write("/sys/module/nvme/version", "1.0\n")
    attributes = read(tree, "glob: /dev/nvme0", BLOCK_POLICY).attributes
    assert attributes["attr.serial"] == ("S5G6NE0M",)
    assert (attributes["driver"], attributes["driverVersion"]) == (("nvme",), ("1.0",))
    assert attributes["pci.address"] == ("0000:3b:00.0",)


def test_custom_attribute_that_identifies_hardware_is_included_and_limited(tree: NodeTree) -> None:
    tree.plug("/dev/gpu0")
    tree.write("/sys/gpu0/uuid", "GPU-" + "1" * 1000)
    tree.write("/sys/gpu0/color", "red")
    attributes = "attributes: {gpuUuid: {path: '/sys/${name}/uuid'}, color: {path: '/sys/${name}/color'}}"
    hardware = read(tree, f"glob: /dev/gpu*, {attributes}, id: '${{gpuUuid}}-${{color}}'", BLOCK_POLICY)
    assert hardware.attributes == {"gpuUuid": ("GPU-" + "1" * (MAX_VALUE_CHARACTERS - 4),)}


@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600"])
def test_record_of_most_devices_with_long_attributes_is_accepted_by_the_reader(tree: NodeTree, character: str) -> None:
    attributes = []
    for number in range(40):
        tree.write(f"/sys/gpu0/serial{number}", "\n".join(f"{index}{character * 300}" for index in range(40)))
        attributes.append(f"serial{number}: {{path: '/sys/${{name}}/serial{number}', all: true, find: '.+'}}")
    tree.plug("/dev/gpu0")
    found = read(
        tree, f"glob: /dev/gpu*, attributes: {{{', '.join(attributes)}}}, id: '${{serial0|count}}'", BLOCK_POLICY
    )
    assert found.paths == ("/dev/gpu0",)
    # A value of 256 characters of 12 bytes exceeds the limit alone.
    assert ("serial0" in found.attributes) is character.isalpha()
    ids = tuple(f"{number:063}" for number in range(MAX_AUDIT_IDS))
    assignment = Assignment("key", "a.io/x", ids, hardware=tuple(replace(found, device=id_) for id_ in ids))
    fields: Fields = {"assignment": assignment.as_json()}
    assert len(encode_record(Origin("node", "1", None), 0.0, RecordType.ALLOCATED, fields)) < MAX_AUDIT_RECORD_BYTES
    entry = {"resource": "a.io/x", "reason": cut_text(3000 * character), "hardware": found.as_json()}
    fields = {"devices": [entry] * DEVICES_PER_RECORD}
    assert len(encode_record(Origin("node", "1", None), 0.0, RecordType.DEVICES_ADDED, fields)) < MAX_AUDIT_RECORD_BYTES


def test_files_that_the_policy_forbids_are_not_read(tree: NodeTree) -> None:
    add_usb_adapter(tree, "FT4Q1A2B")
    hardware = read(tree, "glob: /dev/ttyUSB*", Policy(read=parse_read_rules(("/sys/none/**",))))
    # The address is the name of a directory, which every policy allows.
    assert hardware.attributes == {"pci.address": ("0000:00:14.0",)}


def test_description_without_reading_has_paths_and_numbers(tree: NodeTree) -> None:
    add_usb_adapter(tree, "FT4Q1A2B")
    config = load_text(CONFIG_HEADER + "resources: {example.com/x: {devices: [{glob: /dev/ttyUSB*}]}}\n", "a.yaml")
    [device] = discover(config, tree.host).devices["example.com/x"]
    assert describe_device(device).numbers == ("char 188:0",)
    assert describe_device(device).attributes == {}
