"""The comparison of two plans, and its properties for plans of any shape."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.comparison.compare import Change, Comparison, DeviceChange, ValueChange, compare, compare_settings
from genplug.comparison.plan import Plan, PlannedDevice, PlannedResource, describe_edits
from genplug.comparison.pods import Effect, PodUse, find_affected_pods

NUMBERS = st.frozensets(st.sampled_from(["char 1:0", "char 1:1", "char 1:2", "/sys/a", "/sys/b"]), max_size=2)
DEVICES = st.builds(
    PlannedDevice,
    st.sampled_from(["x0", "x1", "x2"]),
    st.just(()),
    NUMBERS,
    st.dictionaries(st.sampled_from(["env A", "env B"]), st.sampled_from(["1", "2"]), max_size=2),
    st.sampled_from(["", "gone"]),
)
SETTINGS: st.SearchStrategy[Any] = st.sampled_from(
    [0, "0", True, None, "", [], [1, 2], [2], {}, {"a": 1}, {"a": {"b": 1}}, [{"a": 1}], [{"b": 1}, {"a": 1}, {}], [[]]]
)
"""Values of keys; a strategy of nested values is slow on a busy machine."""
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_resource(name: str, *devices: PlannedDevice, keys: Any = None) -> PlannedResource:
    by_id = {device.id: device for device in devices}
    return PlannedResource(name, keys or {}, (), by_id, {device_id: (device_id,) for device_id in by_id})


def make_plan(*resources: PlannedResource) -> Plan:
    return Plan({resource.name: resource for resource in resources})


RESOURCES = st.builds(
    lambda name, devices, keys: make_resource(name, *devices, keys={"key": keys}),
    st.sampled_from(["a.io/x", "a.io/y"]),
    st.lists(DEVICES, max_size=4),
    SETTINGS,
)
PLANS = st.builds(
    lambda resources, remarks: replace(make_plan(*resources), remarks=remarks),
    st.lists(RESOURCES, max_size=3),
    st.dictionaries(st.sampled_from("rs"), st.text("t", max_size=1), max_size=2),
)


def list_keys(plan: Plan) -> set[tuple[str, str]]:
    return {(resource.name, device_id) for resource in plan.resources.values() for device_id in resource.devices}


def apply_devices(old: Plan, comparison: Comparison) -> set[tuple[str, str]]:
    """Return the devices (resource and ID) after the changes of a comparison."""
    keys = list_keys(old)
    for change in comparison.devices:
        if change.old is not None:
            keys.remove((str(change.old_resource), change.old.id))
    for change in comparison.devices:
        if change.new is not None:
            keys.add((str(change.new_resource), change.new.id))
    return keys


def swap_device(change: DeviceChange) -> tuple[Any, ...]:
    """Return a change of the same plans, swapped."""
    kinds = {Change.ADDED: Change.REMOVED, Change.REMOVED: Change.ADDED}
    edits = frozenset(ValueChange(edit.name, edit.new, edit.old) for edit in change.edits)
    sides = ((change.new_resource, change.new and change.new.id), (change.old_resource, change.old and change.old.id))
    return (kinds.get(change.change, change.change), *sides, edits, change.is_other_hardware)


def flatten_device(change: DeviceChange) -> tuple[Any, ...]:
    sides = ((change.old_resource, change.old and change.old.id), (change.new_resource, change.new and change.new.id))
    return (change.change, *sides, frozenset(change.edits), change.is_other_hardware)


@QUICK
@given(PLANS)
def test_plan_does_not_differ_from_itself(plan: Plan) -> None:
    assert compare(plan, plan).is_empty


@QUICK
@given(PLANS, PLANS)
def test_changes_of_devices_lead_from_the_old_plan_to_the_new_plan(old: Plan, new: Plan) -> None:
    comparison = compare(old, new)
    assert apply_devices(old, comparison) == list_keys(new)
    added = {change.name for change in comparison.resources if change.change is Change.ADDED}
    removed = {change.name for change in comparison.resources if change.change is Change.REMOVED}
    assert (old.resources.keys() | added) - removed == new.resources.keys()


@QUICK
@given(PLANS, PLANS)
def test_comparison_is_symmetric(old: Plan, new: Plan) -> None:
    forward, backward = compare(old, new), compare(new, old)
    assert set(map(swap_device, forward.devices)) == set(map(flatten_device, backward.devices))
    assert forward.added_remarks == backward.removed_remarks
    assert {(change.name, key.name, key.old, key.new) for change in forward.resources for key in change.settings} == {
        (change.name, key.name, key.new, key.old) for change in backward.resources for key in change.settings
    }


def test_same_hardware_under_another_id_is_renamed() -> None:
    before = PlannedDevice("x0", ("/dev/x0",), frozenset({"char 1:0"}))
    after = PlannedDevice("y0", ("/dev/y0",), frozenset({"char 1:0"}))
    (change,) = compare(make_plan(make_resource("a.io/x", before)), make_plan(make_resource("a.io/x", after))).devices
    assert (change.change, change.old, change.new) == (Change.RENAMED, before, after)


def test_same_hardware_in_another_resource_is_moved() -> None:
    device = PlannedDevice("x0", ("/dev/x0",), frozenset({"char 1:0"}))
    comparison = compare(make_plan(make_resource("a.io/x", device)), make_plan(make_resource("a.io/y", device)))
    assert [change.change for change in comparison.devices] == [Change.MOVED]
    assert {change.name: change.change for change in comparison.resources} == {
        "a.io/x": Change.REMOVED,
        "a.io/y": Change.ADDED,
    }


def test_hardware_in_two_resources_is_paired_within_its_resource() -> None:
    few, many = frozenset({"char 1:0"}), frozenset({"char 1:0", "char 1:1"})
    old = make_plan(
        make_resource("a.io/x", PlannedDevice("x0", (), few)), make_resource("a.io/y", PlannedDevice("y0", (), many))
    )
    new = make_plan(
        make_resource("a.io/x", PlannedDevice("x9", (), many)), make_resource("a.io/y", PlannedDevice("y9", (), few))
    )
    assert [change.change for change in compare(old, new).devices] == [Change.RENAMED, Change.RENAMED]


def test_same_id_of_other_hardware_is_a_change() -> None:
    first = PlannedDevice("x0", ("/dev/x0",), frozenset({"char 1:0"}))
    (change,) = compare(
        make_plan(make_resource("a.io/x", first)),
        make_plan(make_resource("a.io/x", replace(first, hardware=frozenset({"char 1:1"})))),
    ).devices
    assert change.change is Change.CHANGED
    assert change.is_other_hardware


def test_settings_name_the_keys_that_differ() -> None:
    old = {"devices": [{"glob": "/dev/a"}, {"glob": "/dev/b"}], "tokens": 3}
    new = {"devices": [{"glob": "/dev/c"}, {"glob": "/dev/a"}, {"glob": "/dev/b"}], "tokens": "3", "share": {"d": True}}
    assert [(change.name, change.old, change.new) for change in compare_settings(old, new)] == [
        ("devices[0]", None, '{"glob": "/dev/c"}'),
        ("tokens", "3", "3"),
        ("share", None, '{"d": true}'),
    ]


def test_edits_are_described_by_kind_and_name() -> None:
    edits = ContainerEdits(
        env=(("A", "1"),),
        mounts=(MountEdit("/opt/a", "/a", read_only=True),),
        nodes=(NodeEdit("/dev/x0", "/dev/x", "rw", group=44, mode=0o660),),
        annotations=(("k", "v"),),
        cdi_devices=("a.io/x=0",),
        supplemental_groups=(7,),
    )
    assert describe_edits(edits) == {
        "env A": "1",
        "device /dev/x": "/dev/x0 (rw) group=44 mode=0o660",
        "mount /a": "/opt/a (ro)",
        "annotation k": "v",
        "CDI device a.io/x=0": "",
        "supplemental group 7": "",
    }


X0 = PlannedDevice("x0", ("/dev/x0",), frozenset({"char 1:0"}), {"env A": "1"})
X1 = PlannedDevice("x1", ("/dev/x1",), frozenset({"char 1:1"}), {"env A": "2"})
OLD = make_plan(make_resource("a.io/x", X0, X1))
USE = PodUse("default", "p", "main", "a.io/x", ("x0",))


def find_effects(new: Plan, use: PodUse = USE, old: Plan = OLD) -> list[tuple[Effect, tuple[str, ...], bool]]:
    return [(pod.effect, pod.ids, pod.is_certain) for pod in find_affected_pods(compare(old, new), [use])]


def test_pod_of_an_unchanged_device_is_not_affected() -> None:
    assert find_effects(make_plan(make_resource("a.io/x", X0))) == []


def test_pod_of_a_removed_device_is_affected() -> None:
    assert find_effects(make_plan(make_resource("a.io/x", X1))) == [(Effect.DEVICE_REMOVED, ("x0",), True)]


def test_pod_of_a_removed_resource_is_affected() -> None:
    assert find_effects(make_plan()) == [(Effect.RESOURCE_REMOVED, ("x0",), True)]


def test_pod_of_a_device_with_a_new_id_is_affected() -> None:
    assert find_effects(make_plan(make_resource("a.io/x", replace(X0, id="z"), X1))) == [
        (Effect.ID_CHANGED, ("x0",), True)
    ]


def test_pod_of_a_device_with_changed_edits_is_affected() -> None:
    changed = replace(X0, edits={"env A": "3"})
    assert find_effects(make_plan(make_resource("a.io/x", changed, X1))) == [(Effect.EDITS_CHANGED, ("x0",), True)]


def test_pod_whose_devices_are_unknown_is_possibly_affected() -> None:
    use = replace(USE, ids=None)
    assert find_effects(make_plan(make_resource("a.io/x", X0)), use) == [(Effect.DEVICE_REMOVED, ("x1",), False)]


def test_pod_of_a_replica_that_is_no_longer_listed_is_affected() -> None:
    old = make_resource("a.io/x", X0)
    old = replace(old, grants={"x0-r0": ("x0",), "x0-r1": ("x0",)})
    new = replace(old, grants={"x0-r0": ("x0",)})
    use = replace(USE, ids=("x0-r0", "x0-r1"))
    assert find_effects(make_plan(new), use, make_plan(old)) == [(Effect.DEVICE_REMOVED, ("x0-r1",), True)]


def test_pod_that_uses_an_alias_is_affected() -> None:
    old = replace(make_resource("a.io/x", X0), aliases=("old.io/x",))
    use = replace(USE, resource="old.io/x")
    assert find_effects(make_plan(make_resource("a.io/x", X0)), use, make_plan(old)) == [
        (Effect.RESOURCE_REMOVED, ("x0",), True)
    ]


def test_pod_of_another_plugin_is_not_affected() -> None:
    assert find_effects(make_plan(), replace(USE, resource="other.io/x")) == []
