"""``genplug run``: options, environment variables, and errors in them."""

import argparse
import socket
import subprocess
import sys

import pytest

from genplug.cli import run
from genplug.cli.main import main
from genplug.hardware.host import DEFAULT_CDI_DIRS
from genplug.testing.node.fake_node import FakeNode


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="genplug run")
    run.configure(parser)
    return parser.parse_args(arguments)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "CONFIG",
        "KUBELET_DIR",
        "DEVICE_PLUGINS_DIR",
        "POD_RESOURCES_DIR",
        "CDI_SEARCH_DIRS",
        "ROOT",
        "NODE_NAME",
        "LISTEN",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "AUDIT_DIR",
        "AUDIT_MAX_SIZE",
        "AUDIT_KEEP",
        "AUDIT_MAX_AGE",
        "AUDIT_FSYNC",
        "AUDIT_REQUIRED",
    ):
        monkeypatch.delenv(f"GENPLUG_{name}", raising=False)
    monkeypatch.delenv("NODE_NAME", raising=False)


def test_every_option_can_be_set_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CONFIG": "/a:/b",
        "KUBELET_DIR": "/k",
        "DEVICE_PLUGINS_DIR": "/d",
        "POD_RESOURCES_DIR": "/p",
        "CDI_SEARCH_DIRS": "/etc/cdi/:/opt/cdi",
        "ROOT": "/host",
        "NODE_NAME": "node-a",
        "LISTEN": ":9808",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
    }.items():
        monkeypatch.setenv(f"GENPLUG_{name}", value)
    arguments = parse()
    assert (arguments.kubelet_dir, arguments.root, arguments.node_name) == ("/k", "/host", "node-a")
    assert (arguments.device_plugins_dir, arguments.pod_resources_dir) == ("/d", "/p")
    assert arguments.cdi_search_dirs == ("/etc/cdi", "/opt/cdi")
    assert (arguments.listen, arguments.log_format, arguments.log_level) == (("", 9808), "json", "debug")
    assert arguments.config is None


def test_cdi_files_are_looked_up_in_the_directories_of_the_runtimes_by_default() -> None:
    assert parse("--config", "/a").cdi_search_dirs == DEFAULT_CDI_DIRS


def test_option_overrides_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPLUG_ROOT", "/host")
    monkeypatch.setenv("GENPLUG_CONFIG", "/a")
    arguments = parse("--root", "/other", "--config", "/b", "/c", "--config", "/d")
    assert arguments.root == "/other"
    assert arguments.config == ["/b", "/c", "/d"]


def test_node_name_defaults_to_the_variable_of_the_downward_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-b")
    assert parse("--config", "/a").node_name == "node-b"


def test_invalid_value_of_a_variable_is_a_usage_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENPLUG_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as exit_:
        parse("--config", "/a")
    assert exit_.value.code == 2
    assert "GENPLUG_LOG_LEVEL: expected one of debug, info, warning, error, found 'loud'" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["9808", "localhost", "localhost:99999", "host:port"])
def test_invalid_address_is_a_usage_error_with_an_example(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = f"argument --listen: expected HOST:PORT, for example 127.0.0.1:9808, found {address!r}"
    with pytest.raises(SystemExit) as exit_:
        parse("--config", "/a", "--listen", address)
    assert exit_.value.code == 2
    assert error in capsys.readouterr().err
    monkeypatch.setenv("GENPLUG_LISTEN", address)
    with pytest.raises(SystemExit) as exit_:
        parse("--config", "/a")
    assert exit_.value.code == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "address"), [("[::1]:9808", ("::1", 9808)), (":0", ("", 0)), ("host:9808", ("host", 9808))]
)
def test_address_has_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse("--config", "/a", "--listen", text).listen == address


def test_address_that_is_in_use_is_a_runtime_error(node: FakeNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "genplug", "run", "--config", str(node.write_config("")), "--listen", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"genplug run: --listen {address}: Address already in use")


NOT_NEEDED = (
    "_hashlib",
    "bz2",
    "ctypes.util",
    "difflib",
    "genplug.agent.audit_recorder",
    "genplug.health.monitor",
    "genplug.observe.http",
    "jsonschema",
    "lzma",
    "prometheus_client",
    "secrets",
    "shutil",
    "ssl",
    "tempfile",
    "watchdog.events",
    "watchdog.observers",
)
"""Modules that cost time before the first list, or memory, and that an agent without options does not use."""


def test_start_of_the_agent_imports_only_what_it_uses() -> None:
    script = (
        "import sys; from genplug.cli.run import import_serving; import_serving(); print(*sys.modules)\n"
        # Libraries can still import the modules.
        "import ssl, _hashlib, watchdog.observers, ctypes.util\n"
        "assert ssl.OPENSSL_VERSION and watchdog.observers.Observer and ctypes.util.find_library\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "watchdog.observers.inotify_c" in loaded
    assert loaded.isdisjoint(NOT_NEEDED)


def test_unknown_command_is_a_usage_error_that_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["rum"])
    assert exit_.value.code == 2
    assert "validate" in capsys.readouterr().err


def test_audit_options_have_sizes_and_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = parse("--config", "/a")
    assert (defaults.audit_dir, defaults.audit_max_size, defaults.audit_max_age) == (None, 10 << 20, 90 * 86400)
    assert (defaults.audit_keep, defaults.audit_fsync, defaults.audit_required) == (10, "interval", "no")
    monkeypatch.setenv("GENPLUG_AUDIT_MAX_SIZE", "1Gi")
    monkeypatch.setenv("GENPLUG_AUDIT_MAX_AGE", "36h")
    monkeypatch.setenv("GENPLUG_AUDIT_DIR", "/var/log/genplug")
    arguments = parse("--config", "/a", "--audit-keep", "3", "--audit-fsync", "always", "--audit-required", "yes")
    assert (arguments.audit_dir, arguments.audit_max_size) == ("/var/log/genplug", 1 << 30)
    assert (arguments.audit_max_age, arguments.audit_keep) == (36 * 3600, 3)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--audit-max-size", "512Ki", "expected at least 1Mi"),
        ("--audit-max-size", "10MB", "expected a size such as 10Mi"),
        ("--audit-max-age", "90", "expected a period such as 90d"),
        ("--audit-max-age", "59m", "expected at least 1h"),
        ("--audit-keep", "1", "expected a number from 2 to 1000"),
    ],
)
def test_wrong_value_of_an_audit_option_is_a_usage_error(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--config", "/a", option, value)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_options_of_dra_have_defaults_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = parse("--config", "/a")
    assert defaults.dra_driver == "genplug.io"
    assert defaults.service_account_dir == "/var/run/secrets/kubernetes.io/serviceaccount"
    monkeypatch.setenv("GENPLUG_DRA_DRIVER", "dra.example.com")
    monkeypatch.setenv("GENPLUG_SERVICE_ACCOUNT_DIR", "/account")
    arguments = parse("--config", "/a")
    assert (arguments.dra_driver, arguments.service_account_dir) == ("dra.example.com", "/account")


@pytest.mark.parametrize("name", ["", "Example.com", "a/b", f"{'a' * 60}.com", "resource.kubernetes.io"])
def test_wrong_name_of_the_driver_is_a_usage_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--config", "/a", "--dra-driver", name)
    assert caught.value.code == 2
    message = "is reserved for Kubernetes" if name == "resource.kubernetes.io" else "expected a DNS name of at most 63"
    assert message in capsys.readouterr().err
