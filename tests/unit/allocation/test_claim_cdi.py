"""CDI files of claims: valid under the schema, with a device of its own name for each result."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.allocation.cdi_spec import is_ours
from genplug.allocation.claim_cdi import claim_file_name, parse_claim_file_name, render_claim
from genplug.allocation.claims import ClaimGrant, DeviceEdits, DeviceResult
from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.allocation.offer import Grant, ResourceOffer
from tests.support.allocation import build_resource
from tests.support.claims import DRIVER, POOL, refer
from tests.unit.allocation.test_cdi_spec import parse_spec

UID = refer(1).uid
OFFER = ResourceOffer(build_resource())
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?\Z")
"""The names of devices that container runtimes accept (container-device-interface, ``ValidateDeviceName``)."""
NO_EDITS = ContainerEdits()
NODE = NodeEdit("/dev/x0", "/dev/x0", "rw", numbers=("char", 240, 1))


def edit(device: str, request: str = "gpu", edits: ContainerEdits = NO_EDITS, pool: str = POOL) -> DeviceEdits:
    return DeviceEdits(ClaimGrant(DeviceResult(request, pool, device), OFFER, Grant(device, (), healthy=True)), edits)


def test_file_has_a_device_for_each_result_with_its_edits_and_variables() -> None:
    env = (("DEVICES", "x0,x1"), ("EMPTY", ""))
    mount = MountEdit("/opt/lib", "/lib/x", read_only=True)
    first = ContainerEdits(env=env, nodes=(NODE,), cdi_devices=("other.example/part=a",), supplemental_groups=(44,))
    second = ContainerEdits(env=env, mounts=(mount,), annotations=(("a", "b"),))
    rendered = render_claim(DRIVER, UID, [edit("x0", "first/small", first), edit("x1", edits=second), edit("x2")])
    spec = parse_spec(rendered.text)
    assert (spec["kind"], spec["cdiVersion"]) == ("genplug.io/claim", "0.7.0")
    assert spec["devices"] == [
        {
            "name": f"{UID}-first-small-x0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/x0", "type": "c", "major": 240, "minor": 1, "permissions": "rw"}],
                "additionalGids": [44],
                "env": ["DEVICES=x0,x1", "EMPTY="],
            },
        },
        {
            "name": f"{UID}-gpu-x1",
            "containerEdits": {
                "mounts": [
                    {
                        "hostPath": "/opt/lib",
                        "containerPath": "/lib/x",
                        "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
                    }
                ],
                "env": ["DEVICES=x0,x1", "EMPTY="],
            },
        },
        {
            "name": f"{UID}-gpu-x2",
            "containerEdits": {"env": [f"GENPLUG_CDI_DEVICE=genplug.io/claim={UID}-gpu-x2"]},
        },
    ]
    assert rendered.names == (
        (f"genplug.io/claim={UID}-first-small-x0", "other.example/part=a"),
        (f"genplug.io/claim={UID}-gpu-x1",),
        (f"genplug.io/claim={UID}-gpu-x2",),
    )


def test_claim_without_devices_has_no_file() -> None:
    rendered = render_claim(DRIVER, UID, [])
    assert (rendered.text, rendered.names) == (None, ())


def test_results_whose_names_would_be_equal_get_numbers() -> None:
    devices = [edit("b-c", "a"), edit("c", "a-b"), edit("c", "a/b"), edit("b-c", "a", pool="other"), edit("b-c-2", "a")]
    names = render_claim(DRIVER, UID, devices).names
    labels = [name.removeprefix(f"genplug.io/claim={UID}-") for (name,) in names]
    assert labels == ["a-b-c", "a-b-c-2", "a-b-c-3", "a-b-c-4", "a-b-c-2-2"]


_LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)


@settings(deadline=None)
@given(st.lists(st.tuples(_LABELS, st.one_of(_LABELS, st.builds("{}/{}".format, _LABELS, _LABELS))), max_size=12))
def test_names_are_valid_and_unique_for_any_results(results: list[tuple[str, str]]) -> None:
    names = render_claim(DRIVER, UID, [edit(device, request) for device, request in results]).names
    labels = [name.removeprefix("genplug.io/claim=") for (name,) in names]
    assert len(set(labels)) == len(results)
    assert all(map(LABEL.match, labels))


def test_driver_whose_name_starts_with_a_digit_gets_a_valid_kind() -> None:
    rendered = render_claim("1.example", UID, [edit("x0")])
    assert re.fullmatch(r"x1\.example/claim-[a-z2-7]{6}", parse_spec(rendered.text)["kind"])
    assert rendered.names[0][0].startswith("x1.example/claim-")


def test_file_name_is_that_of_the_claim_and_not_of_a_resource() -> None:
    name = claim_file_name(DRIVER, UID)
    assert name == f"dra_genplug.io_{UID}.json"
    assert parse_claim_file_name(DRIVER, name) == UID
    # Releases without claims remove the files that they take for their own.
    assert not is_ours(name)


@pytest.mark.parametrize(
    "name", ["dra_other.example_u.json", "dra_genplug.io_u.new", "genplug-a.example_x.json", "genplug.io_u.json"]
)
def test_other_file_is_not_that_of_a_claim(name: str) -> None:
    assert parse_claim_file_name(DRIVER, name) is None
