"""Each probe of the record states its action, its targets and its condition."""

from typing import Any

import pytest
import yaml

from genplug.config.load import load_text
from genplug.health.probes import PROBES
from genplug.record.facts import Known
from genplug.record.health import DESCRIPTIONS, ProbeRecord, describe_health
from tests.support.configs import CONFIG_HEADER


def describe(probe: dict[str, Any], **health: Any) -> ProbeRecord:
    spec = {"devices": [{"glob": "/dev/x*"}], "health": {"probes": [probe], **health}}
    text = CONFIG_HEADER + yaml.safe_dump({"resources": {"a.io/x": spec}})
    fact = describe_health(load_text(text, "c.yaml", policy=None))
    assert isinstance(fact, Known)
    [probe_record] = fact.value[0].probes
    assert isinstance(probe_record, ProbeRecord)
    return probe_record


def test_every_kind_of_probe_has_a_description() -> None:
    assert list(DESCRIPTIONS) == list(PROBES)


@pytest.mark.parametrize(
    ("probe", "action", "target", "condition"),
    [
        (
            {"file": {"path": "${sysfs}/state", "equals": "up", "maxFile": "${sysfs}/limit"}},
            "reads",
            "${sysfs}/state",
            "equals up; maxFile: ${sysfs}/limit; a missing file is: error; a value that is not a number is: error",
        ),
        ({"file": {"path": "/sys/x", "exists": False}}, "reads", "/sys/x", "the file does not exist"),
        ({"pci": {"minLinkWidth": 8}}, "reads", "/sys/bus/pci/devices/${pci.address}/", "at least 8 lanes"),
        (
            {"kernelLog": {"fail": "Xid", "clear": "reset"}},
            "listens to",
            "/dev/kmsg",
            "fails on Xid; recovers on reset",
        ),
        ({"uevent": {"fail": "ACTION=offline"}}, "listens to", "uevents of ${sysfs}", "fails on ACTION=offline"),
        ({"open": {"mode": "r"}}, "opens", "the device nodes of the device", "opens with mode r"),
        ({"exec": {"command": ["/bin/check", "s3cret"]}}, "runs", "/bin/check with 1 argument", "the exit status is 0"),
        (
            {"http": {"url": "http://127.0.0.1:9400/health?token=s3cret"}},
            "connects to",
            "http://127.0.0.1:9400/health",
            "the status is 200",
        ),
        ({"unixSocket": {"path": "/run/x.sock"}}, "connects to", "/run/x.sock", "the socket accepts the connection"),
        ({"tcpSocket": {"port": 80}}, "connects to", "port 80", "the port accepts the connection"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_probe_states_its_action_targets_and_condition(
    probe: dict[str, Any], action: str, target: str, condition: str
) -> None:
    record = describe(probe)
    assert (record.action, record.targets[0]) == (action, target)
    assert condition in record.condition
    assert "s3cret" not in str(record)


def test_timing_is_that_of_the_probe_or_of_the_resource() -> None:
    record = describe(
        {"file": {"path": "/sys/x"}, "periodSeconds": 30, "severity": "warning"},
        failureThreshold=5,
        onError="unhealthy",
    )
    assert (record.period_seconds, record.failure_threshold, record.on_error) == (30, 5, "unhealthy")
    assert record.severity == "warning"


def test_probe_of_kernel_events_has_no_period() -> None:
    record = describe({"kernelLog": {"fail": "Xid"}})
    assert (record.period_seconds, record.timeout_seconds) == (None, None)
