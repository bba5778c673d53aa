"""CDI files: their content for healthy and unhealthy devices, and how they are replaced and removed."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.agent.cdi_writer import CdiSpec, CdiUnwritableError, CdiWriter, compose_spec
from genplug.allocation.cdi_spec import file_name
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.spec.model import AllocateSpec
from genplug.spec.policy import Policy
from tests.support.allocation import DeviceTree, build_resource, mark_unhealthy
from tests.support.hardware import NAME, open_tree
from tests.support.work import count_lines

DIRECTORY = "/var/run/cdi"


@pytest.fixture
def tree() -> Iterator[DeviceTree]:
    with open_tree(DeviceTree) as tree:
        yield tree


def list_devices(spec: CdiSpec) -> list[str]:
    assert spec.text is not None
    return [device["name"] for device in json.loads(spec.text)["devices"]]


def test_spec_defines_every_healthy_device(tree: DeviceTree) -> None:
    offer = build_offer(build_resource(), tree.make_healthy("x0", "x1"))
    assert list_devices(compose_spec(offer, None, tree.host)) == ["x0", "x1"]


def test_unhealthy_device_keeps_the_definition_that_a_container_may_use(tree: DeviceTree) -> None:
    x0, x1 = tree.make_healthy("x0", "x1")
    previous = compose_spec(build_offer(build_resource(), (x0, x1)), None, tree.host)
    offer = build_offer(build_resource(), (mark_unhealthy(x0.device, "gone"), x1))
    spec = compose_spec(offer, previous, tree.host)
    assert list_devices(spec) == ["x0", "x1"]
    assert spec.devices["x0"] is previous.devices["x0"]
    assert list_devices(compose_spec(offer, None, tree.host)) == ["x1"]


def test_spec_without_devices_has_no_text(tree: DeviceTree) -> None:
    assert compose_spec(build_offer(build_resource(), ()), None, tree.host).text is None


def test_device_whose_node_changed_since_the_scan_is_an_error(tree: DeviceTree) -> None:
    offer = build_offer(build_resource(), tree.make_healthy("x0", "x1"))
    tree.plug("/dev/x0", "1:1")
    spec = compose_spec(offer, None, tree.host)
    assert list_devices(spec) == ["x1"]
    assert spec.errors.keys() == {"x0"}
    assert "/dev/x0 is now char 1:1" in spec.errors["x0"]
    assert not spec.defines("x0", offer.grants["x0"])
    assert spec.defines("x1", offer.grants["x1"])


def test_definition_is_kept_while_the_node_of_the_device_is_another(tree: DeviceTree) -> None:
    (x0,) = tree.make_healthy("x0")
    previous = compose_spec(build_offer(build_resource(), (x0,)), None, tree.host)
    tree.plug("/dev/x0", "1:1")
    again = replace(x0, verdict=replace(x0.verdict, since=x0.verdict.since + 1))
    offer = build_offer(build_resource(), (again,))
    spec = compose_spec(offer, previous, tree.host)
    assert spec.text == previous.text
    assert spec.errors.keys() == {"x0"}


def test_definition_of_other_hardware_is_kept_for_containers_and_not_given(tree: DeviceTree) -> None:
    (x0,) = tree.make_healthy("x0")
    previous = compose_spec(build_offer(build_resource(), (x0,)), None, tree.host)
    other = replace(x0, device=replace(x0.device, nodes=(tree.make_node("/dev/other", "/dev/x0"),)))
    tree.unplug("/dev/other")
    offer = build_offer(build_resource(), (other,))
    spec = compose_spec(offer, previous, tree.host)
    assert spec.text == previous.text
    assert spec.errors.keys() == {"x0"}
    assert not spec.defines("x0", offer.grants["x0"])


def test_file_is_written_once_and_again_after_its_removal(tree: DeviceTree) -> None:
    writer, path = CdiWriter(DIRECTORY, tree.host), tree.at(DIRECTORY) / file_name(NAME)
    spec = compose_spec(build_offer(build_resource(), tree.make_healthy("x0")), None, tree.host)
    assert writer.restore(NAME) is None
    writer.write(spec)
    inode = path.stat().st_ino
    writer.write(spec)
    assert writer.restore(NAME) is spec
    assert path.stat().st_ino == inode
    path.unlink()
    assert writer.restore(NAME) is spec
    assert path.read_text() == spec.text
    path.unlink()
    writer.write(spec)
    assert path.read_text() == spec.text
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_directory_that_cannot_be_written_is_reported(tree: DeviceTree) -> None:
    spec = compose_spec(build_offer(build_resource(), tree.make_healthy("x0")), None, tree.host)
    tree.write(DIRECTORY, "a file")
    with pytest.raises(CdiUnwritableError, match=f"of {NAME} cannot be written: "):
        CdiWriter(DIRECTORY, tree.host).write(spec)


def test_only_files_of_genplug_are_listed_and_removed(tree: DeviceTree) -> None:
    writer = CdiWriter(DIRECTORY, tree.host)
    assert writer.list_files() == frozenset()
    writer.write(compose_spec(build_offer(build_resource(), tree.make_healthy("x0")), None, tree.host))
    tree.write(f"{DIRECTORY}/vendor.json", "{}")
    assert writer.list_files() == {file_name(NAME)}
    writer.remove(file_name(NAME))
    writer.remove(file_name(NAME))
    assert writer.list_files() == frozenset()


def test_spec_of_changed_devices_is_composed_again(tree: DeviceTree) -> None:
    (x0,) = tree.make_healthy("x0")
    previous = compose_spec(build_offer(build_resource(), (x0,)), None, tree.host)
    other = replace(x0, device=replace(x0.device, nodes=(tree.make_node("/dev/other"),)))
    spec = compose_spec(build_offer(build_resource(), (other,)), previous, tree.host)
    assert spec.text != previous.text


def test_spec_of_a_changed_configuration_is_composed_again(tree: DeviceTree) -> None:
    (x0,) = tree.make_healthy("x0")
    previous = compose_spec(build_offer(build_resource(), (x0,)), None, tree.host)
    allocate = AllocateSpec(injects_by_cdi=True, supplemental_groups=(44,))
    resource = replace(build_resource(), allocate=allocate, policy=Policy(groups=(44,)))
    spec = compose_spec(build_offer(resource, (x0,)), previous, tree.host)
    assert spec.text is not None
    assert json.loads(spec.text)["devices"][0]["containerEdits"]["additionalGids"] == [44]
    # A container may still use an unhealthy device with the previous configuration.
    unhealthy = compose_spec(build_offer(resource, (mark_unhealthy(x0.device, "gone"),)), previous, tree.host)
    assert unhealthy.devices["x0"] is previous.devices["x0"]


NAMES = ("x0", "x1", "1x")
steps = st.lists(
    st.tuples(
        st.fixed_dictionaries(dict.fromkeys(NAMES, st.sampled_from([True, True, True, False, None]))),
        st.sets(st.sampled_from(NAMES)),
        st.sampled_from([False, False, True]),
    ),
    max_size=5,
)
"""The devices with their health, None without one, those whose nodes are replaced, and whether there is a group."""


@settings(deadline=None, max_examples=60)
@given(steps)
def test_spec_of_changed_grants_equals_a_spec_of_all_grants(
    history: list[tuple[dict[str, bool | None], set[str], bool]],
) -> None:
    with open_tree(DeviceTree) as tree:
        found = {name: tree.make_healthy(name)[0] for name in NAMES}
        gone = {name: mark_unhealthy(entry.device, "gone") for name, entry in found.items()}
        numbers = {name: tree.at(f"/dev/{name}").read_text() for name in found}
        offer: ResourceOffer | None = None
        of_changes: CdiSpec | None = None
        of_all: CdiSpec | None = None
        for devices, replaced, has_group in history:
            for name in found:
                tree.write(f"/dev/{name}", "char 1:1\n" if name in replaced else numbers[name])
            allocate = AllocateSpec(injects_by_cdi=True, supplemental_groups=(44,) if has_group else ())
            resource = replace(build_resource(), allocate=allocate, policy=Policy(groups=(44,)))
            entries = [
                found[name] if is_healthy else gone[name]
                for name, is_healthy in devices.items()
                if is_healthy is not None
            ]
            offer = build_offer(resource, entries, previous=offer)
            of_changes = compose_spec(offer, of_changes, tree.host)
            # The grants of an offer without a previous offer are other objects, which are all examined.
            of_all = compose_spec(build_offer(resource, entries), of_all, tree.host)
            assert of_changes == of_all
            assert of_changes.text == of_all.text


def test_work_of_a_spec_does_not_grow_with_unchanged_devices(tree: DeviceTree) -> None:
    def count(size: int) -> int:
        (made,) = tree.make_healthy("x0")
        entries = [replace(made, device=replace(made.device, id=f"x{number}")) for number in range(size)]
        offer = build_offer(build_resource(), entries)
        previous = compose_spec(offer, None, tree.host)
        entries[3] = replace(made, device=replace(entries[3].device, candidates=()))
        changed = build_offer(build_resource(), entries, previous=offer)
        return count_lines(lambda: compose_spec(changed, previous, tree.host))[0]

    assert count(1000) == count(10)
