"""``genplug convert``: output, policy file, summary and exit codes."""

import io
import json
from pathlib import Path

import pytest

from genplug.cli.main import main
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
CONFIG = """\
domain: lab.example
devices:
- name: firmware
  groups:
  - cuont: 2
    paths:
    - {path: /dev/fpga0, permissions: rw}
    - {path: /srv/firmware, type: Mount, mountPath: /firmware, readOnly: true}
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("directory")
def test_document_has_configuration_policy_and_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "config.yaml", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check_output(document)
    check_golden(GOLDEN / "conversion.json", json.dumps(document, indent=2) + "\n")


def test_policy_is_written_and_makes_the_configuration_valid(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "config.yaml", "--policy-output", "policy.yaml"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "genplug convert: policy: policy.yaml; pass '--policy policy.yaml' to validate, plan and run",
        (
            "genplug convert: converted 1 resource from generic-device-plugin, 1 thing needs attention; "
            "see the comments with 'Not converted' and 'Unknown key'"
        ),
    ]
    (directory / "genplug.yaml").write_text(printed.out)
    assert main(["validate", "genplug.yaml"]) == 78
    assert main(["validate", "genplug.yaml", "--policy", "policy.yaml"]) == 0
    assert main(["convert", "config.yaml", "--policy-output", "policy.yaml"]) == 1
    assert "is not overwritten" in capsys.readouterr().err


@pytest.mark.usefixtures("directory")
def test_strict_is_an_exit_code_if_something_is_not_expressed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "config.yaml", "--strict"]) == 3
    Path("fuse.yaml").write_text("name: fuse\ngroups: [{paths: [{path: /dev/fuse}]}]\n")
    assert main(["convert", "fuse.yaml", "--strict", "--policy-output", "policy.yaml"]) == 0
    assert "policy.yaml is not created: the default policy allows the configuration" in capsys.readouterr().err
    assert not Path("policy.yaml").exists()


def test_standard_input_is_converted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"- {devicematch: ^kvm$, nummaxdevices: 9}\n")))
    assert main(["convert", "--from", "smarter", "-"]) == 0
    assert "smarter-devices/kvm:" in capsys.readouterr().out


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.yaml"], "missing.yaml:1:1: error[GP001]: no such file or directory"),
        (["--from", "akri", "config.yaml"], "config.yaml:1:1: error[GP004]: found no configuration of Akri"),
    ],
)
def test_file_that_cannot_be_converted_is_an_error_on_stderr(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *arguments]) == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(expected)
