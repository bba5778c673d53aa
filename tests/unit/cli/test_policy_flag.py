"""``--policy`` and ``GENPLUG_POLICY`` of all commands that have them."""

import argparse
import json
from pathlib import Path

import pytest

from genplug.cli import run
from genplug.cli.main import main
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER

CONFIG = CONFIG_HEADER + (
    "resources:\n  a.io/x:\n    devices: [{glob: /dev/x*}]\n"
    "    allocate: {mounts: [{hostPath: /opt, containerPath: /opt}]}\n"
)
POLICY = (
    "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nmounts: {allow: [/opt]}\ndevices: {deny: [/dev/x1]}\n"
)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENPLUG_POLICY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CONFIG)
    Path("policy.yaml").write_text(POLICY)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    return parser.parse_args(["--config", "c.yaml", *arguments])


def test_run_takes_the_policy_from_the_option_or_else_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse().policy is None
    monkeypatch.setenv("GENPLUG_POLICY", "/from/variable")
    assert parse().policy == Path("/from/variable")
    assert parse("--policy", "/from/flag").policy == Path("/from/flag")


def test_validate_without_a_policy_rejects_mounts_and_suggests_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "c.yaml"]) == 78
    printed = capsys.readouterr().err
    assert "c.yaml:6:36: error[GP019]" in printed
    assert "pass --policy FILE" in printed
    assert main(["validate", "c.yaml", "--policy", "policy.yaml"]) == 0
    monkeypatch.setenv("GENPLUG_POLICY", "policy.yaml")
    assert main(["validate", "c.yaml"]) == 0


@pytest.mark.parametrize("command", [["validate", "c.yaml"], ["plan", "--config", "c.yaml"]])
def test_errors_of_the_policy_and_of_the_configuration_are_printed_together(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("policy.yaml").write_text(POLICY.replace("mounts", "mount"))
    Path("c.yaml").write_text(CONFIG.replace("glob", "golb"))
    assert main([*command, "--policy", "policy.yaml"]) == 78
    printed = capsys.readouterr().err
    assert "policy.yaml:3:1: error[GP006]: unknown key 'mount'" in printed
    assert "c.yaml:5:16: error[GP006]: unknown key 'golb'" in printed
    assert "GP019" not in printed


def test_validate_checks_a_policy_in_a_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    def manifest(name: str, text: str) -> str:
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        return f"---\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  {name}.yaml: |\n{indented}"

    Path("all.yaml").write_text(manifest("config", CONFIG_HEADER + "resources: {}\n") + manifest("policy", POLICY))
    assert main(["validate", "all.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "all.yaml[config/config.yaml]: valid, 1 file, 0 resources",
        "all.yaml[policy/policy.yaml]: valid policy",
    ]
    assert main(["validate", "all.yaml", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["valid"]
    assert len(document["configurations"]) == 1


def test_plan_shows_the_rule_that_rejects_a_device(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        node.plug(f"/dev/x{number}", major=240, minor=number)
    node.plug("/dev/xm", major=1, minor=1)
    node.write("/opt/lib", "")
    flags = ["--config", "c.yaml", "--policy", "policy.yaml", "--root", str(node.root)]
    assert main(["plan", *flags, "-o", "wide"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["a.io/x", "/dev/x1", "refused by 'devices.deny' of policy.yaml: '/dev/x1'"] in lines
    (built_in,) = [line[2] for line in lines if line[:2] == ["a.io/x", "/dev/xm"]]
    assert built_in.startswith("refused by the built-in list: char 1:1")
    assert main(["plan", *flags, "--allocate", "a.io/x=1"]) == 0
    (given,) = json.loads(capsys.readouterr().out)["containers"]
    assert [mount["hostPath"] for mount in given["mounts"]] == ["/opt"]
