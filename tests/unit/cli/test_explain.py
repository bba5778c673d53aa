"""``genplug plan --explain``: the evaluation of each path, and the file that each attribute comes from."""

import json
from pathlib import Path

import pytest

from genplug.cli.main import main
from genplug.testing.node.file_trees import build_tree

TREE = r"""
/dev/nvidia0 char 195:0
/dev/nvidia1 char 195:1
/dev/nvidia7 char 195:7
/proc/driver/nvidia/gpus/0000:3b:00.0/information = GPU UUID: GPU-0aaa\nDevice Minor: 0
/proc/driver/nvidia/gpus/0000:5e:00.0/information = GPU UUID: GPU-1bbb\nDevice Minor: 1
/sys/bus/pci/devices/0000:3b:00.0 -> ../../../devices/pci0000:3a/0000:3b:00.0
/sys/bus/pci/devices/0000:5e:00.0 -> ../../../devices/pci0000:5d/0000:5e:00.0
/sys/devices/pci0000:3a/0000:3b:00.0/device = 0x20b0
/sys/devices/pci0000:5d/0000:5e:00.0/device = 0x15f8
"""
CONFIG = r"""
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  nvidia.com/a100:
    topology: none
    devices:
    - glob: /dev/nvidia[0-9]*
      attributes:
        bdf: {path: /proc/driver/nvidia/gpus/*/information, find: 'Device Minor:\s*${minor}\b', dir: true}
        uuid: {path: "/proc/driver/nvidia/gpus/${bdf}/information", find: 'GPU UUID:\s*(\S+)'}
      sysfs: /sys/bus/pci/devices/${bdf}
      where: {pci.device: "20b*"}
      id: ${uuid}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    build_tree(TREE, tmp_path / "root")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return ["plan", "--config", str(tmp_path / "c.yaml"), "--root", str(tmp_path / "root"), "--explain"]


def test_each_path_has_a_paragraph_with_its_outcome_conditions_and_attributes(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "-o", "wide"]) == 0
    paragraphs = {part.split(":")[0]: part for part in capsys.readouterr().out.split("\n\n")}
    information, sysfs = "/proc/driver/nvidia/gpus/{}/information", "/sys/devices/pci0000:{}/device"
    taken = paragraphs["/dev/nvidia0"]
    assert "/dev/nvidia0: device gpu-0aaa-" in taken
    assert "found by '/dev/nvidia[0-9]*'" in taken
    assert f"c.yaml:13:15): '0x20b0'   <- {sysfs.format('3a/0000:3b:00.0')}" in taken
    assert f"uuid: 'GPU-0aaa'   <- {information.format('0000:3b:00.0')}" in taken
    other = paragraphs["/dev/nvidia1"]
    assert "/dev/nvidia1: left out: where: pci.device is '0x15f8', expected 20b*" in other
    assert f"bdf: '0000:5e:00.0'   <- {information.format('0000:5e:00.0')}" in other
    # The attribute of the condition depends on another attribute, which does not exist.
    without = paragraphs["/dev/nvidia7"]
    assert "  failed: where pci.device: 20b* (" in without
    assert "c.yaml:13:15): does not exist\n" in without
    assert "  bdf: does not exist\n" in without


def test_lines_are_at_most_120_columns_wide_unless_the_output_is_wide(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.replace('"20b*"', "[" + ", ".join(f'"20b{n}"' for n in range(1, 10)) + "]"))
    assert main(command) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
    assert main([*command, "-o", "wide"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) > 120


def test_document_has_the_same_facts(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-o", "json"]) == 0
    explanations = {item["path"]: item for item in json.loads(capsys.readouterr().out)["explanations"]}
    assert [check["passed"] for check in explanations["/dev/nvidia0"]["checks"]] == [True]
    assert explanations["/dev/nvidia1"]["checks"][0]["values"] == ["0x15f8"]
    attributes = {item["name"]: item for item in explanations["/dev/nvidia0"]["attributes"]}
    assert attributes["uuid"] == {
        "name": "uuid",
        "values": ["GPU-0aaa"],
        "file": "/proc/driver/nvidia/gpus/0000:3b:00.0/information",
    }
    assert "numaNode" not in attributes
