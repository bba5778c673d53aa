"""The alerts and the dashboard: promtool judges them, and they name nothing that genplug does not have."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/genplug"
FILES = CHART / "files"
RULES = FILES / "rules.yaml"
CASES = Path(__file__).with_name("rules_test.yaml")
TOOLS = Path(os.environ.get("GENPLUG_TOOLS") or Path.home() / ".cache/genplug/tools")

RESOURCES = "config.resources.a\\.example/x.devices[0].glob=/dev/x*"
ENABLED = ("--set", "metrics.prometheusRule.enabled=true", "--set", RESOURCES)
WITH_CRD = ("--api-versions", "monitoring.coreos.com/v1")

METRIC = re.compile(r"\b((?:genplug|process|python)_\w+)(?:\{([^}]*)\})?")
TARGET_LABELS = {"job", "namespace", "pod", "node", "pool"}
"""What the PodMonitor puts on every series."""


def promtool(*arguments: str | Path) -> str:
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def helm(major: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / major, "template", "edge", CHART, "--namespace", "devices", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rendered(major: str, *arguments: str) -> dict:
    run = helm(major, "--show-only", "templates/prometheusrule.yaml", *ENABLED, *WITH_CRD, *arguments)
    assert run.returncode == 0, run.stderr
    return yaml.safe_load(run.stdout)


def names(rule: dict) -> list[str]:
    return [alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]]


def documented() -> dict[str, set[str]]:
    """Return every series of docs/reference/metrics.md with the labels of its own."""
    series: dict[str, set[str]] = {}
    for line in (ROOT / "docs/reference/metrics.md").read_text().splitlines():
        if not line.startswith("| `genplug_"):
            continue
        name, kind, labels, _ = (cell.strip() for cell in line.strip("|").split("|"))
        own = set(re.findall(r"`(\w+)`", labels))
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        series |= {name.strip("`") + suffix: own | ({"le"} if suffix == "_bucket" else set()) for suffix in suffixes}
    return series


def alerts() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict:
    return json.loads((FILES / "dashboard.json").read_text())


def queries() -> dict[str, str]:
    """Return every PromQL expression of ours by where it stands."""
    found = {alert["alert"]: alert["expr"] for alert in alerts()}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            found[f"panel {panel['title']}, {target['refId']}"] = target["expr"]
    return found


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES)


def test_every_alert_fires_where_it_should_and_keeps_still_where_it_should() -> None:
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    checks = [check for case in yaml.safe_load(CASES.read_text())["tests"] for check in case["alert_rule_test"]]
    every = {alert["alert"] for alert in alerts()}
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == every
    assert {check["alertname"] for check in checks if not check.get("exp_alerts")} == every


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [expr.replace("$__rate_interval", "5m") for where, expr in queries().items() if "panel" in where]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "panels.yaml")


@pytest.mark.parametrize("where", queries())
def test_every_metric_and_label_that_is_asked_for_is_documented(where: str) -> None:
    series = documented()
    # What the client library adds is documented as a family: `process_*`.
    families = set(re.findall(r"`(process|python)_\*`", (ROOT / "docs/reference/metrics.md").read_text()))
    for name, matchers in METRIC.findall(queries()[where]):
        asked = set(re.findall(r"(\w+)\s*[=!]~?", matchers)) - TARGET_LABELS
        assert name in series or name.split("_")[0] in families, name
        assert asked <= series.get(name, set()), name


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description"}
        assert "kubectl" in alert["annotations"]["description"] or "query" in alert["annotations"]["description"]


def test_every_alert_has_its_section_in_the_docs_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (\w+)\n\n(\w+) · ", (ROOT / "docs/reference/alerts.md").read_text(), re.MULTILINE)
    assert sections == [(alert["alert"], alert["labels"]["severity"]) for alert in alerts()]


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("major", ["helm3", "helm4"])
def test_the_chart_renders_every_alert_for_its_own_agents_with_a_link_to_its_section(
    major: str, tmp_path: Path
) -> None:
    rule = rendered(major, "--set", "metrics.port=9900")
    assert names(rule) == [alert["alert"] for alert in alerts()]
    for alert in rule["spec"]["groups"][0]["rules"]:
        assert set(re.findall(r'job="([^"]*)"', alert["expr"])) == {"devices/edge-genplug"}
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/reference/alerts.md#{alert['alert'].lower()}")
        assert ":9808" not in alert["annotations"]["description"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    promtool("check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("major", ["helm3", "helm4"])
def test_the_chart_leaves_out_what_is_disabled_and_what_cannot_hold(major: str) -> None:
    every = [alert["alert"] for alert in alerts()]
    disabled = rendered(major, "--set", "metrics.prometheusRule.disabled={GenplugNotReady,GenplugAgentDown}")
    assert sorted(names(disabled)) == sorted(set(every) - {"GenplugNotReady", "GenplugAgentDown"})
    # A node with a file of its own has another configuration than its pool for good.
    node = "config.nodes.n1.resources.a\\.example/y.devices[0].glob=/dev/y"
    assert sorted(names(rendered(major, "--set", node))) == sorted(set(every) - {"GenplugConfigDiffers"})


@pytest.mark.parametrize("major", ["helm3", "helm4"])
@pytest.mark.parametrize("key", ["metrics.prometheusRule", "metrics.podMonitor"])
def test_the_chart_says_what_to_do_where_the_operator_is_missing(major: str, key: str) -> None:
    enabled = ("--set", f"{key}.enabled=true", "--set", RESOURCES)
    refused = helm(major, *enabled)
    assert refused.returncode == 1
    assert f"set {key}.force to true" in refused.stderr
    assert helm(major, *enabled, "--set", f"{key}.force=true").returncode == 0
    assert helm(major, *enabled, *WITH_CRD).returncode == 0
