"""The Grafana dashboards of the chart, as code: ``generate.py`` writes them to ``files/``.

``dashboard.json`` shows devices, allocations and agents of the selected nodes; ``dashboard-fleet.json`` compares pools
and nodes. The panels flow from left to right, in rows of :data:`COLUMNS`.
"""
# ruff: noqa: INP001 - a module of the script next to it, not a package

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

COLUMNS = 24
"""Columns of Grafana's grid."""
AGENTS = 'job=~"$job",pool=~"$pool",node=~"$node"'
"""The matchers of the selected agents; the dashboard has a variable for each."""
RESOURCES = f'{AGENTS},resource=~"$resource"'
"""The matchers of the selected agents and resources."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_LINES = {"fillOpacity": 8, "lineWidth": 1, "showPoints": "never"}

Document = dict[str, Any]


class Query(Struct, frozen=True):
    """A PromQL expression with the name of its series, which can contain labels such as ``{{node}}``."""

    expr: str
    legend: str = ""


class Stat(Struct, frozen=True):
    """A number. ``bad`` is the color of a number that is not 0, or an empty string if every number is good."""

    title: str
    description: str
    expr: str
    bad: str = ""
    unit: str = "short"
    width: int = 4
    height: int = 4

    def build(self) -> Document:
        """Return the keys of the panel that other kinds of panels do not have."""
        steps: list[Document] = [{"color": "green", "value": None}]
        if self.bad:
            steps.append({"color": self.bad, "value": 1})
        thresholds = {"mode": "absolute", "steps": steps}
        return {
            "type": "stat",
            "fieldConfig": {
                "defaults": {"unit": self.unit, "min": 0, "color": {"mode": "thresholds"}, "thresholds": thresholds},
                "overrides": [],
            },
            "targets": _build_targets([Query(self.expr)], instant=True),
            "options": {
                "colorMode": "value",
                "graphMode": "none",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            },
        }


class Graph(Struct, frozen=True):
    """Lines over time."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    is_stacked: bool = False
    width: int = 12
    height: int = 8

    def build(self) -> Document:
        """Return the keys of the panel that other kinds of panels do not have."""
        stacking: Document = {"stacking": {"mode": "normal"}} if self.is_stacked else {}
        return {
            "type": "timeseries",
            "fieldConfig": {
                "defaults": {"unit": self.unit, "min": 0, "custom": {**_LINES, **stacking}},
                "overrides": [],
            },
            "targets": _build_targets(self.queries),
            "options": {
                "legend": {
                    "calcs": ["lastNotNull"],
                    "displayMode": "table",
                    "placement": "right",
                    "showLegend": True,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
        }


class Table(Struct, frozen=True):
    """A row for each combination of labels. Each query is a column; its legend is the heading, or empty to hide it.

    ``times`` are headings of columns with milliseconds since the epoch, ``answers`` of columns with 1 for yes, and
    ``bars`` of columns that are shown as bars from 0 to 1.
    """

    title: str
    description: str
    queries: Sequence[Query]
    times: Sequence[str] = ()
    answers: Sequence[str] = ()
    bars: Sequence[str] = ()
    width: int = 24
    height: int = 8

    def build(self) -> Document:
        """Return the keys of the panel that other kinds of panels do not have."""
        answer = {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}}
        overrides = [_override(heading, {"unit": "dateTimeAsIso"}) for heading in self.times]
        overrides += [
            _override(heading, {"mappings": [{"type": "value", "options": answer}]}) for heading in self.answers
        ]
        gauge = {"type": "gauge", "mode": "basic"}
        overrides += [
            _override(heading, {"unit": "percentunit", "max": 1, "custom.cellOptions": gauge}) for heading in self.bars
        ]
        values = [f"Value #{_name_query(number)}" for number in range(len(self.queries))]
        values = ["Value"] if len(values) == 1 else values
        columns = [(value, query.legend) for value, query in zip(values, self.queries, strict=True)]
        excluded = ["Time", *(value for value, heading in columns if not heading)]
        organize = {
            "excludeByName": dict.fromkeys(excluded, True),
            "renameByName": {value: heading for value, heading in columns if heading},
        }
        merge = [{"id": "merge", "options": {}}] if len(self.queries) > 1 else []
        return {
            "type": "table",
            "fieldConfig": {"defaults": {"unit": "short", "min": 0}, "overrides": overrides},
            "targets": [
                {**target, "format": "table", "legendFormat": ""}
                for target in _build_targets(self.queries, instant=True)
            ],
            "transformations": [*merge, {"id": "organize", "options": organize}],
            "options": {"showHeader": True},
        }


class Row(Struct, frozen=True):
    """A heading above the next panels."""

    title: str
    width: int = COLUMNS
    height: int = 1

    def build(self) -> Document:
        """Return the keys of the panel that other kinds of panels do not have."""
        return {"type": "row", "collapsed": False, "panels": []}


Panel = Stat | Graph | Table | Row


class Dashboard(Struct, frozen=True):
    """A dashboard: its identity, its variables (name, label and query of their values) and its panels."""

    uid: str
    title: str
    description: str
    variables: Sequence[tuple[str, str, str]]
    panels: Sequence[Panel]
    links: Mapping[str, str] = {}
    """Titles of links to other dashboards, and the uids of these."""

    def render(self) -> str:
        """Return the JSON document that Grafana imports."""
        document = {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["genplug", "kubernetes"],
            "schemaVersion": 41,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "1m",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "",
            "links": [
                {
                    "title": title,
                    "type": "link",
                    "url": f"/d/{uid}",
                    "includeVars": True,
                    "keepTime": True,
                    "targetBlank": False,
                    "icon": "dashboard",
                    "tags": [],
                    "asDropdown": False,
                    "tooltip": "",
                }
                for title, uid in self.links.items()
            ],
            "annotations": {"list": []},
            "templating": {"list": [_build_source_variable(), *map(_build_variable, self.variables)]},
            "panels": list(_place(self.panels)),
        }
        return json.dumps(document, indent=1) + "\n"


def _place(panels: Sequence[Panel]) -> Iterator[Document]:
    """Yield the panels with their IDs and positions, from left to right and from top to bottom."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + height
        # The panels of a line have one height.
        height = panel.height
        described = {} if isinstance(panel, Row) else {"description": panel.description, "datasource": _SOURCE}
        position = {"h": panel.height, "w": panel.width, "x": x, "y": y}
        yield {"id": number, "title": panel.title, **described, "gridPos": position, **panel.build()}
        x += panel.width


def _build_targets(queries: Sequence[Query], *, instant: bool = False) -> list[Document]:
    return [
        {
            "datasource": _SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "refId": _name_query(number),
            **({"instant": True} if instant else {}),
        }
        for number, query in enumerate(queries)
    ]


def _name_query(number: int) -> str:
    return chr(ord("A") + number)


def _override(heading: str, properties: Mapping[str, object]) -> Document:
    return {
        "matcher": {"id": "byName", "options": heading},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def _build_source_variable() -> Document:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
    }


def _build_variable(variable: tuple[str, str, str]) -> Document:
    name, label, query = variable
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # The releases are listed: other jobs have the metrics of processes, too.
        "allValue": None if name == "job" else ".*",
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
        "regex": "",
        "options": [],
    }


JOB = ("job", "Release", "label_values(genplug_build_info, job)")
POOL = ("pool", "Pool", 'label_values(genplug_build_info{job=~"$job"}, pool)')
NODE = ("node", "Node", 'label_values(genplug_build_info{job=~"$job",pool=~"$pool"}, node)')
RESOURCE = ("resource", "Resource", f"label_values(genplug_devices{{{AGENTS}}}, resource)")

NODES = Dashboard(
    uid="genplug",
    title="genplug",
    description="Devices that genplug advertises to the kubelets, by node pool and node.",
    variables=(JOB, POOL, NODE, RESOURCE),
    links={"Fleet": "genplug-fleet"},
    panels=(
        Stat(
            "Ready agents",
            "Agents that have a valid configuration and whose resources are all registered with the kubelet.",
            f"sum(genplug_ready{{{AGENTS}}}) or vector(0)",
        ),
        Stat(
            "Agents not ready",
            "Agents that are down or whose /readyz returns 503. /readyz?verbose states the reason.",
            f"(count(up{{{AGENTS}}}) or vector(0)) - (sum(genplug_ready{{{AGENTS}}}) or vector(0))",
            bad="red",
        ),
        Stat(
            "Healthy devices",
            "Devices that the kubelet can allocate, including those in use.",
            f'sum(genplug_devices{{{RESOURCES},state="healthy"}}) or vector(0)',
        ),
        Stat(
            "Unhealthy devices",
            "Devices that are listed but that the kubelet does not allocate.",
            f'sum(genplug_devices{{{RESOURCES},state="unhealthy"}}) or vector(0)',
            bad="orange",
        ),
        Stat(
            "Agents that rejected a configuration",
            "The latest files are invalid; the last valid configuration is active.",
            f"count(genplug_config_last_reload_successful{{{AGENTS}}} == 0) or vector(0)",
            bad="red",
        ),
        Stat(
            "Resources not registered",
            "Number of pairs of node and resource for which the kubelet has no open stream.",
            f"count(genplug_resource_registered{{{RESOURCES}}} == 0) or vector(0)",
            bad="red",
        ),
        Row("Devices"),
        Graph(
            "Devices by resource and state",
            "Sum over all nodes.",
            [
                Query(
                    f"sum by (resource, state) (genplug_devices{{{RESOURCES}}})",
                    "{{resource}} {{state}}",
                )
            ],
        ),
        Graph(
            "Devices in use and free",
            "Devices that containers use, and healthy devices that no container uses. Sum over all nodes.",
            [
                Query(f"sum by (resource) (genplug_devices_in_use{{{RESOURCES}}})", "{{resource}} in use"),
                Query(f"sum by (resource) (genplug_devices_free{{{RESOURCES}}})", "{{resource}} free"),
            ],
        ),
        Graph(
            "Unhealthy devices by node",
            "Nodes without unhealthy devices are not shown.",
            [
                Query(
                    f'sum by (node, resource) (genplug_devices{{{RESOURCES},state="unhealthy"}}) > 0',
                    "{{node}} {{resource}}",
                )
            ],
        ),
        Graph(
            "Missing devices by node",
            "Healthy devices that `expect.min` requires and the node does not have. Complete nodes are not shown.",
            [
                Query(
                    f"sum by (node, resource) (genplug_devices_missing{{{RESOURCES}}}) > 0",
                    "{{node}} {{resource}}",
                )
            ],
        ),
        Graph(
            "Health changes",
            "Devices that became healthy or unhealthy, per interval. Frequent changes indicate an unstable device.",
            [
                Query(
                    "sum by (resource, to) ("
                    f"increase(genplug_device_health_transitions_total{{{RESOURCES}}}[$__rate_interval]))",
                    "{{resource}} to {{to}}",
                )
            ],
        ),
        Graph(
            "Device lists sent to the kubelets",
            "The agent sends a list after each change. Many lists without health changes indicate devices that appear "
            "and disappear.",
            [
                Query(
                    "sum by (resource) ("
                    f"increase(genplug_list_and_watch_updates_total{{{RESOURCES}}}[$__rate_interval]))",
                    "{{resource}}",
                )
            ],
        ),
        Row("Allocations"),
        Graph(
            "Allocations",
            "Allocate calls by result. For each refused call a pod failed.",
            [
                Query(
                    f"sum by (resource, result) (increase(genplug_allocations_total{{{RESOURCES}}}[$__rate_interval]))",
                    "{{resource}} {{result}}",
                )
            ],
        ),
        Graph(
            "Allocate duration, 99th percentile",
            "Time that genplug needs for a call. The kubelet waits for it before it starts the container.",
            [
                Query(
                    "histogram_quantile(0.99, sum by (resource, le) ("
                    f"rate(genplug_allocate_duration_seconds_bucket{{{RESOURCES}}}[$__rate_interval])))",
                    "{{resource}}",
                )
            ],
            unit="s",
        ),
        Row("Dynamic Resource Allocation"),
        Graph(
            "Published devices by resource and state",
            "Devices of resources with `serve: dra`, summed over all nodes. Tainted devices are unhealthy, and a pod "
            "has a withheld device by the device plugin API. `genplug status` shows why devices are left out.",
            [
                Query(
                    f"sum by (resource, state) (genplug_dra_devices{{{RESOURCES}}}) > 0",
                    "{{resource}} {{state}}",
                )
            ],
        ),
        Graph(
            "Nodes that do not publish",
            "The last request to the API server failed, or the kubelet has not registered the driver. Other nodes are "
            "not shown.",
            [
                Query(f"max by (node) (genplug_dra_publish_failing{{{AGENTS}}} == 1)", "{{node}} API server"),
                Query(f"count by (node) (genplug_dra_registered{{{AGENTS}}} == 0)", "{{node}} kubelet"),
            ],
        ),
        Graph(
            "Claims that were not prepared",
            "Attempts by reason. The pods of these claims wait, and the kubelet retries.",
            [
                Query(
                    f"sum by (reason) (increase(genplug_dra_prepare_errors_total{{{AGENTS}}}[$__rate_interval])) > 0",
                    "{{reason}}",
                )
            ],
        ),
        Graph(
            "Prepared claims by pool",
            "ResourceClaims whose devices pods use.",
            [Query(f"sum by (pool) (genplug_dra_prepared_claims{{{AGENTS}}})", "{{pool}}")],
        ),
        Graph(
            "Duration of preparation and publication, 99th percentile",
            "Time that genplug needs to prepare a claim, for which the kubelet waits before it creates the pod, and to "
            "publish changed devices.",
            [
                Query(
                    "histogram_quantile(0.99, sum by (le) ("
                    f"rate(genplug_dra_prepare_seconds_bucket{{{AGENTS}}}[$__rate_interval])))",
                    "prepare",
                ),
                Query(
                    "histogram_quantile(0.99, sum by (le) ("
                    f"rate(genplug_dra_publish_seconds_bucket{{{AGENTS}}}[$__rate_interval])))",
                    "publish",
                ),
            ],
            unit="s",
        ),
        Graph(
            "Requests to the API server",
            "Requests of all agents by verb and status. The status 0 is a request without an answer.",
            [
                Query(
                    f"sum by (verb, code) (increase(genplug_dra_api_requests_total{{{AGENTS}}}[$__rate_interval]))",
                    "{{verb}} {{code}}",
                )
            ],
        ),
        Row("Kubelet"),
        Graph(
            "Registrations",
            "Expected: one per resource and start of the kubelet.",
            [
                Query(
                    "sum by (resource, result) ("
                    f"increase(genplug_registrations_total{{{RESOURCES}}}[$__rate_interval]))",
                    "{{resource}} {{result}}",
                )
            ],
        ),
        Graph(
            "Kubelet restarts",
            "Restarts of the kubelet that the agents detected, by node.",
            [
                Query(
                    f"sum by (node) (increase(genplug_kubelet_restarts_total{{{AGENTS}}}[$__rate_interval])) > 0",
                    "{{node}}",
                )
            ],
        ),
        Graph(
            "Open streams by resource",
            "Expected: one per node that has the resource. With fewer streams, a kubelet does not receive the devices.",
            [Query(f"sum by (resource) (genplug_list_and_watch_streams{{{RESOURCES}}})", "{{resource}}")],
            width=24,
        ),
        Row("Configuration"),
        Graph(
            "Configuration reloads",
            "Configurations that were read because a file changed, by result.",
            [
                Query(
                    f"sum by (result) (increase(genplug_config_reloads_total{{{AGENTS}}}[$__rate_interval]))",
                    "{{result}}",
                )
            ],
        ),
        Graph(
            "Active configurations by pool",
            "More than one while a change is rolled out, or permanently if nodes have their own configuration.",
            [
                Query(
                    f'count by (pool) (count by (pool, sha256) (genplug_config_info{{{AGENTS},sha256!=""}}))',
                    "{{pool}}",
                )
            ],
        ),
        Table(
            "Configuration of each node",
            "SHA-256 of the active configuration, the time of its activation, and whether the latest files were "
            "accepted.",
            [
                Query(f"max by (pool, node, sha256) (genplug_config_info{{{AGENTS}}})"),
                Query(
                    f"max by (pool, node) (genplug_config_last_reload_success_timestamp_seconds{{{AGENTS}}}) * 1000",
                    "active since",
                ),
                Query(
                    f"min by (pool, node) (genplug_config_last_reload_successful{{{AGENTS}}})",
                    "latest files accepted",
                ),
            ],
            times=["active since"],
            answers=["latest files accepted"],
        ),
        Row("Agent"),
        Graph(
            "Memory",
            "Resident memory of the agent process. Compare it with the memory limit of the pods.",
            [
                Query(f"max(process_resident_memory_bytes{{{AGENTS}}})", "largest"),
                Query(f"avg(process_resident_memory_bytes{{{AGENTS}}})", "average"),
            ],
            unit="bytes",
        ),
        Graph(
            "CPU",
            "CPU seconds per second.",
            [
                Query(f"max(rate(process_cpu_seconds_total{{{AGENTS}}}[$__rate_interval]))", "largest"),
                Query(f"avg(rate(process_cpu_seconds_total{{{AGENTS}}}[$__rate_interval]))", "average"),
            ],
            unit="percentunit",
        ),
        Graph(
            "Internal errors",
            "Expected: 0. Please report any other value as a bug.",
            [
                Query(
                    f"sum by (node) (increase(genplug_internal_errors_total{{{AGENTS}}}[$__rate_interval])) > 0",
                    "{{node}}",
                )
            ],
        ),
        Table(
            "Versions",
            "Number of agents by version.",
            [Query(f"count by (version, python) (genplug_build_info{{{AGENTS}}})", "agents")],
            width=12,
        ),
    ),
)

FLEET = Dashboard(
    uid="genplug-fleet",
    title="genplug fleet",
    description="The node pools of genplug side by side, and the nodes that need attention.",
    variables=(
        JOB,
        POOL,
        ("resource", "Resource", 'label_values(genplug_devices{job=~"$job",pool=~"$pool"}, resource)'),
    ),
    links={"Nodes": "genplug"},
    panels=(
        Stat(
            "Nodes",
            "Agents that Prometheus scrapes.",
            'count(up{job=~"$job",pool=~"$pool"}) or vector(0)',
            width=3,
        ),
        Stat(
            "Agents down",
            "Agents that do not respond to Prometheus.",
            'count(up{job=~"$job",pool=~"$pool"} == 0) or vector(0)',
            bad="red",
            width=3,
        ),
        Stat(
            "Agents missing",
            "Nodes without a ready agent that should have an agent, for all DaemonSets of the cluster with genplug in "
            "their names. Requires kube-state-metrics.",
            "sum(clamp_min(\n"
            '  kube_daemonset_status_desired_number_scheduled{daemonset=~".*genplug.*"}\n'
            '  - kube_daemonset_status_number_ready{daemonset=~".*genplug.*"}, 0)) or vector(0)',
            bad="red",
            width=3,
        ),
        Stat(
            "Devices in use",
            "Share of the healthy devices that containers use.",
            'sum(genplug_devices_in_use{job=~"$job",pool=~"$pool",resource=~"$resource"})\n'
            '/ sum(genplug_devices{job=~"$job",pool=~"$pool",resource=~"$resource",state="healthy"})',
            unit="percentunit",
            width=3,
        ),
        Stat(
            "Unhealthy devices",
            "Devices that are listed but that the kubelet does not allocate.",
            'sum(genplug_devices{job=~"$job",pool=~"$pool",resource=~"$resource",state="unhealthy"}) or vector(0)',
            bad="orange",
            width=3,
        ),
        Stat(
            "Missing devices",
            "Healthy devices that `expect.min` requires and the nodes do not have.",
            'sum(genplug_devices_missing{job=~"$job",pool=~"$pool",resource=~"$resource"}) or vector(0)',
            bad="orange",
            width=3,
        ),
        Stat(
            "Pools with different configurations",
            "Pools whose nodes do not all have the same active configuration.",
            "count(count by (job, pool) (count by (job, pool, sha256) (\n"
            '  genplug_config_info{job=~"$job",pool=~"$pool",sha256!=""})) > 1) or vector(0)',
            bad="orange",
            width=3,
        ),
        Stat(
            "Versions",
            "Versions of genplug that run; more than one during an upgrade.",
            'count(count by (version) (genplug_build_info{job=~"$job",pool=~"$pool"})) or vector(0)',
            width=3,
        ),
        Row("Pools"),
        Table(
            "Pools and resources",
            "Devices of each resource in each pool.",
            [
                Query(
                    "sum by (job, pool, resource) ("
                    'genplug_devices{job=~"$job",pool=~"$pool",resource=~"$resource",state="healthy"})',
                    "healthy",
                ),
                Query(
                    "sum by (job, pool, resource) ("
                    'genplug_devices{job=~"$job",pool=~"$pool",resource=~"$resource",state="unhealthy"})',
                    "unhealthy",
                ),
                Query(
                    "sum by (job, pool, resource) ("
                    'genplug_devices_in_use{job=~"$job",pool=~"$pool",resource=~"$resource"})',
                    "in use",
                ),
                Query(
                    "sum by (job, pool, resource) ("
                    'genplug_devices_in_use{job=~"$job",pool=~"$pool",resource=~"$resource"})\n'
                    "/ sum by (job, pool, resource) ("
                    'genplug_devices{job=~"$job",pool=~"$pool",resource=~"$resource",state="healthy"} > 0)',
                    "use",
                ),
                Query(
                    "sum by (job, pool, resource) ("
                    'genplug_devices_missing{job=~"$job",pool=~"$pool",resource=~"$resource"})',
                    "missing",
                ),
            ],
            bars=["use"],
        ),
        Graph(
            "Free devices by pool",
            "Healthy devices that no container uses. New pods wait when it reaches 0.",
            [
                Query(
                    'sum by (pool, resource) (genplug_devices_free{job=~"$job",pool=~"$pool",resource=~"$resource"})',
                    "{{pool}} {{resource}}",
                )
            ],
        ),
        Graph(
            "Refused allocations by pool",
            "For each refused call a pod failed.",
            [
                Query(
                    "sum by (pool, resource) (increase("
                    'genplug_allocations_total{job=~"$job",pool=~"$pool",resource=~"$resource",result="refused"}'
                    "[$__rate_interval])) > 0",
                    "{{pool}} {{resource}}",
                )
            ],
        ),
        Row("Nodes that need attention"),
        Table(
            "Agents that are not ready",
            "The agent responds, and /readyz returns 503. `kubectl genplug status` states the reasons.",
            [Query('max by (job, pool, node, pod) (genplug_ready{job=~"$job",pool=~"$pool"} == 0)')],
            width=12,
        ),
        Table(
            "Nodes with unhealthy or missing devices",
            "The 20 nodes with the most devices.",
            [
                Query(
                    "topk(20, max by (pool, node, resource) (\n"
                    '  genplug_devices{job=~"$job",pool=~"$pool",resource=~"$resource",state="unhealthy"}\n'
                    "  or "
                    'genplug_devices_missing{job=~"$job",pool=~"$pool",resource=~"$resource"}) > 0)',
                    "devices",
                )
            ],
            width=12,
        ),
        Row("Configurations and versions"),
        Table(
            "Configurations of each pool",
            "The number of nodes for each active configuration.",
            [
                Query(
                    'count by (job, pool, sha256) (genplug_config_info{job=~"$job",pool=~"$pool",sha256!=""})',
                    "nodes",
                )
            ],
            width=12,
        ),
        Table(
            "Versions of each pool",
            "The number of nodes for each version.",
            [Query('count by (job, pool, version) (genplug_build_info{job=~"$job",pool=~"$pool"})', "nodes")],
            width=12,
        ),
    ),
)

DASHBOARDS = {"dashboard.json": NODES, "dashboard-fleet.json": FLEET}
"""The dashboards by the name of their file."""
