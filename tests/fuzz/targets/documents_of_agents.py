"""Documents that commands read: answers of API servers, the status of an agent, and the audit log."""

import contextlib
import io
import json
import random
import re
from typing import Any

from genplug.audit.query import Answer, Query, answer_query
from genplug.audit.reader import Problem, read_records
from genplug.audit.records import RecordType
from genplug.cli.audit_output import build_printer
from genplug.cli.output import format_json
from genplug.cli.status import UnreachableError, decode_status, expect_keys, select_resources, selection_error
from genplug.cli.status_text import format_status
from genplug.kubectl.agent_status import decode_agent_status
from genplug.kubectl.discovery import Cluster, build_pools
from genplug.kubectl.fleet import build_fleet
from genplug.kubectl.fleet_document import build_document as build_fleet_document
from genplug.kubectl.fleet_text import format_fleet
from genplug.kubectl.item_reader import ItemReader, ListError
from genplug.kubectl.objects import decode_config_map, decode_daemon_set, decode_node, decode_pod
from genplug.kubectl.pending import analyze, build_use, list_relevant_nodes
from genplug.kubectl.pending_text import build_document as build_pending_document
from genplug.kubectl.pending_text import format_analysis, format_list
from genplug.kubectl.reasons import decode_reasons
from genplug.kubectl.refusal import analyze_refusal, build_refusal_document, format_refusal, list_facts
from genplug.kubectl.workloads import analyze_creation, decode_workload, find_owned, list_create_errors
from tests.fuzz.documents import change_value, document_mutator, pick_value
from tests.fuzz.target import Target
from tests.support.dra_status import DRA
from tests.support.kubectl import make_agent_pod, make_daemon_set, make_node, make_pod, make_resource, make_status

_CONTAINERS = [{"name": "main", "resources": {"requests": {"e.io/x": "2", "cpu": "1500m", "memory": "1Gi"}}}]
_AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "b", "operator": "Gt", "values": ["1"]}]}]
        }
    }
}
_OBJECTS: list[dict[str, Any]] = [
    make_node("node-1", capacity={"e.io/x": 2, "cpu": 8}, taints=[{"key": "a", "effect": "NoSchedule"}]),
    make_daemon_set(pod_spec={"tolerations": [{"key": "a", "operator": "Exists"}]}),
    make_agent_pod("node-1", waiting=("CrashLoopBackOff", "back-off")),
    make_pod("waiting", containers=_CONTAINERS, spec={"nodeSelector": {"zone": "a"}, "affinity": _AFFINITY}),
    make_pod("holder", node="node-1", containers=_CONTAINERS),
    make_pod(
        "refused",
        node="node-1",
        status={
            "phase": "Failed",
            "reason": "UnexpectedAdmissionError",
            "message": "cannot allocate unregistered device",
        },
    ),
    {
        "kind": "Event",
        "reason": "FailedCreate",
        "message": "exceeded quota: a, requested: x=1",
        "involvedObject": {"uid": "a"},
    },
    make_status("node-1", [make_resource("e.io/x", healthy=1, unhealthy=1, used=1)]),
]


def run_objects(content: bytes) -> None:
    """Read a list in parts, and answer every question of the kubectl plugin with its objects."""
    reader = ItemReader()
    middle = len(content) // 2
    items = [item for part in (content[:middle], content[middle:]) for item in reader.feed(part)]
    reader.close()
    statuses = [item for item in items if "resources" in item] or [{}]
    agents = {"node-1": decode_reasons("node-1", "genplug/agent", statuses[0])}
    nodes = [decode_node(item) for item in items if item.get("kind") == "Node"]
    pods = [decode_pod(item) for item in items if item.get("kind") == "Pod"]
    daemon_sets = [item for item in items if item.get("kind") == "DaemonSet"]
    by_name = {node.name: node for node in nodes}
    pools = build_pools(list(map(decode_daemon_set, daemon_sets)), pods, by_name)
    answers = {(pod.namespace, pod.name): decode_agent_status(statuses[0]) for pod in pods}
    fleet = build_fleet(Cluster(pools, by_name, ""), answers)
    check_text(format_json(build_fleet_document(fleet)))
    for is_wide in (False, True):
        format_fleet(fleet, is_wide=is_wide)
    uses = [use for use in map(build_use, pods) if use is not None]
    for pod in pods[:4]:
        analysis = analyze(pod, nodes, uses, agents)
        list_relevant_nodes(analysis)
        check_text(format_json(build_pending_document([analysis])))
        check_text(format_analysis(analysis, 0))
        format_list([analysis], ["1h"], 0, with_namespace=True)
        refusal = analyze_refusal(pod)
        list(list_facts(refusal, nodes[0] if nodes else None, agents["node-1"]))
        check_text(format_json(build_refusal_document(refusal)))
        check_text(format_refusal(refusal))
    for item in daemon_sets[:2]:
        decode_config_map(item)
        workload = decode_workload(item)
        find_owned(workload.uid, items)
        errors = list_create_errors(items, ["a"]) or ["no"]
        check_text(format_json(build_pending_document([analyze_creation(workload, errors, pods)])))


_DEPTHS = (150, 400, 900)
"""Levels of nested lists: the parser of JSON accepts almost 1000."""


def nest(depth: int) -> bytes:
    """Return nested lists and mappings."""
    return b'[{"a":' * (depth // 2) + b"1" + b"}]" * (depth // 2)


def check_text(text: str) -> None:
    """Assert that a terminal shows a text unchanged."""
    assert text.replace("\n", "").isprintable(), repr(text)[:300]


def list_objects() -> list[bytes]:
    head = {"apiVersion": "v1", "items": _OBJECTS, "kind": "List", "metadata": {"resourceVersion": ""}}
    nested = [b'{"items": [{"kind": "Pod", "spec": ' + nest(depth) + b"}]}" for depth in _DEPTHS]
    return [
        *nested,
        json.dumps(head).encode(),
        json.dumps({**head, "items": []}).encode(),
        json.dumps(head, indent=1).encode(),
    ]


def mutate_list(content: bytes, source: random.Random) -> bytes | None:
    """Change an object of a list."""
    try:
        items = json.loads(content)["items"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(items, list) or not items:
        items = list(_OBJECTS)
    for _ in range(source.choice((1, 2, 4))):
        index = source.randrange(len(items))
        items[index] = change_value(items[index], pick_value(source.choice(_OBJECTS), source), source)
    return json.dumps({"apiVersion": "v1", "items": items, "kind": "List"}).encode()


_STYLE_MARKS = re.compile("[\ufdd0-\ufdef]")
_STATUSES = [
    make_status(
        "node-1", [make_resource("e.io/x", healthy=1, unhealthy=2, used=1), make_resource("e.io/y", used=None)]
    ),
    make_status("node-1", unready=["e.io/x: not registered"], error="c.yaml:1:1: error[GP002]: x\n  1 | y"),
    {**make_status("node-1"), "dra": DRA.as_json()},
]


def run_status(content: bytes) -> None:
    """Format a document of ``/statusz`` in every format of the command."""
    status = decode_status(content.decode(errors="replace"))
    if status is None:
        return
    for output in ("table", "wide", "json", "yaml", "name"):
        with expect_keys(status):
            selection_error(status, ["e.io/z"])
            selected = select_resources(status, ["e.io/x"] if output == "wide" else [])
            text = format_status(selected, output, is_brief=False)
            # The marks of styles; only the output of the command replaces them.
            check_text(_STYLE_MARKS.sub("", text.replace("\t", "")))


def list_statuses() -> list[bytes]:
    nested = [json.dumps({**_STATUSES[0], "extra": 0}).encode().replace(b"0}", nest(depth) + b"}") for depth in _DEPTHS]
    return [*(json.dumps(status).encode() for status in _STATUSES), *nested]


_ASSIGNMENT: dict[str, Any] = {
    "key": "node/1",
    "resource": "e.io/x",
    "ids": ["x0"],
    "namespace": "a",
    "pod": "b",
    "container": "c",
    "allocatedAt": "2026-11-27T17:22:17.042Z",
    "firstSeenAt": "2026-11-27T17:22:18Z",
    "lastSeenAt": None,
    "configSha256": 64 * "a",
    "hardware": [{"device": "x0", "paths": ["/dev/x0"], "numbers": ["c 240:0"], "attributes": {"usb.serial": ["1"]}}],
}


def _record(sequence: int, kind: str, **fields: Any) -> dict[str, Any]:
    head = {"sequence": sequence, "apiVersion": "genplug.io/v1alpha1", "kind": "AuditRecord", "node": "n", "type": kind}
    return {**head, "time": f"2026-11-27T17:22:{sequence:02}Z", "version": "0.1.0", **fields}


_RECORDS = [
    _record(1, "started", isContinued=False),
    _record(2, "devicesAdded", devices=[{"resource": "e.io/x", "hardware": _ASSIGNMENT["hardware"][0]}]),
    _record(3, "allocated", assignment=_ASSIGNMENT),
    _record(4, "assigned", assignment=_ASSIGNMENT, isContinued=True),
    _record(5, "heartbeat", seenAt="2026-11-27T17:22:05Z"),
    _record(6, "gap", lost=3, lostFrom="2026-11-27T17:22:05Z"),
    _record(9, "released", assignment=_ASSIGNMENT, endedBy="2026-11-27T17:22:09Z", reason="podEnded"),
    _record(10, "deviceUnhealthy", resource="e.io/x", device="x0", ids=["x0"], reason="it is gone"),
]
_QUERIES = (
    Query(),
    Query(device="x0", start=0.0, end=2e9),
    Query(pod=("a", "b"), resource="e.io/x"),
    Query(types=frozenset({RecordType.ALLOCATED, RecordType.GAP}), start=1.8e9),
)


def run_audit_log(content: bytes) -> None:
    """Answer questions about a log in every format."""
    for number, query in enumerate(_QUERIES):
        output = ("table", "json", "yaml")[number % 3]
        answer, log = Answer(), io.BytesIO(content)
        printer = build_printer(output, query, lists_records=number in {0, 3})
        with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()):
            printer.begin()
            for record in answer_query(query, read_records(log, "<stdin>"), answer, is_directory=number == 1):
                printer.print_record(record)
            printer.end(answer)
        if output == "json":
            json.loads(stdout.getvalue())
        check_text(stdout.getvalue())
        assert all(isinstance(problem, Problem) and str(problem) for problem in answer.problems)


def list_logs() -> list[bytes]:
    lines = [json.dumps(record).encode() for record in _RECORDS]
    nested = [json.dumps({**_RECORDS[0], "extra": 0}).encode().replace(b"0}", nest(depth) + b"}") for depth in _DEPTHS]
    return [*nested, b"\n".join(lines) + b"\n", b"\n".join(lines)[:-20], lines[2], b"\n".join(lines[2:7])]


def mutate_log(content: bytes, source: random.Random) -> bytes:
    """Change a record, or the order of the records."""
    lines = content.split(b"\n")
    index = source.randrange(len(lines))
    action = source.random()
    if action < 0.15:
        lines.insert(index, json.dumps(source.choice(_RECORDS)).encode())
    elif action < 0.25:
        source.shuffle(lines)
    elif action < 0.3:
        del lines[index]
    else:
        try:
            record = json.loads(lines[index])
        except (ValueError, RecursionError):
            record = source.choice(_RECORDS)
        lines[index] = json.dumps(change_value(record, pick_value(source.choice(_RECORDS), source), source)).encode()
    return b"\n".join(lines)


TARGETS = (
    Target(
        "api-objects",
        "answers of the API server",
        run_objects,
        list_objects,
        allowed=(ListError,),
        words=(
            '{"items": [',
            '"kind": "Pod"',
            '"kind": "Node"',
            '"status": ',
            '"spec": ',
            "1e400",
            "NaN",
            '"9e99999"',
            "null",
        ),
        max_bytes=16384,
        mutate=mutate_list,
        share=2,
        short_runs=300,
    ),
    Target(
        "status-document",
        "documents of /statusz",
        run_status,
        list_statuses,
        allowed=(UnreachableError,),
        words=('"resources": ', '"devices": ', "null", "1e400", "NaN", '"loadedAt": "9999-12-31T23:59:59Z"'),
        max_bytes=16384,
        mutate=document_mutator(values=_STATUSES),
        share=2,
        short_runs=300,
    ),
    Target(
        "audit-log",
        "lines of the audit log",
        run_audit_log,
        list_logs,
        words=(
            '"sequence":',
            '"time":"0001-01-01T00:00:00+23:59"',
            '"type":"gap"',
            "9" * 20,
            "null",
            "\n",
            '"9999-12-31T23:59:59Z"',
        ),
        max_bytes=8192,
        mutate=mutate_log,
        share=2,
        short_runs=300,
    ),
)
