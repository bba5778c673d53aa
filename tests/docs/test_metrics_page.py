"""The page about metrics lists every metric with its type and its labels, and every HTTP endpoint."""

import inspect
import re

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from genplug.health.status import MonitorStatus, ProbeError, ProbeWarning
from genplug.observe import http
from genplug.observe.events import Event, EventLog
from genplug.observe.metrics import Metrics
from genplug.observe.status import AuditStatus, ConfigStatus, ResourceStatus, ScanStatus, Status
from tests.support.dra_status import DRA
from tests.support.pages import inline_code, read_page, table_rows

PAGE = read_page("metrics")
RESOURCE = ResourceStatus(
    name="a.io/x",
    phase="live",
    generation=1,
    streams=1,
    is_registered=True,
    is_removed=False,
    reason="",
    devices=(),
    notes=(),
    expected=1,
    in_use=(),
)
HEALTH = MonitorStatus(
    errors=(ProbeError("a.io/x", "link", "it does not exist", ("x0",)),),
    warnings=(ProbeWarning("a.io/x", "heat", "is '90', expected at most 80", ("x0",)),),
)
AUDIT = AuditStatus("/var/log/genplug", 1, 0, "")
STATUS = Status(
    "1.2.3", "node-1", ConfigStatus(), "", (RESOURCE,), HEALTH, (ScanStatus("a.io/x"),), audit=AUDIT, dra=DRA
)


def served() -> dict[str, tuple[str, set[str]]]:
    """Return type and labels of every metric of genplug, after the events have occurred once."""
    log = EventLog()
    metrics = Metrics(lambda: STATUS, log)
    for event in Event:
        # The series of a resource end with this event.
        if event is not Event.RESOURCE_DRAINED:
            log.emit(event, "text", resource="a.io/x", seconds=0.1, driver="a.io", reason="storage")
    metrics.count_api_request("list", "200")
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        if not family.name.startswith("genplug_") or family.name.endswith("_created"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = ("info" if name.endswith("_info") else family.type, labels)
    return found


def test_page_lists_every_metric_with_its_type_and_its_labels() -> None:
    listed = {name.strip("`"): (kind, set(inline_code(labels))) for name, kind, labels, _ in table_rows(PAGE, "Metric")}
    assert listed == served()


def test_page_lists_every_endpoint() -> None:
    listed = [row[0].strip("`") for row in table_rows(PAGE, "Endpoint")]
    assert set(listed) == set(re.findall(r'case "(/\w*)"', inspect.getsource(http)))
