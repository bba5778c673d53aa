"""The record of a node: its content in the three formats, with one example of each in ``golden/``."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from genplug.cli.main import main
from genplug.cli.output import format_json, format_yaml
from genplug.config.load import load
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.record.agent_process import find_agent
from genplug.record.facts import Known, Unknown, find_facts
from genplug.record.formats import format_markdown
from genplug.record.node import Generation, NodeSources, build_node_record
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import CONFIG_HEADER
from tests.support.golden import check_golden
from tests.support.outputs import check_output
from tests.unit.record.conftest import COMMAND, AddProcess

GOLDEN = Path(__file__).parent / "golden"
TREE = """\
/proc/sys/kernel/osrelease = 6.12.9-cloud
/dev/infiniband/uverbs0 char 231:192
/sys/dev/char/231:192 -> ../../devices/pci0000:16/0000:17:00.0/infiniband_verbs/uverbs0
/sys/devices/pci0000:16/0000:17:00.0/vendor = 0x15b3
/sys/devices/pci0000:16/0000:17:00.0/device = 0x101b
/sys/devices/pci0000:16/0000:17:00.0/driver -> ../../../bus/pci/drivers/mlx5_core
/sys/devices/pci0000:16/0000:17:00.0/infiniband_verbs/uverbs0/ibdev = mlx5_0
/sys/devices/pci0000:16/0000:17:00.0/infiniband/mlx5_0/fw_ver = 20.31.1014
/sys/bus/pci/drivers/mlx5_core/module -> ../../../../module/mlx5_core
/sys/module/mlx5_core/version = 24.10-1.1.4
/sys/module/mlx5_core/taint = OE
/dev/fuse char 10:229
"""
CONFIG = f"""\
{CONFIG_HEADER}resources:
  example.com/hca:
    devices: [{{glob: "/dev/infiniband/uverbs*"}}]
    health:
      probes:
      - {{name: firmware, file: {{path: "${{sysfs}}/device/fw_ver", matches: "^20"}}, periodSeconds: 60}}
      - {{kernelLog: {{fail: "mlx5_core ${{pci.address}}.*fatal"}}, severity: warning}}
  example.com/fuse:
    devices: [{{glob: /dev/fuse}}]
    tokens: 10
"""
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "ready": False,
    "unready": ["kubelet: waits for kubelet.sock"],
    "config": {"sha256": "c0ffee"},
    "resources": [
        {"name": "example.com/hca", "healthy": 1, "unhealthy": 0},
        {"name": "example.com/fuse", "healthy": 10, "unhealthy": 0},
    ],
}
GENERATION = Generation("2026-11-27T18:00:00Z", "genplug record", "0.1.0")


@pytest.fixture
def sources(tmp_path: Path, proc: Path, add_process: AddProcess, monkeypatch: pytest.MonkeyPatch) -> NodeSources:
    """Return what a record is made of on a node with an adapter, from the container of the agent."""
    root = tmp_path / "root"
    build_tree(TREE, root)
    monkeypatch.chdir(tmp_path)
    Path("genplug.yaml").write_text(CONFIG)
    Path("policy.yaml").write_text(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nresources: [example.com/*]\n"
    )
    add_process(1, environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    host = Host.at(root, node_name="node-1")
    config = load([Path("genplug.yaml")], "node-1", Path("policy.yaml")).config
    return NodeSources(
        GENERATION,
        host,
        find_agent(proc),
        config,
        discover(config, host),
        STATUS,
        Path("policy.yaml"),
        Known("Python package genplug 0.1.0, installed by pip", "the metadata of the Python package"),
    )


def read_leaves(value: Any) -> list[Any]:
    """Return the texts and numbers of a document."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in read_leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in read_leaves(inner)]
    return [value]


def test_record_has_the_documented_keys_in_each_format(sources: NodeSources) -> None:
    document = build_node_record(sources).as_json()
    check_output(document)
    check_golden(GOLDEN / "node.json", format_json(document) + "\n")
    check_golden(GOLDEN / "node.yaml", format_yaml(document))
    check_golden(GOLDEN / "node.md", format_markdown(document))


def test_formats_have_the_same_content(sources: NodeSources) -> None:
    document = build_node_record(sources).as_json()
    assert yaml.safe_load(format_yaml(document)) == json.loads(format_json(document)) == document
    text = format_markdown(document).replace("\\", "")
    for leaf in read_leaves(document):
        if leaf is not None and not isinstance(leaf, bool) and leaf != "":
            assert str(leaf) in text


def test_record_of_an_unchanged_node_is_equal(sources: NodeSources) -> None:
    first = build_node_record(sources).as_json()
    second = build_node_record(replace(sources, generation=replace(GENERATION, at="2026-11-28T00:00:00Z"))).as_json()
    assert {**first, "generated": {}} == {**second, "generated": {}}
    assert first["generated"] != second["generated"]


def test_each_fact_is_known_with_a_source_or_unknown_with_a_reason(sources: NodeSources) -> None:
    missing = Unknown("it is missing")
    bare = replace(
        sources, agent=missing, config=missing, inventory=missing, status=missing, policy_file=None, package=missing
    )
    for case in (sources, bare):
        facts = find_facts(build_node_record(case).as_json())
        assert [path for path, fact in facts.items() if not fact.get("source" if fact["known"] else "reason")] == []
    unknown = {path for path, fact in find_facts(build_node_record(bare).as_json()).items() if not fact["known"]}
    assert {"deployment.method", "resources", "drivers.devices", "health", "configuration.sha256"} <= unknown


def test_facts_of_the_cluster_name_the_command_that_knows_them(sources: NodeSources) -> None:
    facts = find_facts(build_node_record(sources).as_json())
    for path in ("plugin.imageDigest", "access.serviceAccount", "access.editors", "upgrade.strategy", "node.pool"):
        assert not facts[path]["known"]
        assert "'kubectl genplug record'" in facts[path]["reason"]


def test_systemd_service_has_facts_of_the_host(sources: NodeSources, proc: Path, add_process: AddProcess) -> None:
    for name in ("cmdline",):
        (proc / "1" / name).write_text("/sbin/init\0")
    add_process(44, cgroup="0::/system.slice/genplug.service\n")
    document = build_node_record(replace(sources, agent=find_agent(proc))).as_json()
    check_output(document)
    assert document["deployment"]["method"]["value"] == "systemd unit genplug.service"
    assert document["plugin"]["image"] == {"known": False, "reason": "the agent does not run from an image"}
    assert document["configuration"]["origin"]["value"] == "files of the host"
    assert document["hostMounts"]["value"] == []
    Path("policy.yaml").chmod(0o640)
    editors = build_node_record(replace(sources, agent=find_agent(proc))).as_json()["access"]["editors"]["value"]
    owner = f"user {os.geteuid()}, group {os.getegid()}"
    assert f"policy.yaml: {owner}, mode 0640" in editors
    assert [editor.partition(":")[0] for editor in editors] == [".", "genplug.yaml", "policy.yaml"]


def test_command_prints_the_record_of_a_tree(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genplug.record.agent_process.MAX_SEARCHED_PROCESSES", 0)
    node.plug("/dev/fuse", major=10, minor=229)
    (tmp_path / "c.yaml").write_text(f"{CONFIG_HEADER}resources: {{a.io/fuse: {{devices: [{{glob: /dev/fuse}}]}}}}\n")
    arguments = ["record", "--config", str(tmp_path / "c.yaml"), "--root", str(node.root), "--address", "127.0.0.1:1"]
    assert main([*arguments, "-o", "json", "--node-name", "node-7"]) == 0
    document = json.loads(capsys.readouterr().out)
    check_output(document)
    assert document["node"]["name"]["value"] == "node-7"
    assert document["resources"]["value"][0]["devices"]["value"] == 1
    assert "no response from http://127.0.0.1:1/statusz" in document["status"]["ready"]["reason"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("# Record of a node\n")


def test_record_of_an_archive_has_the_drivers_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tree(TREE, tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CONFIG)
    assert main(["capture", "--config", "c.yaml", "--root", "root", "-o", "node.tar.gz"]) == 0
    documents = []
    for root in ("root", "node.tar.gz"):
        command = ["record", "--config", "c.yaml", "--root", root, "--address", "127.0.0.1:1", "-o", "json"]
        assert main(command) == 0
        documents.append(json.loads(capsys.readouterr().out))
    of_tree, of_archive = documents
    check_output(of_archive)
    assert of_archive["drivers"] == of_tree["drivers"]
    assert of_archive["node"]["kernel"] == of_tree["node"]["kernel"]
    assert of_archive["drivers"]["drivers"]["value"][0]["version"]["value"] == "24.10-1.1.4"
    assert of_archive["status"]["ready"] == {"known": False, "reason": "an archive has no agent"}


def test_command_without_an_agent_and_a_configuration_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genplug.record.agent_process.MAX_SEARCHED_PROCESSES", 0)
    assert main(["record"]) == 1
    assert "pass --config PATH" in capsys.readouterr().err


def test_invalid_configuration_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genplug.record.agent_process.MAX_SEARCHED_PROCESSES", 0)
    (tmp_path / "c.yaml").write_text(f"{CONFIG_HEADER}resources: {{a.io/x: {{devces: []}}}}\n")
    command = ["record", "--config", str(tmp_path / "c.yaml"), "--root", str(tmp_path), "--address", "127.0.0.1:1"]
    assert main([*command, "-o", "yaml"]) == 0
    output = capsys.readouterr()
    document = yaml.safe_load(output.out)
    check_output(document)
    assert "run 'genplug validate'" in document["resources"]["reason"]
    assert "devces" in output.err


def test_options_come_from_the_running_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proc: Path,
    add_process: AddProcess,
) -> None:  # fmt: skip
    root = tmp_path / "root"
    build_tree(TREE, root)
    config = tmp_path / "genplug.yaml"
    config.write_text(CONFIG)
    command = (*COMMAND[:3], "--config", str(config), "--root", str(root), "--log-level", "debug")
    add_process(44, command, "0::/system.slice/genplug.service\n", {"NODE_NAME": "node-9", "GENPLUG_LISTEN": ":1"})
    agent = find_agent(proc)
    monkeypatch.setattr("genplug.record.agent_process.find_agent", lambda: agent)
    assert main(["record", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["node"]["name"]["value"] == "node-9"
    assert document["configuration"]["files"]["value"][0]["path"] == str(config)
    assert [resource["name"] for resource in document["resources"]["value"]] == ["example.com/hca", "example.com/fuse"]
    assert "http://127.0.0.1:1/statusz" in document["status"]["ready"]["reason"]
