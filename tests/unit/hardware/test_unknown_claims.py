"""Devices that an earlier resource may claim, while its scan could not examine everything."""

from collections.abc import Mapping

import pytest
from attrs import evolve

from genplug.hardware.discovery import build_inventory, scan_resource
from genplug.hardware.inventory import Inventory, ResourceScan, ScanStall
from genplug.hardware.ledger import NO_USAGE, Ledger
from genplug.hardware.scan_errors import HangError, SearchLimitError, SystemLimitError
from genplug.spec.model import Config
from tests.support.hardware import NAME, NodeTree, build_config, build_resource, build_source, find_reason, list_ids

LATER = "b.example/y"
CONFIG = build_config(
    build_resource(NAME, build_source("/dev/x*", exclude=("/dev/x9",))),
    build_resource(LATER, build_source("/dev/[xy]*")),
)
WITHHELD = f"withheld: {NAME}, which may claim it first, has not been scanned"


@pytest.fixture
def scans(tree: NodeTree) -> Mapping[str, ResourceScan]:
    """Give the scans of two resources; the later one has nothing of its own but /dev/x9 and /dev/y0."""
    for number, name in enumerate(("x0", "x9", "y0")):
        tree.plug(f"/dev/{name}", f"240:{number}")
    return {name: scan_resource(resource, tree.host.cached()) for name, resource in CONFIG.resources.items()}


def fail(scan: ResourceScan, candidate: str = "", error: HangError | None = None) -> ResourceScan:
    """Return a first scan that could not examine a path, or anything."""
    error = error or SystemLimitError("Too many open files")
    stall = ScanStall.of(scan.resource.name, candidate, error, is_known=False)
    devices = [device for device in scan.devices if candidate and device.candidates != (candidate,)]
    return evolve(scan, devices=tuple(devices), stalls=(stall,))


def build(scans: Mapping[str, ResourceScan], ledger: Ledger | None = None, config: Config = CONFIG) -> Inventory:
    return build_inventory(config, scans, None, ledger or Ledger(NO_USAGE), 0.0)[0]


@pytest.mark.parametrize("candidate", ["", "/dev/x0"], ids=["whole scan", "candidate"])
def test_device_of_a_failed_scan_does_not_move_to_a_later_resource(
    scans: Mapping[str, ResourceScan], candidate: str
) -> None:
    found = build({NAME: fail(scans[NAME], candidate), LATER: scans[LATER]})
    assert list_ids(found) == []
    assert list_ids(found, LATER) == ["x9", "y0"]
    assert found.withheld == {(LATER, "x0"): WITHHELD}
    assert find_reason(found, "/dev/x0", LATER) == WITHHELD
    assert not found.conflicts
    assert list_ids(build(scans)) == ["x0"]


def test_device_of_a_resource_without_a_scan_does_not_move_to_a_later_resource(
    scans: Mapping[str, ResourceScan],
) -> None:
    found = build({LATER: scans[LATER]})
    assert list_ids(found, LATER) == ["x9", "y0"]
    assert found.withheld == {(LATER, "x0"): WITHHELD}


def test_device_that_new_sources_may_claim_does_not_move_to_a_later_resource(
    scans: Mapping[str, ResourceScan],
) -> None:
    earlier = evolve(scans[NAME], resource=build_resource(NAME, build_source("/dev/z*")), devices=())
    found = build({NAME: earlier, LATER: scans[LATER]})
    assert list_ids(found, LATER) == ["x9", "y0"]


def test_failed_scan_takes_no_device_from_a_later_resource_that_has_it(scans: Mapping[str, ResourceScan]) -> None:
    later = build_config(CONFIG.resources[LATER])
    _, ledger = build_inventory(later, scans, None, Ledger(NO_USAGE), 0.0)
    found = build({NAME: fail(scans[NAME]), LATER: scans[LATER]}, ledger)
    assert list_ids(found, LATER) == ["x0", "x9", "y0"]


def test_failed_scan_takes_no_device_that_a_pod_uses_under_the_later_resource(
    scans: Mapping[str, ResourceScan],
) -> None:
    ledger = Ledger().with_report({LATER: ["x0"]}, 0.0)
    found = build({NAME: fail(scans[NAME]), LATER: scans[LATER]}, ledger)
    assert list_ids(found, LATER) == ["x0", "x9", "y0"]


def test_failed_scan_of_a_later_resource_withholds_nothing(scans: Mapping[str, ResourceScan]) -> None:
    found = build({NAME: scans[NAME], LATER: fail(scans[LATER])})
    assert list_ids(found) == ["x0"]
    assert not found.withheld


def test_resources_that_may_overlap_do_not_wait_for_each_other(scans: Mapping[str, ResourceScan]) -> None:
    resources = {name: evolve(resource, overlap=True) for name, resource in CONFIG.resources.items()}
    overlapping = {name: evolve(scan, resource=resources[name]) for name, scan in scans.items()}
    found = build({NAME: fail(overlapping[NAME]), LATER: overlapping[LATER]}, config=build_config(*resources.values()))
    assert len(list_ids(found, LATER)) == 3


def test_search_that_exceeds_a_limit_withholds_nothing(scans: Mapping[str, ResourceScan]) -> None:
    found = build({NAME: fail(scans[NAME], error=SearchLimitError("too wide")), LATER: scans[LATER]})
    assert list_ids(found, LATER) == ["x0", "x9", "y0"]
