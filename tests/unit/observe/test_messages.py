"""The texts and the facts of log events."""

from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace

from genplug.allocation.errors import ClaimErrorCode
from genplug.allocation.offer import build_offer, compare_offers
from genplug.allocation.results import ClaimReference
from genplug.hardware.inventory import (
    CandidateOutcome,
    Device,
    DeviceConflict,
    Inventory,
    ScanStall,
    UnmatchedGlob,
)
from genplug.health.status import MonitorEvent, PoolExhausted, ProbeError, ProbeWarning, WorkerStartFailed
from genplug.health.verdict import DeviceHealth, HealthSnapshot, Verdict
from genplug.kubelet.reports import (
    CallAnswered,
    ClaimAnswered,
    ClaimCdiUnwritable,
    ClaimForgotten,
    DriverNotServing,
    DriverRefused,
    DriverRegistered,
    DriverReport,
    EndpointStatus,
    InternalErrorCaught,
    ListSent,
    Phase,
    PhaseChanged,
    RecordDamaged,
    Report,
)
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.observe.messages import (
    MAX_LINES,
    log_conflicts,
    log_device_changes,
    log_driver_report,
    log_monitor_event,
    log_offer_change,
    log_rejected_names,
    log_report,
    log_stalls,
)
from genplug.observe.status_builder import collect_notes
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource

X = "a.io/x"
LOCATION = SourceLocation("genplug.yaml", 5, 7)
RESOURCE = Resource(X, LOCATION, ())
HEALTHY = Verdict(healthy=True, reason="", since=100)
GONE = Verdict(healthy=False, reason="/dev/x0 is gone", since=110, probe="presence")
EMPTY = Inventory({}, (), (), frozenset())


def record(log: Callable[[EventLog], None]) -> list[LogEvent]:
    """Return the events that a function emits."""
    recorded: list[LogEvent] = []
    event_log = EventLog()
    event_log.listen(recorded.append)
    log(event_log)
    return recorded


def lines(log: Callable[[EventLog], None]) -> list[str]:
    return [f"{event.event.code}: {event.text}" for event in record(log)]


def health(name: str, verdict: Verdict = HEALTHY) -> DeviceHealth:
    return DeviceHealth(Device(name, name, X, LOCATION, (f"/dev/{name}",), (), (), {}), verdict)


def snapshot(*devices: DeviceHealth) -> HealthSnapshot:
    return HealthSnapshot({X: devices})


WAITING = EndpointStatus(Phase.WAIT, 1, 0, is_registered=False, reason="", failures=0, has_kubelet=True)
LIVE = replace(WAITING, phase=Phase.LIVE, streams=1, is_registered=True)


@pytest.mark.parametrize(
    ("previous", "current", "line"),
    [
        (WAITING, LIVE, "registered: a.io/x: registered; the kubelet has opened a stream"),
        (
            LIVE,
            replace(WAITING, reason="the kubelet closed its stream"),
            "disconnected: a.io/x: disconnected: the kubelet closed its stream",
        ),
        (
            replace(WAITING, phase=Phase.REGISTER),
            replace(WAITING, reason="Register failed: refused", failures=1),
            "registration_failed: a.io/x: Register failed: refused; the agent retries",
        ),
        (WAITING, replace(WAITING, phase=Phase.REGISTER), "endpoint_phase_changed: a.io/x: wait → register"),
    ],
)
def test_phase_change_is_logged_as_the_event_that_it_means(
    previous: EndpointStatus, current: EndpointStatus, line: str
) -> None:
    assert lines(lambda event_log: log_report(event_log, PhaseChanged(X, previous, current))) == [line]


def test_pause_without_a_kubelet_is_logged() -> None:
    paused = replace(WAITING, phase=Phase.PAUSE, has_kubelet=False)
    retired = replace(WAITING, phase=Phase.RETIRE)
    assert lines(lambda event_log: log_report(event_log, PhaseChanged(X, retired, paused))) == [
        "endpoint_phase_changed: a.io/x: retire → pause",
        "endpoint_phase_changed: a.io/x: waits until kubelet.sock exists",
    ]


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (ListSent(X, 3, 2), "list_sent: a.io/x: device list sent: 3 devices, 2 healthy"),
        (CallAnswered(X, "Allocate", ("x0", "x1"), 0.1), "allocated: a.io/x: x0, x1 allocated to a container"),
        (CallAnswered(X, "Allocate", ("x0",), 0.1, "x0 is gone"), "allocation_refused: x0 is gone"),
        (CallAnswered(X, "PreStartContainer", ("x0",), 0.1, "exit 1"), "pre_start_failed: exit 1"),
        (
            InternalErrorCaught(X, "Allocate", ValueError("bad")),
            "internal_error: a.io/x: Allocate failed: ValueError('bad'). This is a defect in genplug; please report it",
        ),
    ],
)
def test_report_of_an_endpoint_is_logged(report: Report, line: str) -> None:
    assert lines(lambda event_log: log_report(event_log, report)) == [line]


CLAIM = ClaimReference("default", "claim", "u-1")


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (DriverRegistered("genplug.io"), "dra_registered: the kubelet has registered the driver genplug.io"),
        (
            DriverRefused("genplug.io", "no handler", 2.0),
            "dra_refused: the kubelet does not register the driver genplug.io: no handler; the agent retries",
        ),
        (
            DriverNotServing("genplug.io", "no space", 1.0),
            "dra_serve_failed: the driver genplug.io cannot be served: no space",
        ),
        (
            ClaimAnswered("genplug.io", "NodePrepareResources", CLAIM, 0.1, ("x0", "x1")),
            "claim_prepared: ResourceClaim default/claim: x0, x1 prepared",
        ),
        (
            ClaimAnswered("genplug.io", "NodePrepareResources", CLAIM, 0.1),
            "claim_prepared: ResourceClaim default/claim: no devices prepared",
        ),
        (
            ClaimAnswered("genplug.io", "NodePrepareResources", CLAIM, 0.1, (), ClaimErrorCode.EDITS, "x0 is gone"),
            "claim_refused: x0 is gone",
        ),
        (
            ClaimAnswered("genplug.io", "NodeUnprepareResources", CLAIM, 0.1),
            "claim_unprepared: ResourceClaim default/claim: unprepared",
        ),
        (
            ClaimAnswered("genplug.io", "NodeUnprepareResources", CLAIM, 0.1, (), ClaimErrorCode.STORAGE, "full"),
            "claim_unprepare_failed: full",
        ),
        (
            ClaimCdiUnwritable("genplug.io", "the CDI file is a directory", 10),
            "cdi_unwritable: the CDI file is a directory; the agent retries",
        ),
        (
            ClaimForgotten("genplug.io", CLAIM, ("x0",)),
            (
                "claim_forgotten: ResourceClaim default/claim: unprepared, because another claim needs x0, and neither "
                "the kubelet nor the API server has this claim any more"
            ),
        ),
        (
            RecordDamaged("genplug.io", "u-1", "/bad/u-1.json", "it is empty"),
            (
                "record_bad: the record of the ResourceClaim with the UID u-1 is damaged, and is now /bad/u-1.json: it "
                "is empty; the claim is prepared from scratch when the kubelet asks for it"
            ),
        ),
        (
            InternalErrorCaught("genplug.io", "NodePrepareResources", ValueError("bad")),
            (
                "internal_error: genplug.io: NodePrepareResources failed: ValueError('bad'). This is a defect in "
                "genplug; please report it"
            ),
        ),
    ],
)
def test_report_of_a_driver_is_logged(report: DriverReport, line: str) -> None:
    assert lines(lambda event_log: log_driver_report(event_log, report)) == [line]


def test_successful_program_before_a_container_starts_is_not_logged() -> None:
    report = CallAnswered(X, "PreStartContainer", ("x0",), 0.1)
    assert lines(lambda event_log: log_report(event_log, report)) == []


def test_first_snapshot_logs_unhealthy_devices_only() -> None:
    first = snapshot(health("x0", GONE), health("x1"))
    assert lines(lambda event_log: log_device_changes(event_log, None, first)) == [
        "device_unhealthy: a.io/x: x0 is unhealthy: /dev/x0 is gone"
    ]


def test_later_snapshots_log_every_change_of_a_device() -> None:
    previous = snapshot(health("x0", GONE), health("x1"), health("x2", GONE), health("x3"))
    current = snapshot(health("x0"), health("x1", GONE), health("x2", GONE), health("x4"))
    assert lines(lambda event_log: log_device_changes(event_log, previous, current)) == [
        "device_healthy: a.io/x: x0 is healthy again",
        "device_unhealthy: a.io/x: x1 is unhealthy: /dev/x0 is gone",
        "device_healthy: a.io/x: x4 is added (/dev/x4)",
        "device_removed: a.io/x: x3 is removed: the configuration no longer matches it",
    ]


def test_many_changes_of_a_resource_are_counted_in_a_line() -> None:
    devices = [health(f"x{number}", GONE) for number in range(MAX_LINES + 5)]
    logged = lines(lambda event_log: log_device_changes(event_log, None, snapshot(*devices)))
    assert len(logged) == MAX_LINES + 1
    assert logged[-1] == "devices_changed: a.io/x: and 5 more devices changed"


def test_changed_list_is_logged_with_its_numbers() -> None:
    previous = build_offer(RESOURCE, (health("x0"), health("x1")))
    current = build_offer(RESOURCE, (health("x0"), health("x1", GONE)))
    (event,) = record(
        lambda event_log: log_offer_change(event_log, compare_offers(previous, current), lambda: ("a note",))
    )
    assert event.text == "a.io/x: 1 healthy, 1 unhealthy (previously 2 healthy)"
    assert event.facts == {"resource": X, "healthy": 1, "unhealthy": 1}
    assert lines(lambda event_log: log_offer_change(event_log, compare_offers(current, current), tuple)) == []


def test_empty_list_is_logged_with_reasons() -> None:
    inventory = replace(
        EMPTY,
        unmatched_globs=(UnmatchedGlob("/dev/y*", X, LOCATION),),
        left_out=(CandidateOutcome("/dev/x9", X, LOCATION, None, "excluded by '/dev/x9'"),),
    )
    notes = collect_notes(inventory)[X]
    empty = build_offer(RESOURCE, ())
    assert lines(lambda event_log: log_offer_change(event_log, compare_offers(None, empty), lambda: notes)) == [
        "devices_changed: a.io/x: 0 healthy; nothing matches /dev/y* (genplug.yaml:5:7); /dev/x9: excluded by '/dev/x9'"
    ]


def test_device_without_a_probe_result_is_a_reason_for_fewer_devices() -> None:
    first, second = health("x0"), health("x1")
    inventory = replace(EMPTY, devices={X: (first.device, second.device)})
    note = "x1: waits for the first results of its probes"
    assert collect_notes(inventory, snapshot(first)) == {X: (note,)}
    assert collect_notes(inventory, snapshot(first, second)) == {}


def test_new_conflicts_are_logged_once() -> None:
    conflicting = replace(EMPTY, conflicts=(DeviceConflict("/dev/x0", LOCATION, "/dev/x0 is claimed twice"),))
    assert lines(lambda event_log: log_conflicts(event_log, None, conflicting)) == [
        "device_node_conflict: /dev/x0 is claimed twice"
    ]
    assert lines(lambda event_log: log_conflicts(event_log, conflicting, conflicting)) == []


def test_rejected_names_are_logged_once_and_counted_beyond_the_limit() -> None:
    rejected = replace(
        EMPTY,
        left_out=tuple(
            CandidateOutcome(f"/dev/x{number}", X, LOCATION, None, "too long", is_misnamed=True)
            for number in range(MAX_LINES + 2)
        ),
    )
    logged = lines(lambda event_log: log_rejected_names(event_log, None, rejected))
    assert logged[0] == "resource_name_rejected: a.io/x: /dev/x0 is left out: too long"
    assert logged[MAX_LINES:] == [
        "resource_name_rejected: and 2 more devices are left out because of the names of their resources"
    ]
    assert lines(lambda event_log: log_rejected_names(event_log, rejected, rejected)) == []


def test_stalled_scan_is_logged_once_and_again_when_it_resumes() -> None:
    stalls = tuple(ScanStall(X, f"/dev/x{number}", "read of /sys/x hangs", 1.0) for number in range(5))
    stalled = replace(EMPTY, stalls=stalls)
    (logged,) = lines(lambda event_log: log_stalls(event_log, EMPTY, stalled))
    assert logged.startswith("scan_stalled: a.io/x: scan stalled: read of /sys/x hangs (since ")
    assert logged.endswith(
        "; last known state kept for /dev/x0, /dev/x1, /dev/x2 and 2 more; reset the device, or restore the file system"
    )
    limited = replace(EMPTY, stalls=(ScanStall(X, "", "the glob '/sys/**' is too wide; write more of the path"),))
    (logged,) = lines(lambda event_log: log_stalls(event_log, EMPTY, limited))
    assert logged.endswith("is too wide; write more of the path; last known state kept for all devices")
    unknown = replace(EMPTY, stalls=(ScanStall(X, "/dev/x0", "read of /sys/x hangs", 1.0, is_known=False),))
    (logged,) = lines(lambda event_log: log_stalls(event_log, EMPTY, unknown))
    assert "; not listed until it is known: /dev/x0; reset the device" in logged
    assert lines(lambda event_log: log_stalls(event_log, stalled, stalled)) == []
    assert lines(lambda event_log: log_stalls(event_log, stalled, EMPTY)) == [
        "scan_resumed: a.io/x: the scan is up to date again"
    ]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (PoolExhausted(is_call=False, hung=8), "probe_workers_exhausted"),
        (PoolExhausted(is_call=True, hung=2, resolved=True), "probe_recovered"),
        (WorkerStartFailed("out of memory"), "probe_worker_start_failed"),
        (WorkerStartFailed("out of memory", resolved=True), "probe_recovered"),
        (ProbeError(X, "link", "permission denied", ("x0",)), "probe_error"),
        (ProbeError(X, "link", "permission denied", ("x0",), resolved=True), "probe_recovered"),
        (ProbeWarning(X, "heat", "is '90', expected at most 80", ("x0",)), "probe_warning"),
        (ProbeWarning(X, "heat", "is '90', expected at most 80", ("x0",), resolved=True), "probe_warning_resolved"),
    ],
)
def test_error_of_probes_and_its_end_are_logged(event: MonitorEvent, code: str) -> None:
    (logged,) = record(lambda event_log: log_monitor_event(event_log, event))
    assert logged.event.code == code


def test_exhausted_workers_are_logged_with_the_probes_that_are_suspended() -> None:
    def text(event: MonitorEvent) -> str:
        return record(partial(log_monitor_event, event=event))[0].text

    effect = "devices keep their health unless 'onError' is set; 'genplug status' names the devices"
    reads = "probes that read files or open device nodes are suspended, because 8 runs hang"
    assert text(PoolExhausted(is_call=False, hung=8)) == f"{reads}; {effect}"
    calls = "probes that call other programs"
    assert text(PoolExhausted(is_call=True, hung=64)) == f"{calls} are suspended, because 64 runs hang; {effect}"
    resumed = f"{calls} run again; 63 runs still hang"
    assert text(PoolExhausted(is_call=True, hung=63, resolved=True)) == resumed


def test_warning_of_a_probe_says_that_the_health_is_unchanged() -> None:
    warning = ProbeWarning(X, "heat", "/sys/t is '90', expected at most 80", ("x0",))
    (logged,) = record(lambda event_log: log_monitor_event(event_log, warning))
    expected = "a.io/x: probe heat warns about x0: /sys/t is '90', expected at most 80; the health is unchanged"
    assert logged.text == expected
    assert logged.facts["devices"] == ("x0",)


def test_error_of_a_probe_names_three_devices_and_counts_the_others() -> None:
    error = ProbeError(X, "link", "permission denied", ("x0", "x1", "x2", "x3"))
    (logged,) = record(lambda event_log: log_monitor_event(event_log, error))
    assert logged.text == "a.io/x: probe link cannot check x0, x1, x2 and 1 more: permission denied"
    assert logged.event is Event.PROBE_ERROR
    assert logged.facts["devices"] == ("x0", "x1", "x2", "x3")
