"""``genplug bundle``: the archive of a node with a running agent, in which secrets are planted everywhere."""

import asyncio
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from genplug.agent import Agent
from genplug.cli.main import main
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import POLICY_HEADER

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
# pl4nted-comment
resources:
  a.io/x:
    devices: [{glob: /dev/x*}]
    allocate:
      env: {API: pl4nted-env, SERVICE: "${env.SERVICE_PIN}"}
      annotations: {a.io/key: pl4nted-annotation}
    health:
      probes:
      - http: {url: "http://127.0.0.1:1/?token=pl4nted-query"}
"""
POLICY = f"{POLICY_HEADER}annotations: {{allow: [a.io/*]}}  # pl4nted-comment\nread: {{env: [SERVICE_PIN]}}\n"
LOG = """\
{"level": "info", "event": "x", "message": "API=pl4nted-env", "header": "Authorization: Basic pl4nted12345"}
key AKIAPL4NTED1234567, password: 'pl4nted pin 1', url https://u:pl4nted-url@h/, pod team/job-7
-----BEGIN PRIVATE KEY-----
pl4nted
-----END PRIVATE KEY-----
pin pl4nted-pin and pl4nted-variable of the process
last line
"""


def read_bundle(content: bytes) -> dict[str, bytes]:
    """Return the files of a bundle, and those of the capture in it, by their names."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            data = file.read() if file is not None else b""
            files[member.name.removeprefix("genplug-bundle/")] = data + member.linkname.encode()
            if member.name.endswith("node.tar.gz"):
                files |= {f"node.tar.gz/{name}": inner for name, inner in read_bundle(data).items()}
    return files


async def run_bundle(agent: Agent, node: FakeNode, *arguments: str) -> int:
    """Run the command in a thread, because the event loop must be free to respond."""
    options = ["--config", str(node.config_dir / "genplug.yaml"), "--policy", str(node.directory / "policy.yaml")]
    options += ["--root", str(node.root), "--kubelet-dir", str(node.kubelet_dir), "--node-name", "node-7"]
    address = ["--address", f"127.0.0.1:{agent.http_port}"]
    return await asyncio.to_thread(main, ["bundle", *options, *address, *arguments])


@pytest.fixture
def prepared(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    """A node with a configuration, a policy and a log that contain secrets."""
    monkeypatch.setenv("SERVICE_PIN", "pl4nted-pin")
    monkeypatch.setenv("GENPLUG_DB_PASSWORD", "pl4nted-variable")
    node.plug("/dev/x0")
    node.write("/sys/kernel/none", "")
    (node.directory / "policy.yaml").write_text(POLICY)
    (node.directory / "agent.log").write_text(LOG)
    return node


async def test_bundle_of_a_running_agent_has_every_part_and_no_secret(prepared: FakeNode, tmp_path: Path) -> None:
    output, log = tmp_path / "bundle.tar.gz", str(prepared.directory / "agent.log")
    policy = prepared.directory / "policy.yaml"
    async with prepared.run_agent(CONFIG, policy=policy, listen=("127.0.0.1", 0), node_name="node-7") as agent:
        await next_event(record_events(agent), Event.REGISTERED)
        assert await run_bundle(agent, prepared, "-o", str(output), "--log", log) == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    files = read_bundle(output.read_bytes())
    assert not [name for name, content in files.items() if b"pl4nted" in content.lower()]
    manifest = {entry["file"]: entry for entry in json.loads(files["MANIFEST.json"])["files"]}
    missing = {name: entry["error"] for name, entry in manifest.items() if entry["error"]}
    # The test is not the process of the agent in procfs.
    assert set(missing) <= {"agent.json"}, missing
    assert set(manifest) - {"agent.json"} == {
        *("version.json", "configuration/01-genplug.yaml", "policy.yaml", "status.json", "readyz.txt", "metrics.txt"),
        *("validate.json", "plan.txt", "record.json", "doctor.json", "pod-resources.json", "kubelet.json"),
        *("system.json", "log.txt", "node.tar.gz", "REMOVED.json"),
    }
    removed = {(entry["file"], entry["rule"]) for entry in json.loads(files["REMOVED.json"])["removed"]}
    assert removed >= {
        ("configuration/01-genplug.yaml", "environment variable"),
        ("configuration/01-genplug.yaml", "annotation"),
        ("configuration/01-genplug.yaml", "secret name"),
        ("configuration/01-genplug.yaml", "comments"),
        ("policy.yaml", "comments"),
        ("log.txt", "value of a configuration"),
        ("log.txt", "header"),
        ("log.txt", "token"),
        ("log.txt", "secret name"),
        ("log.txt", "user name in a URL"),
        ("log.txt", "private key"),
    }
    assert files["log.txt"].endswith(b"\nlast line\n")
    assert b"genplug_devices" in files["metrics.txt"]
    assert json.loads(files["status.json"])["kind"] == "Status"
    assert b"/dev/x0" in files["plan.txt"]
    assert "node.tar.gz/dev/x0" in files


async def test_names_of_pods_are_numbers_on_request(prepared: FakeNode, tmp_path: Path) -> None:
    config = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
    config += "resources: {a.io/x: {devices: [{glob: /dev/x*}]}}\n"
    (prepared.directory / "agent.log").write_text("allocated to job-7 of default/job-7\n")
    log = str(prepared.directory / "agent.log")
    async with prepared.run_agent(config, listen=("127.0.0.1", 0), node_name="node-7") as agent:
        await prepared.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        await prepared.kubelet.admit("a.io/x", pod="job-7")
        for name, options in {"plain": [], "hidden": ["--no-pods"]}.items():
            output = str(tmp_path / name)
            assert await run_bundle(agent, prepared, "-o", output, "--log", log, "--no-capture", *options) == 0
    plain, hidden = (read_bundle((tmp_path / name).read_bytes()) for name in ("plain", "hidden"))
    assert b"job-7" in plain["log.txt"]
    assert not [name for name, content in hidden.items() if b"job-7" in content]
    assert hidden["log.txt"] == b"allocated to pod-1 of namespace-1/pod-1\n"


def test_node_without_an_agent_gives_a_bundle_with_reasons(tmp_path: Path, node: FakeNode) -> None:
    node.plug("/dev/x0")
    node.write_config("resources: [\n")
    command = [sys.executable, "-m", "genplug", "bundle", "-o", "-", "--config", str(node.config_dir), "--root"]
    command += [str(node.root), "--kubelet-dir", str(node.kubelet_dir), "--address", "127.0.0.1:1"]
    ran = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, timeout=60)
    assert ran.returncode == 0
    files = read_bundle(ran.stdout)
    manifest = {entry["file"]: entry["error"] for entry in json.loads(files["MANIFEST.json"])["files"]}
    assert "Connection refused" in manifest["status.json"]
    assert "does not exist" in manifest["pod-resources.json"]
    assert "exit code 78" in manifest["plan.txt"]
    assert manifest["validate.json"] == ""
    assert b"genplug bundle: stdout: " in ran.stderr


def test_dry_run_lists_files_and_removals_and_writes_nothing(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node.write_config(CONFIG)
    command = ["bundle", "--dry-run", "--no-capture", "--config", str(node.config_dir), "--root", str(node.root)]
    assert main([*command, "--kubelet-dir", str(node.kubelet_dir), "--address", "127.0.0.1:1"]) == 0
    printed = capsys.readouterr().out
    assert "pl4nted" not in printed
    assert "missing: no response from http://127.0.0.1:1/statusz" in printed
    assert "environment variable" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "pipe"], "-o pipe: exists and is not a regular file"),
        (["-o", "b.tar.gz", "--log", "missing.log"], "--log missing.log: cannot be read: No such file or directory"),
    ],
)
def test_usage_error_is_reported_before_anything_is_collected(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert main(["bundle", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_output_is_required_except_for_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bundle"])
    assert "expected -o FILE or --dry-run" in capsys.readouterr().err
