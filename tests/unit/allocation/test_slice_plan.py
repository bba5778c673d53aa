"""The writes from actual to wanted slices."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.published import PublishedDevice, PublishedResource, Taint
from genplug.allocation.slice_plan import (
    MAX_GENERATION,
    Answered,
    CreateSlice,
    DeleteSlice,
    UpdateSlice,
    Write,
    actual_content,
    find_dropped_fields,
    plan_writes,
    wanted_content,
)
from genplug.allocation.slices import (
    ActualSlice,
    SliceScope,
    WantedPool,
    build_pool,
    device_document,
    digest_devices,
    slice_name,
)

SCOPE = SliceScope("genplug.io", "n", "uid-1")
RESOURCES = ("example.com/x", "example.com/y")


def build(resource: str, devices: Sequence[tuple[int, int]]) -> WantedPool:
    """Return the pool of devices, each of them a number and the value of an attribute."""
    published = tuple(PublishedDevice(f"d{number}", f"d{number}", {"value": value}, {}) for number, value in devices)
    return build_pool(PublishedResource(resource, published), SCOPE)


def devices_of(size: int, value: int = 0, changed: Mapping[int, int] | None = None) -> list[tuple[int, int]]:
    return [(number, (changed or {}).get(number, value)) for number in range(size)]


class Server:
    """The slices of an API server, to which writes are applied one by one."""

    def __init__(self, slices: Sequence[ActualSlice] = ()) -> None:
        self.slices = {found.name: found for found in slices}
        self._versions = count(100)

    @property
    def actual(self) -> list[ActualSlice]:
        return list(self.slices.values())

    def apply(self, write: Write) -> bool:
        """Apply a write unless its precondition fails; return whether it had an effect."""
        before = dict(self.slices)
        self._apply(write)
        return self.slices != before

    def _apply(self, write: Write) -> None:
        found = self.slices.get(write.name)
        match write:
            case CreateSlice():
                if found is None:
                    self._put(write, f"uid-{next(self._versions)}")
            case UpdateSlice(uid=uid, resource_version=version):
                if found is not None and (found.uid, found.resource_version) == (uid, version):
                    self._put(write, uid)
            case DeleteSlice(uid=uid, resource_version=version):
                if found is not None and (found.uid, found.resource_version) == (uid, version):
                    del self.slices[write.name]

    def _put(self, write: CreateSlice | UpdateSlice, uid: str) -> None:
        self.slices[write.name] = ActualSlice(
            name=write.name,
            uid=uid,
            resource_version=str(next(self._versions)),
            driver=SCOPE.driver,
            node=SCOPE.node,
            pool=write.pool.name,
            generation=write.generation,
            count=len(write.pool.slices),
            content=write.part.content,
            owners=(SCOPE.node_uid,),
        )

    def view(self, pool: str) -> tuple[str, ...] | None:
        """Return the contents of a pool as the scheduler reads it; None if it is incomplete, and () if it is empty."""
        slices = [found for found in self.slices.values() if found.pool == pool]
        newest = max((found.generation for found in slices), default=0)
        current = sorted((found for found in slices if found.generation == newest), key=lambda found: found.name)
        if any(found.count != len(current) for found in current):
            return None
        return tuple(found.content for found in current)


def run(server: Server, wanted: Sequence[WantedPool], rounds: int = 4) -> list[Write]:
    """Apply plans until a plan is empty; return all writes."""
    writes: list[Write] = []
    for _ in range(rounds):
        plan = plan_writes(wanted, server.actual, SCOPE)
        if not plan:
            return writes
        for write in plan:
            server.apply(write)
        writes += plan
    raise AssertionError(f"after {rounds} plans: {plan_writes(wanted, server.actual, SCOPE)}")


def contents(pool: WantedPool) -> tuple[str, ...]:
    return tuple(part.content for part in pool.slices)


class Stage(Struct):
    """A wanted state, and for each of its writes whether it has an effect."""

    sizes: tuple[int, ...]
    changed: dict[int, int]
    effects: list[bool]
    wiped: list[bool]


stages = st.lists(
    st.builds(
        Stage,
        sizes=st.tuples(*[st.sampled_from([0, 1, 3, 64, 65, 129, 200]) for _ in RESOURCES]),
        changed=st.dictionaries(st.integers(0, 199), st.integers(1, 2), max_size=3),
        effects=st.lists(st.booleans(), max_size=8),
        wiped=st.lists(st.booleans(), max_size=6),
    ),
    min_size=1,
    max_size=5,
)

POOLS = [build(resource, []).name for resource in RESOURCES]


@st.composite
def foreign_slices(draw: st.DrawFn) -> list[ActualSlice]:
    """Return slices that another client may have written, also with the names of ours."""
    names = [slice_name(SCOPE, pool, number) for pool in POOLS for number in range(3)] + ["other-1", "other-2"]
    return [
        ActualSlice(
            name=name,
            uid=f"foreign-{name}",
            resource_version="1",
            driver=SCOPE.driver,
            node=SCOPE.node,
            pool=draw(st.sampled_from([*POOLS, "n/unknown/pool"])),
            generation=draw(st.sampled_from([0, 1, 2, 3, MAX_GENERATION])),
            count=draw(st.integers(1, 4)),
            content=draw(st.sampled_from(["garbage", *contents(build(RESOURCES[0], devices_of(200)))])),
            owners=draw(st.sampled_from([(), (SCOPE.node_uid,), ("other",)])),
        )
        for name in draw(st.lists(st.sampled_from(names), unique=True))
    ]


@settings(max_examples=150, deadline=None)
@given(foreign=foreign_slices(), stages=stages)
def test_pool_is_never_a_mix_and_any_state_leads_to_the_wanted_state(
    foreign: list[ActualSlice], stages: list[Stage]
) -> None:
    server = Server(foreign)
    wanted: list[WantedPool] = []
    valid: dict[str, set[tuple[str, ...]]] = {name: {()} for name in POOLS}
    is_written = dict.fromkeys(POOLS, False)
    for stage in stages:
        wanted = [
            build(resource, devices_of(size, changed=stage.changed))
            for resource, size in zip(RESOURCES, stage.sizes, strict=True)
        ]
        for pool in wanted:
            valid[pool.name].add(contents(pool))
        for name, is_wiped in zip(sorted(server.slices), stage.wiped, strict=False):
            if is_wiped:
                wiped = server.slices.pop(name)
                # Another client can reveal slices that older generations have left.
                if any(found.pool == wiped.pool and found.generation < wiped.generation for found in server.actual):
                    is_written[wiped.pool] = False
        plan = plan_writes(wanted, server.actual, SCOPE)
        # Each write fails or not, whatever became of the others.
        for write, has_effect in zip(plan, stage.effects, strict=False):
            if has_effect and server.apply(write) and not isinstance(write, DeleteSlice):
                is_written[write.pool.name] = True
            for name in POOLS:
                view = server.view(name)
                assert view is None or view in valid[name] or not is_written[name]
    run(server, wanted)
    for pool in wanted:
        assert server.view(pool.name) == contents(pool)
    assert sorted(server.slices) == sorted(part.name for pool in wanted for part in pool.slices)
    assert {found.owners for found in server.actual} <= {(SCOPE.node_uid,)}


def test_changed_slice_of_several_keeps_the_generation() -> None:
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(130))])
    (write,) = run(server, [build(RESOURCES[0], devices_of(130, changed={70: 1}))])
    assert isinstance(write, UpdateSlice)
    assert write.generation == 1
    assert write.name.endswith("-001")


@pytest.mark.parametrize(
    "following",
    [devices_of(130, changed={0: 1, 70: 1}), devices_of(194), devices_of(60), devices_of(130, value=1)],
    ids=["two changed", "one more slice", "fewer slices", "all changed"],
)
def test_change_of_several_slices_raises_the_generation_of_all(following: list[tuple[int, int]]) -> None:
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(130))])
    run(server, [build(RESOURCES[0], following)])
    assert {found.generation for found in server.actual} == {2}


def test_slices_that_were_deleted_are_created_with_the_same_generation() -> None:
    pool = build(RESOURCES[0], devices_of(200))
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(200, value=1))])
    run(server, [pool])
    for part in pool.slices[1:3]:
        del server.slices[part.name]
    writes = run(server, [pool])
    assert [type(write) for write in writes] == [CreateSlice, CreateSlice]
    assert {found.generation for found in server.actual} == {2}


def test_writes_after_a_failure_continue_with_the_generation() -> None:
    pool = build(RESOURCES[0], devices_of(200, value=1))
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(200))])
    plan = plan_writes([pool], server.actual, SCOPE)
    assert len(plan) == 4
    server.apply(plan[2])
    assert server.view(pool.name) is None
    assert len(run(server, [pool])) == 3
    assert {found.generation for found in server.actual} == {2}


def test_writes_after_a_failure_and_a_change_raise_the_generation_again() -> None:
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(200))])
    first = build(RESOURCES[0], devices_of(200, value=1))
    server.apply(plan_writes([first], server.actual, SCOPE)[0])
    run(server, [build(RESOURCES[0], devices_of(200, value=2))])
    assert {found.generation for found in server.actual} == {3}


def test_order_is_deletions_updates_creations() -> None:
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(3)), build(RESOURCES[1], devices_of(3))])
    writes = run(server, [build(RESOURCES[0], devices_of(70))])
    assert [type(write) for write in writes] == [DeleteSlice, UpdateSlice, CreateSlice]


def test_old_slices_are_deleted_before_those_that_hide_them() -> None:
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(70))])
    old, new = sorted(server.actual, key=lambda found: found.name)
    server.slices[new.name] = replace(new, generation=2)
    assert [write.name for write in plan_writes([], server.actual, SCOPE)] == [old.name]
    assert [write.name for write in run(server, [])] == [old.name, new.name]


def test_slice_of_another_pool_is_deleted_with_its_uid_and_version() -> None:
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(3))])
    (found,) = server.actual
    assert plan_writes([], server.actual, SCOPE) == (
        DeleteSlice(found.name, found.pool, found.uid, found.resource_version),
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda found: replace(found, content="other"),
        lambda found: replace(found, count=2),
        lambda found: replace(found, owners=("uid-of-a-previous-node",)),
    ],
)
def test_edited_slice_is_written_again(edit: Callable[[ActualSlice], ActualSlice]) -> None:
    pool = build(RESOURCES[0], devices_of(3))
    server = Server()
    run(server, [pool])
    (found,) = server.actual
    server.slices[found.name] = edit(found)
    (write,) = run(server, [pool])
    assert isinstance(write, UpdateSlice)


def test_largest_generation_is_left_by_creating_the_slices_again() -> None:
    pool = build(RESOURCES[0], devices_of(70))
    server = Server()
    run(server, [pool])
    for name, found in server.slices.items():
        server.slices[name] = replace(found, generation=MAX_GENERATION, content="other")
    writes = run(server, [pool])
    assert [type(write) for write in writes] == [DeleteSlice, DeleteSlice, CreateSlice, CreateSlice]
    assert {found.generation for found in server.actual} == {1}


def test_largest_generation_is_used() -> None:
    pool = build(RESOURCES[0], devices_of(70))
    server = Server()
    run(server, [build(RESOURCES[0], devices_of(70, value=1))])
    for name, found in server.slices.items():
        server.slices[name] = replace(found, generation=MAX_GENERATION - 1)
    writes = run(server, [pool])
    assert [type(write) for write in writes] == [UpdateSlice, UpdateSlice]
    assert {found.generation for found in server.actual} == {MAX_GENERATION}


def test_slice_that_the_server_changed_is_not_written_again_until_the_devices_change() -> None:
    pool = build(RESOURCES[0], devices_of(3))
    server = Server()
    run(server, [pool])
    (found,) = server.actual
    server.slices[found.name] = replace(found, content="as changed by the server")
    sent = wanted_content(pool, pool.slices[0], SCOPE)
    answers = {found.name: Answered(sent, actual_content(server.slices[found.name]))}
    assert plan_writes([pool], server.actual, SCOPE, answers) == ()
    changed = build(RESOURCES[0], devices_of(3, value=1))
    assert len(plan_writes([changed], server.actual, SCOPE, answers)) == 1
    server.slices[found.name] = replace(found, content="as changed by a user")
    assert len(plan_writes([pool], server.actual, SCOPE, answers)) == 1


def test_slice_whose_owners_a_webhook_removes_is_not_written_again() -> None:
    pool = build(RESOURCES[0], devices_of(3))
    server = Server()
    run(server, [pool])
    (found,) = server.actual
    server.slices[found.name] = replace(found, owners=())
    assert len(plan_writes([pool], server.actual, SCOPE)) == 1
    sent = wanted_content(pool, pool.slices[0], SCOPE)
    answers = {found.name: Answered(sent, actual_content(server.slices[found.name]))}
    assert plan_writes([pool], server.actual, SCOPE, answers) == ()
    other_node = replace(SCOPE, node_uid="uid-2")
    assert len(plan_writes([pool], server.actual, other_node, answers)) == 1


def test_dropped_taints_are_found_in_the_answer() -> None:
    taint = Taint("genplug.io/unhealthy", "gone", "NoSchedule")
    devices = (
        PublishedDevice("d0", "d0", {"a": 1}, {"memory": "1"}),
        PublishedDevice("d1", "d1", {}, {}, (taint,)),
    )
    answer: dict[str, Any] = {"spec": {"devices": [device_document(device) for device in devices]}}
    assert find_dropped_fields(devices, answer) == ()
    del answer["spec"]["devices"][1]["taints"]
    assert find_dropped_fields(devices, answer) == ("taints",)
    del answer["spec"]["devices"][0]["capacity"]
    assert find_dropped_fields(devices, answer) == ("capacity", "taints")
    assert find_dropped_fields(devices, {}) == ("attributes", "capacity", "taints")


@pytest.mark.parametrize("answer", [{"spec": 1}, {"spec": {"devices": 1}}, {"spec": {"devices": [1]}}])
def test_answer_that_is_not_a_slice_is_an_error(answer: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected a ResourceSlice, found an object with another type of field: 'int'"):
        find_dropped_fields((), answer)


def test_digest_of_a_wanted_slice_is_that_of_its_devices() -> None:
    (part,) = build(RESOURCES[0], devices_of(3)).slices
    assert part.content == digest_devices([device_document(device) for device in part.devices])
