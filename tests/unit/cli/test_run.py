"""``genplug run``: flags, environment, and what a wrong one gets."""

import argparse

import pytest

from genplug.cli import run
from genplug.cli.main import main


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="genplug run")
    run.configure(parser)
    return parser.parse_args(arguments)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "KUBELET_DIR", "ROOT", "NODE_NAME", "LISTEN", "LOG_FORMAT", "LOG_LEVEL"):
        monkeypatch.delenv(f"GENPLUG_{name}", raising=False)
    monkeypatch.delenv("NODE_NAME", raising=False)


def test_every_flag_can_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CONFIG": "/a:/b",
        "KUBELET_DIR": "/k",
        "ROOT": "/host",
        "NODE_NAME": "node-a",
        "LISTEN": ":9808",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
    }.items():
        monkeypatch.setenv(f"GENPLUG_{name}", value)
    arguments = parsed()
    assert (arguments.kubelet_dir, arguments.root, arguments.node_name) == ("/k", "/host", "node-a")
    assert (arguments.listen, arguments.log_format, arguments.log_level) == (":9808", "json", "debug")
    assert arguments.config is None


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPLUG_ROOT", "/host")
    monkeypatch.setenv("GENPLUG_CONFIG", "/a")
    arguments = parsed("--root", "/other", "--config", "/b", "/c", "--config", "/d")
    assert arguments.root == "/other"
    assert arguments.config == ["/b", "/c", "/d"]


def test_the_node_name_comes_from_the_downward_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-b")
    assert parsed("--config", "/a").node_name == "node-b"


def test_a_variable_that_is_no_choice_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENPLUG_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as exit_:
        parsed("--config", "/a")
    assert exit_.value.code == 2
    assert "GENPLUG_LOG_LEVEL=loud: choose from debug, info" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["9808", "localhost", "localhost:99999", "host:port"])
def test_a_wrong_address_is_refused_with_a_right_one(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", "/a", "--listen", address]) == 2
    assert "write HOST:PORT" in capsys.readouterr().err


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["rum"])
    assert exit_.value.code == 2
    assert "validate" in capsys.readouterr().err
