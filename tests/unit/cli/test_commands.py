"""The ``genplug`` command itself: what it lists, what it refuses, and that asking for help costs nothing."""

import subprocess
import sys

import pytest

from genplug import __version__
from genplug.cli.main import COMMANDS, main

HEAVY = {"asyncio", "attr", "grpc", "google.protobuf", "json", "jsonschema", "prometheus_client", "re2", "yaml"}


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys)
    for name, does in COMMANDS.items():
        assert name in text
        assert " ".join(does.split()[:4]) in " ".join(text.split())
    assert "78 invalid configuration" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_description_and_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    usage, _, rest = helped(capsys, command).partition("\n\n")
    assert usage.startswith(f"usage: genplug {command}")
    assert f"genplug {command}" in rest


@pytest.mark.parametrize("arguments", [["--help"], *([one, "--help"] for one in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_that_only_the_work_needs(arguments: list[str]) -> None:
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


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"genplug {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["--frobnicate"], ["schema", "--frobnicate"], ["plan"]])
def test_wrong_usage_is_told_on_stderr_and_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: genplug")


def test_a_reader_who_leaves_early_gets_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "genplug", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as genplug:
        assert genplug.stdout is not None
        assert genplug.stderr is not None
        genplug.stdout.close()
        assert genplug.stderr.read() == b""
        assert genplug.wait() == 0
