"""``genplug validate --privileges``: the needs of a configuration as text and as JSON, and its exit codes."""

import json
from pathlib import Path

import pytest

from genplug.cli.main import main
from tests.support.configs import CONFIG_HEADER
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
CONFIG = f"""\
{CONFIG_HEADER}\
defaults:
  health:
    probes:
    - kernelLog: {{fail: Xid}}
    - uevent: {{fail: x}}
resources:
  example.com/gpu:
    devices:
    - glob: /dev/gpu*
      attributes: {{serial: {{path: "/etc/serials/${{name}}"}}}}
    allocate:
      mounts: [{{hostPath: /usr/local/gpu, containerPath: /usr/local/gpu}}]
  example.com/fpga:
    devices: [{{glob: /dev/fpga*}}]
    health: {{probes: [{{open: {{}}}}, {{exec: {{command: [/opt/check]}}}}]}}
"""
PLAIN = f"{CONFIG_HEADER}resources: {{example.com/x: {{devices: [{{glob: /dev/x*}}]}}}}\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("genplug.yaml").write_text(CONFIG)
    Path("plain.yaml").write_text(PLAIN)
    return tmp_path


def test_text_names_each_need_with_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--privileges", "genplug.yaml"]) == 0
    check_golden(GOLDEN / "privileges.txt", capsys.readouterr().out)


def test_json_has_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--privileges", "genplug.yaml", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check_output(document)
    check_golden(GOLDEN / "privileges.json", json.dumps(document, indent=2) + "\n")


def test_configuration_without_needs_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--privileges", "plain.yaml"]) == 0
    text = "plain.yaml: the agent needs nothing beyond the defaults of the chart and of the systemd unit\n"
    assert capsys.readouterr() == (text, "")


def test_configuration_is_checked_against_a_policy_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    Path("policy.yaml").write_text("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nopenProbe: true\n")
    assert main(["validate", "--privileges", "genplug.yaml", "--policy", "policy.yaml"]) == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "running '/opt/check' is refused by 'exec.allow'" in printed.err


@pytest.mark.parametrize("output", ["text", "json"])
def test_invalid_configuration_is_printed_as_without_the_option(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text(PLAIN.replace("glob", "globe"))
    assert main(["validate", "bad.yaml", "-o", output]) == 78
    expected = capsys.readouterr()
    assert main(["validate", "--privileges", "bad.yaml", "-o", output]) == 78
    assert capsys.readouterr() == expected


@pytest.mark.parametrize("output", ["sarif", "github"])
def test_formats_of_problems_are_a_usage_error(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["validate", "--privileges", "plain.yaml", "-o", output])
    assert f"--privileges: expected -o text or json, found -o {output}" in capsys.readouterr().err


def test_pools_of_values_have_their_own_needs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("values.yaml").write_text("""\
config:
  resources:
    example.com/x: {devices: [{glob: /dev/x*}]}
pools:
  lab:
    config:
      resources:
        example.com/x:
          health: {probes: [{kernelLog: {fail: x}}]}
""")
    assert main(["validate", "--privileges", "--values", "values.yaml"]) == 0
    default, lab = capsys.readouterr().out.split("\n\n", 1)
    assert default.endswith(
        "pool default: the agent needs nothing beyond the defaults of the chart and of the systemd unit"
    )
    assert "pool lab: the agent needs more than the defaults of the chart" in lab
    assert "\n  values.yaml:9:30: example.com/x\n" in lab
