"""Gauges show the status, and counters count the log events."""

from msgspec.structs import replace
from prometheus_client import generate_latest

from genplug.kubelet.reports import DeviceUse
from genplug.observe.events import Event, EventLog
from genplug.observe.metrics import Metrics
from genplug.observe.status import ConfigStatus, DeviceStatus, ResourceStatus, Status
from tests.support.dra_status import DRA

DEVICES = (
    DeviceStatus("x0", ("/dev/x0",), healthy=True, reason=""),
    DeviceStatus("x1", (), healthy=False, reason="gone"),
)
STATUS = Status(
    "1.2.3",
    "node-a",
    ConfigStatus(("a.yaml",), "abc", 12.5),
    "",
    (ResourceStatus("a.io/x", "live", 3, 1, True, False, "", DEVICES, ()),),  # noqa: FBT003 - a row of a table
)


def scrape(event_log: EventLog | None = None, status: Status = STATUS) -> str:
    metrics = Metrics(lambda: status, event_log or EventLog())
    return generate_latest(metrics.registry).decode()


def test_gauges_follow_the_status() -> None:
    text = scrape()
    assert 'genplug_devices{resource="a.io/x",state="healthy"} 1.0' in text
    assert 'genplug_devices{resource="a.io/x",state="unhealthy"} 1.0' in text
    assert 'genplug_resource_registered{resource="a.io/x"} 1.0' in text
    assert "genplug_config_last_reload_success_timestamp_seconds 12.5" in text
    assert "genplug_ready 1.0" in text


def test_free_devices_are_healthy_devices_that_no_container_uses() -> None:
    devices = (*DEVICES, DeviceStatus("x2", ("/dev/x2",), healthy=True, reason=""))
    uses = (DeviceUse("a.io/x", "default", "p", "c", ("x0", "x1", "gone")),)
    resource = replace(STATUS.resources[0], devices=devices, in_use=uses)
    text = scrape(status=replace(STATUS, resources=(resource,)))
    assert 'genplug_devices_in_use{resource="a.io/x"} 2.0' in text
    assert 'genplug_devices_free{resource="a.io/x"} 1.0' in text
    unknown = scrape(status=replace(STATUS, resources=(replace(resource, in_use=None),)))
    assert "genplug_devices_free{" not in unknown
    assert "genplug_devices_in_use{" not in unknown


def test_removed_resource_has_no_metrics_on_which_alerts_fire() -> None:
    removed = replace(
        STATUS, resources=(replace(STATUS.resources[0], is_removed=True, is_registered=False, devices=()),)
    )
    text = scrape(status=removed)
    assert "genplug_devices{" not in text
    assert "genplug_resource_registered{" not in text
    assert 'genplug_list_and_watch_streams{resource="a.io/x"} 1.0' in text


def test_counters_follow_the_log_events() -> None:
    event_log = EventLog()
    metrics = Metrics(lambda: STATUS, event_log)
    event_log.emit(Event.ALLOCATED, "given", resource="a.io/x", devices=("x0",), seconds=0.0002)
    event_log.emit(Event.ALLOCATION_REFUSED, "gone", resource="a.io/x", devices=("x1",), seconds=0.0001)
    event_log.emit(Event.CONFIG_INVALID, "line 3")
    text = generate_latest(metrics.registry).decode()
    assert 'genplug_allocations_total{resource="a.io/x",result="success"} 1.0' in text
    assert 'genplug_allocations_total{resource="a.io/x",result="refused"} 1.0' in text
    assert 'genplug_allocate_duration_seconds_count{resource="a.io/x"} 2.0' in text
    assert 'genplug_config_reloads_total{result="failure"} 1.0' in text


def test_counters_of_claims_follow_the_log_events() -> None:
    event_log = EventLog()
    metrics = Metrics(lambda: STATUS, event_log)
    assert "genplug_dra_prepare_errors_total{" not in generate_latest(metrics.registry).decode()
    event_log.emit(Event.CLAIM_PREPARED, "", driver="genplug.io", seconds=0.002)
    event_log.emit(Event.CLAIM_REFUSED, "", driver="genplug.io", seconds=0.02, reason="device_in_use")
    event_log.emit(Event.RECORD_BAD, "", driver="genplug.io")
    text = generate_latest(metrics.registry).decode()
    assert 'genplug_dra_prepare_errors_total{driver="genplug.io",reason="device_in_use"} 1.0' in text
    assert 'genplug_dra_prepare_seconds_bucket{driver="genplug.io",le="0.0025"} 1.0' in text
    assert 'genplug_dra_prepare_seconds_count{driver="genplug.io"} 2.0' in text
    assert 'genplug_dra_records_bad_total{driver="genplug.io"} 1.0' in text


def test_series_of_a_resource_end_with_its_endpoint() -> None:
    event_log = EventLog()
    metrics = Metrics(lambda: replace(STATUS, resources=()), event_log)
    for resource in ("a.io/x", "a.io/y"):
        event_log.emit(Event.REGISTERED, "", resource=resource)
        event_log.emit(Event.REGISTRATION_FAILED, "", resource=resource)
        event_log.emit(Event.LIST_SENT, "", resource=resource)
        event_log.emit(Event.DEVICE_HEALTHY, "", resource=resource)
        event_log.emit(Event.DEVICE_UNHEALTHY, "", resource=resource)
        event_log.emit(Event.INTERNAL_ERROR, "", resource=resource)
        event_log.emit(Event.ALLOCATED, "", resource=resource, devices=(), seconds=0.1)
        event_log.emit(Event.ALLOCATION_REFUSED, "", resource=resource, devices=(), seconds=0.1)
    event_log.emit(Event.RESOURCE_DRAINED, "", resource="a.io/x")
    text = generate_latest(metrics.registry).decode()
    assert 'resource="a.io/x"' not in text
    assert 'genplug_allocations_total{resource="a.io/y",result="success"} 1.0' in text
    event_log.emit(Event.RESOURCE_DRAINED, "", resource="a.io/x")


def test_gauges_of_dynamic_resource_allocation_count_each_device_once() -> None:
    text = scrape(status=replace(STATUS, dra=DRA))
    expected = {"published": 2, "tainted": 1, "withheld": 1, "left_out": 1}
    for state, number in expected.items():
        assert f'genplug_dra_devices{{resource="example.com/gpu",state="{state}"}} {number}.0' in text
    assert 'genplug_dra_slices{resource="example.com/gpu"} 1.0' in text
    for name, number in (("registered", 1), ("publish_failing", 1), ("prepared_claims", 1)):
        assert f"genplug_dra_{name} {number}.0" in text
    assert "genplug_dra_registered " not in scrape()
