"""Devices: groups of candidates, IDs, device nodes, companions and faults."""

from genplug.hardware.discovery import discover
from genplug.spec.model import CandidateType
from tests.support.hardware import (
    NAME,
    NodeTree,
    build_config,
    build_node_spec,
    build_resource,
    build_source,
    discover_sources,
    find_reason,
    list_devices,
    list_ids,
)


def test_candidates_of_a_group_are_a_single_device(tree: NodeTree) -> None:
    for card in (0, 1):
        for at, kind in enumerate(("uverbs", "umad", "issm")):
            tree.plug(f"/dev/infiniband/{kind}{card}", f"231:{at * 64 + card}")
    tree.plug("/dev/infiniband/rdma_cm", "10:58")
    spec = build_source(
        "/dev/infiniband/{uverbs,umad,issm}*",
        group_by="hca${index}",
        companions=(build_node_spec("/dev/infiniband/rdma_cm"),),
    )
    first, second = list_devices(discover(build_config(build_resource("rdma/hca", spec)), tree.host), "rdma/hca")
    assert (first.key, second.key) == ("hca0", "hca1")
    assert [device_node.path for device_node in first.nodes] == [
        f"/dev/infiniband/{kind}0" for kind in ("issm", "umad", "uverbs")
    ]
    assert [companion.path for companion in second.companions] == ["/dev/infiniband/rdma_cm"]
    # One order of members for all attributes.
    assert first.attributes["name"] == ("issm0", "umad0", "uverbs0")
    assert first.attributes["minor"] == ("128", "64", "0")
    assert first.attributes["index"] == ("0", "0", "0")
    assert not first.faults


def test_candidate_without_the_attribute_of_group_by_is_excluded(tree: NodeTree) -> None:
    tree.plug("/dev/x", "240:1")
    tree.plug("/dev/x1", "240:2")
    found = discover_sources(tree, build_source("/dev/x*", group_by="${index}"))
    assert [device.key for device in list_devices(found)] == ["1"]
    assert find_reason(found, "/dev/x") == "groupBy refers to 'index', which the candidate does not have"


def test_missing_group_member_does_not_change_other_groups(tree: NodeTree) -> None:
    for number in range(3):
        tree.plug(f"/dev/a{number}", f"240:{number}")
        tree.plug(f"/dev/b{number}", f"241:{number}")
    spec = build_config(build_resource(NAME, build_source("/dev/a*", "/dev/b*", group_by="pair${index}")))
    before = {device.key: device for device in list_devices(discover(spec, tree.host))}
    tree.unplug("/dev/a0")
    after = {device.key: device for device in list_devices(discover(spec, tree.host))}
    assert {key: device.id for key, device in after.items()} == {key: device.id for key, device in before.items()}
    assert after["pair1"] == before["pair1"]
    assert [device_node.path for device_node in after["pair0"].nodes] == ["/dev/b0"]


def test_candidate_without_the_attribute_of_id_is_excluded(tree: NodeTree) -> None:
    tree.plug("/dev/x", "240:1")
    found = discover_sources(tree, build_source("/dev/x", id="disk-${index}"))
    assert list_ids(found) == []
    assert find_reason(found, "/dev/x") == "id refers to 'index', which the candidate does not have"


def test_id_template_determines_the_device_id(tree: NodeTree) -> None:
    tree.plug("/dev/x4", "240:4")
    [device] = list_devices(discover_sources(tree, build_source("/dev/x*", id="Disk ${index}")))
    assert device.key == "Disk 4"
    assert device.id.startswith("disk-4-")


def test_duplicate_id_makes_the_first_device_faulty(tree: NodeTree) -> None:
    tree.plug("/dev/x1", "240:1")
    tree.plug("/dev/x2", "240:2")
    found = discover_sources(tree, build_source("/dev/x*", id="disk"))
    [device] = list_devices(found)
    assert device.candidates == ("/dev/x1",)
    [fault] = device.faults
    assert fault == (
        f"/dev/x2 (devices.yaml:5:7) has the same ID '{device.id}'; write an 'id' template that differs between them"
    )
    assert find_reason(found, "/dev/x2") == f"/dev/x1 has the same ID '{device.id}'"


def test_device_keeps_id_after_replug_under_another_number(tree: NodeTree) -> None:
    spec = build_config(build_resource(NAME, build_source("/dev/serial/by-id/*")))
    tree.plug("/dev/ttyUSB3", "188:3")
    tree.link("/dev/serial/by-id/usb-FTDI_A1", "../../ttyUSB3")
    before = list_ids(discover(spec, tree.host))
    tree.unplug("/dev/ttyUSB3")
    tree.unplug("/dev/serial/by-id/usb-FTDI_A1")
    assert list_ids(discover(spec, tree.host)) == []
    tree.plug("/dev/ttyUSB0", "188:0")
    tree.link("/dev/serial/by-id/usb-FTDI_A1", "../../ttyUSB0")
    assert list_ids(discover(spec, tree.host)) == before


def test_optional_node_does_not_change_the_id(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    spec = build_config(
        build_resource(
            NAME,
            build_source("/dev/x?", nodes=(build_node_spec("${path}"), build_node_spec("/dev/extra", optional=True))),
        )
    )
    before = list_ids(discover(spec, tree.host))
    tree.plug("/dev/extra", "240:9")
    assert list_ids(discover(spec, tree.host)) == before


def test_identical_adapters_are_separate_devices(tree: NodeTree) -> None:
    for number in range(3):
        tree.plug(f"/dev/ttyACM{number}", f"166:{number}")
    assert len(list_ids(discover_sources(tree, build_source("/dev/ttyACM*")))) == 3


def test_nodes_replace_the_candidate(tree: NodeTree) -> None:
    tree.plug("/dev/vfio/12", "511:0")
    tree.plug("/dev/vfio/vfio", "10:196")
    spec = build_source(
        "/dev/vfio/[0-9]*",
        nodes=(build_node_spec("/dev/vfio/${index}", as_="/dev/group-${minor}-of-${name}", permissions="rwm"),),
    )
    [device] = list_devices(discover_sources(tree, spec))
    [only] = device.nodes
    assert (only.path, only.container_path, only.permissions) == ("/dev/vfio/12", "/dev/group-0-of-12", "rwm")


def test_glob_in_nodes_renders_as_for_each_match(tree: NodeTree) -> None:
    tree.plug("/dev/card0", "226:0")
    tree.plug("/dev/card0-render129", "226:129")
    tree.plug("/dev/card0-render128", "226:128")
    spec = build_source("/dev/card?", nodes=(build_node_spec("/dev/${name}-render*", as_="/dev/dri/renderD${index}"),))
    [device] = list_devices(discover_sources(tree, spec))
    assert [device_node.container_path for device_node in device.nodes] == [
        "/dev/dri/renderD128",
        "/dev/dri/renderD129",
    ]


def test_attribute_value_is_literal_in_a_glob(tree: NodeTree) -> None:
    tree.plug("/dev/x[1]", "240:1")
    tree.plug("/dev/x[1]a", "240:2")
    tree.plug("/dev/x1a", "240:3")
    spec = build_source("/dev/x[[]1]", nodes=(build_node_spec("${path}?"),))
    [device] = list_devices(discover_sources(tree, spec))
    assert [device_node.path for device_node in device.nodes] == ["/dev/x[1]a"]


def test_missing_companion_is_a_fault_unless_it_is_optional(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    required = build_source("/dev/x?", companions=(build_node_spec("/dev/ctl"),))
    [device] = list_devices(discover_sources(tree, required))
    assert device.faults == ("companion /dev/ctl does not exist",)
    optional = build_source("/dev/x?", companions=(build_node_spec("/dev/ctl", optional=True),))
    [device] = list_devices(discover_sources(tree, optional))
    assert device.faults == ()
    assert device.companions == ()


def test_each_fault_of_nodes_is_reported(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/y", "240:1")
    tree.plug("/dev/z", "240:2")
    tree.make_directory("/dev/dir")
    spec = build_source(
        "/dev/x?",
        nodes=(
            build_node_spec("/dev/missing"),
            build_node_spec("/dev/no*"),
            build_node_spec("/dev/dir"),
            build_node_spec("relative/${name}"),
            build_node_spec("relative/*"),
            build_node_spec("/dev/${target}"),
            build_node_spec("/dev/y", as_="y"),
            build_node_spec("/dev/y", as_="/dev/one"),
            build_node_spec("/dev/z", as_="/dev//one/"),
            build_node_spec("/dev/maybe", optional=True),
            build_node_spec("/dev/maybe*", optional=True),
        ),
    )
    [device] = list_devices(discover_sources(tree, spec))
    assert device.faults == (
        "/dev/missing does not exist",
        "nothing matches /dev/no* (devices.yaml:5:7)",
        "/dev/dir is a directory, not a device node",
        "'relative/x0' is not an absolute path (devices.yaml:5:7)",
        "a path at devices.yaml:5:7 renders to an invalid glob: a glob must be an absolute path",
        "a path at devices.yaml:5:7 refers to 'target', which the device does not have",
        "the container path 'y' of /dev/y is not an absolute path (devices.yaml:5:7)",
        "/dev/y and /dev/z both map to /dev/one in the container",
    )


def test_directory_among_the_matches_of_a_glob_is_ignored(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    tree.plug("/dev/snd/timer", "116:33")
    tree.make_directory("/dev/snd/by-path")
    tree.make_directory("/dev/empty/by-path")
    spec = build_source("/dev/x?", nodes=(build_node_spec("/dev/snd/*"), build_node_spec("/dev/empty/*")))
    [device] = list_devices(discover_sources(tree, spec))
    assert [node.path for node in device.nodes] == ["/dev/snd/timer"]
    assert device.faults == ("nothing matches /dev/empty/* (devices.yaml:5:7)",)


def test_device_without_nodes_is_faulty(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    spec = build_source("/dev/x?", nodes=(build_node_spec("/dev/maybe", optional=True),))
    [device] = list_devices(discover_sources(tree, spec))
    assert device.faults == ("none of its device nodes exists",)


def test_device_that_gives_nothing_is_faulty(tree: NodeTree) -> None:
    tree.make_directory("/dev/x0")
    found = discover_sources(tree, build_source("/dev/x0", type=CandidateType.ANY))
    [device] = list_devices(found)
    assert device.faults == (
        "/dev/x0 is a directory, not a device node, and 'allocate' is empty: a container would get nothing",
    )


def test_companion_that_is_the_node_itself_is_ignored(tree: NodeTree) -> None:
    tree.plug("/dev/x0", "240:0")
    spec = build_source("/dev/x?", companions=(build_node_spec("/dev/x0", permissions="rwm"),))
    [device] = list_devices(discover_sources(tree, spec))
    assert device.companions == ()
    assert [device_node.permissions for device_node in device.nodes] == ["rw"]
    assert device.faults == ()


def test_template_of_allocate_without_a_value_is_a_fault(tree: NodeTree) -> None:
    tree.plug("/dev/x", "240:0")
    tree.plug("/dev/x1", "240:1")
    env = {"A": "${index}", "B": "${index} again", "C": "${index|default:none}", "D": "${target|default:}"}
    faulty, sound = list_devices(
        discover(build_config(build_resource(NAME, build_source("/dev/x*"), env=env)), tree.host)
    )
    assert faulty.faults == ("allocate.env A refers to 'index', which the device does not have",)
    assert sound.faults == ()
