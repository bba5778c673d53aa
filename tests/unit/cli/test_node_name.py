"""``--node-name`` and its environment variables: the file of the node and ``${node.name}`` always agree."""

import json
import tarfile
from pathlib import Path

import pytest

from genplug.cli.main import main
from genplug.cli.options import NODE_NAME_VARIABLES
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import CONFIG_HEADER

COMMON = CONFIG_HEADER + 'resources:\n  a.io/x: {devices: [{glob: /dev/x0}], allocate: {env: {NODE: "${node.name}"}}}\n'
FOR_NODE = CONFIG_HEADER + (
    "resources:\n  a.io/NAME:\n"
    "    devices: [{glob: /dev/NAME*, attributes: {model: {path: /sys/NAME}}, where: {model: m}}]\n"
)
TREE = """\
/dev/x0 char 240:0
/dev/n1 char 240:1
/dev/n2 char 240:2
/sys/n1 = m
/sys/n2 = m
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in NODE_NAME_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    build_tree(TREE, Path("root"))
    Path("config").mkdir()
    Path("config/common.yaml").write_text(COMMON)
    for name in ("n1", "n2"):
        Path(f"config/node.{name}.yaml").write_text(FOR_NODE.replace("NAME", name))


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[list[str], str]:
    """Return the resources of the plan, and the environment variable that has the name of the node."""
    command = ["plan", "--config", "config", "--root", "root", *flags]
    assert main([*command, "-o", "json"]) == 0
    resources = [resource["name"] for resource in json.loads(capsys.readouterr().out)["resources"]]
    assert main([*command, "--allocate", "a.io/x=1"]) == 0
    return resources, json.loads(capsys.readouterr().out)["containers"][0]["envs"]["NODE"]


@pytest.mark.parametrize("variable", NODE_NAME_VARIABLES)
def test_plan_uses_the_node_name_of_the_environment_for_files_and_templates(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "n1")
    assert planned(capsys) == (["a.io/x", "a.io/n1"], "n1")
    assert planned(capsys, "--node-name", "n2") == (["a.io/x", "a.io/n2"], "n2")


def test_capture_uses_the_node_name_of_the_environment_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")
    assert main(["capture", "-o", "node.tar.gz", "--config", "config", "--root", "root"]) == 0
    with tarfile.open("node.tar.gz") as archive:
        files = set(archive.getnames())
    assert "sys/n1" in files
    assert "sys/n2" not in files


def test_validate_ignores_the_node_name_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")
    assert main(["validate", "config"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "config/common.yaml",
        "config/common.yaml, config/node.n1.yaml",
        "config/common.yaml, config/node.n2.yaml",
    ]
