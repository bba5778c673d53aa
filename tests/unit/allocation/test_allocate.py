"""Allocate: the edits of a container in a stable order, after a new check of each node, or an error."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device
from genplug.spec.container_text import ContainerText
from genplug.spec.globs import Glob
from genplug.spec.limits import MAX_ENVIRONMENT_BYTES, MAX_VARIABLE_BYTES
from genplug.spec.model import AllocateSpec, MountSpec, NodeAccess
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import Template, Values, merge_values
from tests.support.allocation import (
    DeviceTree,
    build_mount_spec,
    build_resource,
    build_state,
    mark_healthy,
    mark_unhealthy,
    offer_devices,
)
from tests.support.configs import format_cdi_spec
from tests.support.hardware import LOCATION, NAME, build_variables, open_tree


def find_refusal(state: ResourceState, *ids: str) -> str:
    """Return the error with which a call for known IDs fails."""
    with pytest.raises(AllocationError) as caught:
        state.allocate(ids)
    assert caught.value.code is AllocationErrorCode.FAILED_PRECONDITION
    subject, separator, _ = str(caught.value).partition(" cannot be allocated to a container: ")
    assert separator
    assert subject.startswith(NAME)
    return str(caught.value)


def test_container_gets_the_node_of_its_device(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(), *tree.make_healthy("x0", "x1"))
    assert state.allocate(["x1"]) == ContainerEdits(nodes=(NodeEdit("/dev/x1", "/dev/x1", "rw"),))


def test_symlink_is_resolved_and_keeps_its_container_path(tree: DeviceTree) -> None:
    tree.plug("/dev/ttyUSB3")
    tree.at("/dev/serial").mkdir()
    tree.at("/dev/serial/adapter").symlink_to("/dev/ttyUSB3")
    device = tree.make_device("adapter", tree.make_node("/dev/serial/adapter"))
    [only] = build_state(tree, build_resource(), *mark_healthy(device)).allocate(["adapter"]).nodes
    assert only == NodeEdit("/dev/ttyUSB3", "/dev/serial/adapter", "rw")


def test_container_of_a_pool_gets_the_devices_that_are_left(tree: DeviceTree) -> None:
    names = ("x0", "x1", "x2")
    mounts = (build_mount_spec("/run/${name}", "/in/${name}"),)
    for name in names:
        tree.write(f"/run/{name}")
    spec = build_resource(tokens=2, env={"X": "${name}"}, mounts=mounts)
    state = build_state(tree, spec, *tree.make_healthy(*names))
    token = next(iter(state.offer.grants))
    tree.unplug("/dev/x0")
    tree.unplug("/run/x2")
    edits = state.allocate([token])
    assert edits == ContainerEdits(
        env=(("X", "x1"),),
        mounts=(MountEdit("/run/x1", "/in/x1", read_only=True),),
        nodes=(NodeEdit("/dev/x1", "/dev/x1", "rw"),),
    )
    tree.unplug("/dev/x1")
    assert "does not exist" in find_refusal(state, token)


def test_device_of_a_pool_is_usable_without_its_optional_nodes(tree: DeviceTree) -> None:
    optional = replace(tree.make_node("/dev/x1b"), is_optional=True)
    partial = tree.make_device("x1", tree.make_node("/dev/x1"), optional)
    state = build_state(tree, build_resource(tokens=1), *tree.make_healthy("x0"), *mark_healthy(partial))
    for path in ("/dev/x0", "/dev/x1b"):
        tree.unplug(path)
    [node] = state.allocate(list(state.offer.grants)).nodes
    assert node.host_path == "/dev/x1"


def test_container_gets_the_optional_nodes_that_are_left(tree: DeviceTree) -> None:
    required, *optional = (tree.make_node(f"/dev/{name}") for name in ("a", "b", "c"))
    nodes = (required, *(replace(node, is_optional=True) for node in optional))
    companion = replace(tree.make_node("/dev/with"), is_optional=True)
    for spec, grant_id in ((build_resource(), "x"), (build_resource(replicas=2), "x-r1")):
        state = build_state(tree, spec, *mark_healthy(tree.make_device("x", *nodes, companions=(companion,))))
        tree.unplug("/dev/b")
        tree.unplug("/dev/with")
        # Other hardware under the path of a former node is not given.
        tree.unplug("/dev/c")
        tree.plug("/dev/c", "240:9")
        assert [node.host_path for node in state.allocate([grant_id]).nodes] == ["/dev/a"]
        tree.unplug("/dev/a")
        assert "/dev/a does not exist" in find_refusal(state, grant_id)
        for path in ("/dev/a", "/dev/b", "/dev/with"):
            tree.plug(path)


def test_device_of_which_no_node_is_left_is_refused(tree: DeviceTree) -> None:
    nodes = (replace(tree.make_node(f"/dev/{name}"), is_optional=True) for name in ("a", "b"))
    device = tree.make_device("x", *nodes, companions=(tree.make_node("/dev/with"),))
    state = build_state(tree, build_resource(), *mark_healthy(device))
    tree.unplug("/dev/a")
    tree.unplug("/dev/b")
    assert "/dev/a does not exist" in find_refusal(state, "x")


def test_container_gets_all_nodes_of_a_cdi_file_or_none(tree: DeviceTree) -> None:
    nodes = (replace(tree.make_node(f"/dev/{name}"), is_optional=True) for name in ("a", "b"))
    spec = replace(build_resource(), allocate=AllocateSpec(injects_by_cdi=True))
    state = build_state(tree, spec, *mark_healthy(tree.make_device("x", *nodes)))
    assert state.allocate(["x"]).cdi_devices
    tree.unplug("/dev/b")
    # A new file has what exists.
    assert [node.host_path for node in allocate_edits(state.offer, ["x"], tree.host).nodes] == ["/dev/a"]
    assert "/dev/b does not exist" in find_refusal(state, "x")


@pytest.mark.root
def test_real_node_with_changed_numbers_is_refused(tree: DeviceTree) -> None:
    path = tree.at("/dev/real")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    state = build_state(tree, build_resource(), *tree.make_healthy("real"))
    assert state.allocate(["real"]).nodes == (NodeEdit("/dev/real", "/dev/real", "rw"),)
    path.unlink()
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(1, 3))
    assert "/dev/real is now block 1:3 and was char 1:3 when it was found" in find_refusal(state, "real")


def test_templates_render_all_devices_of_the_container_in_natural_order(tree: DeviceTree) -> None:
    spec = build_resource(
        env={"ALL": "${index}", "FIRST": "${name|first}", "COUNT": "${path|count}", "LIST": "${path|join: }"},
        annotations={"a.example/names": "${name|json}"},
    )
    state = build_state(tree, spec, *mark_healthy(*(tree.make_device(f"x{n}") for n in (1, 2, 10))))
    edits = state.allocate(["x10", "x2"])
    assert edits.env == (("ALL", "2,10"), ("FIRST", "x2"), ("COUNT", "2"), ("LIST", "/dev/x2 /dev/x10"))
    assert edits.annotations == (("a.example/names", '["x2", "x10"]'),)
    assert [node.host_path for node in edits.nodes] == ["/dev/x2", "/dev/x10"]


def test_environment_has_the_resource_and_the_numbers_of_the_slices(tree: DeviceTree) -> None:
    spec = replace(build_resource(env={"S": "${slice}", "R": "${resource|first}"}), slices=Template.parse("4"))
    devices = mark_healthy(*(replace(tree.make_device(name), slices=4) for name in ("x2", "x10")))
    state = build_state(tree, spec, *devices)
    assert state.allocate(["x10-s1", "x2-s3", "x2-s0", "x2-s3"]).env == (("S", "8,11,41"), ("R", NAME))
    assert state.allocate(["x10-s1"]).env == (("S", "41"), ("R", NAME))
    assert len(state.allocate(["x2-s3", "x2-s0"]).nodes) == 1


def test_equal_values_of_several_devices_are_repeated_unless_unique_is_used(tree: DeviceTree) -> None:
    spec = build_resource(env={"MAJOR": "${major}", "UNIQUE": "${major|unique}"})
    state = build_state(tree, spec, *tree.make_healthy("x0", "x1"))
    assert state.allocate(["x0", "x1"]).env == (("MAJOR", "240,240"), ("UNIQUE", "240"))


def test_default_is_at_the_position_of_the_device_without_the_attribute(tree: DeviceTree) -> None:
    spec = build_resource(env={"N": "${name}", "I": "${index|default:-}", "J": "${index|or:name}"})
    state = build_state(tree, spec, *mark_healthy(*map(tree.make_device, ("a1", "b", "c3"))))
    assert state.allocate(["c3", "b", "a1"]).env == (("N", "a1,b,c3"), ("I", "1,-,3"), ("J", "1,b,3"))


SIZES = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(sizes=SIZES, members=st.lists(st.integers(1, 3), min_size=6, max_size=6), data=st.data())
@settings(deadline=None, max_examples=60)
def test_values_of_two_attributes_at_one_position_are_of_one_candidate(
    sizes: list[int], members: list[int], data: st.DataObject
) -> None:
    """For any devices of one or several candidates, and any order in which the kubelet names them."""
    devices: list[Device] = []
    owners: dict[str, tuple[str, str]] = {}
    for number, size in enumerate(sizes):
        key = f"0000:{number * 37 % 256:02x}:00.0"
        parts: list[Values] = []
        for member in range(members[number]):
            path = f"/dev/{key}/{member}"
            # Sizes that differ between members, repeat between devices, and do not sort as the paths do.
            owners[path] = (str((size + member) % 3), key)
            parts.append({"path": (path,), "size": (owners[path][0],), "pci.address": (key,)})
        devices.append(Device(f"d{number}", key, NAME, LOCATION, (key,), (), (), merge_values(parts)))
    spec = build_resource(
        env={"P": "${path}", "S": "${size}", "A": "${pci.address|json}", "F": "${path|first}", "N": "${path|count}"},
        annotations={"a.example/p": "${path|basename|join:;}", "a.example/s": "${size|join:;}"},
    )
    state = ResourceState(offer_devices(spec, *mark_healthy(*devices)), Host())
    chosen = data.draw(st.lists(st.sampled_from([device.id for device in devices]), min_size=1))
    edits = state.allocate(chosen)
    env, annotations = dict(edits.env), dict(edits.annotations)
    paths = env["P"].split(",")
    assert list(zip(env["S"].split(","), json.loads(env["A"]), strict=True)) == [owners[path] for path in paths]
    assert annotations["a.example/p"].split(";") == [path.rpartition("/")[2] for path in paths]
    assert annotations["a.example/s"].split(";") == env["S"].split(",")
    assert (env["F"], env["N"]) == (paths[0], str(len(paths)))
    keys = list(dict.fromkeys(owners[path][1] for path in paths))
    # PCI addresses of equal length: the order of the text is that of the hexadecimal numbers.
    assert keys == sorted({device.key for device in devices if device.id in chosen})


def test_texts_of_mounts_and_cdi_names_pair_the_values_of_one_member(tree: DeviceTree) -> None:
    parts = [{"name": (f"x{n}",), "minor": (str(9 - n),)} for n in range(3)]
    device = replace(tree.make_device("x"), attributes=merge_values(parts))
    other = replace(tree.make_device("y"), attributes={"name": ("y",), "minor": ("4",)})
    for number in range(3):
        tree.write(f"/opt/x{number}/{9 - number}", "")
    tree.write("/etc/cdi/x.json", format_cdi_spec("a.example/x", "x0-9", "x1-8", "x2-7", "y-4"))
    mount = build_mount_spec("/opt/${name}/${minor}", "/opt/${name}", optional=True)
    allocate = AllocateSpec(mounts=(mount,), cdi_devices=(Template.parse("a.example/x=${name}-${minor}"),))
    spec = replace(build_resource(), allocate=allocate)
    edits = build_state(tree, spec, *mark_healthy(device, other)).allocate(["x", "y"])
    assert edits.cdi_devices == ("a.example/x=x0-9", "a.example/x=x1-8", "a.example/x=x2-7", "a.example/x=y-4")
    assert [mount.host_path for mount in edits.mounts] == ["/opt/x0/9", "/opt/x1/8", "/opt/x2/7"]


def test_shared_companion_is_listed_once_after_the_nodes(tree: DeviceTree) -> None:
    ctl = tree.make_node("/dev/ctl", permissions="rwm")
    devices = [tree.make_device(f"x{number}", companions=(ctl,)) for number in (0, 1)]
    edits = build_state(tree, build_resource(), *mark_healthy(*devices)).allocate(["x1", "x0"])
    assert edits.nodes == (
        NodeEdit("/dev/x0", "/dev/x0", "rw"),
        NodeEdit("/dev/x1", "/dev/x1", "rw"),
        NodeEdit("/dev/ctl", "/dev/ctl", "rwm"),
    )


def test_two_replicas_of_a_device_give_its_node_once(tree: DeviceTree) -> None:
    spec = build_resource(replicas=3, env={"X": "${name}"})
    state = build_state(tree, spec, *tree.make_healthy("x0"))
    assert state.allocate(["x0-r2", "x0-r0"]) == state.allocate(["x0-r1"])


def test_token_gives_every_healthy_device_of_the_pool(tree: DeviceTree) -> None:
    devices = (*tree.make_healthy("x0"), mark_unhealthy(tree.make_device("x1"), "broken"), *tree.make_healthy("x2"))
    state = build_state(tree, build_resource(tokens=2, env={"X": "${name}"}), *devices)
    first, second = (device.id for device in state.listed)
    edits = state.allocate([first])
    assert [node.host_path for node in edits.nodes] == ["/dev/x0", "/dev/x2"]
    assert edits.env == (("X", "x0,x2"),)
    assert state.allocate([second, first]) == edits


REQUEST_FEWER = "(devices.yaml:5:7); request fewer in the container, or change the resource in the configuration"


def test_container_gets_at_most_the_maximum_of_distinct_ids(tree: DeviceTree) -> None:
    spec = replace(build_resource(), max_per_container=2)
    state = build_state(tree, spec, *tree.make_healthy("x0", "x1", "x2"))
    assert len(state.allocate(["x0", "x1", "x0"]).nodes) == 2
    assert find_refusal(state, "x0", "x1", "x2") == (
        "a.example/x cannot be allocated to a container: it requests 3, and share.maxPerContainer is 2 " + REQUEST_FEWER
    )


def test_two_grants_of_a_device_are_refused_if_they_have_to_be_distinct(tree: DeviceTree) -> None:
    device = tree.make_device("x0", tree.make_node("/dev/a"), tree.make_node("/dev/b"))
    devices = (*mark_healthy(device), *tree.make_healthy("x1"))
    state = build_state(tree, replace(build_resource(replicas=2), distinct=True), *devices)
    assert len(state.allocate(["x0-r0", "x1-r0", "x0-r0"]).nodes) == 3
    assert find_refusal(state, "x1-r0", "x0-r1", "x0-r0") == (
        "a.example/x cannot be allocated to a container: x0-r1 and x0-r0 are the same device (/dev/a, /dev/b), "
        "and share.distinct is true " + REQUEST_FEWER
    )
    # An unknown ID has no device to compare; the devices of all tokens of a pool are the same.
    with pytest.raises(AllocationError, match="has no device 'x7'"):
        state.allocate(["x7", "x0-r0"])
    pool = build_state(tree, replace(build_resource(tokens=2), distinct=True), *devices)
    assert len(pool.allocate(list(pool.offer.grants)).nodes) == 3


def test_node_has_its_numbers_and_its_owner_group_and_mode(tree: DeviceTree) -> None:
    tree.plug("/dev/x0", "240:5")
    access = NodeAccess(owner=1, group=44, mode=0o660)
    device = tree.make_device("x0", replace(tree.make_node("/dev/x0"), access=access))
    [node] = build_state(tree, build_resource(), *mark_healthy(device)).allocate(["x0"]).nodes
    assert (node.owner, node.group, node.mode, node.numbers) == (1, 44, 0o660, ("char", 240, 5))


def test_49_unknown_id_is_not_found(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(), *tree.make_healthy("x0"))
    with pytest.raises(AllocationError, match=r"a\.example/x has no device 'x7'") as caught:
        state.allocate(["x0", "x7"])
    assert caught.value.code is AllocationErrorCode.NOT_FOUND


def test_50_unhealthy_device_is_refused_with_its_reason(tree: DeviceTree) -> None:
    state = build_state(
        tree, build_resource(), mark_unhealthy(tree.make_device("x0"), "companion /dev/ctl does not exist")
    )
    assert find_refusal(state, "x0") == (
        "a.example/x device x0 cannot be allocated to a container: companion /dev/ctl does not exist"
    )


def test_50_removed_node_is_refused(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(), *tree.make_healthy("x0", "x1"))
    tree.at("/dev/x0").unlink()
    assert find_refusal(state, "x1", "x0") == (
        "a.example/x device x0 cannot be allocated to a container: /dev/x0 does not exist"
    )
    assert state.allocate(["x1"]).nodes


def test_50_removed_companion_is_refused(tree: DeviceTree) -> None:
    device = tree.make_device("x0", companions=(tree.make_node("/dev/ctl"),))
    state = build_state(tree, build_resource(), *mark_healthy(device))
    tree.at("/dev/ctl").unlink()
    assert "/dev/ctl does not exist" in find_refusal(state, "x0")


def test_50_node_that_became_a_directory_is_refused(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(), *tree.make_healthy("x0"))
    tree.at("/dev/x0").unlink()
    tree.at("/dev/x0").mkdir()
    assert "/dev/x0 is now a directory, not a device node" in find_refusal(state, "x0")


def test_50_node_with_changed_numbers_is_refused(tree: DeviceTree) -> None:
    tree.plug("/dev/x0", "240:5")
    state = build_state(tree, build_resource(), *tree.make_healthy("x0"))
    tree.plug("/dev/x0", "240:6")
    assert "/dev/x0 is now char 240:6 and was char 240:5 when it was found" in find_refusal(state, "x0")


def test_50_node_that_became_a_dangling_symlink_is_refused(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(), *tree.make_healthy("x0"))
    tree.at("/dev/x0").unlink()
    tree.at("/dev/x0").symlink_to("gone")
    assert find_refusal(state, "x0").endswith(": /dev/x0 is a symlink to gone, which does not exist")


def test_59_node_replaced_by_a_symlink_to_another_is_refused(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(), *tree.make_healthy("x0"))
    tree.at("/dev/x0").unlink()
    tree.at("/dev/sda").write_text("block 8:0")
    tree.at("/dev/x0").symlink_to("sda")
    assert "/dev/x0 is now block 8:0 and was char" in find_refusal(state, "x0")


def test_51_repeated_call_returns_equal_edits(tree: DeviceTree) -> None:
    spec = build_resource(env={"X": "${path}"})
    first, second = (build_state(tree, spec, *tree.make_healthy("x0", "x1")) for _ in range(2))
    assert first.allocate(["x0", "x1"]) == second.allocate(["x1", "x0"])


def test_52_duplicate_id_in_a_call_counts_once(tree: DeviceTree) -> None:
    state = build_state(tree, build_resource(env={"X": "${path}"}), *tree.make_healthy("x0"))
    assert state.allocate(["x0", "x0"]) == state.allocate(["x0"])


def test_53_call_without_ids_returns_no_edits(tree: DeviceTree) -> None:
    spec = build_resource(env={"X": "${path}"}, mounts=(build_mount_spec("/missing", "/m"),))
    assert build_state(tree, spec, *tree.make_healthy("x0")).allocate([]) == ContainerEdits()


@given(
    ids=st.permutations([f"x{number}" for number in range(12)]), count=st.integers(1, 12), with_repeats=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_55_edits_are_independent_of_the_order_of_ids(*, ids: list[str], count: int, with_repeats: bool) -> None:
    with open_tree(DeviceTree) as tree:
        ctl = tree.make_node("/dev/ctl")
        tree.at("/opt").mkdir()
        devices = [tree.make_device(f"x{number}", companions=(ctl,)) for number in range(12)]
        spec = build_resource(
            env={"X": "${name}", "I": "${index}"}, mounts=(build_mount_spec("/opt", "/opt/${index}"),)
        )
        state = build_state(tree, spec, *mark_healthy(*devices))
        requested = ids[:count]
        edits = state.allocate(requested + requested[:3] if with_repeats else requested)
        assert edits == state.allocate(sorted(requested))
        for paths in ([node.container_path for node in edits.nodes], [mount.container_path for mount in edits.mounts]):
            assert len(paths) == len(set(paths))
        assert dict(edits.env)["I"].split(",") == sorted((name[1:] for name in requested), key=int)


def test_56_devices_with_the_same_container_path_are_refused(tree: DeviceTree) -> None:
    devices = [tree.make_device(f"x{number}", tree.make_node(f"/dev/x{number}", "/dev/x")) for number in (0, 1)]
    state = build_state(tree, build_resource(), *mark_healthy(*devices))
    assert state.allocate(["x0"]).nodes == (NodeEdit("/dev/x0", "/dev/x", "rw"),)
    assert find_refusal(state, "x1", "x0") == (
        "a.example/x devices x0 and x1 cannot be allocated to a container: /dev/x0 and /dev/x1 both map to /dev/x "
        "in the container; set different container paths with 'as'"
    )


def test_node_of_two_devices_has_the_permissions_of_both(tree: DeviceTree) -> None:
    first = tree.make_device("x0", tree.make_node("/dev/shared", permissions="r"))
    second = tree.make_device("x1", tree.make_node("/dev/shared", permissions="wm"))
    state = build_state(tree, build_resource(), *mark_healthy(first, second))
    assert state.allocate(["x0", "x1"]).nodes == (NodeEdit("/dev/shared", "/dev/shared", "rwm"),)


def test_mount_is_rendered_for_each_device_and_listed_once(tree: DeviceTree) -> None:
    for path in ("/usr/local/x", "/var/x/0", "/var/x/1"):
        tree.at(path).mkdir(parents=True)
    spec = build_resource(
        mounts=(
            build_mount_spec("/usr/local/x", "/usr/local/x/"),
            build_mount_spec("/var/x/${index}", "/state/${name}", read_only=False),
            build_mount_spec("/var/none/${index}", "/none/${name}", optional=True),
        )
    )
    state = build_state(tree, spec, *tree.make_healthy("x0", "x1"))
    assert state.allocate(["x1", "x0"]).mounts == (
        MountEdit("/usr/local/x", "/usr/local/x", read_only=True),
        MountEdit("/var/x/0", "/state/x0", read_only=False),
        MountEdit("/var/x/1", "/state/x1", read_only=False),
    )


def test_mount_is_rendered_for_each_value_of_a_device(tree: DeviceTree) -> None:
    for name in ("a0", "b0"):
        tree.at(f"/state/{name}").mkdir(parents=True)
    device = tree.make_device("pair", tree.make_node("/dev/a0"), tree.make_node("/dev/b0"))
    spec = build_resource(mounts=(build_mount_spec("/state/${name}", "/state/${name}"),))
    edits = build_state(tree, spec, *mark_healthy(device)).allocate(["pair"])
    assert [mount.host_path for mount in edits.mounts] == ["/state/a0", "/state/b0"]


def test_58_missing_mount_source_is_refused(tree: DeviceTree) -> None:
    spec = build_resource(mounts=(build_mount_spec("/var/${name}", "/var/x"),))
    state = build_state(tree, spec, *tree.make_healthy("x0"))
    assert find_refusal(state, "x0") == (
        "a.example/x device x0 cannot be allocated to a container: the mount source /var/x0 does not exist"
    )
    tree.at("/var").mkdir()
    tree.at("/var/x0").symlink_to("/opt/x")
    assert "the mount source /var/x0 is a symlink to /opt/x, which does not exist" in find_refusal(state, "x0")
    tree.at("/opt/x").mkdir(parents=True)
    assert state.allocate(["x0"]).mounts == (MountEdit("/opt/x", "/var/x", read_only=True),)


def test_two_mounts_at_the_same_container_path_are_refused(tree: DeviceTree) -> None:
    for name in ("x0", "x1"):
        tree.at(f"/var/{name}").mkdir(parents=True)
    spec = build_resource(mounts=(build_mount_spec("/var/${name}", "/var/x"),))
    state = build_state(tree, spec, *tree.make_healthy("x0", "x1"))
    assert find_refusal(state, "x0", "x1") == (
        "a.example/x device x1 cannot be allocated to a container: /var/x0 and /var/x1 are both mounted at /var/x, or "
        "with different options; set different container paths"
    )


def test_missing_optional_mount_does_not_end_the_mounts(tree: DeviceTree) -> None:
    tree.at("/var/x1").mkdir(parents=True)
    tree.at("/var/b0").mkdir()
    spec = build_resource(mounts=(build_mount_spec("/var/${name}", "/in/${name}", optional=True),))
    pair = tree.make_device("pair", tree.make_node("/dev/a0"), tree.make_node("/dev/b0"))
    state = build_state(tree, spec, *mark_healthy(pair), *tree.make_healthy("x0", "x1"))
    mounts = state.allocate(["pair", "x0", "x1"]).mounts
    assert [mount.container_path for mount in mounts] == ["/in/b0", "/in/x1"]


def test_relative_container_path_of_a_mount_is_refused(tree: DeviceTree) -> None:
    spec = build_resource(mounts=(build_mount_spec("/dev", "${name}"),))
    state = build_state(tree, spec, *tree.make_healthy("x0"))
    assert "a mount at 'x0' is not an absolute path" in find_refusal(state, "x0")


def test_template_without_a_value_is_refused(tree: DeviceTree) -> None:
    indexed, plain = tree.make_device("x0"), tree.make_device("x")
    state = build_state(tree, build_resource(env={"I": "${index}"}), *mark_healthy(indexed, plain))
    assert "'${index}' refers to 'index', which a device of the container does not have" in find_refusal(state, "x")
    mounts = build_resource(mounts=(build_mount_spec("/dev", "/m/${index}"),))
    assert "a mount refers to 'index', which the device does not have" in find_refusal(
        build_state(tree, mounts, *mark_healthy(plain)), "x"
    )


def test_values_of_a_container_are_checked_when_they_are_rendered(tree: DeviceTree) -> None:
    devices = tree.make_healthy("x0", "x1")
    policy = Policy("policy.yaml", annotations=("a.io/*",))
    for resource, reason in (
        (build_resource(env={"A": "${path}\0"}), "the environment variable A contains a NUL byte"),
        (build_resource(env={"LD_PRELOAD": "x"}), "LD_PRELOAD is refused by 'env.allow' of policy.yaml"),
        (build_resource(env={"NVIDIA_VISIBLE_DEVICES": "${x|default:all}"}), "by the word 'all'"),
        (build_resource(annotations={"b.io/x": "x"}), "refused by 'annotations.allow' of policy.yaml"),
        (build_resource(annotations={"a.io/x": "\udcff"}), "the annotation a.io/x contains bytes that are not UTF-8"),
    ):
        assert reason in find_refusal(build_state(tree, replace(resource, policy=policy), *devices), "x0")


def test_errors_of_rendered_values_name_the_resource_and_the_text(tree: DeviceTree) -> None:
    plain = tree.make_device("x")
    lacks = "refers to 'index', which a device of the container does not have"
    policy = Policy("policy.yaml", cdi=("a.example/*",), groups=(44,))
    allocations = (
        (AllocateSpec(cdi_devices=(Template.parse("a.example/x=${index}"),)), f"'a.example/x=${{index}}' {lacks}"),
        (
            AllocateSpec(cdi_devices=(Template.parse("${name}"),)),
            "the CDI device 'x' is not valid: a CDI device name has the form VENDOR/CLASS=DEVICE",
        ),
        (
            AllocateSpec(cdi_devices=(Template.parse("b.example/y=${name}"),)),
            "the CDI device 'b.example/y=x' is refused by 'cdi.allow' of policy.yaml, which allows a.example/*",
        ),
        (
            AllocateSpec(supplemental_groups=(44, 0)),
            "the group 0 is refused by 'supplementalGroups.allow' of policy.yaml, which allows 44",
        ),
        (
            AllocateSpec(annotations=(("a.io/x", ContainerText(Template.parse("${index}"))),)),
            f"'${{index}}' {lacks}",
        ),
        (
            AllocateSpec(env=build_variables({"A_${name|default:x}": "1", "A_X": "2"})),
            "two entries of allocate.env have the name A_X, so one value would be lost",
        ),
    )
    for allocate, reason in allocations:
        spec = replace(build_resource(), allocate=allocate, policy=policy)
        refusal = find_refusal(build_state(tree, spec, *mark_healthy(plain)), "x")
        assert refusal.startswith(f"a.example/x cannot be allocated to a container: {reason}"), refusal
    allowed = replace(build_resource(), allocate=AllocateSpec(supplemental_groups=(44,)), policy=policy)
    assert build_state(tree, allowed, *mark_healthy(plain)).allocate(["x"]).supplemental_groups == (44,)


def test_device_node_replaces_no_file_of_the_container(tree: DeviceTree) -> None:
    tree.at("/opt").mkdir()
    tree.plug("/opt/x1")
    outside = tree.make_device("x0", tree.make_node("/dev/x0", "/etc/x"))
    state = build_state(
        tree, build_resource(), *mark_healthy(outside, tree.make_device("x1", tree.make_node("/opt/x1")))
    )
    assert find_refusal(state, "x0") == (
        "a.example/x cannot be allocated to a container: the container path /etc/x is outside of /dev, where a device "
        "node could replace a file of the container"
    )
    assert [node.container_path for node in state.allocate(["x1"]).nodes] == ["/opt/x1"]


def test_mount_may_use_the_name_of_the_resource_and_follows_the_policy_for_targets(tree: DeviceTree) -> None:
    tree.at("/opt/a.example/x").mkdir(parents=True)
    named = build_resource(mounts=(build_mount_spec("/opt/${resource}", "/opt/x"),))
    [mount] = build_state(tree, named, *tree.make_healthy("x0")).allocate(["x0"]).mounts
    assert mount.host_path == "/opt/a.example/x"
    program = build_resource(mounts=(build_mount_spec("/opt", "/usr/bin/${name}"),))
    refusal = find_refusal(build_state(tree, program, *tree.make_healthy("x0")), "x0")
    assert "a mount at '/usr/bin/x0' is refused by 'mounts.targets'" in refusal


def test_environment_of_a_container_is_limited(tree: DeviceTree) -> None:
    half = "x" * (MAX_VARIABLE_BYTES // 2)
    state = build_state(
        tree, build_resource(env={f"A{number}": half for number in range(40)}), *tree.make_healthy("x0")
    )
    assert f"bytes, at most {MAX_ENVIRONMENT_BYTES} are allowed" in find_refusal(state, "x0")


def test_60_state_is_independent_of_a_later_offer(tree: DeviceTree) -> None:
    device = tree.make_device("x0")
    before = build_state(tree, build_resource(env={"V": "old"}), *mark_healthy(device))
    after = build_state(tree, build_resource(env={"V": "new"}), *mark_healthy(device))
    assert before.allocate(["x0"]).env == (("V", "old"),)
    assert after.allocate(["x0"]).env == (("V", "new"),)


def test_edits_have_host_paths_without_the_root(tree: DeviceTree) -> None:
    tree.at("/opt").mkdir()
    spec = build_resource(env={"P": "${path}"}, mounts=(build_mount_spec("/opt", "/opt"),))
    edits = build_state(tree, spec, *tree.make_healthy("x0")).allocate(["x0"])
    assert str(tree.root) not in repr(edits)


@pytest.mark.root
def test_null_device_of_the_machine_is_allocated(tree: DeviceTree) -> None:
    host = Host(Path("/"))
    info = host.stat("/dev/null")
    assert info is not None
    device = tree.make_device(
        "null", replace(tree.make_node("/dev/any"), path="/dev/null", container_path="/dev/n", info=info)
    )
    edits = allocate_edits(offer_devices(build_resource(), *mark_healthy(device)), ["null"], host)
    assert edits.nodes == (NodeEdit("/dev/null", "/dev/n", "rw"),)


def test_mount_policy_applies_to_the_path_and_to_its_target(tree: DeviceTree) -> None:
    for path in ("/etc", "/opt/real"):
        tree.at(path).mkdir(parents=True)
    tree.at("/opt/out0").symlink_to("/etc")
    tree.at("/opt/in0").symlink_to("real")
    tree.at("/opt/up0").symlink_to("real/../../etc")
    device = tree.make_device("x0")
    policy = Policy("policy.yaml", mounts=(Glob.parse("/opt"),))

    def build_mount_state(*mounts: MountSpec, policy: Policy = policy) -> ResourceState:
        return build_state(tree, replace(build_resource(mounts=mounts), policy=policy), *mark_healthy(device))

    allowed = build_mount_state(build_mount_spec("/opt/in${index}", "/m"))
    assert allowed.allocate(["x0"]).mounts == (MountEdit("/opt/real", "/m", read_only=True),)
    by_allow = "is refused by 'mounts.allow' of policy.yaml, which allows /opt"
    for path in ("/opt/out0", "/opt/out${index}", "/opt/up0"):
        refusal = find_refusal(build_mount_state(build_mount_spec(path, "/m")), "x0")
        assert refusal.endswith(f"{path.replace('${index}', '0')}, which leads to /etc, {by_allow}")
    # The error does not reveal whether the path exists.
    for path in ("/etc", "/e${name}"):
        assert by_allow in find_refusal(build_mount_state(build_mount_spec(path, "/m", optional=True)), "x0")
    upwards = build_mount_state(build_mount_spec("/opt/${name}/../../etc", "/m", optional=True))
    assert "the mount source '/opt/x0/../../etc' contains '..'" in find_refusal(upwards, "x0")
    writable = build_mount_spec("/opt/in0", "/m", read_only=False)
    assert "is refused by 'mounts.writable' of policy.yaml" in find_refusal(build_mount_state(writable), "x0")
    assert "of the default policy, which allows nothing" in find_refusal(
        build_mount_state(writable, policy=DEFAULT_POLICY), "x0"
    )


def test_cdi_names_of_grants_are_in_the_order_of_the_devices(tree: DeviceTree) -> None:
    keys = ("0000:0a:00.0", "0000:10:00.0", "0000:3b:00.0", "0000:af:00.0")
    devices = [
        replace(tree.make_device(key.replace(":", "-").replace(".", "-")), key=key, attributes={"address": (key,)})
        for key in keys
    ]
    spec = build_resource(env={"A": "${address}"})
    spec = replace(spec, allocate=replace(spec.allocate, injects_by_cdi=True))
    edits = build_state(tree, spec, *mark_healthy(*devices)).allocate([device.id for device in reversed(devices)])
    assert edits.env == (("A", ",".join(keys)),)
    assert [name.rpartition("=")[2] for name in edits.cdi_devices] == [device.id for device in devices]
