"""Devices that an earlier resource may claim, while its scan could not examine everything."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from genplug.hardware.discovery import build_inventory, scan_resource
from genplug.hardware.identities import Denial, Loss
from genplug.hardware.inventory import PATH_SEPARATOR, Inventory, Kind, ResourceScan, ScanStall
from genplug.hardware.ledger import NO_USAGE, Contender, Ledger, Owner, RankedResource
from genplug.hardware.scan_errors import HangError, SearchLimitError, SystemLimitError
from genplug.hardware.unknown_claims import UnknownClaim, deny_unknown_claims
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
    return scan_all(tree, CONFIG)


def scan_all(tree: NodeTree, config: Config) -> Mapping[str, ResourceScan]:
    return {name: scan_resource(resource, tree.host.cached()) for name, resource in config.resources.items()}


def fail(scan: ResourceScan, *candidates: str, error: HangError | None = None) -> ResourceScan:
    """Return a first scan that could not examine the paths of a device, or anything."""
    error = error or SystemLimitError("Too many open files")
    stall = ScanStall.of(scan.resource.name, PATH_SEPARATOR.join(candidates), error, is_known=False)
    devices = [device for device in scan.devices if candidates and not {*candidates} & {*device.candidates}]
    return replace(scan, devices=tuple(devices), stalls=(stall,))


def build(scans: Mapping[str, ResourceScan], ledger: Ledger | None = None, config: Config = CONFIG) -> Inventory:
    return build_inventory(config, scans, None, ledger or Ledger(NO_USAGE), 0.0)[0]


@pytest.mark.parametrize("candidates", [(), ("/dev/x0",)], ids=["whole scan", "candidate"])
def test_device_of_a_failed_scan_does_not_move_to_a_later_resource(
    scans: Mapping[str, ResourceScan], candidates: tuple[str, ...]
) -> None:
    found = build({NAME: fail(scans[NAME], *candidates), LATER: scans[LATER]})
    assert list_ids(found) == []
    assert list_ids(found, LATER) == ["x9", "y0"]
    assert found.withheld == {(LATER, "x0"): WITHHELD}
    assert find_reason(found, "/dev/x0", LATER) == WITHHELD
    assert not found.conflicts
    assert list_ids(build(scans)) == ["x0"]


@pytest.mark.parametrize("names", [("x1", "x2"), ("x1, 2",), ("x1", "x2, 3")], ids=["group", "separator", "both"])
def test_failed_scan_of_a_device_withholds_its_paths_only(tree: NodeTree, names: tuple[str, ...]) -> None:
    for number, name in enumerate(("x0", *names)):
        tree.plug(f"/dev/{name}", f"240:{number}")
    scans = scan_all(tree, CONFIG)
    paths = [f"/dev/{name}" for name in names]
    found = build({NAME: fail(scans[NAME], *paths), LATER: scans[LATER]})
    assert list_ids(found) == ["x0"]
    assert list_ids(found, LATER) == []
    assert [find_reason(found, path, LATER) for path in paths] == [WITHHELD] * len(paths)
    assert find_reason(found, "/dev/x0", LATER).startswith("claimed by")
    assert len(found.withheld) == len(paths)


def test_each_earlier_resource_with_a_failed_scan_withholds_its_devices(scans: Mapping[str, ResourceScan]) -> None:
    other = build_resource("c.example/z", build_source("/dev/z*"))
    config = build_config(other, *CONFIG.resources.values())
    found = build({NAME: fail(scans[NAME]), LATER: scans[LATER]}, config=config)
    assert list_ids(found, LATER) == ["x9", "y0"]
    assert found.withheld == {(LATER, "x0"): WITHHELD}


def test_denial_has_the_first_thing_of_the_device_and_the_earlier_resource(scans: Mapping[str, ResourceScan]) -> None:
    contender = Contender.of(scans[LATER].devices[0], RankedResource(CONFIG.resources[LATER], 1))
    claim = UnknownClaim(CONFIG.resources[NAME], 0, None)
    denials = deny_unknown_claims([contender], [claim], {NAME: 0, LATER: 1}, Ledger())
    denial = Denial(Loss.UNSCANNED, (Kind.CHAR, 240, 0), Owner(NAME, ""))
    assert denials == {Owner(LATER, "x0"): denial}


def test_withheld_device_belongs_to_the_earlier_resource_after_its_scan(scans: Mapping[str, ResourceScan]) -> None:
    failed = {NAME: fail(scans[NAME]), LATER: scans[LATER]}
    _, ledger = build_inventory(CONFIG, failed, None, Ledger(NO_USAGE), 0.0)
    found = build(scans, ledger)
    assert (list_ids(found), list_ids(found, LATER)) == (["x0"], ["x9", "y0"])


def test_device_of_a_resource_without_a_scan_does_not_move_to_a_later_resource(
    scans: Mapping[str, ResourceScan],
) -> None:
    found = build({LATER: scans[LATER]})
    assert list_ids(found, LATER) == ["x9", "y0"]
    assert found.withheld == {(LATER, "x0"): WITHHELD}


def test_device_that_new_sources_may_claim_does_not_move_to_a_later_resource(
    scans: Mapping[str, ResourceScan],
) -> None:
    earlier = replace(scans[NAME], resource=build_resource(NAME, build_source("/dev/z*")), devices=())
    found = build({NAME: earlier, LATER: scans[LATER]})
    assert list_ids(found, LATER) == ["x9", "y0"]


def test_resource_with_new_sources_withholds_none_of_its_own_devices(scans: Mapping[str, ResourceScan]) -> None:
    outdated = replace(scans[NAME], resource=build_resource(NAME, build_source("/dev/x0")))
    found = build({NAME: outdated, LATER: scans[LATER]})
    assert list_ids(found) == ["x0"]


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


def test_failed_scan_takes_no_device_of_a_pool_that_a_pod_uses(scans: Mapping[str, ResourceScan]) -> None:
    pool = replace(CONFIG.resources[LATER], tokens=2)
    config = build_config(CONFIG.resources[NAME], pool)
    pool_scans = {NAME: fail(scans[NAME]), LATER: replace(scans[LATER], resource=pool)}
    assert list_ids(build(pool_scans, config=config), LATER) == ["x9", "y0"]
    ledger = Ledger().with_report({LATER: ["token-0"]}, 0.0)
    assert list_ids(build(pool_scans, ledger, config), LATER) == ["x0", "x9", "y0"]


def test_failed_scan_of_a_later_resource_withholds_nothing(scans: Mapping[str, ResourceScan]) -> None:
    found = build({NAME: scans[NAME], LATER: fail(scans[LATER])})
    assert list_ids(found) == ["x0"]
    assert not found.withheld


def test_resources_that_may_overlap_do_not_wait_for_each_other(scans: Mapping[str, ResourceScan]) -> None:
    resources = {name: replace(resource, overlap=True) for name, resource in CONFIG.resources.items()}
    overlapping = {name: replace(scan, resource=resources[name]) for name, scan in scans.items()}
    found = build({NAME: fail(overlapping[NAME]), LATER: overlapping[LATER]}, config=build_config(*resources.values()))
    assert len(list_ids(found, LATER)) == 3


@pytest.mark.parametrize("overlapping", [NAME, LATER])
def test_resource_that_may_overlap_waits_for_a_resource_that_may_not(
    scans: Mapping[str, ResourceScan], overlapping: str
) -> None:
    resources = {name: replace(resource, overlap=name == overlapping) for name, resource in CONFIG.resources.items()}
    later = replace(scans[LATER], resource=resources[LATER])
    found = build({LATER: later}, config=build_config(*resources.values()))
    assert found.withheld == {(LATER, "x0"): WITHHELD}


def test_search_that_exceeds_a_limit_withholds_nothing(scans: Mapping[str, ResourceScan]) -> None:
    found = build({NAME: fail(scans[NAME], error=SearchLimitError("too wide")), LATER: scans[LATER]})
    assert list_ids(found, LATER) == ["x0", "x9", "y0"]


def test_search_that_exceeds_a_limit_hides_no_other_failed_scan(scans: Mapping[str, ResourceScan]) -> None:
    wide = build_resource("c.example/z", build_source("/dev/*"))
    wide_scan = fail(replace(scans[NAME], resource=wide), error=SearchLimitError("too wide"))
    config = build_config(wide, *CONFIG.resources.values())
    found = build({wide.name: wide_scan, NAME: fail(scans[NAME]), LATER: scans[LATER]}, config=config)
    assert found.withheld == {(LATER, "x0"): WITHHELD}
