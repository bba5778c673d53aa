"""The contenders of a scan: updated for what changed, with work in proportion to it."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.hardware.conflicts import resolve_conflicts
from genplug.hardware.contenders import ContenderIndex
from genplug.hardware.identities import find_scope
from genplug.hardware.inventory import Device, DeviceNode, Kind, PathInfo, ResourceScan
from genplug.hardware.ledger import Contender, Ledger, Owner, RankedResource, Thing
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource
from tests.support.work import count_lines

LOCATION = SourceLocation("devices.yaml", 1, 1)
X, Y = Resource("a.example/x", LOCATION, ()), Resource("b.example/y", LOCATION, ())


def build_device(number: int, minor: int, resource: str = X.name) -> Device:
    path = f"/dev/x{number}"
    node = DeviceNode(path, path, "rw", PathInfo.of(path, Kind.CHAR, 240, minor))
    return Device(
        f"x{number}", f"x{number}", resource, LOCATION, (path,), (node,), (), {}, identities=(node.info.numbers,)
    )


def build_scans(*devices: Device) -> dict[str, ResourceScan]:
    return {
        resource.name: ResourceScan(
            resource, tuple(device for device in devices if device.resource == resource.name), (), (), {}, ()
        )
        for resource in (X, Y)
    }


DEVICES = [build_device(number, minor, name) for number in range(4) for minor in range(2) for name in (X.name, Y.name)]
selections = st.lists(st.sampled_from(DEVICES), max_size=8, unique_by=lambda device: (device.resource, device.id))


def list_by_key(index: ContenderIndex) -> dict[Thing, set[Owner]]:
    entries = {key: (entry,) if isinstance(entry, Contender) else entry for key, entry in index.by_key.items()}
    return {key: {each.owner for each in entry} for key, entry in entries.items()}


@given(st.lists(selections, min_size=1, max_size=4), st.booleans())
def test_updated_index_equals_a_new_index(history: list[list[Device]], has_y: bool) -> None:  # noqa: FBT001
    index = ContenderIndex()
    for number, devices in enumerate(history):
        scans = build_scans(*devices)
        if number % 2 and not has_y:
            del scans[Y.name]
        known = {id(each.device): each for each in index.contenders}
        index, change = index.update(scans)
        fresh, _ = ContenderIndex().update(scans)
        assert [each.device for each in index.contenders] == [each.device for each in fresh.contenders]
        assert list_by_key(index) == list_by_key(fresh)
        assert index.contested == fresh.contested
        assert all(each is known[id(each.device)] for each in index.contenders if each not in change.added)
        assert known.keys().isdisjoint(id(each.device) for each in change.added)


@given(selections, selections)
def test_contenders_of_keys_are_found_in_the_order_of_the_scan(devices: list[Device], wanted: list[Device]) -> None:
    index, _ = ContenderIndex().update(build_scans(*devices))
    keys = [key for device in wanted for key in Contender.of(device, RankedResource(X, 0)).keys]
    expected = [each for each in index.contenders if not set(keys).isdisjoint(each.keys)]
    assert list(map(id, index.find(keys))) == list(map(id, expected))


def test_contenders_of_a_resource_that_changes_or_moves_are_replaced() -> None:
    scans = build_scans(*DEVICES[:6])
    index, _ = ContenderIndex().update(scans)
    changed = {**scans, X.name: replace(scans[X.name], resource=replace(X, overlap=True))}
    moved = dict(reversed(scans.items()))
    for after, names in ((changed, {X.name}), (moved, {X.name, Y.name})):
        again, change = index.update(after)
        fresh, _ = ContenderIndex().update(after)
        replaced = {each for each in index.contenders if each.resource.name in names}
        assert set(change.removed) == replaced
        assert {each.device.id for each in change.added} == {each.device.id for each in replaced}
        assert list_by_key(again) == list_by_key(fresh)
        resources = [(each.position, each.resource) for each in again.contenders]
        assert resources == [(each.position, each.resource) for each in fresh.contenders]


def test_index_without_a_change_keeps_its_parts() -> None:
    scans = build_scans(*DEVICES[:4])
    index, _ = ContenderIndex().update(scans)
    again, change = index.update(scans)
    assert (change.removed, change.added) == ((), ())
    assert again.by_key is index.by_key


def assign(count: int) -> tuple[int, int]:
    """Return the executed lines of an assignment after a device is added to ``count``, and the devices examined."""
    devices = [build_device(number, number) for number in range(count)]
    resources = {X.name: X, Y.name: Y}
    before = resolve_conflicts(resources, build_scans(*devices), Ledger().with_report({}, 1.0), 2.0)
    scans = build_scans(*devices, build_device(count, count))
    lines, after = count_lines(lambda: resolve_conflicts(resources, scans, before.ledger, 3.0))
    assert len(after.ledger.holders) == count + 1
    assert before.ledger.assigned is not None
    index, change = before.ledger.assigned.index.update(scans)
    return lines, len(find_scope(before.ledger, index, change).devices)


def test_work_of_an_assignment_does_not_grow_with_the_devices() -> None:
    assert assign(10) == assign(1000)
    assert assign(10)[1] == 1


def test_devices_of_one_owner_are_all_examined() -> None:
    # Two templated resources can have the same name, and a path the same ID in both.
    first, second = DEVICES[0], replace(DEVICES[1], resource=X.name)
    scans = {
        X.name: ResourceScan(X, (first, build_device(9, 9)), (), (), {}, ()),
        Y.name: ResourceScan(Y, (second,), (), (), {}, ()),
    }
    resources = {X.name: X, Y.name: Y}
    alone = resolve_conflicts(resources, {**scans, Y.name: replace(scans[Y.name], devices=())}, Ledger(), 1.0)
    together = resolve_conflicts(resources, scans, alone.ledger, 2.0)
    assert together == resolve_conflicts(resources, scans, replace(alone.ledger, assigned=None), 2.0)
    assert together.ledger.assigned is not None
    assert not together.ledger.assigned.is_unique


def test_holder_of_an_earlier_configuration_is_examined_when_its_competitor_disappears() -> None:
    resources, kept, competitor = {X.name: X, Y.name: Y}, build_device(0, 5, Y.name), build_device(1, 5)
    before = resolve_conflicts(resources, build_scans(kept), Ledger(), 1.0)
    contested = resolve_conflicts(resources, build_scans(competitor, kept), before.ledger.after_reload(2.0), 3.0)
    assert Owner(kept.resource, kept.id) in contested.ledger.waiting
    alone = resolve_conflicts(resources, build_scans(kept), contested.ledger, 4.0)
    assert not alone.ledger.waiting
    assert alone == resolve_conflicts(resources, build_scans(kept), replace(contested.ledger, assigned=None), 4.0)
