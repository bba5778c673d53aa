"""CDI specs: valid under the schema of the specification, with the lowest sufficient version and a kind for each."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from msgspec.structs import replace
from referencing import Registry
from referencing.jsonschema import DRAFT7

from genplug.allocation.cdi_spec import as_cdi_reference, cdi_kind, file_name, is_ours, qualified_name, spec_text
from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.hardware.inventory import Kind
from genplug.spec.names import cdi_device_error, resource_name_error

SCHEMAS = Path(__file__).parent / "cdi"
NAME = "example.com/card"
PLAIN = ContainerEdits(nodes=(NodeEdit("/dev/x0", "/dev/x0", "rw"),))
RENAMED = ContainerEdits(nodes=(NodeEdit("/dev/ttyUSB3", "/dev/ttyDEV0", "rwm"),))
MOUNTED = ContainerEdits(
    env=(("A", "b"),),
    nodes=PLAIN.nodes,
    mounts=(MountEdit("/opt/lib", "/usr/lib/x", read_only=True), MountEdit("/var/x", "/var/x", read_only=False)),
)


def parse_spec(text: str | None) -> dict[str, Any]:
    """Return the content of a spec; assert that it is valid under the schema of the specification."""
    assert text is not None
    registry: Registry[Any] = Registry()
    for name in ("schema.json", "defs.json"):
        registry = registry.with_resource(name, DRAFT7.create_resource(json.loads((SCHEMAS / name).read_text())))
    content = json.loads(text)
    Draft7Validator(json.loads((SCHEMAS / "schema.json").read_text()), registry=registry).validate(content)
    return dict(content)


def test_spec_has_a_device_with_nodes_and_mounts_for_each_id() -> None:
    assert parse_spec(spec_text(NAME, {"x0": MOUNTED, "x1": ContainerEdits()})) == {
        "cdiVersion": "0.3.0",
        "kind": "example.com/card",
        "devices": [
            {
                "name": "x0",
                "containerEdits": {
                    "deviceNodes": [{"path": "/dev/x0", "permissions": "rw"}],
                    "mounts": [
                        {
                            "hostPath": "/opt/lib",
                            "containerPath": "/usr/lib/x",
                            "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
                        },
                        {
                            "hostPath": "/var/x",
                            "containerPath": "/var/x",
                            "options": ["rw", "nosuid", "nodev", "rbind", "rprivate"],
                        },
                    ],
                },
            },
            {"name": "x1", "containerEdits": {"env": ["GENPLUG_CDI_DEVICE=example.com/card=x1"]}},
        ],
    }


@pytest.mark.parametrize(
    ("devices", "version"),
    [({"x0": PLAIN}, "0.3.0"), ({"x0": PLAIN, "x1": RENAMED}, "0.5.0"), ({"0x": PLAIN}, "0.5.0")],
)
def test_spec_has_the_lowest_sufficient_version(devices: dict[str, ContainerEdits], version: str) -> None:
    assert parse_spec(spec_text(NAME, devices))["cdiVersion"] == version


def test_renamed_node_has_its_host_path() -> None:
    [device] = parse_spec(spec_text(NAME, {"x0": RENAMED}))["devices"]
    assert device["containerEdits"]["deviceNodes"] == [
        {"path": "/dev/ttyDEV0", "hostPath": "/dev/ttyUSB3", "permissions": "rwm"}
    ]


def test_node_has_its_type_and_numbers_so_that_the_runtime_creates_it_by_number() -> None:
    nodes = (
        NodeEdit("/dev/x0", "/dev/x0", "rw", numbers=(Kind.CHAR, 240, 0)),
        NodeEdit("/dev/sda", "/dev/disk", "r", numbers=(Kind.BLOCK, 8, 16)),
    )
    [device] = parse_spec(spec_text(NAME, {"x0": ContainerEdits(nodes=nodes)}))["devices"]
    assert device["containerEdits"]["deviceNodes"] == [
        {"path": "/dev/x0", "type": "c", "major": 240, "minor": 0, "permissions": "rw"},
        {"path": "/dev/disk", "hostPath": "/dev/sda", "type": "b", "major": 8, "minor": 16, "permissions": "r"},
    ]


def test_owner_group_and_mode_of_a_node_need_no_later_version() -> None:
    node = NodeEdit("/dev/x0", "/dev/x0", "rw", owner=0, group=44, mode=0o660, numbers=(Kind.CHAR, 240, 1))
    spec = parse_spec(spec_text(NAME, {"x0": ContainerEdits(nodes=(node,))}))
    assert spec["cdiVersion"] == "0.3.0"
    assert spec["devices"][0]["containerEdits"]["deviceNodes"] == [
        {
            "path": "/dev/x0",
            "type": "c",
            "major": 240,
            "minor": 1,
            "fileMode": 0o660,
            "uid": 0,
            "gid": 44,
            "permissions": "rw",
        }
    ]


def test_supplemental_groups_need_version_0_7() -> None:
    edits = replace(PLAIN, supplemental_groups=(44, 992))
    spec = parse_spec(spec_text(NAME, {"x0": edits}))
    assert spec["cdiVersion"] == "0.7.0"
    assert spec["devices"][0]["containerEdits"]["additionalGids"] == [44, 992]
    assert as_cdi_reference(edits, NAME, ("x0",)).supplemental_groups == ()


def test_spec_is_indented_for_readers_and_ends_with_a_newline() -> None:
    text = spec_text(NAME, {"x0": MOUNTED})
    assert text == json.dumps(parse_spec(text), indent=1) + "\n"


def test_spec_without_devices_is_none() -> None:
    assert spec_text(NAME, {}) is None


def test_cdi_reference_has_device_names_and_the_common_environment() -> None:
    edits = as_cdi_reference(MOUNTED, NAME, ("x0", "x1"))
    assert edits == ContainerEdits(env=(("A", "b"),), cdi_devices=("example.com/card=x0", "example.com/card=x1"))


NAMES = st.builds(
    "{}/{}".format,
    st.from_regex(r"[a-z0-9]{1,4}(\.[a-z0-9]{1,4}){0,2}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", fullmatch=True),
).filter(lambda name: not resource_name_error(name))


@given(NAMES)
def test_kind_of_any_resource_is_valid(name: str) -> None:
    assert cdi_device_error(qualified_name(name, "x0")) == ""
    assert "." not in cdi_kind(name).partition("/")[2]
    assert len(cdi_kind(name).partition("/")[2]) <= 63


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rdma/hca_1", "rdma/hca_1"),
        ("a1.io/b2", "a1.io/b2"),
        ("1.io/ab", "x1.io/ab-ej47bn"),
        ("a.io/4x", "a.io/x4x-lf3ozn"),
        ("a.io/X-_", "a.io/X-2qolx6"),
        ("a.io/b..c", "a.io/b-c-6hvsbr"),
        ("a.io/c", "a.io/c-d2gwdw"),
        ("a.io/" + "x" * 63, "a.io/" + "x" * 63),
        ("a.io/x." + "y" * 61, "a.io/x-" + "y" * 54 + "-vgrmdf"),
    ],
)
def test_kind_is_the_same_in_every_release(name: str, kind: str) -> None:
    assert cdi_kind(name) == kind


@given(NAMES, NAMES)
def test_kinds_and_file_names_of_different_resources_differ(first: str, second: str) -> None:
    assume(first != second)
    assert cdi_kind(first) != cdi_kind(second)
    assert file_name(first) != file_name(second)


def test_short_name_is_padded_for_old_runtimes() -> None:
    kind, device = qualified_name("example.com/x", "y").split("=")
    assert (len(kind.partition("/")[2]), len(device)) == (8, 8)
    assert parse_spec(spec_text("example.com/x", {"y": PLAIN}))["devices"][0]["name"] == device


@pytest.mark.parametrize("pair", [("a.io/b.c", "a.io/b-c"), ("a.io/b_c", "a.io_b/c"), ("1.io/x", "x1.io/x")])
def test_kinds_of_similar_names_differ(pair: tuple[str, str]) -> None:
    assert cdi_kind(pair[0]) != cdi_kind(pair[1])


def test_file_of_genplug_is_recognized_by_its_name() -> None:
    assert file_name("rdma/hca") == "genplug-rdma_hca.json"
    longest = f"{'a' * 185}/x"
    assert file_name(longest) == f"genplug-{'a' * 185}_x.json"
    assert file_name(f"{longest}x") == "genplug-x6uqmg.json"
    assert is_ours(file_name(f"{longest}x"))
    assert not is_ours("nvidia.json")
    assert not is_ours("genplug-rdma_hca.new")
