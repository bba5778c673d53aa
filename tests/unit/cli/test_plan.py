"""``genplug plan``: the table, the document, allocations and the exit code."""

import json
from pathlib import Path

import pytest

from genplug.allocation.cdi_spec import qualified_name
from genplug.cli.main import main
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, format_cdi_spec
from tests.support.outputs import check_output
from tests.support.resources import write_policy

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices: [{glob: /dev/x*, exclude: [/dev/x9]}]
    allocate: {env: {XS: "${path}"}}
  a.io/none:
    devices: [{glob: /dev/none*}]
"""
OVERLAP = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
  b.io/y: {devices: [{glob: /dev/x0}]}
"""


def plan(node: FakeNode, config: str, *flags: str) -> int:
    path = node.write_config(config)
    return main(["plan", "--config", str(path), "--root", str(node.root), *flags])


@pytest.fixture
def three(node: FakeNode) -> FakeNode:
    for number, path in enumerate(("/dev/x0", "/dev/x1", "/dev/x9")):
        node.plug(path, major=240, minor=number)
    return node


async def test_table_shows_devices_and_the_reasons_for_missing_devices(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(three, CONFIG) == 0
    text = capsys.readouterr().out
    assert "a.io/x      x0       healthy   /dev/x0 (char 240:0)" in text
    assert "a.io/none   -        none" in text
    assert "a.io/none: nothing matches /dev/none*" in text
    assert "/dev/x9" in text
    assert "excluded by '/dev/x9'" in text
    assert str(three.root) not in text


async def test_document_contains_device_nodes_with_their_numbers(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(three, CONFIG, "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    offered = {resource["name"]: resource["devices"] for resource in document["resources"]}
    assert [device["id"] for device in offered["a.io/x"]] == ["x0", "x1"]
    assert offered["a.io/x"][1]["nodes"][0]["numbers"] == "char 240:1"
    assert offered["a.io/none"] == []


async def test_allocate_prints_the_response_that_the_kubelet_would_receive(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(three, CONFIG, "--allocate", "a.io/x=2") == 0
    printed = json.loads(capsys.readouterr().out)["containers"][0]
    async with three.run_agent():
        await three.kubelet.wait_for_list("a.io/x", healthy={"x0", "x1"})
        answer = (await three.kubelet.plugin("a.io/x").allocate([printed["ids"]])).container_responses[0]
    assert printed["envs"] == dict(answer.envs) == {"XS": "/dev/x0,/dev/x1"}
    nodes = [(node.container_path, node.host_path, node.permissions) for node in answer.devices]
    assert [(node["containerPath"], node["hostPath"], node["permissions"]) for node in printed["devices"]] == nodes


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("a.io/x=3", "requested 3, but the resource offers 2 on this node, of which 2 are healthy"),
        ("a.io/none=1", "requested 1, but the resource offers 0 on this node, of which 0 are healthy"),
        ("a.io/z=1", "there is no resource 'a.io/z'; the configuration has a.io/x, a.io/none"),
    ],
)
async def test_refused_allocation_prints_the_reason_and_exits_1(
    three: FakeNode, capsys: pytest.CaptureFixture[str], request_: str, reason: str
) -> None:
    assert plan(three, CONFIG, "--allocate", request_) == 1
    assert reason in capsys.readouterr().err


async def test_conflict_names_both_locations_and_exits_0(three: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(three, OVERLAP) == 0
    assert plan(three, OVERLAP, "--strict") == 3
    error = capsys.readouterr().err
    assert "/dev/x0 (char 240:0) is claimed by a.io/x at " in error
    assert "genplug.yaml:4:" in error
    assert "genplug.yaml:5:" in error


async def test_invalid_configuration_prints_its_errors_and_exits_78(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(node, CONFIG.replace("exclude", "exlude")) == 78
    assert "did you mean 'exclude'?" in capsys.readouterr().err


def test_missing_devices_are_shown_with_the_expected_number(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}], expect: {min: MIN}}\n"
    assert plan(three, config.replace("MIN", "3")) == 0
    assert "expected devices" not in capsys.readouterr().out
    assert plan(three, config.replace("MIN", "4")) == 0
    assert "a.io/x: 3 of 4 expected devices are healthy" in capsys.readouterr().out


def test_allocation_of_no_device_is_a_usage_error(three: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        plan(three, CONFIG, "--allocate", "a.io/x=0")
    assert "expected a number of at least 1" in capsys.readouterr().err


def test_missing_file_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", str(tmp_path / "missing.yaml")]) == 78
    # The line is wrapped after the long path.
    assert "no such file or directory" in " ".join(capsys.readouterr().err.split())


def test_probes_run_once_with_the_option(three: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    three.write("/sys/x0/state", "ok")
    three.write("/sys/x1/state", "dead")
    file = three.write_config(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n  a.io/x:\n"
        "    devices: [{glob: '/dev/x*'}]\n"
        "    health: {probes: [{file: {path: '/sys/${name}/state', equals: ok}}, {http: {url: 'http://127.0.0.1:1/'}}]}\n"
    )
    assert main(["plan", "--config", str(file), "--root", str(three.root)]) == 0
    assert "unhealthy" not in capsys.readouterr().out
    assert main(["plan", "--config", str(file), "--root", str(three.root), "--probe"]) == 0
    printed = capsys.readouterr()
    assert "probe state: /sys/x1/state is 'dead', expected 'ok'" in printed.out
    assert printed.out.count("unhealthy") == 1
    error = "http://127.0.0.1:1/ does not answer: Connection refused"
    assert f"genplug plan: a.io/x: probe http cannot check x0, x1, x9: {error}" in printed.err


def test_errors_of_a_probe_are_one_line_for_all_devices(three: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    three.plug("/dev/x10")
    file = three.directory / "errors.yaml"
    file.write_text(
        f"{CONFIG_HEADER}resources:\n  a.io/x:\n    devices: [{{glob: /dev/x*}}]\n"
        "    health: {probes: [{file: {path: '/sys/${name}/state', equals: ok}}]}\n"
    )
    assert main(["plan", "--config", str(file), "--root", str(three.root), "--probe"]) == 0
    errors = "/sys/x0/state does not exist (and 3 other errors)"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"genplug plan: a.io/x: probe state cannot check x0, x1, x9 and 1 more: {errors}"


def test_warnings_of_probes_are_printed_and_leave_devices_healthy(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x0", "x1", "x9"):
        three.write(f"/sys/{name}/heat", "70")
    three.write("/sys/x1/heat", "91")
    file = three.directory / "warning.yaml"
    file.write_text(
        f"{CONFIG_HEADER}resources:\n  a.io/x:\n    devices: [{{glob: /dev/x*}}]\n"
        "    health: {probes: [{severity: warning, file: {path: '/sys/${name}/heat', max: 90}}]}\n"
    )
    assert main(["plan", "--config", str(file), "--root", str(three.root), "--probe"]) == 0
    printed = capsys.readouterr()
    warning = "/sys/x1/heat is '91', expected at most 90"
    assert f"genplug plan: a.io/x: probe heat warns about x1: {warning}" in printed.err
    assert "unhealthy" not in printed.out


CDI = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices: [{glob: "/dev/x*"}]
    allocate:
      env: {X: "${name}"}
      annotations: {a.io/x: "${name}"}
      cdiDevices: ["vendor.io/gpu=${name}"]
      inject: cdi
"""


def plan_cdi(node: FakeNode) -> list[str]:
    """Return the command for the configuration with CDI devices, under a policy that allows them."""
    file, policy = node.write_config(CDI), write_policy(node, "cdi: {allow: ['*']}\nannotations: {allow: ['*']}\n")
    return ["plan", "--config", str(file), "--policy", str(policy), "--root", str(node.root)]


async def test_allocation_has_everything_of_the_response_and_the_cdi_file(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    three.write("/etc/cdi/vendor.json", format_cdi_spec("vendor.io/gpu", "x0", "x1", "x9"))
    command = [*plan_cdi(three), "--allocate", "a.io/x=2"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    check_output(document)
    [container] = document["containers"]
    spec = container.pop("cdiSpec")
    assert container == {
        "resource": "a.io/x",
        "ids": ["x0", "x1"],
        "envs": {"X": "x0,x1"},
        "mounts": [],
        "devices": [],
        "annotations": {"a.io/x": "x0,x1"},
        "cdiDevices": [
            *(qualified_name("a.io/x", device) for device in ("x0", "x1")),
            *("vendor.io/gpu=x0", "vendor.io/gpu=x1"),
        ],
    }
    nodes = [device["containerEdits"]["deviceNodes"][0]["path"] for device in spec["devices"]]
    assert nodes == ["/dev/x0", "/dev/x1"]
    # The runtime reads other directories.
    assert main([*command, "--cdi-search-dirs", "/opt/cdi:/run/cdi"]) == 1
    assert "only 0 of 3 devices are healthy" in capsys.readouterr().err


async def test_device_without_its_cdi_device_is_unhealthy(three: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    three.write("/etc/cdi/vendor.json", format_cdi_spec("vendor.io/gpu", "x0", "x1"))
    assert main(plan_cdi(three)) == 0
    printed = capsys.readouterr().out
    assert printed.count(" unhealthy ") == 1
    assert "no CDI file in /etc/cdi and /var/run/cdi defines vendor.io/gpu=x9" in " ".join(printed.split())


def test_relative_directory_of_cdi_files_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--config", "c.yaml", "--cdi-search-dirs", "cdi"])
    assert "expected absolute paths, separated by ':', found 'cdi'" in capsys.readouterr().err


async def test_unmatched_glob_of_a_known_device_node_has_the_kernel_module(
    three: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(three, CONFIG.replace("/dev/none*", "/dev/kvm")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "a.io/none: nothing matches /dev/kvm (" in printed
    assert "): load the kernel module kvm_intel or kvm_amd on the node, which creates it" in printed
