"""``genplug diff``: inputs, formats, pods and exit codes, on fake nodes and archives."""

import asyncio
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from genplug.cli.diff_markdown import code
from genplug.cli.diff_text import MAX_ROWS
from genplug.cli.main import main
from genplug.spec.printable import escape_markdown
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
OLD = f"""\
{CONFIG_HEADER}resources:
  a.io/serial:
    devices: [{{glob: "/dev/ttyUSB*"}}]
    allocate: {{env: {{PORT: "${{path}}"}}}}
  a.io/fuse:
    devices: [{{glob: /dev/fuse}}]
    tokens: 3
  a.io/camera:
    devices: [{{glob: "/dev/video*"}}]
"""
NEW = f"""\
{CONFIG_HEADER}resources:
  a.io/serial:
    devices: [{{glob: "/dev/ttyUSB*", exclude: [/dev/ttyUSB1]}}]
    allocate: {{env: {{PORTS: "${{path}}"}}}}
  a.io/fuse:
    devices: [{{glob: /dev/fuse}}]
    tokens: 2
  a.io/webcam:
    devices: [{{glob: "/dev/video*", id: "${{name}}"}}]
  a.io/none:
    devices: [{{glob: "/dev/none*"}}]
"""
LEFT_OUT = OLD.replace('"/dev/ttyUSB*"', "/dev/ttyUSB0")
"""A configuration without the second serial adapter."""
SERIAL = "devices: [{glob: /dev/ttyUSB0}]"
VALUES = "pools: {lab: {config: {resources: {a.io/x: {devices: [{glob: /dev/video0}]}}}}, edge: {}}\n"
VALUES += f"config: {{resources: {{a.io/serial: {{{SERIAL}}}}}}}\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a node; the working directory has ``old.yaml`` and ``new.yaml``."""
    node = FakeNode(tmp_path / "node", stand_ins=True)
    for number in range(2):
        node.plug(f"/dev/ttyUSB{number}", major=188, minor=number)
    node.plug("/dev/video0", major=81, minor=0)
    node.plug("/dev/fuse", major=10, minor=229)
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(OLD)
    Path("new.yaml").write_text(NEW)
    return node.root


def diff(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run the command with ``-o json``, and return the document that it prints."""
    assert main(["diff", *arguments, "-o", "json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    check_output(document)
    return document


def list_changes(document: dict[str, Any], number: int = 0) -> dict[str, str]:
    return {resource["name"]: resource["change"] for resource in document["comparisons"][number]["resources"]}


def write_json(name: str, document: object) -> str:
    Path(name).write_text(json.dumps(document))
    return name


def test_document_has_the_documented_keys(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use = {"namespace": "default", "pod": "reader", "container": "main", "devices": ["ttyusb1-4mbccr"]}
    resources = [
        {"name": "a.io/serial", "inUse": [use]},
        {"name": "a.io/camera", "inUse": [{**use, "pod": "viewer", "devices": ["video0"]}]},
        {"name": "a.io/fuse", "inUse": None},
    ]
    Path("new.yaml").write_text(NEW + "    health: {periodSeconds: 1, timeoutSeconds: 2}\n")
    status = write_json("status.json", {"kind": "Status", "resources": resources})
    document = diff(capsys, "old.yaml", "new.yaml", "--node", f"lab={root}", "--pods", status)
    document["comparisons"][0]["node"] = "node"
    check_golden(GOLDEN / "diff.json", json.dumps(document, indent=2) + "\n")


def test_table_shows_resources_devices_and_keys(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "old.yaml", "new.yaml", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    check_golden(GOLDEN / "diff.txt", text)
    assert max(map(len, text.splitlines())) <= 120


def test_markdown_has_a_summary_and_collapsed_details(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.yaml").write_text(NEW.replace("PORTS: ", 'A: "|`${name}``", PORTS: '))
    assert main(["diff", "old.yaml", "new.yaml", "--node", f"lab={root}", "-o", "markdown"]) == 0
    text = capsys.readouterr().out.replace(str(root), "node")
    check_golden(GOLDEN / "diff-markdown.txt", text)
    for line in text.splitlines():
        # A bar ends a cell.
        if line.startswith("|") and "---" not in line:
            assert line.count("|") in {5, 6}


def test_markdown_for_a_comment_has_no_secrets(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = '{API_TOKEN: "hunter2-old", DB: "postgres://user:hunter2@db/x", MODE: fast}'
    resource = f"resources: {{a.io/fuse: {{devices: [{{glob: /dev/fuse}}], allocate: {{env: {env}}}}}}}\n"
    header = NEW.partition("resources:")[0]
    Path("old.yaml").write_text(header + resource)
    Path("new.yaml").write_text(header + resource.replace("hunter2", "hunter3").replace("fast", "slow"))
    Path("none.yaml").write_text(header + resource.replace(f", allocate: {{env: {env}}}", ""))
    for old in ("old.yaml", "none.yaml"):
        assert main(["diff", old, "new.yaml", "--node", f"lab={root}", "-o", "markdown"]) == 0
        text = capsys.readouterr().out
        assert "hunter" not in text
        assert "API_TOKEN" in text
        assert "slow" in text
    assert "another value" not in text


def test_markdown_leaves_out_details_that_exceed_a_comment(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [option for number in range(60) for option in ("--node", f"n{number}={root}")]
    assert main(["diff", "old.yaml", "new.yaml", *nodes, "-o", "markdown"]) == 0
    text = capsys.readouterr().out
    assert len(text) < 65_536
    assert text.count(f"| `{root}` |") == MAX_ROWS
    left_out = 60 - text.count("<details>")
    assert f"The details of {left_out} comparisons are left out" in text


def test_removed_devices_come_first_in_a_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "new.yaml", "old.yaml", "--root", str(root)]) == 0
    _, table = capsys.readouterr().out.split("DEVICE   ", 1)
    assert re.findall(r"^\S.*?(moved|changed|added)", table, re.MULTILINE) == ["moved", "changed", "added"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a*b", "`a*b`"),
        ("a|b", "<code>a&#124;b</code>"),
        ("a`b", "<code>a&#96;b</code>"),
        ("\\|<b>*_@x", "<code>&#92;&#124;&#60;b&#62;&#42;&#95;&#64;x</code>"),
        ("a\nb", "<code>a&#92;nb</code>"),
        ("", ""),
    ],
)
def test_code_in_markdown_cannot_end_its_cell(text: str, written: str) -> None:
    assert code(text) == written


def test_text_in_markdown_has_no_markup() -> None:
    assert escape_markdown("<b> [x](y) a_b|c @user #1") == "\\<b\\> \\[x\\](y) a\\_b\\|c \\@user \\#1"


def test_equal_configurations_have_no_differences(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = diff(capsys, "old.yaml", "old.yaml", "--root", str(root), "--exit-code")
    assert document["different"] is False
    assert document["comparisons"][0]["devices"] == {"old": 4, "new": 4}
    assert main(["diff", "old.yaml", "old.yaml", "--root", str(root)]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_device_of_a_pool_is_unchanged_if_another_device_is_removed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = f"{CONFIG_HEADER}resources: {{a.io/x: {{devices: [{{glob: GLOB}}], tokens: 3}}}}\n"
    Path("old.yaml").write_text(pool.replace("GLOB", "/dev/ttyUSB*"))
    Path("new.yaml").write_text(pool.replace("GLOB", "/dev/ttyUSB0"))
    (comparison,) = diff(capsys, "old.yaml", "new.yaml", "--root", str(root))["comparisons"]
    assert [change["old"]["paths"] for change in comparison["deviceChanges"]] == [["/dev/ttyUSB1"]]


@pytest.mark.usefixtures("root")
def test_option_of_a_node_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("nodes").mkdir()
    Path("nodes/lab.tar").write_text("text")
    for options, name in {
        ("--node", "lab=missing"): "--node missing: does not exist",
        ("--nodes", "nodes"): "--nodes nodes/lab.tar: is not an archive",
    }.items():
        assert main(["diff", "old.yaml", "new.yaml", *options]) == 2
        assert f"genplug diff: {name}" in capsys.readouterr().err


def test_summary_states_that_pods_are_not_known(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "old.yaml", "new.yaml", "--root", str(root)]) == 0
    assert "; affected pods: not known without --pods RESOURCE" in " ".join(capsys.readouterr().out.split())


def test_exit_code_is_1_for_a_difference_with_the_option(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diff(capsys, "old.yaml", "new.yaml", "--root", str(root))
    diff(capsys, "old.yaml", "new.yaml", "--root", str(root), "--exit-code", code=1)


def test_invalid_new_configuration_exits_78(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.yaml").write_text(NEW.replace("glob", "golb"))
    assert main(["diff", "old.yaml", "new.yaml", "--root", str(root)]) == 78
    assert "did you mean 'glob'?" in capsys.readouterr().err


def test_invalid_old_configuration_is_compared_as_no_resources(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.yaml").write_text(OLD.replace("glob", "golb"))
    assert main(["diff", "old.yaml", "new.yaml", "--root", str(root), "-o", "json"]) == 0
    printed = capsys.readouterr()
    assert set(list_changes(json.loads(printed.out)).values()) == {"added"}
    assert "OLD is invalid" in printed.err


def test_configurations_are_compared_without_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    (comparison,) = diff(capsys, "old.yaml", "new.yaml", "--no-node")["comparisons"]
    assert comparison["hasNode"] is False
    assert comparison["devices"] == {"old": None, "new": None}
    assert comparison["deviceChanges"] == []
    keys = {resource["name"]: [key["key"] for key in resource["keys"]] for resource in comparison["resources"]}
    assert keys["a.io/fuse"] == ["tokens"]


def test_standard_input_is_a_side(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  genplug.yaml: {json.dumps(NEW)}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(manifest.encode())))
    assert list_changes(diff(capsys, "old.yaml", "-", "--root", str(root)))["a.io/webcam"] == "added"


def test_policy_of_a_side_limits_its_devices(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("policy.yaml").write_text(f"{POLICY_HEADER}devices: {{deny: [/dev/ttyUSB1]}}\n")
    Path("open.yaml").write_text(POLICY_HEADER)
    policies = ("--policy", "policy.yaml", "--old-policy", "open.yaml")
    (comparison,) = diff(capsys, "old.yaml", "old.yaml", "--root", str(root), *policies)["comparisons"]
    (change,) = comparison["deviceChanges"]
    assert (change["change"], change["old"]["paths"]) == ("removed", ["/dev/ttyUSB1"])
    document = diff(capsys, "old.yaml", "old.yaml", "--root", str(root), "--policy", "policy.yaml")
    assert document["different"] is False


def test_archives_are_assigned_to_pools_by_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("values.yaml").write_text(VALUES)
    Path("new-values.yaml").write_text(VALUES.replace("a.io/x", "a.io/z"))
    Path("nodes/edge").mkdir(parents=True)
    capture = ["capture", "--config", "old.yaml", "--root", str(root), "-o"]
    assert main([*capture, "nodes/lab.tar.gz"]) == 0
    assert main([*capture, "nodes/edge/first.tgz"]) == 0
    capsys.readouterr()
    document = diff(capsys, "--old-values", "values.yaml", "--values", "new-values.yaml", "--nodes", "nodes")
    compared = {(each["pool"], each["node"], each["hasNode"]): each for each in document["comparisons"]}
    assert compared.keys() == {
        ("default", "", False),
        ("lab", "lab.tar.gz", True),
        ("edge", "edge/first.tgz", True),
    }
    (change,) = compared["lab", "lab.tar.gz", True]["deviceChanges"]
    assert change["change"] == "moved"
    assert compared["edge", "edge/first.tgz", True]["resources"] == []


def test_added_pool_has_only_added_resources(capsys: pytest.CaptureFixture[str]) -> None:
    Path("values.yaml").write_text(VALUES)
    Path("new-values.yaml").write_text(VALUES.replace("edge: {}", "edge: {}, new: {}"))
    document = diff(capsys, "--old-values", "values.yaml", "--values", "new-values.yaml", "--no-node")
    added = next(each for each in document["comparisons"] if each["pool"] == "new")
    assert [resource["change"] for resource in added["resources"]] == ["added"]


def test_several_pools_on_this_node_compare_configurations_only(capsys: pytest.CaptureFixture[str]) -> None:
    Path("values.yaml").write_text(VALUES)
    assert main(["diff", "--old-values", "values.yaml", "--values", "values.yaml"]) == 0
    assert "select a pool with --pool" in capsys.readouterr().err


def test_pods_of_kubectl_are_possibly_affected(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def make_pod(name: str, resource: str, **status: str) -> dict[str, Any]:
        container = {"name": "main", "resources": {"limits": {resource: "1", "cpu": "1"}}}
        spec = {"nodeName": "n", "containers": [container]}
        return {"metadata": {"namespace": "default", "name": name}, "spec": spec, "status": status}

    items = [
        make_pod("reader", "a.io/serial", phase="Running"),
        make_pod("viewer", "a.io/camera", phase="Running"),
        make_pod("ended", "a.io/camera", phase="Succeeded"),
        make_pod("other", "b.io/x", phase="Running"),
    ]
    Path("new.yaml").write_text(NEW.replace("PORTS", "PORT"))
    pods = write_json("pods.json", {"kind": "List", "items": items})
    (comparison,) = diff(capsys, "old.yaml", "new.yaml", "--root", str(root), "--pods", pods)["comparisons"]
    assert [(pod["pod"], pod["effect"], pod["certain"]) for pod in comparison["pods"]] == [
        ("reader", "deviceRemoved", False),
        ("viewer", "resourceRemoved", True),
    ]


@pytest.mark.parametrize(
    "text", ["[]", "{}", "x", '{"kind": "List", "items": [1]}', '{"kind": "Status", "resources": [1]}']
)
def test_other_document_as_pods_exits_2(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pods.json").write_text(text)
    assert main(["diff", "old.yaml", "new.yaml", "--root", str(root), "--pods", "pods.json"]) == 2
    assert "expected the output of 'genplug status -o json'" in capsys.readouterr().err


async def test_running_agent_and_its_pods_are_the_old_side(
    node: FakeNode, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for number in range(2):
        node.plug(f"/dev/ttyUSB{number}", major=188, minor=number)
    new = tmp_path / "new.yaml"
    new.write_text(LEFT_OUT)
    async with node.run_agent(OLD, listen=("127.0.0.1", 0)) as agent:
        await node.kubelet.wait_for_list("a.io/serial", lambda devices: len(devices.healthy) == 2)
        await node.kubelet.admit("a.io/serial", 2, pod="reader")
        arguments = ["diff", str(new), "--address", f"127.0.0.1:{agent.http_port}", "--root", str(node.root)]
        arguments += ["--pod-resources-dir", str(node.kubelet_dir / "pod-resources"), "-o", "json"]
        # The loop must be free to respond.
        assert await asyncio.to_thread(main, arguments) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    (removed,) = comparison["deviceChanges"]
    assert (removed["change"], removed["old"]["paths"]) == ("removed", ["/dev/ttyUSB1"])
    assert [(pod["pod"], pod["devices"], pod["effect"]) for pod in comparison["pods"]] == [
        ("reader", [removed["old"]["id"]], "deviceRemoved")
    ]


async def test_changed_files_of_the_running_agent_are_not_the_old_side(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node.run_agent(OLD, listen=("127.0.0.1", 0)) as agent:
        await node.kubelet.wait_for(lambda: bool(node.kubelet.registrations))
        # An invalid file does not become active.
        path = node.write_config(OLD.replace("glob", "golb"))
        arguments = ["diff", str(path), "--address", f"127.0.0.1:{agent.http_port}"]
        assert await asyncio.to_thread(main, arguments) == 2
    assert "do not have the content that the agent read" in capsys.readouterr().err


def test_missing_agent_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "new.yaml", "--address", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "http://127.0.0.1:1/statusz" in error
    assert "pass OLD" in error


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["old.yaml", "new.yaml", "--values", "v.yaml"],
        ["old.yaml", "new.yaml", "--old-values", "v.yaml"],
        ["-", "-"],
        ["old.yaml", "-", "--pods", "-"],
    ],
)
def test_contradicting_arguments_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["diff", *arguments])
    assert caught.value.code == 2
    assert "genplug diff: error: " in capsys.readouterr().err
