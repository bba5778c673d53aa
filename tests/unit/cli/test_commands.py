"""The ``genplug`` command: its help, usage errors, and the modules that help imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genplug import __version__
from genplug.cli.main import COMMANDS, main
from tests.support.configs import CONFIG_HEADER

HEAVY = {"asyncio", "attr", "grpc", "google.protobuf", "json", "jsonschema", "prometheus_client", "re2", "yaml"}


def get_help(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    text = get_help(capsys)
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in " ".join(text.split())
    assert "78 invalid configuration" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_description_and_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    usage, _, rest = get_help(capsys, command).partition("\n\n")
    assert usage.startswith(f"usage: genplug {command}")
    assert f"genplug {command}" in rest


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_no_large_module(arguments: list[str]) -> None:
    script = f"""
import sys
from genplug.cli.main import main
try:
    main({arguments!r})
finally:
    print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stderr))
    # `plan` and `validate` print JSON; the module is small.
    assert loaded <= {"json"}


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"genplug {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["--frobnicate"], ["schema", "--frobnicate"], ["plan"]])
def test_usage_error_is_printed_to_stderr_and_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: genplug")


DIGITS = "1" * 5000
"""More digits than ``int`` accepts."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--allocate", f"a.io/x={DIGITS}", "config.yaml"],
        ["run", "--listen", f"127.0.0.1:{DIGITS}"],
        *(["run", option, DIGITS] for option in ("--audit-keep", "--audit-max-size", "--audit-max-age")),
        ["run", "--audit-max-size", f"{DIGITS}Mi"],
        ["run", "--audit-max-age", f"{DIGITS}d"],
        ["status", "--address", f"127.0.0.1:{DIGITS}"],
        *(["status", option, f"{DIGITS}s"] for option in ("--timeout", "--interval")),
        ["audit", "--since", f"{DIGITS}d"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_number_of_thousands_of_digits_is_a_short_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert ": expected a " in printed or ": expected HOST:PORT" in printed
    assert len(printed) < 2000


def test_closed_stdout_ends_the_command_without_a_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "genplug", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as genplug:
        assert genplug.stdout is not None
        assert genplug.stderr is not None
        genplug.stdout.close()
        assert genplug.stderr.read() == b""
        assert genplug.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["validate", "invalid.yaml"], 78),
        (["validate", "invalid.yaml", "-o", "json"], 78),
        (["plan", "--config", "invalid.yaml"], 78),
        (["plan", "--config", "valid.yaml", "--allocate", "example.com/none=1"], 1),
        (["status", "--address", "127.0.0.1:1"], 1),
        (["init", "frobnicate"], 2),
        (["validate", "valid.yaml"], 0),
        (["schema"], 0),
    ],
    ids=str,
)
def test_exit_code_is_kept_when_the_reader_of_the_output_has_exited(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    (tmp_path / "valid.yaml").write_text(f"{CONFIG_HEADER}resources: {{}}\n")
    (tmp_path / "invalid.yaml").write_text(f"{CONFIG_HEADER}resources: {{x: 1}}\n")
    command = [sys.executable, "-m", "genplug", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=writer, cwd=tmp_path, check=False)
    finally:
        os.close(writer)
    assert done.returncode == code
