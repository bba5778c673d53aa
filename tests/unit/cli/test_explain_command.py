"""``genplug explain``: every key, code, alert, event and metric, and the search for a topic."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from genplug.cli.explain import format_key, format_topic
from genplug.cli.main import main
from genplug.documentation.key_search import DOCUMENTS, find_key, list_all_keys
from genplug.documentation.markdown import format_markdown
from genplug.documentation.pages import SOURCES
from genplug.documentation.topics import Kind, Topic, find_topic, list_topics
from genplug.observe.events import Event
from genplug.spec.diagnostic import ErrorCode, WarningCode
from tests.support.outputs import check_output
from tests.support.pages import ROOT

MARKUP = re.compile(r"\]\(|(?<!/)\*\*\w|<!--|^\(gp|^```|^\|", re.MULTILINE)
"""Marks of Markdown that a terminal should not show."""


def explain(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["explain", *arguments]) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def list_rules() -> set[str]:
    """Return the names of the alerts in the rules of the chart."""
    text = (ROOT / "deploy/helm/genplug/files/rules.yaml").read_text()
    return {rule["alert"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule}


def test_every_code_alert_and_event_is_a_topic() -> None:
    names = {kind: {topic.name for topic in list_topics() if topic.kind is kind} for kind in Kind}
    assert names[Kind.CODE] == {code.value for codes in (ErrorCode, WarningCode) for code in codes}
    assert names[Kind.ALERT] == list_rules()
    assert names[Kind.EVENT] == {event.code for event in Event}


@pytest.mark.parametrize("topic", list_topics(), ids=lambda topic: topic.name)
def test_topic_is_printed_without_markup(topic: Topic) -> None:
    text = format_topic(topic)
    assert topic.text
    assert MARKUP.findall(text) == []
    # Lines of code have any width.
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("    ")] == []
    assert find_topic(topic.name.upper()) is topic


def test_key_with_a_value_in_the_chart_is_not_required(capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("values.pools", "values.daemonset"):
        assert "\nrequired\n" not in explain(capsys, key)
    assert "\nrequired\n" in explain(capsys, "resources.devices.glob")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_key_is_found_by_its_paths_and_printed(document: str) -> None:
    keys = list_all_keys(document)
    assert len(keys) > 15
    for key in keys:
        assert find_key(key.path, (document,)) == key
        found = find_key(key.short_path)
        assert found is not None, key.short_path
        text = format_key(key)
        assert MARKUP.findall(text) == []
        assert "type: " in text


def test_keys_of_an_example_are_found() -> None:
    """Every key of the recipes is a path that the command finds."""
    for path in sorted((ROOT / "examples/configs").glob("*.yaml")):
        for key_path in list_paths(yaml.safe_load(path.read_text())):
            assert find_key(key_path, ("config",)) is not None, key_path


def list_paths(value: object, path: str = "") -> list[str]:
    """Return the paths of all values, as the errors of a configuration write them."""
    if isinstance(value, dict):
        inner = [list_paths(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
    elif isinstance(value, list):
        inner = [list_paths(item, f"{path}[{number}]") for number, item in enumerate(value)]
    else:
        inner = []
    return [*([path] if path else []), *(each for paths in inner for each in paths)]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("resources.devices.glob", ("config", "resources.*.devices[].glob")),
        ("resources.example.com/x.devices[0].glob", ("config", "resources.*.devices[].glob")),
        ("resources.vendor.com/${name}.health", ("config", "resources.*.health")),
        ("devices[].where", ("config", "resources.*.devices[].where")),
        ("resources.nvidia.com/gpu", ("config", "resources.*")),
        ("defaults.health", ("config", "defaults.health")),
        ("policy.mounts.allow", ("policy", "mounts.allow")),
        ("mounts.allow", ("policy", "mounts.allow")),
        ("policy", ("policy", "")),
        ("values.policy.mounts", ("values", "policy.mounts")),
        ("daemonset.tolerations", ("values", "daemonset.tolerations")),
        ("values.pools.lab.config.resources.devices", ("values", "pools.*.config.resources.*.devices")),
    ],
)
def test_key_is_found_by_its_path(path: str, found: tuple[str, str]) -> None:
    key = find_key(path)
    assert key is not None
    assert (key.document, key.path) == found


@pytest.mark.parametrize("path", ["resources.devces", "resources.devices.glob.x", "nothing", "policy.nothing"])
def test_unknown_path_is_not_found(path: str) -> None:
    assert find_key(path) is None


def test_key_is_printed_with_type_default_and_child_keys(capsys: pytest.CaptureFixture[str]) -> None:
    text = explain(capsys, "resources.replicas")
    assert text.startswith("resources.*.replicas (configuration)\n\ntype: integer\ndefault: 1\n")
    assert "range: at least 1, at most 1000\nexample: replicas: 4\n" in text
    parent = explain(capsys, "share")
    assert "keys:\nKEY" in parent
    assert "maxPerContainer" in parent


def test_recursive_output_has_all_keys_below_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    direct, recursive = (explain(capsys, "resources", *options) for options in ([], ["--recursive"]))
    assert "devices[].where" not in direct
    assert "\ndevices[].where.*.in " in recursive


def test_default_of_a_chart_value_is_that_of_the_chart(capsys: pytest.CaptureFixture[str]) -> None:
    assert "default: /var/lib/kubelet\n" in explain(capsys, "values.daemonset.kubeletDir")


def test_document_option_selects_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "resources").startswith("resources (configuration)")
    assert explain(capsys, "resources", "--document", "policy").startswith("resources (policy)")


def test_alert_and_metric_are_found_without_their_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "notready").startswith("GenplugNotReady (alert)")
    assert explain(capsys, "probe_runs_total").startswith("genplug_probe_runs_total (metric)")


def test_index_lists_every_topic(capsys: pytest.CaptureFixture[str]) -> None:
    text = explain(capsys)
    assert [topic.name for topic in list_topics() if topic.name not in text] == []
    assert "policy.mounts" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [
        ("GP99", "GP109"),
        ("GenplugNotRedy", "GenplugNotReady"),
        ("device_unhelthy", "device_unhealthy"),
        ("resources.devces", "resources.devices"),
        ("health.probs", "health.probes"),
        ("nodeSelecter", "values.daemonset.nodeSelector"),
    ],
)
def test_misspelled_topic_has_suggestions(word: str, suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert suggestion in explain(capsys, word, code=2)


def test_unrelated_word_refers_to_the_index(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'genplug explain' lists all topics" in explain(capsys, "xyzzy", code=2)


@pytest.mark.parametrize("arguments", [["resources.replicas"], ["GP006"], ["started"], []], ids=str)
def test_document_fits_its_schema(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(explain(capsys, *arguments, "-o", "json"))
    check_output(document)
    assert len(document["topics"]) == (1 if arguments else len(list_topics()))


def test_validate_names_the_command_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 1\n")
    receiver, sender = os.openpty()
    with os.fdopen(sender, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        assert main(["validate", str(path)]) == 78
        terminal.flush()
        printed = ""
        # The terminal can deliver the lines one after the other.
        while "run 'genplug explain GP0" not in printed:
            printed += os.read(receiver, 1 << 16).decode()
    os.close(receiver)


def test_wheel_and_image_contain_the_sources() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    containerfile, ignored = ((ROOT / name).read_text() for name in ("deploy/Containerfile", ".dockerignore"))
    for name, directory in SOURCES.items():
        path = f"{directory}/{name}"
        assert build["force-include"][path] == f"genplug/documentation/{name}"
        assert path in containerfile
        assert f"!{path}\n" in ignored


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("One `a*b*` and\n**two** [three](x.md).", "One a*b* and two three."),
        ("- a\n  more\n- b\n\nText", "- a more\n- b\n\nText"),
        ("1. a\n\n   ```sh\n   x  y\n   ```", "1. a\n\n    x  y"),
        ("| A | B |\n|---|---|\n| `x\\|y` | z |", "x|y\n  z"),
        ("<!-- no -->\n(gp001)=\n### Head `x`", "HEAD X"),
        ("a_b and *c* 2 * 3 * 4", "a_b and c 2 * 3 * 4"),
    ],
)
def test_markdown_is_formatted_as_text(markdown: str, text: str) -> None:
    assert format_markdown(markdown, 80) == text
