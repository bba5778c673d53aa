"""Presence: a removed device is kept as unhealthy for its grace period; a returned device is a new device."""

import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.hardware.inventory import CandidateOutcome, Device, DeviceNode, Inventory, Kind, PathInfo, ResourceScan
from genplug.health.presence import WAITING, evaluate_health
from genplug.health.verdict import (
    PRESENCE,
    DeviceHealth,
    DeviceRef,
    HealthSnapshot,
    ProbeFailure,
    ProbeResults,
    Verdict,
)
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.model import CandidateType, Resource, Source
from genplug.spec.regex import compile_regex
from genplug.spec.template import Template
from tests.support.configs import load_resource
from tests.support.work import count_lines

X, Y = "a.example/x", "b.example/y"
LOCATION = SourceLocation("devices.yaml", 5, 7)
KEEP = {X: 60.0, Y: 60.0}


def node(path: str, minor: int | None = None) -> DeviceNode:
    """Return a node; nodes of different paths have different numbers."""
    number = zlib.crc32(path.encode()) % 2**20 if minor is None else minor
    return DeviceNode(path, path, "rw", PathInfo.of(path, Kind.CHAR, 240, number))


def device(name: str, *paths: str, resource: str = X, faults: tuple[str, ...] = ()) -> Device:
    nodes = tuple(node(path) for path in paths or (f"/dev/{name}",))
    candidates = tuple(node_.path for node_ in nodes)
    return Device(name, name, resource, LOCATION, candidates, nodes, (), {}, faults=faults)


def inventory(
    *devices: Device, left_out: tuple[CandidateOutcome, ...] = (), resources: tuple[str, ...] = (X,)
) -> Inventory:
    by_resource = {name: tuple(each for each in devices if each.resource == name) for name in resources}
    return Inventory(by_resource, left_out, (), frozenset({"/dev"}))


def only(snapshot: HealthSnapshot) -> DeviceHealth:
    [entry] = snapshot.devices[X]
    return entry


def test_new_device_is_healthy_since_it_was_found() -> None:
    snapshot = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    assert only(snapshot).verdict == Verdict(healthy=True, reason="", since=100)
    assert snapshot.next_change is None


def test_faults_of_device_are_the_reason() -> None:
    faults = ("companion /dev/ctl does not exist", "allocate.env A refers to 'index', which the device does not have")
    snapshot = evaluate_health(inventory(device("x0", faults=faults)), None, KEEP, 100)
    assert only(snapshot).verdict == Verdict(healthy=False, reason="; ".join(faults), since=100, probe=PRESENCE)
    assert snapshot.next_change is None


def test_nothing_lingers_in_first_snapshot() -> None:
    assert evaluate_health(inventory(), None, KEEP, 100).devices == {X: ()}


def test_43_device_that_disappears_lingers_unhealthy_for_its_grace_period() -> None:
    first = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 100)
    gone = evaluate_health(inventory(device("x1")), first, KEEP, 110)
    assert [entry.device.id for entry in gone.devices[X]] == ["x0", "x1"]
    assert gone.devices[X][0].verdict == Verdict(healthy=False, reason="/dev/x0 is gone", since=110, probe=PRESENCE)
    assert gone.devices[X][0].gone_since == 110
    assert gone.next_change == 170
    still = evaluate_health(inventory(device("x1")), gone, KEEP, 169.9)
    assert still.devices == gone.devices
    left = evaluate_health(inventory(device("x1")), still, KEEP, gone.next_change)
    assert [entry.device.id for entry in left.devices[X]] == ["x1"]
    assert left.next_change is None


def test_43_returned_device_is_healthy_under_its_id() -> None:
    same = device("x0")
    first = evaluate_health(inventory(same), None, KEEP, 100)
    gone = evaluate_health(inventory(), first, KEEP, 110)
    back = evaluate_health(inventory(same), gone, KEEP, 120)
    assert only(back) == DeviceHealth(device("x0"), Verdict(healthy=True, reason="", since=120))
    assert back.next_change is None


def test_43_device_that_returns_with_other_numbers_is_healthy() -> None:
    first = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    gone = evaluate_health(inventory(), first, KEEP, 110)
    renumbered = replace(device("x0"), nodes=(node("/dev/x0", minor=9),))
    back = evaluate_health(inventory(renumbered), gone, KEEP, 120)
    assert only(back).verdict.healthy
    assert only(back).device is renumbered


def test_without_grace_period_device_leaves_immediately() -> None:
    first = evaluate_health(inventory(device("x0")), None, {X: 0}, 100)
    assert evaluate_health(inventory(), first, {X: 0}, 100).devices == {X: ()}


def test_device_that_loses_a_node_is_what_is_left_of_it() -> None:
    whole, rest = device("hca", "/dev/umad0", "/dev/uverbs0"), device("hca", "/dev/uverbs0")
    first = evaluate_health(inventory(whole), None, KEEP, 100)
    lost = evaluate_health(inventory(rest), first, KEEP, 110)
    assert only(lost) == DeviceHealth(rest, Verdict(healthy=True, reason="", since=100))
    assert lost.next_change is None


def test_device_that_lacks_a_required_node_is_unhealthy() -> None:
    first = evaluate_health(inventory(device("hca", "/dev/a", "/dev/b")), None, KEEP, 100)
    lost = evaluate_health(inventory(device("hca", "/dev/b", faults=("/dev/a does not exist",))), first, KEEP, 110)
    assert only(lost).verdict == Verdict(healthy=False, reason="/dev/a does not exist", since=110, probe=PRESENCE)
    assert lost.next_change is None


def test_returned_device_is_unhealthy_until_its_probes_have_results() -> None:
    ref, same = DeviceRef(X, "x0"), device("x0")
    gone = evaluate_health(inventory(), evaluate_health(inventory(same), None, KEEP, 100), KEEP, 110)
    pending = ProbeResults(pending={ref: 122.0})
    back = evaluate_health(inventory(same), gone, KEEP, 120, pending)
    assert only(back).verdict == Verdict(healthy=False, reason=WAITING, since=120, probe=PRESENCE)
    assert back.next_change == 122
    # Also if its grace period would be over.
    assert evaluate_health(inventory(same), back, KEEP, 171, ProbeResults(pending={ref: 172.0})).next_change == 172
    failed = evaluate_health(
        inventory(same), back, KEEP, 121, ProbeResults(failures={ref: (ProbeFailure("state", "is bad"),)})
    )
    assert only(failed).verdict.reason == "probe state: is bad"
    assert only(evaluate_health(inventory(same), back, KEEP, 121)) == DeviceHealth(
        same, Verdict(healthy=True, reason="", since=121)
    )


def test_device_with_new_numbers_is_unhealthy_until_its_probes_have_results() -> None:
    first = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    renumbered = replace(device("x0"), nodes=(node("/dev/x0", minor=9),))
    pending = ProbeResults(pending={DeviceRef(X, "x0"): 112.0})
    for now in (110.0, 111.0):
        first = evaluate_health(inventory(renumbered), first, KEEP, now, pending)
        assert only(first).verdict.reason == WAITING
    assert only(evaluate_health(inventory(renumbered), first, KEEP, 112)).verdict.healthy


def test_unchanged_verdict_keeps_its_time() -> None:
    snapshot = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    for now in (110, 120):
        snapshot = evaluate_health(inventory(device("x0")), snapshot, KEEP, now)
        assert only(snapshot).verdict.since == 100
    snapshot = evaluate_health(inventory(device("x0", faults=("broken",))), snapshot, KEEP, 130)
    snapshot = evaluate_health(inventory(device("x0", faults=("broken",))), snapshot, KEEP, 140)
    assert only(snapshot).verdict == Verdict(healthy=False, reason="broken", since=130, probe=PRESENCE)


def test_existing_path_that_is_not_a_device_any_more_has_a_reason() -> None:
    first = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 100)
    left_out = (CandidateOutcome("/dev/x0", X, LOCATION, None, "is a directory, expected a device node"),)
    after = evaluate_health(inventory(device("pair-abcdef", "/dev/x1"), left_out=left_out), first, KEEP, 110)
    assert [entry.verdict.reason for entry in after.devices[X]] == [
        "",
        "/dev/x0 is no longer usable: is a directory, expected a device node",
        "/dev/x1 belongs to device pair-abcdef now",
    ]


def test_removed_resource_leaves_with_its_devices() -> None:
    first = evaluate_health(inventory(device("x0"), device("y0", resource=Y), resources=(X, Y)), None, KEEP, 100)
    after = evaluate_health(inventory(device("x0")), first, KEEP, 110)
    assert set(after.devices) == {X}


def test_device_that_moves_to_another_resource_does_not_linger() -> None:
    first = evaluate_health(inventory(device("x0"), resources=(X, Y)), None, KEEP, 100)
    after = evaluate_health(inventory(device("x0", resource=Y), resources=(X, Y)), first, KEEP, 110)
    assert after.devices[X] == ()
    assert [entry.verdict.healthy for entry in after.devices[Y]] == [True]


def scanned(glob: str, location: SourceLocation, *devices: Device) -> Inventory:
    source = Source(location, (Glob.parse(glob),), (), CandidateType.DEVICE, (), None, (), (), None)
    resource = Resource(X, location, (source,))
    return replace(inventory(*devices), resources={X: resource})


def test_70_deselected_device_leaves_immediately() -> None:
    first = evaluate_health(scanned("/dev/x*", LOCATION, device("x0"), device("x1")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/x1", LOCATION, device("x1")), first, KEEP, 110)
    assert [(entry.device.id, entry.verdict) for entry in after.devices[X]] == [
        ("x1", Verdict(healthy=True, reason="", since=100))
    ]


def test_70_deselected_device_leaves_immediately_after_a_scan_that_is_slower_than_the_reload() -> None:
    before, after = (scanned(glob, LOCATION).resources[X] for glob in ("/dev/x*", "/dev/x1"))
    both = (device("x0"), device("x1"))
    first = evaluate_health(offered(*both, resources=(before,), scans=(before,)), None, KEEP, 100)
    # The devices of the previous configuration are kept until the scan ends.
    reloaded = evaluate_health(offered(*both, resources=(after,), scans=(before,)), first, KEEP, 110)
    assert [entry.device.id for entry in reloaded.devices[X]] == ["x0", "x1"]
    ended = evaluate_health(offered(device("x1"), resources=(after,), scans=(after,)), reloaded, KEEP, 120)
    assert [entry.device.id for entry in ended.devices[X]] == ["x1"]


def test_device_of_an_unknown_selection_is_gone() -> None:
    resource = scanned("/dev/x*", LOCATION).resources[X]
    unknown = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    for previous in (unknown, replace(unknown, inventory=None)):
        after = evaluate_health(replace(inventory(), resources={X: resource}), previous, KEEP, 110)
        assert only(after).verdict.reason == "/dev/x0 is gone"


def test_70_deselected_node_is_not_lost() -> None:
    first = evaluate_health(scanned("/dev/*", LOCATION, device("x", "/dev/a", "/dev/b")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/a", LOCATION, device("x", "/dev/a")), first, KEEP, 110)
    assert only(after) == DeviceHealth(device("x", "/dev/a"), Verdict(healthy=True, reason="", since=100))


def test_69_moved_lines_of_the_configuration_change_nothing() -> None:
    first = evaluate_health(scanned("/dev/x*", LOCATION, device("x0")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/x*", SourceLocation("devices.yaml", 9, 7)), first, KEEP, 110)
    assert only(after).verdict.reason == "/dev/x0 is gone"


def test_unchanged_entry_is_the_identical_object() -> None:
    first = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 100)
    gone = evaluate_health(inventory(device("x0")), first, KEEP, 110)
    again = evaluate_health(inventory(device("x0")), gone, KEEP, 120)
    assert gone.devices[X][0] is first.devices[X][0]
    assert all(new is old for new, old in zip(again.devices[X], gone.devices[X], strict=True))


def test_entries_of_a_device_whose_failure_continues_are_the_identical_tuples() -> None:
    made = [device("x0"), device("x1")]
    results = ProbeResults({DeviceRef(X, "x0"): (ProbeFailure("p", "failed"),)})
    first = evaluate_health(inventory(*made), None, KEEP, 100, results)
    again = evaluate_health(inventory(*made), first, KEEP, 110, results)
    assert again.devices[X] is first.devices[X]
    assert again.parts[X].present is first.parts[X].present


def test_changed_device_is_replaced_behind_a_device_that_is_read_again_without_a_change() -> None:
    same = device("x1")
    first = evaluate_health(inventory(device("x0"), same, device("x2")), None, KEEP, 100)
    after = evaluate_health(inventory(device("x0"), same, device("x2", "/dev/x2", "/dev/ctl")), first, KEEP, 110)
    assert [len(entry.device.nodes) for entry in after.devices[X]] == [1, 1, 2]
    assert after.devices[X][0] is first.devices[X][0]


def test_device_of_a_new_resource_is_healthy_since_it_was_found() -> None:
    x0, y0 = device("x0"), device("y0", resource=Y)
    first = evaluate_health(inventory(x0), None, KEEP, 100)
    [entry] = evaluate_health(inventory(x0, y0, resources=(X, Y)), first, KEEP, 110).devices[Y]
    assert entry.verdict == Verdict(healthy=True, reason="", since=110)


def offered(*devices: Device, resources: tuple[Resource, ...], scans: tuple[Resource, ...] = ()) -> Inventory:
    """Return an inventory of devices with the resources that have them, and of scans of the configured resources."""
    found = inventory(*devices, resources=tuple(dict.fromkeys(each.resource for each in devices)))
    by_name = {resource.name: resource for resource in resources}
    scanned = {each.configured_name: ResourceScan(each, (), (), (), {}, ()) for each in scans or resources}
    return replace(found, resources=by_name, scans=scanned)


RESOURCE = Resource(X, LOCATION, ())
OTHER = Resource(Y, LOCATION, ())


def lingering(before: Inventory, after: Inventory) -> list[str]:
    """Return the IDs of unhealthy devices in any resource after a device disappeared."""
    snapshot = evaluate_health(after, evaluate_health(before, None, KEEP, 100), KEEP, 110)
    return [entry.device.id for entries in snapshot.devices.values() for entry in entries if not entry.verdict.healthy]


def test_device_whose_node_is_offered_under_another_id_does_not_linger() -> None:
    before = offered(device("x0"), device("x1"), resources=(RESOURCE,))
    assert lingering(before, offered(device("x1"), resources=(RESOURCE,))) == ["x0"]
    renamed = replace(device("x0"), id="y0", key="y0")
    assert lingering(before, offered(renamed, resources=(RESOURCE,))) == ["x1"]


def test_device_lingers_after_a_device_that_moves_to_another_resource() -> None:
    first = evaluate_health(inventory(device("x0"), device("x1"), resources=(X, Y)), None, KEEP, 100)
    after = evaluate_health(inventory(device("x0", resource=Y), resources=(X, Y)), first, KEEP, 110)
    assert {name: [entry.device.id for entry in entries] for name, entries in after.devices.items()} == {
        X: ["x1"],
        Y: ["x0"],
    }


def test_device_without_nodes_whose_path_is_offered_under_another_id_does_not_linger() -> None:
    part = replace(device("x0"), nodes=())
    renamed = replace(part, id="y0", key="y0")
    before = offered(part, resources=(RESOURCE,))
    assert lingering(before, offered(renamed, resources=(RESOURCE,))) == []
    elsewhere = replace(renamed, candidates=("/dev/other",))
    assert lingering(before, offered(elsewhere, resources=(RESOURCE,))) == ["x0"]


def test_device_that_shares_only_a_part_with_another_device_lingers() -> None:
    gone = replace(device("x0"), identities=("/sys/devices/card0",))
    left = replace(device("x1"), identities=("/sys/devices/card0",))
    assert lingering(offered(gone, left, resources=(RESOURCE,)), offered(left, resources=(RESOURCE,))) == ["x0"]


def test_device_whose_node_another_resource_has_lingers_only_if_both_may_overlap() -> None:
    moved = replace(device("x0"), resource=Y, id="y0", key="y0")
    y9 = device("y9", resource=Y)
    for first, second, expected in ((True, True, ["x0"]), (True, False, []), (False, True, []), (False, False, [])):
        resources = (replace(RESOURCE, overlap=first), replace(OTHER, overlap=second))
        before = offered(device("x0"), device("x1"), y9, resources=resources)
        assert lingering(before, offered(device("x1"), moved, y9, resources=resources)) == expected
    # A resource that this scan does not have anymore cannot have the node.
    before = offered(device("x0"), device("x1"), y9, resources=(RESOURCE, OTHER))
    assert lingering(before, offered(device("x1"), moved, y9, resources=(RESOURCE,))) == ["x0"]


def build_instance(name: str) -> Resource:
    return Resource(name, LOCATION, (), name_template=Template.parse("a.example/${type}"))


def test_instance_of_a_template_exists_while_its_devices_linger() -> None:
    first, second = build_instance("a.example/first"), build_instance("a.example/second")
    one, two = device("d1", resource=first.name), device("d2", resource=second.name)
    grace = {first.name: 60.0, second.name: 90.0}
    snapshot = evaluate_health(offered(one, two, resources=(first, second)), None, grace, 100)
    assert snapshot.resources == {first.name: first, second.name: second}
    without = offered(resources=(), scans=(first,))
    for now in (110.0, 169.9):
        snapshot = evaluate_health(without, snapshot, grace, now)
        assert {name: [entry.device.id for entry in entries] for name, entries in snapshot.devices.items()} == {
            first.name: ["d1"],
            second.name: ["d2"],
        }
        assert snapshot.resources == {first.name: first, second.name: second}
        assert snapshot.next_change == 170
    snapshot = evaluate_health(without, snapshot, grace, 170)
    assert set(snapshot.devices) == set(snapshot.resources) == {second.name}
    assert evaluate_health(without, snapshot, grace, 200).devices == {}


def test_instance_leaves_with_its_configuration() -> None:
    instance = build_instance("a.example/first")
    first = evaluate_health(offered(device("d1", resource=instance.name), resources=(instance,)), None, KEEP, 100)
    assert evaluate_health(offered(resources=()), first, KEEP, 110).devices == {}
    changed = replace(instance, overlap=True)
    assert evaluate_health(offered(resources=(), scans=(changed,)), first, KEEP, 110).devices == {}
    plain = evaluate_health(offered(device("x0"), resources=(RESOURCE,)), None, KEEP, 100)
    assert evaluate_health(offered(resources=(), scans=(RESOURCE,)), plain, KEEP, 110).devices == {}


def test_reason_of_an_instance_is_found_under_the_configured_name() -> None:
    instance = build_instance("a.example/first")
    first = evaluate_health(offered(device("d1", resource=instance.name), resources=(instance,)), None, {}, 100)
    outcome = CandidateOutcome("/dev/d1", instance.configured_name, LOCATION, None, "is a directory")
    after = replace(offered(resources=(), scans=(instance,)), left_out=(outcome,))
    [entry] = evaluate_health(after, first, {instance.name: 60}, 110).devices[instance.name]
    assert entry.verdict.reason == "/dev/d1 is no longer usable: is a directory"


def test_device_of_a_resource_without_grace_period_leaves_immediately() -> None:
    first = evaluate_health(inventory(device("x0")), None, {}, 100)
    assert evaluate_health(inventory(), first, {}, 100.5).devices == {X: ()}


def test_snapshot_has_the_inventory_and_its_resources() -> None:
    found = offered(device("x0"), resources=(RESOURCE,))
    snapshot = evaluate_health(found, None, KEEP, 100)
    assert snapshot.inventory is found
    assert snapshot.resources == {X: RESOURCE}


def load_inventory(text: str, *devices: Device) -> Inventory:
    return replace(inventory(*devices), resources={X: replace(load_resource(text), name=X)})


def test_70_selection_is_compared_by_its_texts() -> None:
    text = "devices: [{{glob: /dev/x*, where: {{name: {{matches: '{}'}}}}}}]"
    before = load_inventory(text.format("^x0$"), device("x0"))
    # A pattern that is compiled again is another object.
    compile_regex.cache_clear()
    re2.purge()
    assert lingering(before, load_inventory("# A comment.\n" + text.format("^x0$"))) == ["x0"]
    assert lingering(before, load_inventory(text.format("^x1$"))) == []
    assert lingering(before, load_inventory("share: {}\n" + text.format("^x0$"))) == ["x0"]
    resource = before.resources[X]
    assert lingering(before, replace(before, devices={X: ()}, resources={X: replace(resource, overlap=True)})) == []


def test_70_deselected_device_leaves_also_if_its_instance_has_no_device_left() -> None:
    before, after = (scanned(glob, LOCATION).resources[X] for glob in ("/dev/x*", "/dev/y*"))
    first, changed = (
        replace(each, name=Y, name_template=Template.parse("b.example/${type}")) for each in (before, after)
    )
    found = offered(device("d", resource=Y), resources=(first,))
    assert lingering(found, offered(resources=(), scans=(first,))) == ["d"]
    assert lingering(found, offered(resources=(), scans=(changed,))) == []


def test_70_device_that_a_changed_configuration_gives_other_nodes_has_not_returned() -> None:
    first = evaluate_health(scanned("/dev/a", LOCATION, device("x", "/dev/a")), None, KEEP, 100)
    pending = ProbeResults(pending={DeviceRef(X, "x"): 122.0})
    after = evaluate_health(scanned("/dev/b", LOCATION, device("x", "/dev/b")), first, KEEP, 110, pending)
    assert only(after) == DeviceHealth(device("x", "/dev/b"), Verdict(healthy=True, reason="", since=100))


def test_failures_of_probes_are_kept_and_name_the_probe() -> None:
    same, ref = device("x0"), DeviceRef(X, "x0")
    link, state = ProbeFailure("link", "is down"), ProbeFailure("state", "is bad")
    snapshot = evaluate_health(inventory(same), None, KEEP, 100)
    for now, failures in ((110, (link, state)), (120, (state,)), (130, (state,)), (140, ())):
        previous = snapshot
        snapshot = evaluate_health(inventory(same), previous, KEEP, now, ProbeResults(failures={ref: failures}))
        assert only(snapshot).failures == failures
        assert only(snapshot).verdict.probe == (failures[0].probe if failures else "")
        assert only(snapshot).verdict.healthy is not bool(failures)
        if now == 130:
            assert only(snapshot) is only(previous)


def test_new_device_that_waits_for_its_probes_is_not_listed() -> None:
    pending = ProbeResults(pending={DeviceRef(X, "x0"): 122.0})
    snapshot = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 120, pending)
    assert [entry.device.id for entry in snapshot.devices[X]] == ["x1"]
    assert snapshot.next_change == 122
    # A device that is known keeps its health while a new probe has no result.
    known = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    assert only(evaluate_health(inventory(device("x0")), known, KEEP, 120, pending)).verdict.healthy


def test_returned_device_is_gone_since_it_disappeared_and_waits_as_one_entry() -> None:
    same, pending = device("x0"), ProbeResults(pending={DeviceRef(X, "x0"): 222.0})
    gone = evaluate_health(inventory(), evaluate_health(inventory(same), None, KEEP, 100), KEEP, 110)
    back = evaluate_health(inventory(same), gone, KEEP, 120, pending)
    assert only(back).gone_since == 110
    again = evaluate_health(inventory(same), back, KEEP, 130, pending)
    assert only(again) is only(back)


parts = st.sets(st.sampled_from("abc"))
histories = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(["x0", "x1", "x10"]), parts, max_size=3), st.integers(0, 40)),
    min_size=1,
    max_size=12,
)


@given(histories)
def test_present_device_is_healthy_and_absent_device_is_dropped_in_time(
    history: list[tuple[dict[str, set[str]], int]],
) -> None:
    now, snapshot = 0.0, None
    gone_since: dict[str, float] = {}
    before: set[str] = set()
    for state, pause in history:
        now += pause
        present = {name: letters for name, letters in state.items() if letters}
        found = inventory(*(device(n, *(f"/dev/{n}{p}" for p in sorted(ps))) for n, ps in sorted(present.items())))
        snapshot = evaluate_health(found, snapshot, KEEP, now)
        entries = {entry.device.id: entry for entry in snapshot.devices[X]}
        gone_since |= dict.fromkeys(before - present.keys(), now)
        for name in present:
            gone_since.pop(name, None)
        lingering = {name for name, since in gone_since.items() if now < since + 60}
        # No verdict of a present device depends on what was before.
        assert {name for name, entry in entries.items() if entry.verdict.healthy} == present.keys()
        assert entries.keys() == present.keys() | lingering
        ids = [entry.device.id for entry in snapshot.devices[X]]
        assert ids == sorted(ids, key=lambda name: int(name[1:]))
        assert snapshot.next_change == min((gone_since[name] + 60 for name in lingering), default=None)
        before = set(present)


@given(histories)
def test_health_changes_without_event_exactly_at_next_change(
    history: list[tuple[dict[str, set[str]], int]],
) -> None:
    now, snapshot = 0.0, None
    for present, pause in history:
        now += pause
        found = inventory(
            *(device(n, *(f"/dev/{n}{p}" for p in sorted(ps))) for n, ps in sorted(present.items()) if ps)
        )
        snapshot = evaluate_health(found, snapshot, KEEP, now)
    assert snapshot is not None
    if snapshot.next_change is None:
        assert evaluate_health(found, snapshot, KEEP, now + 1000).devices == snapshot.devices
    else:
        just_before = evaluate_health(found, snapshot, KEEP, snapshot.next_change - 0.001)
        assert just_before.devices == snapshot.devices
        assert evaluate_health(found, snapshot, KEEP, snapshot.next_change).devices != snapshot.devices


NAMES = ("x0", "x1", "x2", "x3", "y0")
steps = st.fixed_dictionaries(
    {
        "devices": st.lists(
            st.tuples(st.sampled_from(NAMES), st.integers(0, 3), st.integers(0, 1)),
            unique_by=(lambda made: made[0], lambda made: made[1]),
        ),
        "failing": st.sets(st.sampled_from(NAMES), max_size=2),
        "pending": st.sets(st.sampled_from(NAMES), max_size=2),
        "left_out": st.sets(st.sampled_from(NAMES), max_size=2),
        "pause": st.integers(0, 50),
    }
)
"""The devices with the minor numbers of their nodes and their versions, the results of probes, and the seconds."""


def build_step(step: dict[str, Any], make: Callable[[str, int, int], Device]) -> tuple[Inventory, ProbeResults]:
    """Return the inventory and the results of a step; a device node has one device, as after discovery."""
    made = [make(*each) for each in sorted(step["devices"])]
    outcomes = tuple(
        CandidateOutcome(f"/dev/{name}", resource, LOCATION, None, "left out")
        for name in sorted(step["left_out"])
        for resource in (X, Y)
    )
    refs = {kind: [DeviceRef(resource_of(name), name) for name in step[kind]] for kind in ("failing", "pending")}
    found = Inventory(
        {name: tuple(each for each in made if each.resource == name) for name in (X, Y)},
        outcomes,
        (),
        frozenset(),
        resources={name: Resource(name, LOCATION, ()) for name in (X, Y)},
    )
    failures = dict.fromkeys(refs["failing"], (ProbeFailure("p", "failed"),))
    return found, ProbeResults(failures, dict.fromkeys(refs["pending"], 1000.0))


def resource_of(name: str) -> str:
    return X if name.startswith("x") else Y


def make_device(name: str, minor: int, version: int) -> Device:
    made = replace(device(name, resource=resource_of(name)), nodes=(node(f"/dev/{name}", minor),))
    return replace(made, attributes={"version": (str(version),)})


@given(st.lists(steps, max_size=8))
def test_evaluation_of_changes_equals_evaluation_of_all_devices(history: list[dict[str, Any]]) -> None:
    keep_object, now = cache(make_device), 0.0
    of_changes: HealthSnapshot | None = None
    of_all: HealthSnapshot | None = None
    for step in history:
        now += step["pause"]
        found, results = build_step(step, keep_object)
        of_changes = evaluate_health(found, of_changes, KEEP, now, results)
        # Devices that are other objects are all evaluated.
        found, results = build_step(step, make_device)
        of_all = evaluate_health(found, of_all, KEEP, now, results)
        assert of_changes == of_all
        for part in of_changes.parts.values():
            assert part.waiting == part.present.count(None)


def evaluate_change(size: int, *, failing: int = 0) -> tuple[int, HealthSnapshot, HealthSnapshot]:
    """Return the lines that the evaluation of a new device among ``size`` devices executes, and both snapshots."""
    made = [device(f"x{number}") for number in range(size)]
    left_out = tuple(CandidateOutcome(f"/dev/y{number}", X, LOCATION, None, "left out") for number in range(size))
    failures = {DeviceRef(X, f"x{number}"): (ProbeFailure("p", "failed"),) for number in range(failing)}
    previous = evaluate_health(inventory(*made, left_out=left_out), None, KEEP, 1, ProbeResults(failures))
    changed = inventory(*made[:5], device("x5", "/dev/other"), *made[7:], left_out=left_out)
    lines, current = count_lines(lambda: evaluate_health(changed, previous, KEEP, 2, ProbeResults(failures)))
    return lines, previous, current


@pytest.mark.parametrize("failing", [0, 3])
def test_work_of_evaluation_does_not_grow_with_unchanged_devices(failing: int) -> None:
    few, _, _ = evaluate_change(20, failing=failing)
    many, previous, current = evaluate_change(10_000, failing=failing)
    # The place of the device that lingers is found by bisection.
    assert many - few < 100
    assert len({id(entry) for entry in current.devices[X]} - {id(entry) for entry in previous.devices[X]}) == 2


def test_unchanged_resource_keeps_its_tuple() -> None:
    made = [device("x0"), device("x1"), device("y0", resource=Y)]
    first = evaluate_health(inventory(*made, resources=(X, Y)), None, KEEP, 1)
    second = evaluate_health(inventory(*made[1:], resources=(X, Y)), first, KEEP, 2)
    assert second.devices[Y] is first.devices[Y]


def test_devices_that_become_healthy_at_once_share_their_verdict() -> None:
    first, second = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 1).devices[X]
    assert first.verdict is second.verdict


def test_device_that_waits_for_its_probes_takes_no_place_in_the_list() -> None:
    made = [device("x0"), device("x1"), device("x2")]
    pending = ProbeResults(pending={DeviceRef(X, "x1"): 10.0})
    first = evaluate_health(inventory(*made), None, KEEP, 1, pending)
    assert [entry.device.id for entry in first.devices[X]] == ["x0", "x2"]
    second = evaluate_health(inventory(*made), first, KEEP, 2)
    assert [entry.device.id for entry in second.devices[X]] == ["x0", "x1", "x2"]


@pytest.mark.parametrize("spec", [replace(RESOURCE, tokens=2), replace(RESOURCE, overlap=True)])
def test_device_whose_node_an_unchanged_device_of_its_resource_shares_does_not_linger(spec: Resource) -> None:
    x0, x1, x2 = make_device("x0", 7, 0), make_device("x1", 7, 0), make_device("x2", 8, 0)
    first = evaluate_health(replace(inventory(x0, x1, x2), resources={X: spec}), None, KEEP, 1)
    second = evaluate_health(replace(inventory(x0, x1), resources={X: spec}), first, KEEP, 2)
    assert [entry.device.id for entry in second.devices[X]] == ["x0", "x1", "x2"]
    after = replace(inventory(x1), resources={X: spec})
    third = evaluate_health(after, second, KEEP, 3)
    assert [entry.device.id for entry in third.devices[X]] == ["x1", "x2"]
    assert evaluate_health(after, third, KEEP, 4).devices[X] is third.devices[X]
