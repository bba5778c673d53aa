"""Presence: what vanished stays for a while, Unhealthy, and is never healthy while a part of it is missing."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.inventory import CandidateOutcome, Device, DeviceNode, Inventory, Kind, PathInfo
from genplug.health.presence import evaluate_health
from genplug.health.verdict import PRESENCE, DeviceHealth, HealthSnapshot, Verdict
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
    candidates = tuple(one.path for one in nodes)
    return Device(name, name, resource, LOCATION, candidates, nodes, (), {}, faults=faults)


def inventory(
    *devices: Device, considered: tuple[CandidateOutcome, ...] = (), resources: tuple[str, ...] = (X,)
) -> Inventory:
    by_resource = {name: tuple(one for one in devices if one.resource == name) for name in resources}
    return Inventory(by_resource, considered, (), frozenset({"/dev"}))


def only(judgement: HealthSnapshot) -> DeviceHealth:
    [one] = judgement.devices[X]
    return one


def test_what_is_there_is_healthy_since_it_was_seen() -> None:
    judgement = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    assert only(judgement).verdict == Verdict(healthy=True, reason="", since=100)
    assert judgement.next_change is None


def test_a_fault_is_the_reason() -> None:
    faults = ("companion /dev/ctl does not exist", "allocate.env A refers to 'index', which the device does not have")
    judgement = evaluate_health(inventory(device("x0", faults=faults)), None, KEEP, 100)
    assert only(judgement).verdict == Verdict(healthy=False, reason="; ".join(faults), since=100, probe=PRESENCE)
    assert judgement.next_change is None


def test_at_the_first_judgement_nothing_lingers() -> None:
    assert evaluate_health(inventory(), None, KEEP, 100).devices == {X: ()}


def test_43_a_vanished_device_stays_unhealthy_for_its_time_and_then_leaves() -> None:
    first = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 100)
    gone = evaluate_health(inventory(device("x1")), first, KEEP, 110)
    assert [one.device.id for one in gone.devices[X]] == ["x0", "x1"]
    assert gone.devices[X][0].verdict == Verdict(healthy=False, reason="/dev/x0 is gone", since=110, probe=PRESENCE)
    assert gone.devices[X][0].gone_since == 110
    assert gone.next_change == 170
    still = evaluate_health(inventory(device("x1")), gone, KEEP, 169.9)
    assert still.devices == gone.devices
    left = evaluate_health(inventory(device("x1")), still, KEEP, gone.next_change)
    assert [one.device.id for one in left.devices[X]] == ["x1"]
    assert left.next_change is None


def test_43_a_returned_device_is_healthy_under_its_id() -> None:
    same = device("x0")
    first = evaluate_health(inventory(same), None, KEEP, 100)
    gone = evaluate_health(inventory(), first, KEEP, 110)
    back = evaluate_health(inventory(same), gone, KEEP, 120)
    assert only(back) == DeviceHealth(device("x0"), Verdict(healthy=True, reason="", since=120))
    assert back.next_change is None


def test_43_a_device_that_returns_with_other_numbers_is_healthy_too() -> None:
    first = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    gone = evaluate_health(inventory(), first, KEEP, 110)
    renumbered = evolve(device("x0"), nodes=(node("/dev/x0", minor=9),))
    back = evaluate_health(inventory(renumbered), gone, KEEP, 120)
    assert only(back).verdict.healthy
    assert only(back).device is renumbered


def test_without_a_time_to_keep_a_vanished_device_leaves_at_once() -> None:
    first = evaluate_health(inventory(device("x0")), None, {X: 0}, 100)
    assert evaluate_health(inventory(), first, {X: 0}, 100).devices == {X: ()}


def test_a_device_that_lost_a_node_is_unhealthy_and_then_judged_by_what_it_has() -> None:
    whole, rest = device("hca", "/dev/umad0", "/dev/uverbs0"), device("hca", "/dev/uverbs0")
    first = evaluate_health(inventory(whole), None, KEEP, 100)
    lost = evaluate_health(inventory(rest), first, KEEP, 110)
    assert only(lost).verdict == Verdict(healthy=False, reason="/dev/umad0 is gone", since=110, probe=PRESENCE)
    assert only(lost).device.nodes == whole.nodes
    assert lost.next_change == 170
    assert evaluate_health(inventory(rest), lost, KEEP, 150).devices == lost.devices
    later = evaluate_health(inventory(rest), lost, KEEP, 170)
    assert only(later) == DeviceHealth(rest, Verdict(healthy=True, reason="", since=170))
    assert later.next_change is None


def test_a_device_whose_lost_node_returns_is_healthy_at_once() -> None:
    whole, rest = device("hca", "/dev/umad0", "/dev/uverbs0"), device("hca", "/dev/uverbs0")
    lost = evaluate_health(inventory(rest), evaluate_health(inventory(whole), None, KEEP, 100), KEEP, 110)
    assert only(evaluate_health(inventory(whole), lost, KEEP, 120)) == DeviceHealth(
        whole, Verdict(healthy=True, reason="", since=120)
    )


def test_a_second_lost_node_has_a_time_of_its_own() -> None:
    whole = device("hca", "/dev/a", "/dev/b", "/dev/c")
    first = evaluate_health(inventory(whole), None, KEEP, 100)
    one_lost = evaluate_health(inventory(device("hca", "/dev/b", "/dev/c")), first, KEEP, 110)
    two_lost = evaluate_health(inventory(device("hca", "/dev/c")), one_lost, KEEP, 160)
    assert only(two_lost).verdict.reason == "/dev/a is gone; /dev/b is gone"
    assert two_lost.next_change == 220
    one_back = evaluate_health(inventory(device("hca", "/dev/a", "/dev/c")), two_lost, KEEP, 200)
    assert only(one_back).verdict.reason == "/dev/b is gone"
    assert one_back.next_change == 220


def test_a_fault_of_what_is_left_is_said_beside_the_loss() -> None:
    first = evaluate_health(inventory(device("hca", "/dev/a", "/dev/b")), None, KEEP, 100)
    lost = evaluate_health(
        inventory(device("hca", "/dev/b", faults=("companion /dev/cm does not exist",))), first, KEEP, 110
    )
    assert only(lost).verdict.reason == "/dev/a is gone; companion /dev/cm does not exist"


def test_the_time_of_a_verdict_moves_only_with_the_verdict() -> None:
    judgement = evaluate_health(inventory(device("x0")), None, KEEP, 100)
    for now in (110, 120):
        judgement = evaluate_health(inventory(device("x0")), judgement, KEEP, now)
        assert only(judgement).verdict.since == 100
    judgement = evaluate_health(inventory(device("x0", faults=("broken",))), judgement, KEEP, 130)
    judgement = evaluate_health(inventory(device("x0", faults=("broken",))), judgement, KEEP, 140)
    assert only(judgement).verdict == Verdict(healthy=False, reason="broken", since=130, probe=PRESENCE)


def test_a_path_that_is_there_but_no_device_any_more_says_why() -> None:
    first = evaluate_health(inventory(device("x0"), device("x1")), None, KEEP, 100)
    considered = (
        CandidateOutcome("/dev/x0", X, LOCATION, None, "is a directory, expected a device node"),
        CandidateOutcome("/dev/x1", X, LOCATION, "pair-abcdef", "found by '/dev/x*'"),
    )
    after = evaluate_health(inventory(considered=considered), first, KEEP, 110)
    assert [one.verdict.reason for one in after.devices[X]] == [
        "/dev/x0 is no longer usable: is a directory, expected a device node",
        "/dev/x1 belongs to device pair-abcdef now",
    ]


def test_a_resource_that_left_the_configuration_leaves_with_all_its_devices() -> None:
    first = evaluate_health(inventory(device("x0"), device("y0", resource=Y), resources=(X, Y)), None, KEEP, 100)
    after = evaluate_health(inventory(device("x0")), first, KEEP, 110)
    assert set(after.devices) == {X}


def test_a_device_that_moved_to_another_resource_does_not_linger_in_the_first() -> None:
    first = evaluate_health(inventory(device("x0"), resources=(X, Y)), None, KEEP, 100)
    after = evaluate_health(inventory(device("x0", resource=Y), resources=(X, Y)), first, KEEP, 110)
    assert after.devices[X] == ()
    assert [one.verdict.healthy for one in after.devices[Y]] == [True]


def scanned(glob: str, location: SourceLocation, *devices: Device) -> Inventory:
    source = Source(location, (Glob.parse(glob),), (), CandidateType.DEVICE, (), None, (), (), None)
    resource = Resource(X, location, (source,))
    return evolve(inventory(*devices), resources={X: resource})


def test_70_what_a_changed_configuration_does_not_ask_for_leaves_at_once() -> None:
    first = evaluate_health(scanned("/dev/x*", LOCATION, device("x0"), device("x1")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/x1", LOCATION, device("x1")), first, KEEP, 110)
    assert [(one.device.id, one.verdict) for one in after.devices[X]] == [
        ("x1", Verdict(healthy=True, reason="", since=100))
    ]


def test_70_a_node_that_a_changed_configuration_does_not_ask_for_is_not_lost() -> None:
    first = evaluate_health(scanned("/dev/*", LOCATION, device("x", "/dev/a", "/dev/b")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/a", LOCATION, device("x", "/dev/a")), first, KEEP, 110)
    assert only(after) == DeviceHealth(device("x", "/dev/a"), Verdict(healthy=True, reason="", since=100))


def test_69_the_same_configuration_in_another_line_changes_nothing() -> None:
    first = evaluate_health(scanned("/dev/x*", LOCATION, device("x0")), None, KEEP, 100)
    after = evaluate_health(scanned("/dev/x*", SourceLocation("devices.yaml", 9, 7)), first, KEEP, 110)
    assert only(after).verdict.reason == "/dev/x0 is gone"


def test_what_did_not_change_comes_back_as_the_same_object() -> None:
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
def test_no_device_is_healthy_while_it_misses_a_node_and_none_lingers_for_ever(
    history: list[tuple[dict[str, set[str]], int]],
) -> None:
    now, judgement = 0.0, None
    missing_since: dict[str, float] = {}
    before: dict[str, set[str]] = {}
    for state, pause in history:
        now += pause
        present = {name: letters for name, letters in state.items() if letters}
        found = inventory(*(device(n, *(f"/dev/{n}{p}" for p in sorted(ps))) for n, ps in sorted(present.items())))
        judgement = evaluate_health(found, judgement, KEEP, now)
        judged = {one.device.id: one for one in judgement.devices[X]}
        for name in {*before, *present, *missing_since}:
            lost = before.get(name, set()) - present.get(name, set())
            if lost:
                missing_since[name] = now
            if name in missing_since and now < missing_since[name] + 60 and name not in present:
                assert not judged[name].verdict.healthy
            if name not in present and now >= missing_since.get(name, now) + 60:
                assert name not in judged
            # All others: it was plugged in anew.
            if lost and present.get(name, set()) & before[name]:
                assert not judged[name].verdict.healthy
        assert present.keys() <= judged.keys()
        ids = [one.device.id for one in judgement.devices[X]]
        assert len(ids) == len(set(ids))
        assert ids == sorted(ids, key=lambda name: int(name[1:]))
        assert all(one.verdict.healthy is (one.gone_since is None) for one in judged.values())
        assert judgement.next_change is None or now < judgement.next_change <= now + 60
        before = {name: set(letters) for name, letters in present.items()}
    assert judgement is not None
    end = evaluate_health(found, judgement, KEEP, now + 60)
    assert [one.device for one in end.devices[X]] == list(found.devices[X])
    assert all(one.verdict.healthy for one in end.devices[X])
    assert end.next_change is None


@given(histories)
def test_judging_again_at_the_time_it_named_is_when_it_differs(
    history: list[tuple[dict[str, set[str]], int]],
) -> None:
    now, judgement = 0.0, None
    for present, pause in history:
        now += pause
        found = inventory(
            *(device(n, *(f"/dev/{n}{p}" for p in sorted(ps))) for n, ps in sorted(present.items()) if ps)
        )
        judgement = evaluate_health(found, judgement, KEEP, now)
    assert judgement is not None
    if judgement.next_change is None:
        assert evaluate_health(found, judgement, KEEP, now + 1000).devices == judgement.devices
    else:
        just_before = evaluate_health(found, judgement, KEEP, judgement.next_change - 0.001)
        assert just_before.devices == judgement.devices
        assert evaluate_health(found, judgement, KEEP, judgement.next_change).devices != judgement.devices
