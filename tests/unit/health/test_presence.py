"""Presence: a removed device is kept as unhealthy for its grace period; a returned device is a new device."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.inventory import CandidateOutcome, Device, DeviceNode, Inventory, Kind, PathInfo
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

X, Y = "a.example/x", "b.example/y"
LOCATION = SourceLocation("devices.yaml", 5, 7)
KEEP = {X: 60.0, Y: 60.0}


def node(path: str, minor: int = 0) -> DeviceNode:
    return DeviceNode(path, path, "rw", PathInfo(path, Kind.CHAR, 240, minor))


def device(name: str, *paths: str, resource: str = X, faults: tuple[str, ...] = ()) -> Device:
    nodes = tuple(node(path) for path in paths or (f"/dev/{name}",))
    candidates = tuple(node_.path for node_ in nodes)
    return Device(name, name, resource, LOCATION, candidates, nodes, (), {}, faults=faults)


def inventory(
    *devices: Device, considered: tuple[CandidateOutcome, ...] = (), resources: tuple[str, ...] = (X,)
) -> Inventory:
    by_resource = {name: tuple(each for each in devices if each.resource == name) for name in resources}
    return Inventory(by_resource, considered, (), frozenset({"/dev"}))


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
    renumbered = evolve(device("x0"), nodes=(node("/dev/x0", minor=9),))
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
    renumbered = evolve(device("x0"), nodes=(node("/dev/x0", minor=9),))
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
    considered = (
        CandidateOutcome("/dev/x0", X, LOCATION, None, "is a directory, expected a device node"),
        CandidateOutcome("/dev/x1", X, LOCATION, "pair-abcdef", "found by '/dev/x*'"),
    )
    after = evaluate_health(inventory(considered=considered), first, KEEP, 110)
    assert [entry.verdict.reason for entry in after.devices[X]] == [
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
    return evolve(inventory(*devices), resources={X: resource})


def test_70_deselected_device_leaves_immediately() -> None:
    first = evaluate_health(scanned("/dev/x*", LOCATION, device("x0"), device("x1")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/x1", LOCATION, device("x1")), first, KEEP, 110)
    assert [(entry.device.id, entry.verdict) for entry in after.devices[X]] == [
        ("x1", Verdict(healthy=True, reason="", since=100))
    ]


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
