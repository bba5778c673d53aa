"""The JSON documents of commands, each with one example in ``golden/``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genplug.cli.main import main
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import format_cdi_spec
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  example.com/camera:
    devices:
    - glob: /dev/video*
      exclude: [/dev/video9]
      attributes: {stream: {path: "/sys/class/video4linux/${name}/index"}}
      where: {stream: "0"}
      with: [/dev/video-control]
    allocate:
      env: {CAMERAS: "${path}"}
      annotations: {example.com/cameras: "${name}"}
      cdiDevices: ["example.com/camera=${name}"]
      mounts: [{hostPath: /opt/firmware, containerPath: /firmware}]
  example.com/serial:
    devices: [{glob: /dev/ttyUSB*}]
"""
POLICY = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nmounts: {allow: [/opt/**]}\n"
POLICY += "annotations: {allow: [example.com/*]}\ncdi: {allow: [example.com/camera=*]}\n"
INVALID = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  example.com/camera:
    devces: [{glob: /dev/video*}]
  example.com/camera: {}
"""
Print = Callable[..., dict[str, Any]]


@pytest.fixture
def print_document(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Print:
    """Return a function that runs a command on a node with cameras, and returns the document that it prints."""
    for minor, name in enumerate(("video0", "video1", "video9", "video-control")):
        node.plug(f"/dev/{name}", major=240, minor=minor)
    for name, index in {"video0": "0", "video1": "1"}.items():
        node.write(f"/sys/class/video4linux/{name}/index", f"{index}\n")
    node.write("/opt/firmware", "")
    node.write("/etc/cdi/camera.json", format_cdi_spec("example.com/camera", "video0", "video1"))
    monkeypatch.chdir(tmp_path)
    Path("genplug.yaml").write_text(CONFIG)
    Path("policy.yaml").write_text(POLICY)

    def run(command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        assert main([command, *arguments, "--policy", "policy.yaml"]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        check_output(document)
        return document

    return run


def test_plan_prints_the_documented_keys(print_document: Print, node: FakeNode) -> None:
    document = print_document("plan", "--config", "genplug.yaml", "--root", str(node.root), "--explain", "-o", "json")
    check_golden(GOLDEN / "plan.json", json.dumps(document, indent=2) + "\n")


def test_plan_prints_conflicts(print_document: Print, node: FakeNode) -> None:
    text = CONFIG + "  example.com/second:\n    devices: [{glob: /dev/video0}]\n"
    Path("genplug.yaml").write_text(text)
    document = print_document("plan", "--config", "genplug.yaml", "--root", str(node.root), "-o", "json")
    (conflict,) = document["conflicts"]
    assert "/dev/video0" in conflict


def test_plan_prints_the_documented_keys_of_an_allocation(print_document: Print, node: FakeNode) -> None:
    requests = ("--allocate", "example.com/camera=1", "--allocate", "example.com/serial=1")
    document = print_document("plan", "--config", "genplug.yaml", "--root", str(node.root), *requests, code=1)
    check_golden(GOLDEN / "allocation.json", json.dumps(document, indent=2) + "\n")


def test_validate_prints_the_documented_keys(print_document: Print) -> None:
    assert print_document("validate", "genplug.yaml", "-o", "json")["valid"]
    Path("genplug.yaml").write_text(INVALID)
    document = print_document("validate", "genplug.yaml", "-o", "json", code=78)
    check_golden(GOLDEN / "validation.json", json.dumps(document, indent=2) + "\n")
