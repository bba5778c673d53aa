"""Inputs of ``genplug validate`` and ``genplug plan``: values of the chart, manifests, pools, policies and stdin."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from genplug.cli.main import main
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER

RESOURCE = "a.example/x: {devices: [{glob: /dev/null}]}"
VALUES = f"""\
config:
  resources:
    {RESOURCE}
pools:
  lab:
    config:
      resources:
        other.example/y: {{devices: [{{glob: /dev/null}}]}}
    policy: {{resources: ["a.example/*"]}}
"""
NARROW = 'resources: ["b.example/*"]\n'


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**files: str) -> None:
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text)


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def render_config_map(name: str, labels: str, **files: str) -> str:
    data = "".join(
        f"  {key}.yaml: |\n" + "".join(f"    {line}\n" for line in text.splitlines()) for key, text in files.items()
    )
    return f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{{labels}}}}}\ndata:\n{data}"


def list_errors(text: str) -> list[str]:
    """Return the locations and codes of the errors in a printed text."""
    return [line.partition("]")[0] for line in text.splitlines() if ": error[" in line]


CONFIG = f"{CONFIG_HEADER}resources:\n  {RESOURCE}\n"
POLICY = f"{POLICY_HEADER}{NARROW}"
LAB = "genplug.io/pool: lab, app.kubernetes.io/instance: r"
EDGE = "genplug.io/pool: edge, app.kubernetes.io/instance: r"


def test_values_are_checked_for_each_pool_with_its_policy(capsys: pytest.CaptureFixture[str]) -> None:
    write(values=VALUES)
    assert main(["validate", "--values", "values.yaml"]) == 78
    printed = capsys.readouterr().err
    assert list_errors(printed) == ["values.yaml:8:9: error[GP019"]
    assert "refused by 'resources' of values.yaml (policy of pool lab), which allows a.example/*" in printed
    assert main(["validate", "--values", "values.yaml", "--pool", "default"]) == 0
    assert capsys.readouterr().out == "values.yaml[default/genplug.yaml]: valid, pool default, 1 file, 1 resource\n"


def test_policy_of_the_option_replaces_the_policies_of_pools(capsys: pytest.CaptureFixture[str]) -> None:
    write(values=VALUES, policy=f"{POLICY_HEADER}resources: ['*.example/*']\n")
    assert main(["validate", "--values", "values.yaml", "--policy", "policy.yaml"]) == 0
    write(policy=POLICY)
    assert main(["validate", "--values", "values.yaml", "--policy", "policy.yaml"]) == 78
    assert len(list_errors(capsys.readouterr().err)) == 2


def test_later_values_files_override_earlier_files(capsys: pytest.CaptureFixture[str]) -> None:
    write(values=VALUES, production="pools: {lab: {config: {resources: {other.example/y: null}}}}\n")
    assert main(["validate", "--values", "values.yaml", "--values", "production.yaml"]) == 0
    assert "pool lab, 1 file, 1 resource" in capsys.readouterr().out


def test_error_in_a_values_file_has_its_location_in_that_file(capsys: pytest.CaptureFixture[str]) -> None:
    write(values=VALUES, production="pools:\n  lab:\n    config: {resources: {a.example/x: {devces: []}}}\n")
    assert main(["validate", "--values", "values.yaml", "--values", "production.yaml"]) == 78
    assert "production.yaml:3:40: error[GP006]: unknown key 'devces'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("configg: {}\n", "values.yaml:1:1: error[GP006]: unknown key 'configg'"),
        ("pools: {lab: {labelValue: [a]}}\n", "values.yaml:1:15: error[GP006]: unknown key 'labelValue'"),
        ("daemonset: {privileged: 'yes'}\n", "values.yaml:1:26: error[GP008]"),
        (CONFIG, "values.yaml:1:1: error[GP005]: expected values of genplug's chart, found a configuration"),
        ("version: v1\nflags: {}\n", "values.yaml:2:1: error[GP005]: expected values of genplug's chart, found a conf"),
        ("[]", "values.yaml:1:1: error[GP005]"),
        ("a: [", "values.yaml:1:4: error[GP002]"),
        ("config: {}\nconfig: {}\n", "values.yaml:2:1: error[GP003]"),
        ("policy: []\n", "values.yaml:1:1: error[GP008]"),
        ("pools: {lab: {policy: 5}}\n", "values.yaml:1:23: error[GP008]"),
        ("config: {nodes: []}\n", "values.yaml:1:10: error[GP008]"),
        ("config: {nodes: {n1: 5}}\n", "values.yaml:1:22: error[GP008]"),
        ("config: {nodes: {n1: {resorces: {}}}}\n", "values.yaml:1:23: error[GP006]: unknown key 'resorces'"),
        ("config: {resources: []}\n", "values.yaml:1:10: error[GP008]"),
        ("config: {resources: {x: {devices: [{glob: /dev/x}]}}}\n", "values.yaml:1:22: error[GP010]"),
        (f"config: {{resources: {{{RESOURCE}}}}}\npolicy: {{devces: 1}}\n", "values.yaml:2:10: error[GP006]"),
        ("image: {tag: x}\n", "values.yaml:1:1: error[GP004]: the pool 'default' has no resources"),
        (
            "config: {existingConfigMap: mine, defaults: {tokens: 3}}\n",
            "values.yaml:1:35: error[GP017]: the pool reads the ConfigMap 'mine', and 'defaults' has no effect",
        ),
        (
            "config: {resources: {a.example/x: {devices: [{glob: /dev/x}], allocate: {inject: cdi}}}}\n",
            "values.yaml:1:74: error[GP021]: 'inject: cdi' writes CDI files",
        ),
        ("pools: {default: {enabled: false}}\n", "values.yaml:1:1: error[GP017]: every pool is disabled"),
        (
            f"pools: {{a: {{labelValues: [x]}}, b: {{labelValues: [x]}}}}\nconfig: {{resources: {{{RESOURCE}}}}}\n",
            "values.yaml:1:50: error[GP017]: the pools 'a' and 'b' both claim",
        ),
    ],
)
def test_error_of_the_values_is_reported_at_its_location(
    text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(values=text)
    assert main(["validate", "--values", "values.yaml"]) == 78
    printed = capsys.readouterr().err
    assert printed.startswith(expected)
    assert len(list_errors(printed)) == 1


def test_values_of_a_parent_chart_are_below_the_name_of_the_chart(capsys: pytest.CaptureFixture[str]) -> None:
    indented = "".join(f"  {line}\n" for line in VALUES.splitlines())
    write(values=f"genplug:\n{indented}other: {{enabled: true}}\nglobal: {{}}\n")
    assert main(["validate", "--values", "values.yaml"]) == 78
    assert list_errors(capsys.readouterr().err) == ["values.yaml:9:11: error[GP019"]


def test_missing_values_file_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--values", "missing.yaml"]) == 78
    assert capsys.readouterr().err.splitlines()[:2] == [
        "missing.yaml:1:1: error[GP001]: no such file or directory",
        "      = help: check the path; '-' is the standard input",
    ]


def test_unknown_pool_is_an_error_that_names_the_pools(capsys: pytest.CaptureFixture[str]) -> None:
    write(values=VALUES)
    assert main(["validate", "--values", "values.yaml", "--pool", "lib"]) == 78
    assert "there is no pool 'lib'" in (printed := capsys.readouterr().err)
    assert "the pools are default, lab" in printed


def test_pool_of_a_file_without_pools_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    write(genplug=CONFIG)
    assert main(["validate", "genplug.yaml", "--pool", "lab"]) == 78
    assert "genplug.yaml:1:1: error[GP009]: there is no pool 'lab'" in capsys.readouterr().err


def test_number_that_helm_reads_from_an_identifier_is_quoted_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    source = "{glob: /dev/null, where: {pci.vendor: 0x10de}}"
    write(values=f"config: {{resources: {{a.example/x: {{devices: [{source}]}}}}}}\n")
    assert main(["validate", "--values", "values.yaml"]) == 78
    printed = capsys.readouterr().err
    assert "error[GP008]: found a number (4318)" in printed
    assert 'help: quote it: "0x10de"' in printed


def test_existing_config_map_of_a_pool_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write(values="config: {existingConfigMap: mine}\n")
    assert main(["validate", "--values", "values.yaml"]) == 0
    assert "pool default reads the ConfigMap mine" in capsys.readouterr().err


def test_node_of_the_values_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    write(values=f"{VALUES.partition('pools')[0]}  nodes:\n    n1: {{resources: {{a.example/x: {{tokens: 0}}}}}}\n")
    assert main(["validate", "--values", "values.yaml"]) == 78
    assert list_errors(capsys.readouterr().err) == ["values.yaml:5:44: error[GP009"]
    assert main(["validate", "--values", "values.yaml", "--node-name", "n2"]) == 0


@pytest.mark.parametrize(
    "names", [(LAB, LAB, EDGE), ("", "", ""), ("a: b", "a: b", "a: b")], ids=["labels", "names", "other labels"]
)
def test_configuration_in_a_manifest_is_checked_with_the_policy_of_its_pool(
    names: tuple[str, str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, policy, other = names
    rendered = render_config_map("g-lab-config", own, genplug=CONFIG)
    rendered += render_config_map("g-lab-policy", policy, policy=POLICY)
    rendered += render_config_map("g-edge-config", other, genplug=CONFIG)
    feed(monkeypatch, rendered)
    assert main(["validate", "-"]) == 78
    # The pool edge has the default policy, under which the configuration is valid.
    assert list_errors(capsys.readouterr().err) == ["<stdin>:10:7: error[GP019"]


def test_daemon_set_decides_which_policy_a_configuration_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = render_config_map("one", "", genplug=CONFIG) + render_config_map("two", "", policy=POLICY)
    rendered += render_config_map("one-policy", "", policy=POLICY_HEADER)
    volumes = "[{name: a, configMap: {name: one}}, {name: b, configMap: {name: two}}]"
    daemon_set = f"---\nkind: DaemonSet\nspec: {{template: {{spec: {{volumes: {volumes}}}}}}}\n"
    feed(monkeypatch, rendered)
    assert main(["validate", "-"]) == 0
    feed(monkeypatch, rendered + daemon_set)
    assert main(["validate", "-"]) == 78
    assert "of <stdin>[two/policy.yaml], which allows b.example/*" in capsys.readouterr().err


def test_only_policy_in_a_manifest_is_that_of_the_only_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, render_config_map("c", "", genplug=CONFIG) + render_config_map("p", "", policy=POLICY))
    assert main(["validate", "-"]) == 78


def test_directory_of_pools_has_a_policy_for_each_pool(capsys: pytest.CaptureFixture[str]) -> None:
    for pool in ("lab", "edge"):
        Path("pools", pool).mkdir(parents=True)
        Path("pools", pool, "genplug.yaml").write_text(CONFIG)
    Path("pools/lab/limits.yaml").write_text(POLICY)
    assert main(["validate", "pools"]) == 78
    assert list_errors(capsys.readouterr().err) == ["pools/lab/genplug.yaml:4:3: error[GP019"]
    assert main(["validate", "pools", "--pool", "edge"]) == 0
    assert capsys.readouterr().out == "pools/edge/genplug.yaml: valid, pool edge, 1 file, 1 resource\n"


def test_policy_alone_is_validated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write(policy=POLICY)
    assert main(["validate", "policy.yaml"]) == 0
    assert capsys.readouterr().out == "policy.yaml: valid policy\n"
    write(policy=f"{POLICY_HEADER}devces: {{}}\n")
    assert main(["validate", "policy.yaml"]) == 78
    assert list_errors(capsys.readouterr().err) == ["policy.yaml:3:1: error[GP006"]
    feed(monkeypatch, POLICY)
    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out == "<stdin>: valid policy\n"


def test_policy_beside_a_configuration_limits_it(capsys: pytest.CaptureFixture[str]) -> None:
    write(genplug=CONFIG, policy=POLICY)
    assert main(["validate", "genplug.yaml", "policy.yaml"]) == 78
    assert list_errors(capsys.readouterr().err) == ["genplug.yaml:4:3: error[GP019"]


def test_policy_is_read_from_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    write(genplug=CONFIG)
    feed(monkeypatch, POLICY)
    assert main(["validate", "genplug.yaml", "--policy", "-"]) == 78
    feed(monkeypatch, POLICY_HEADER)
    assert main(["validate", "genplug.yaml", "--policy", "-"]) == 0


@pytest.mark.parametrize("command", [["validate"], ["plan"]], ids=str)
def test_values_are_read_from_the_standard_input(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, VALUES)
    assert main([*command, "--values", "-", "--pool", "default"]) == 0
    feed(monkeypatch, VALUES)
    assert main([*command, "--values", "-", "--pool", "lab"]) == 78


@pytest.mark.parametrize("arguments", [["-", "-"], ["-", "--values", "-"], ["-", "--policy", "-"]], ids=str)
def test_repeated_standard_input_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["validate", *arguments])
    assert caught.value.code == 2
    assert "'-', the standard input, can be an argument once only" in capsys.readouterr().err


def test_pipe_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, render_config_map("c", "", genplug=CONFIG).encode())
    os.close(writer)
    try:
        assert main(["validate", f"/dev/fd/{reader}"]) == 0
    finally:
        os.close(reader)
    assert capsys.readouterr().out.endswith("[c/genplug.yaml]: valid, 1 file, 1 resource\n")


def test_plan_has_the_inputs_of_validate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write(values=VALUES, genplug=CONFIG, manifest=render_config_map("c", LAB, genplug=CONFIG))
    for arguments in (["--values", "values.yaml", "--pool", "default"], ["--config", "manifest.yaml"]):
        assert main(["plan", *arguments, "-o", "json"]) == 0
        assert [resource["name"] for resource in json.loads(capsys.readouterr().out)["resources"]] == ["a.example/x"]
    feed(monkeypatch, CONFIG)
    assert main(["plan", "--config", "-", "-o", "json"]) == 0
    assert main(["plan", "--values", "values.yaml", "--pool", "lab"]) == 78


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--values", "values.yaml"], "select a pool with --pool: default, lab"),
        (["--config", "policy.yaml"], "found no configuration in the input"),
        ([], "expected --config PATH or --values FILE"),
    ],
    ids=str,
)
def test_plan_of_no_single_configuration_is_a_usage_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(values=VALUES, policy=POLICY)
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_policy_file_is_an_error_of_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    write(genplug=CONFIG)
    for command in (["validate", "genplug.yaml"], ["plan", "--config", "genplug.yaml"]):
        assert main([*command, "--policy", "missing.yaml"]) == 78
        assert list_errors(capsys.readouterr().err) == ["missing.yaml:1:1: error[GP001"]
