"""The status as a value: readiness, the JSON document and its text."""

import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from genplug.health.status import MonitorStatus, PoolStatus, ProbeError, ProbeWarning
from genplug.kubelet.reports import ClaimUse, DeviceUse
from genplug.observe.status import ConfigStatus, DeviceStatus, ListChange, Refusal, ResourceStatus, ScanStatus, Status
from tests.support.dra_status import DRA
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
LIVE = ResourceStatus(
    name="example.com/camera",
    phase="live",
    generation=2,
    streams=1,
    is_registered=True,
    is_removed=False,
    reason="",
    devices=(
        DeviceStatus("video0-a2b4c6", ("/dev/video0",), healthy=True, reason="", since=1_795_799_537, numa_nodes=(0,)),
        DeviceStatus(
            "video1-d7e2f3",
            ("/dev/video1",),
            healthy=False,
            reason="/dev/video1 is gone",
            probe="presence",
            since=1_795_802_691,
        ),
        DeviceStatus("video2-g4h5i6", ("/dev/video2",), healthy=True, reason=""),
    ),
    notes=("/dev/video9: excluded by '/dev/video9'",),
    expected=3,
    healthy_devices=2,
    last_refusal=Refusal(1_795_802_700.5, "/dev/video1 is gone"),
    last_change=ListChange(1_795_802_691.9, "video1-d7e2f3: unhealthy: /dev/video1 is gone"),
    in_use=(DeviceUse("example.com/camera", "default", "viewer", "main", ("video0-a2b4c6",)),),
)
WAITING = replace(
    LIVE,
    name="example.com/serial",
    phase="wait",
    streams=0,
    is_registered=False,
    reason="Register failed: deadline exceeded",
    devices=(),
    notes=(),
)
REMOVED = replace(LIVE, name="example.com/old", is_removed=True, devices=(), notes=())
WITHOUT_INSTANCES = replace(
    WAITING, name="example.com/gpu-${model}", phase="none", generation=0, has_no_instances=True, reason="no device"
)
HEALTH = MonitorStatus(
    probes=3,
    targets=2,
    runs=41,
    min_runs=20,
    cpu_seconds=0.25,
    read_workers=PoolStatus(8, 8, is_exhausted=True),
    call_workers=PoolStatus(0, failed_starts=3, start_error="Resource temporarily unavailable"),
    errors=(ProbeError("example.com/camera", "link", "permission denied", ("video0-a2b4c6",)),),
    warnings=(ProbeWarning("example.com/camera", "heat", "/sys/t is '90', expected at most 80", ("video0-a2b4c6",)),),
)
CONFIG = ConfigStatus(
    ("/etc/genplug/genplug.yaml",),
    "cd21c713",
    1_795_799_537.9,
    "genplug.yaml:4:3: error",
    policy="policy.yaml",
    resources=4,
    warnings=("genplug.yaml:9:5: GP101: the timeout is longer than the period",),
)
UNWATCHED = ("/dev cannot be watched, changes in it are seen later: the limit is reached",)
SCANS = (
    ScanStatus(
        "example.com/video",
        ("read of /sys/class/video4linux/video1/name does not return; last known state kept for /dev/video1",),
    ),
    ScanStatus("example.com/none"),
)
FAILURES = ("the device scanner failed and is started again: ValueError('a defect')",)
RESOURCES = (LIVE, WAITING, REMOVED, WITHOUT_INSTANCES)
STATUS = Status("0.1.0", "node-1", CONFIG, "", RESOURCES, HEALTH, SCANS, FAILURES, UNWATCHED, dra=DRA)


def test_document_has_the_format_of_its_schema() -> None:
    document = STATUS.as_json()
    check_output(document)
    check_golden(GOLDEN / "status.json", json.dumps(document, indent=2) + "\n")


def test_document_has_null_for_the_time_of_a_configuration_that_was_never_loaded() -> None:
    document: dict[str, Any] = Status("0.1.0", None, ConfigStatus(), "", ()).as_json()
    check_output(document)
    assert document["config"]["loadedAt"] is None


def test_status_is_ready_if_every_configured_resource_is_registered() -> None:
    ready = Status("0.1.0", "node-1", CONFIG, "", (LIVE, REMOVED, WITHOUT_INSTANCES))
    assert ready.is_ready
    assert not replace(ready, resources=(LIVE, WAITING)).is_ready


def test_status_is_not_ready_while_a_scan_is_stalled_or_a_task_has_failed() -> None:
    ready = Status("0.1.0", "node-1", CONFIG, "", (LIVE,))
    assert replace(ready, scans=SCANS[1:]).is_ready
    assert replace(ready, scans=SCANS).unready == (f"example.com/video: scan stalled: {SCANS[0].stalls[0]}",)
    assert replace(ready, failures=FAILURES).unready == FAILURES


def test_status_as_text_names_the_state_and_the_reasons() -> None:
    assert str(LIVE) == (
        "example.com/camera: registered, phase live, generation 2, streams 1, 2 healthy, 1 unhealthy, "
        "/dev/video9: excluded by '/dev/video9'"
    )
    waiting = "example.com/serial: not registered (Register failed: deadline exceeded), phase wait, generation 2"
    assert repr(WAITING) == f"<ResourceStatus {waiting}, streams 0, 0 healthy, 0 unhealthy>"
    status = Status("0.1.0", "node-1", CONFIG, "", (WAITING,))
    assert str(status) == (
        f"genplug 0.1.0: not ready, configuration cd21c713; {status.unready[0]}; {waiting}, streams 0, "
        "0 healthy, 0 unhealthy"
    )


def test_status_is_not_ready_while_the_policy_refuses_resources_of_the_configuration() -> None:
    ready = Status("0.1.0", "node-1", CONFIG, "", (LIVE,))
    withdrawn = replace(CONFIG, withdrawn=("a.io/x", "a.io/y"))
    assert replace(ready, config=withdrawn).unready == (
        "policy.yaml refuses 2 of 4 resources, removed at 2026-11-27T17:12:17Z: a.io/x, a.io/y",
    )


def test_status_is_not_ready_between_the_configuration_and_the_first_scan() -> None:
    starting = Status("0.1.0", "node-1", CONFIG, "", ())
    assert starting.unready == starting.public_unready == ("the first scan of the devices has not finished",)
    without_resources = replace(CONFIG, resources=0)
    assert replace(starting, config=without_resources).is_ready
    # A policy that refuses all resources is the reason, not the scan.
    refused = replace(CONFIG, withdrawn=("a.io/x", "a.io/y", "a.io/z", "a.io/q"))
    (reason,) = replace(starting, config=refused).unready
    assert reason.startswith("policy.yaml refuses 4 of 4 resources")


def test_resources_that_wait_for_the_same_reason_are_one_line() -> None:
    resources = tuple(replace(WAITING, name=f"a.io/{number}") for number in range(300))
    (line,) = Status("0.1.0", None, CONFIG, "", resources).unready
    assert line == "a.io/0, a.io/1, a.io/2 and 297 more: not registered (wait): Register failed: deadline exceeded"


def test_shortage_counts_devices_without_replicas() -> None:
    assert LIVE.shortage == "2 of 3 expected devices are healthy"
    assert replace(LIVE, healthy_devices=3).shortage == ""
    assert replace(LIVE, expected=None).shortage == ""
    assert replace(LIVE, is_removed=True).shortage == ""


def test_devices_of_claims_have_the_containers_that_use_them() -> None:
    uses = [ClaimUse("default", "training", "trainer", "main"), ClaimUse("other", "training", "a", "main")]
    use = DeviceUse("example.com/gpu", "default", "trainer", "main", ("gpu0",))
    assert DRA.list_device_uses(uses) == {"example.com/gpu": (use,)}
    assert [claim.pods for claim in DRA.with_uses(uses).claims] == [("trainer",)]


def test_pods_of_claims_with_the_same_name_are_not_known() -> None:
    again = replace(DRA.claims[0], uid="8f3b1c7e-0000-4000-8000-000000000002")
    dra = replace(DRA, claims=(*DRA.claims, again, replace(again, namespace="other")))
    uses = [ClaimUse("default", "training", "trainer", "main")]
    assert dra.list_device_uses(uses) == {}
    assert [claim.pods for claim in dra.with_uses(uses).claims] == [None, None, ()]
