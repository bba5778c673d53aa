"""The ledger: which IDs pods use, what devices lead to, and what they have lost."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from genplug.hardware.inventory import Device, DeviceNode, Identity, Kind, PathInfo
from genplug.hardware.ledger import (
    HOUR_SECONDS,
    RELEASE_SECONDS,
    AllocatedGrants,
    Contender,
    Holder,
    Ledger,
    Owner,
    RankedResource,
    Terms,
    Thing,
    Usage,
    add_past_owners,
    bound_former,
    forget_unused,
    former_things,
    is_replugged,
    rivals_of,
    things_of,
)
from genplug.spec.limits import MAX_FORMER_THINGS
from genplug.spec.model import Resource
from tests.support.hardware import LOCATION

X, Y = "a.example/x", "a.example/y"
PLAIN, POOL = Resource(X, LOCATION, ()), Resource(X, LOCATION, (), tokens=2)
NODE_0, NODE_1 = (Kind.CHAR, 240, 0), (Kind.CHAR, 240, 1)
PATH, PART = ("path", "/sys/x"), ("part", "/sys/x")
FIRST, SECOND = Owner(X, "x0"), Owner(X, "x1")


def build_device(*minors: int, identities: tuple[Identity, ...] = (), candidates: tuple[str, ...] = ()) -> Device:
    """Return a device with nodes of these minor numbers."""
    nodes = tuple(
        DeviceNode(f"/dev/x{minor}", f"/dev/x{minor}", "rw", PathInfo.of(f"/dev/x{minor}", Kind.CHAR, 240, minor))
        for minor in minors
    )
    return Device("x0", "x0", X, LOCATION, candidates, nodes, (), {}, identities=identities)


def build_holder(
    owner: Owner, *things: Thing, former: Mapping[Thing, float] | None = None, is_pool: bool = False
) -> Holder:
    return Holder(owner, Terms(X, (X, Y), is_pool=is_pool), things, 0, former or {})


def keep(*holders: Holder) -> dict[Owner, Holder]:
    return {holder.owner: holder for holder in holders}


@pytest.mark.parametrize(
    ("names", "device", "is_pool", "expected"),
    [
        ([X], "x0", False, True),
        ([X], "x1", False, False),
        ([X], "x1", True, True),
        ([Y], "x0", False, False),
        ([Y], "x0", True, False),
        ([Y, X], "x0", False, True),
        ([], "x0", False, False),
    ],
)
def test_reported_device_is_in_use_under_its_names(
    names: list[str], device: str, *, is_pool: bool, expected: bool
) -> None:
    reported = Usage(0.0).with_report({X: ["x0-r1"], Y: []}, 1.0)
    assert reported == Usage(1.0, {X: frozenset({"x0"}), Y: frozenset()})
    assert reported.is_in_use(names, device, is_pool=is_pool) is expected
    allocated = Usage(0.0).with_allocations([AllocatedGrants(X, ["x0-s2"], 1.0)])
    assert allocated == Usage(0.0, allocations={(X, "x0"): 1.0})
    assert allocated.is_in_use(names, device, is_pool=is_pool) is expected


def test_allocation_counts_until_a_report_after_its_grace_period() -> None:
    usage = Usage(0.0, grace=5.0).with_allocations([AllocatedGrants(X, ["x0"], 1.0), AllocatedGrants(X, ["x1"], 2.0)])
    early, late = usage.with_report({}, 5.9), usage.with_report({}, 6.0)
    assert early.is_in_use([X], "x0", is_pool=False)
    assert late == Usage(6.0, allocations={(X, "x1"): 2.0}, grace=5.0)
    # A report that does not remove the allocation has the same effect.
    assert not replace(usage, time=6.0).is_in_use([X], "x0", is_pool=False)


def test_allocation_before_the_first_report_counts_after_it() -> None:
    ledger = Ledger(grace=5.0).with_allocations([AllocatedGrants(X, ["x0-r0"], 1.0)])
    ledger = ledger.with_allocations([AllocatedGrants(Y, ["y0"], 2.0)])
    early = {(X, "x0"): 1.0, (Y, "y0"): 2.0}
    assert ledger == Ledger(grace=5.0, early_allocations=early)
    reported = ledger.with_report({X: ["x1"]}, 3.0)
    assert reported == Ledger(Usage(3.0, {X: frozenset({"x1"})}, early, 5.0), grace=5.0)
    assert ledger.with_report({}, 6.0).usage == Usage(6.0, allocations={(Y, "y0"): 2.0}, grace=5.0)
    again = reported.with_allocations([AllocatedGrants(X, ["x2"], 4.0)])
    assert again.usage == Usage(3.0, {X: frozenset({"x1"})}, early | {(X, "x2"): 4.0}, 5.0)
    assert again.with_report({}, 40.0) == Ledger(Usage(40.0, grace=5.0), grace=5.0)


def test_reload_begins_a_generation() -> None:
    assert Ledger().after_reload(5.0).after_reload(6.0) == Ledger(generation=2, changed_at=6.0)


def test_former_things_and_waiting_devices_need_a_report() -> None:
    former = build_holder(FIRST, NODE_0, former={NODE_1: 1.0, PATH: 2.0})
    ledger = Ledger(holders=keep(former), waiting=frozenset({SECOND}))
    assert ledger.needs == {(FIRST, NODE_1), (FIRST, PATH), (SECOND, None)}
    assert repr(ledger) == "<Ledger [1 devices, 2 former things | usage unknown]>"
    assert repr(Ledger(Usage(1.26))) == "<Ledger [0 devices, 0 former things | usage of 1.3]>"


@pytest.mark.parametrize(
    ("device", "things"),
    [
        (build_device(0, 1, identities=((Kind.CHAR, 240, 0),)), (NODE_0, NODE_1)),
        (build_device(0, identities=((Kind.CHAR, 240, 1),)), (NODE_0, ("candidate", X, Kind.CHAR, 240, 1))),
        (build_device(0, identities=("/sys/x",)), (NODE_0, PART)),
        (build_device(identities=("/sys/x",), candidates=("/sys/link",)), (PATH,)),
        (build_device(candidates=("/sys/x",)), (PATH,)),
    ],
    ids=["nodes", "other nodes", "nodes of a directory", "directory", "unknown identity"],
)
def test_device_leads_to_its_nodes_or_paths_and_to_its_id(device: Device, things: tuple[Thing, ...]) -> None:
    assert things_of(device, PLAIN) == (*things, "x0")
    # The tokens of a pool have IDs, its devices have not.
    assert things_of(device, POOL) == things


def test_path_excludes_its_parts_and_a_part_the_path() -> None:
    assert rivals_of(PATH) == (PATH, PART)
    assert rivals_of(PART) == (PATH,)
    assert rivals_of(NODE_0) == (NODE_0,)


def test_contender_has_the_keys_of_what_it_excludes() -> None:
    resource = replace(PLAIN, aliases=(Y,))
    contender = Contender.of(build_device(0, identities=("/sys/x",)), RankedResource(resource, 3))
    assert contender.owner == FIRST
    assert contender.position == 3
    assert contender.things == (NODE_0, PART, "x0")
    assert contender.keys == (NODE_0, PART, PATH, "x0")
    assert contender.names == (X, Y)
    assert not contender.is_pool
    assert Contender.of(build_device(0), RankedResource(POOL, 0)).is_pool


def test_device_is_replugged_if_it_has_none_of_its_nodes() -> None:
    assert is_replugged(build_device(0, 1), build_device(2))
    assert not is_replugged(build_device(0, 1), build_device(1, 2))
    assert not is_replugged(build_device(), build_device(0))
    assert not is_replugged(build_device(0), build_device())


def test_lost_thing_is_former_since_its_first_loss() -> None:
    holder = build_holder(FIRST, NODE_0, PATH, former={NODE_1: 1.0})
    assert former_things(holder, (NODE_0,), 2.0) == {PATH: 2.0, NODE_1: 1.0}
    assert former_things(
        holder,
        (
            NODE_1,
            PATH,
        ),
        2.0,
    ) == {NODE_0: 2.0}
    again = replace(holder, former={PATH: 1.0})
    assert former_things(again, (), 2.0) == {NODE_0: 2.0, PATH: 1.0}


def test_unchanged_device_keeps_its_mapping_of_former_things() -> None:
    holder = build_holder(FIRST, NODE_0)
    assert former_things(holder, (NODE_0,), 2.0) is holder.former
    assert former_things(holder, (), 2.0) == {NODE_0: 2.0}


def test_past_owners_of_nodes_and_paths_are_known_for_an_hour() -> None:
    first, second = build_holder(FIRST, NODE_0, PATH, PART, "x0"), build_holder(SECOND, NODE_1)
    ledger = Ledger(holders=keep(first, second))
    past = add_past_owners(ledger, keep(build_holder(FIRST, NODE_0), second), 1.0, ledger.holders)
    assert past == {PATH: {FIRST: 1.0}}
    ledger = replace(ledger, past_owners={PATH: {FIRST: 1.0, SECOND: 2.0}, NODE_0: {SECOND: 1.0}, NODE_1: {FIRST: 3.0}})
    assert add_past_owners(ledger, ledger.holders, HOUR_SECONDS, ledger.holders) is ledger.past_owners
    later = HOUR_SECONDS + 1
    past = add_past_owners(ledger, keep(first), later, ledger.holders)
    assert past == {PATH: {SECOND: 2.0}, NODE_1: {FIRST: 3.0, SECOND: later}}


def test_past_owners_of_the_things_that_were_lost_last_are_kept() -> None:
    old: dict[Thing, Mapping[Owner, float]] = {
        ("path", str(number)): {SECOND: 1.0} for number in range(MAX_FORMER_THINGS)
    }
    first, *_ = old
    ledger = Ledger(holders=keep(build_holder(FIRST, NODE_0), build_holder(SECOND, first)), past_owners=old)
    past = add_past_owners(ledger, {}, 2.0, ledger.holders)
    assert len(past) == MAX_FORMER_THINGS
    assert past[first] == {SECOND: 2.0}
    assert past[NODE_0] == {FIRST: 2.0}
    assert ("path", "1") not in past


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, {NODE_1: 1.0, PATH: 2.0}),
        (Usage(9.0, {Y: frozenset({"x0"})}), {NODE_1: 1.0, PATH: 2.0}),
        (Usage(1.0 + RELEASE_SECONDS), {PATH: 2.0}),
        (Usage(2.0 + RELEASE_SECONDS, {Y: frozenset({"x9"})}), {}),
    ],
    ids=["no report", "in use", "first released", "all released"],
)
def test_former_things_are_forgotten_once_no_pod_uses_the_device(
    usage: Usage | None, expected: Mapping[Thing, float]
) -> None:
    present = build_holder(FIRST, NODE_0, former={NODE_1: 1.0, PATH: 2.0})
    other = build_holder(SECOND, (Kind.CHAR, 240, 5))
    ledger = Ledger(usage, keep(present, other))
    assert forget_unused(ledger) == replace(ledger, holders=keep(replace(present, former=expected), other))
    absent = replace(ledger, holders=keep(replace(present, things=())))
    assert (FIRST in forget_unused(absent).holders) is bool(expected)


def test_pool_keeps_its_former_things_while_a_pod_uses_a_token() -> None:
    usage = Usage(9.0, {X: frozenset({"token"})})
    for is_pool in (True, False):
        holder = build_holder(FIRST, NODE_0, former={NODE_1: 1.0}, is_pool=is_pool)
        assert bool(forget_unused(Ledger(usage, keep(holder))).holders[FIRST].former) is is_pool


def test_ledger_without_former_things_is_not_changed() -> None:
    ledger = Ledger(Usage(9.0), keep(build_holder(FIRST, NODE_0)))
    assert forget_unused(ledger) is ledger


def test_former_things_that_were_lost_first_are_dropped() -> None:
    things = [("path", str(number)) for number in range(MAX_FORMER_THINGS)]
    latest = build_holder(FIRST, former=dict.fromkeys(things[1:], 3.0))
    full = keep(build_holder(SECOND, former={things[0]: 1.0}), latest)
    assert bound_former(full, full) is full
    third = build_holder(Owner(X, "x2"), NODE_0, former={NODE_1: 2.0})
    fourth = build_holder(Owner(X, "x3"), former={NODE_1: 1.5})
    more = full | keep(third, fourth)
    bounded = bound_former(more, more)
    assert bounded == keep(latest, third)
    more = full | keep(third, replace(latest, owner=SECOND))
    assert bound_former(more, more) == keep(latest, replace(third, former={}), replace(latest, owner=SECOND))
