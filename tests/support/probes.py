"""Functions that bind a probe to a device, run it and evaluate its answer."""

import os
from pathlib import Path

from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, DeviceNode
from genplug.health.probe_kind import Polling
from genplug.health.probes import kind_of
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.policy import Policy
from genplug.spec.probes import Check
from genplug.spec.read_rules import parse_read_rules
from genplug.spec.template import Values

PASSED = Result(Outcome.PASSED)
TEST_POLICY = Policy(
    "policy.yaml", read=parse_read_rules(("/**", f"/proc/{os.getpid()}/mem")), unix_sockets=(Glob.parse("/**"),)
)
"""Allows the probes of the tests."""
LOCATION = SourceLocation("devices.yaml", 5, 7)


def make_device(values: Values | None = None, nodes: tuple[DeviceNode, ...] = ()) -> Device:
    """Return a device with these attributes and nodes."""
    return Device("x", "x", "a.example/x", LOCATION, ("/dev/x",), nodes, (), values or {})


def polling_of(check: Check) -> Polling:
    """Return how probes of the check's kind are polled."""
    polling = kind_of(check).polling
    assert polling is not None
    return polling


def request_of(check: Check, values: Values | None = None) -> ProbeRequest:
    """Return the request of a check for a device with these attributes."""
    return polling_of(check).request(check, make_device(values))


def run_once(root: Path, check: Check, values: Values | None = None, timeout: float = 10) -> Result:
    """Run a check once, as a worker does, and return its result."""
    return evaluate_request(root, check, request_of(check, values), timeout)


def evaluate_request(root: Path, check: Check, request: ProbeRequest, timeout: float = 10) -> Result:
    """Run a request, as a worker does, and return the result that the check evaluates."""
    request = kind_of(check).restrict(request, TEST_POLICY)
    answer, error = run_request(request, CachedFileReader(Host(root)), timeout)
    if error:
        return Result(Outcome.ERROR, error)
    result: Result = polling_of(check).evaluate(check, answer, None, 0)[0]
    return result
