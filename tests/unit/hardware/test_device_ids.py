"""IDs of devices: labels that depend on nothing but the resource and the key of the device."""

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.device_ids import device_id, replica_id, slice_id, token_ids, verbatim_error

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")

keys = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="aB0-_/.", max_size=20),
    st.from_regex(r"[a-z0-9]{1,12}(-(r[0-9]{1,3}|t[0-9]{1,3}|[a-z2-7]{6}))?", fullmatch=True),
)
resources = st.sampled_from(["a.example/x", "a.example/y", "b.example/x", "nvidia.com/gpu", "a-b.example/x_Y.z"])
numbers = st.integers(min_value=0, max_value=999_999)


def test_id_is_the_node_name_or_has_a_hash() -> None:
    assert device_id("nvidia.com/gpu", "nvidia0", is_node_name=True) == "nvidia0"
    assert device_id("a.example/kvm", "vhost-net", is_node_name=True) == "vhost-net"
    assert device_id("a.example/tty", "ttyUSB0", is_node_name=True) == "ttyusb0-4ix74w"
    assert device_id("a.example/tun", "net/tun", is_node_name=True) == "net-tun-agt76h"
    assert device_id("rdma/hca", "mlx5_0", is_node_name=False) == "mlx5-0-at2x6m"


def test_id_of_a_key_other_than_a_node_name_has_a_hash() -> None:
    plain = device_id("a.example/x", "nvidia0", is_node_name=True)
    grouped = device_id("a.example/x", "nvidia0", is_node_name=False)
    elsewhere = device_id("a.example/y", "nvidia0", is_node_name=False)
    assert len({plain, grouped, elsewhere}) == 3


@pytest.mark.parametrize("key", ["a-r0", "a-r12", "a-t3", "a-abcdef", "a-234567", "x" * 49, "-a", "a-", "A", "a_b", ""])
def test_ambiguous_node_name_has_a_hash(key: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]*[a-z0-9]-[a-z2-7]{6}", device_id("a.example/x", key, is_node_name=True))


def test_id_depends_only_on_resource_and_key() -> None:
    assert list(inspect.signature(device_id).parameters) == ["resource", "key", "is_node_name"]


@given(resource=resources, key=keys, number=numbers, is_node_name=st.booleans())
def test_46_id_is_a_label_of_at_most_63_characters(*, resource: str, key: str, number: int, is_node_name: bool) -> None:
    id_ = device_id(resource, key, is_node_name=is_node_name)
    tokens = token_ids(resource, 3)
    for label in (id_, replica_id(id_, number), *tokens):
        assert LABEL.match(label), label
        assert len(label) <= 63
    assert len(token_ids("x" * 200 + "/" + "y" * 63, 1)[0]) <= 63


@given(st.lists(st.tuples(resources, keys, st.booleans()), min_size=2, max_size=12), numbers, numbers)
def test_ids_of_different_devices_differ(entries: list[tuple[str, str, bool]], first: int, second: int) -> None:
    # A device node has the same name for all resources, and only one resource gets it.
    owners: dict[str, str] = {}
    devices = set()
    for resource, key, is_node_name in entries:
        is_own = is_node_name and owners.setdefault(key, resource) == resource
        devices.add((resource, key, is_own))
    ids = {device_id(resource, key, is_node_name=own) for resource, key, own in devices}
    expected = {(r, k, own if device_id(r, k, is_node_name=True) == k else False) for r, k, own in devices}
    assert len(ids) == len(expected)
    replicas = {replica_id(id_, number) for id_ in ids for number in {first, second}}
    assert len(replicas) == len(ids) * len({first, second})
    tokens = {token for resource in {r for r, _, _ in devices} for token in token_ids(resource, 3)}
    assert len(tokens) == 3 * len({r for r, _, _ in devices})
    assert not ids & replicas
    assert not ids & tokens
    assert not replicas & tokens


def test_hash_is_distinct_from_replica_and_token_suffixes() -> None:
    # Without the rule, some of so many hashes would look like one by chance.
    hashed = (device_id("a.example/x", str(number), is_node_name=False) for number in range(100_000))
    assert not [id_ for id_ in hashed if re.search(r"-[rt]\d+\Z", id_)]


@pytest.mark.parametrize("key", ["0000:3b:01.0", "GPU-4cf8db2d", "a", "x" * 48, "mlx5_0"])
def test_key_of_another_tool_is_a_valid_verbatim_id(key: str) -> None:
    assert verbatim_error(key) == ""


@pytest.mark.parametrize(
    "key", ["", "x" * 49, "a b", "/dev/x", "-x", "x.", "ü", "x,y", replica_id("x", 1), slice_id("x", 1), "x-t0"]
)
def test_invalid_or_ambiguous_verbatim_id_is_rejected(key: str) -> None:
    assert verbatim_error(key) != ""
