"""The alerts, the dashboards and the queries of the documentation.

promtool accepts them, every metric that they use is documented, and the queries return what the documentation states.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, HELMS, ROOT, TOOLS, run_program

pytestmark = pytest.mark.helm

FILES = CHART / "files"
RULES = FILES / "rules.yaml"
CASES = Path(__file__).with_name("rules_test.yaml")
QUERIES = ROOT / "docs/how-to/queries.md"
QUERY_CASES = Path(__file__).with_name("queries_test.yaml")

RESOURCES = "config.resources.a\\.example/x.devices[0].glob=/dev/x*"
ENABLED = ("--set", "metrics.prometheusRule.enabled=true", "--set", RESOURCES)
WITH_CRD = ("--api-versions", "monitoring.coreos.com/v1")

Document = dict[str, Any]

METRIC = re.compile(r"\b((?:genplug|process|python)_\w+)(?:\{([^}]*)\})?")
TARGET_LABELS = {"job", "namespace", "pod", "node", "pool"}
"""Labels that the PodMonitor adds to every series."""


def run_promtool(*arguments: str | Path) -> str:
    run = run_program("promtool", *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def run_helm_template(helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program(TOOLS / helm, "template", "edge", CHART, "--namespace", "devices", *arguments)


def render_rule(helm: str, *arguments: str) -> Document:
    run = run_helm_template(helm, "--show-only", "templates/prometheusrule.yaml", *ENABLED, *WITH_CRD, *arguments)
    assert run.returncode == 0, run.stderr
    rule: Document = yaml.safe_load(run.stdout)
    return rule


def list_alert_names(rule: Document) -> list[str]:
    return [alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]]


def read_documented_series() -> dict[str, set[str]]:
    """Return every series in docs/reference/metrics.md with its labels."""
    series: dict[str, set[str]] = {}
    for line in (ROOT / "docs/reference/metrics.md").read_text().splitlines():
        if not line.startswith("| `genplug_"):
            continue
        name, kind, labels, _ = (cell.strip() for cell in line.strip("|").split("|"))
        own = set(re.findall(r"`(\w+)`", labels))
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        series |= {name.strip("`") + suffix: own | ({"le"} if suffix == "_bucket" else set()) for suffix in suffixes}
    return series


def read_alerts() -> list[Document]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def read_dashboards() -> dict[str, Document]:
    """Return the dashboards by the names of their files."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FILES.glob("dashboard*.json"))}


def read_documented_queries() -> dict[str, str]:
    """Return the queries of docs/how-to/queries.md by their headings."""
    text = QUERIES.read_text()
    return dict(re.findall(r"^## (.+)\n(?:(?!^## )[\s\S])*?```promql\n([\s\S]*?)```", text, re.MULTILINE))


def read_queries() -> dict[str, str]:
    """Return every PromQL expression of the alerts, the dashboards and the documentation by its location."""
    found = {alert["alert"]: alert["expr"] for alert in read_alerts()} | read_documented_queries()
    for name, dashboard in read_dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                found[f"{name}, panel {panel['title']}, {target['refId']}"] = target["expr"]
    return found


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(read_alerts())} rules found" in run_promtool("check", "rules", RULES)


def test_alerts_pass_their_promtool_cases() -> None:
    run_promtool("test", "rules", CASES)


def test_every_alert_has_a_case_that_fires_and_a_case_that_does_not() -> None:
    checks = [check for case in yaml.safe_load(CASES.read_text())["tests"] for check in case["alert_rule_test"]]
    every = {alert["alert"] for alert in read_alerts()}
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == every
    assert {check["alertname"] for check in checks if not check.get("exp_alerts")} == every


def test_promtool_accepts_the_dashboard_queries(tmp_path: Path) -> None:
    expressions = [expr.replace("$__rate_interval", "5m") for where, expr in read_queries().items() if "panel" in where]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run_promtool("check", "rules", tmp_path / "panels.yaml")


@pytest.mark.parametrize("where", read_queries())
def test_metrics_and_labels_of_a_query_are_documented(where: str) -> None:
    series = read_documented_series()
    # Metrics of the client library are documented as families, for example `process_*`.
    families = set(re.findall(r"`(process|python)_\*`", (ROOT / "docs/reference/metrics.md").read_text()))
    for name, matchers in METRIC.findall(read_queries()[where]):
        labels = set(re.findall(r"(\w+)\s*[=!]~?", matchers)) - TARGET_LABELS
        assert name in series or name.split("_")[0] in families, name
        assert labels <= series.get(name, set()), name


def test_documented_queries_return_the_documented_series() -> None:
    run_promtool("test", "rules", QUERY_CASES)


def test_every_documented_query_has_a_case() -> None:
    cases = [case for group in yaml.safe_load(QUERY_CASES.read_text())["tests"] for case in group["promql_expr_test"]]
    tested = [" ".join(case["expr"].split()) for case in cases]
    queries = read_documented_queries()
    assert len(queries) >= 10
    assert sorted(tested) == sorted(" ".join(query.split()) for query in queries.values())
    assert all(case["exp_samples"] for case in cases)


def test_every_alert_has_a_severity_and_a_next_step() -> None:
    for alert in read_alerts():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"].keys() == {"summary", "description"}
        # A command, or a query for Prometheus.
        assert re.search(r"`(kubectl |genplug_\w+\{)[^`]*`", alert["annotations"]["description"])


def test_documented_sections_match_the_alerts() -> None:
    sections = re.findall(r"^## (\w+)\n\n(\w+) · ", (ROOT / "docs/reference/alerts.md").read_text(), re.MULTILINE)
    assert sections == [(alert["alert"], alert["labels"]["severity"]) for alert in read_alerts()]


@pytest.mark.parametrize("name", read_dashboards())
def test_dashboard_panels_have_unique_ids_and_do_not_overlap(name: str) -> None:
    panels = read_dashboards()[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for area in [panel["gridPos"]]
        for x in range(area["x"], area["x"] + area["w"])
        for y in range(area["y"], area["y"] + area["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("helm", HELMS)
def test_chart_renders_every_alert_with_its_job_and_runbook_url(helm: str, tmp_path: Path) -> None:
    rule = render_rule(helm, "--set", "metrics.port=9900", "--set", "pools.b.enabled=true")
    assert list_alert_names(rule) == [alert["alert"] for alert in read_alerts()]
    for alert in rule["spec"]["groups"][0]["rules"]:
        assert set(re.findall(r'job="([^"]*)"', alert["expr"])) <= {"devices/edge-genplug"}
        daemonsets = re.findall(r"kube_daemonset_\w+{([^}]*)}", alert["expr"])
        assert set(daemonsets) <= {'namespace="devices",daemonset=~"edge-genplug-b|edge-genplug"'}
        assert "job=" in alert["expr"] or daemonsets
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/reference/alerts.md#{alert['alert'].lower()}")
        assert ":9808" not in alert["annotations"]["description"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    run_promtool("check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("helm", HELMS)
def test_chart_omits_disabled_alerts_and_config_differs_with_node_configurations(helm: str) -> None:
    every = [alert["alert"] for alert in read_alerts()]
    disabled = render_rule(helm, "--set", "metrics.prometheusRule.disabled={GenplugNotReady,GenplugAgentDown}")
    assert sorted(list_alert_names(disabled)) == sorted(set(every) - {"GenplugNotReady", "GenplugAgentDown"})
    # A node with its own configuration always differs from its pool.
    node = "config.nodes.n1.resources.a\\.example/y.devices[0].glob=/dev/y"
    assert sorted(list_alert_names(render_rule(helm, "--set", node))) == sorted(set(every) - {"GenplugConfigDiffers"})


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("key", ["metrics.prometheusRule", "metrics.podMonitor"])
def test_missing_prometheus_operator_is_rejected_with_the_value_to_set(helm: str, key: str) -> None:
    enabled = ("--set", f"{key}.enabled=true", "--set", RESOURCES)
    rejected = run_helm_template(helm, *enabled)
    assert rejected.returncode == 1
    assert f"set {key}.force to true" in rejected.stderr
    assert run_helm_template(helm, *enabled, "--set", f"{key}.force=true").returncode == 0
    assert run_helm_template(helm, *enabled, *WITH_CRD).returncode == 0
