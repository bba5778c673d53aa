"""``genplug doctor``: its output, its exit codes, and the options of the agent in whose container it runs."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from genplug.cli.doctor import parse_agent_arguments
from genplug.cli.main import main
from genplug.doctor.checks import CHECKS
from genplug.testing.node.fake_node import FakeNode
from tests.support.outputs import check_output

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
"""
MACHINE_CHECKS = ("--check", "kubelet-socket", "--check", "devices", "--check", "configuration")


async def run_doctor(node: FakeNode, *arguments: str) -> int:
    config = node.write_config(CONFIG)
    directories = ("--root", str(node.root), "--kubelet-dir", str(node.kubelet_dir), "--config", str(config))
    return await asyncio.to_thread(main, ["doctor", *directories, *arguments])


async def test_machine_that_is_ready_has_exit_code_0_and_hides_what_is_ok(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    await node.kubelet.start()
    node.plug("/dev/x0")
    assert await run_doctor(node, *MACHINE_CHECKS, "--node-name", "node-1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" on node-1: ready (3 ok)")
    assert lines[2] == "ok: kubelet-socket, devices, configuration"
    assert await run_doctor(node, *MACHINE_CHECKS, "-o", "wide") == 0
    assert "configuration    ok       valid; resources: 1" in capsys.readouterr().out


async def test_machine_that_is_not_ready_has_exit_code_4_and_states_what_to_do(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run_doctor(node) == 4
    out = capsys.readouterr().out
    assert "NOT READY (" in out.splitlines()[0]
    assert all(len(line) <= 120 for line in out.splitlines())
    words = " ".join(out.split())
    assert "kubelet.sock does not exist" in words
    assert "why: The agent registers each resource with the kubelet on this socket." in words
    assert "do: check that the kubelet runs" in words
    # Errors come before warnings.
    assert words.index(" error ") < words.index("devices warning a.io/x has no device")


async def test_warnings_have_exit_code_3_with_strict(node: FakeNode) -> None:
    await node.kubelet.start()
    assert await run_doctor(node, *MACHINE_CHECKS) == 0
    assert await run_doctor(node, *MACHINE_CHECKS, "--strict") == 3
    node.plug("/dev/x0")
    assert await run_doctor(node, *MACHINE_CHECKS, "--strict") == 0


async def test_output_can_be_json_or_yaml(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run_doctor(node, "-o", "json") == 4
    document = json.loads(capsys.readouterr().out)
    check_output(document)
    assert [finding["check"] for finding in document["findings"]] == [check.name for check in CHECKS]
    assert await run_doctor(node, "-o", "yaml", "--check", "kubelet-socket") == 4
    (finding,) = yaml.safe_load(capsys.readouterr().out)["findings"]
    assert finding in document["findings"]


def test_list_prints_the_names_of_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--list"]) == 0
    out = capsys.readouterr().out
    assert {check.name for check in CHECKS} <= set(out.split())
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_unknown_check_is_a_usage_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--check", "kubelet-soket"]) == 2
    assert "no check has the name 'kubelet-soket'; did you mean 'kubelet-socket'?" in capsys.readouterr().err


async def test_archive_of_a_node_is_checked_as_far_as_it_has_facts(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/x0")
    config, archive = str(node.write_config(CONFIG)), str(tmp_path / "node.tar.gz")
    assert main(["capture", "-o", archive, "--config", config, "--root", str(node.root)]) == 0
    assert main(["doctor", "--config", config, "--root", archive, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    severities = {finding["check"]: finding["severity"] for finding in document["findings"]}
    assert severities["devices"] == "ok"
    assert severities["kubelet-socket"] == severities["inotify-watches"] == "unknown"
    assert document["ready"] is True


def test_options_of_the_agent_are_those_of_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPLUG_KUBELET_DIR", "/data/kubelet")
    found = parse_agent_arguments(["--config", "/etc/genplug", "--root=/host", "--listen", ":9808", ""])
    assert found is not None
    assert (found.config, found.root, found.kubelet_dir) == (["/etc/genplug"], "/host", "/data/kubelet")


def test_agent_of_another_version_has_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_agent_arguments(["--config", "/etc/genplug", "--unknown"]) is None
    assert capsys.readouterr().err == ""


IN_A_PID_NAMESPACE = """
mount -t proc none /proc
"$@" run --config $CONFIG --root $ROOT --kubelet-dir $KUBELET_DIR 2> /dev/null &
until tr '\\0' ' ' < /proc/$!/cmdline | grep -q ' run '; do :; done
"$@" doctor --check devices --check kubelet-directory -o wide
"""


@pytest.mark.root
async def test_options_of_a_running_agent_are_used(node: FakeNode) -> None:
    await node.kubelet.start()
    node.plug("/dev/x0")
    config = node.write_config(CONFIG)
    variables = {"CONFIG": str(config), "ROOT": str(node.root), "KUBELET_DIR": str(node.kubelet_dir)}
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", IN_A_PID_NAMESPACE, "sh"),
        *(sys.executable, "-m", "genplug"),
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, (out, error)
    assert f"--config {config} --root {node.root}".encode() in error
    assert b"resources: 1, devices: 1" in out
    assert f"{node.kubelet_dir}/device-plugins is writable".encode() in out
