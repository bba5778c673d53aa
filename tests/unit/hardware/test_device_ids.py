"""IDs of devices: labels that depend on nothing but the resource and the key of the device."""

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.device_ids import device_id, device_of_grant, replica_id, slice_id, token_ids, verbatim_error

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")

keys = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="aB0-_/.", max_size=20),
    st.from_regex(r"[a-z0-9]{1,12}(-(r[0-9]{1,3}|t[0-9]{1,3}|[a-z2-7]{6}))?", fullmatch=True),
)
resources = st.sampled_from(["a.example/x", "a.example/y", "b.example/x", "nvidia.com/gpu", "a-b.example/x_Y.z"])
numbers = st.integers(min_value=0, max_value=999_999)


@pytest.mark.parametrize(
    ("resource", "key", "is_node_name", "expected"),
    [
        ("nvidia.com/gpu", "nvidia0", True, "nvidia0"),
        ("a.example/kvm", "vhost-net", True, "vhost-net"),
        ("a.example/x", "x" * 48, True, "x" * 48),
        ("a.example/tty", "ttyUSB0", True, "ttyusb0-4ix74w"),
        ("a.example/tun", "net/tun", True, "net-tun-agt76h"),
        ("rdma/hca", "mlx5_0", False, "mlx5-0-at2x6m"),
        ("a.example/x", "/" + "a" * 48, False, "a" * 48 + "-4zmbsz"),
        ("a.example/x", "a" * 47 + "_b", False, "a" * 47 + "-qfkhd2"),
        ("a.example/x", "///", False, "device-ywhdzm"),
        # The path has a byte that is not UTF-8.
        ("a.example/x", "\udcff", False, "device-7f7222"),
    ],
)
def test_id_is_the_node_name_or_has_a_hash(resource: str, key: str, expected: str, *, is_node_name: bool) -> None:
    assert device_id(resource, key, is_node_name=is_node_name) == expected


def test_ids_of_tokens_have_a_hash_of_the_resource() -> None:
    assert token_ids("a.example/tun", 2) == ("a-example-tun-f5zlfr-t0", "a-example-tun-f5zlfr-t1")


@pytest.mark.parametrize("device", ["x0", "net-tun-agt76h", "0000:3b:01.0"])
def test_device_of_a_replica_or_slice_is_found(device: str) -> None:
    for grant in (device, replica_id(device, 12), slice_id(device, 0)):
        assert device_of_grant(grant) == device
    assert device_of_grant(f"{device}-t1") == f"{device}-t1"


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


@pytest.mark.parametrize("key", ["", "a b", "/dev/x", "-x", "x.", "ü", "x,y"])
def test_verbatim_id_with_other_characters_is_rejected(key: str) -> None:
    assert verbatim_error(key) == (
        "must consist of letters, digits, '-', '_', '.' and ':', with a letter or digit at both ends"
    )


@pytest.mark.parametrize("key", [replica_id("x", 1), slice_id("x", 1), "x-t0", "x-abcdef"])
def test_verbatim_id_that_looks_like_another_id_is_rejected(key: str) -> None:
    assert verbatim_error(key) == "ends with a suffix that genplug reserves for replicas, slices, tokens and hashes"


def test_verbatim_id_that_is_too_long_is_rejected() -> None:
    assert verbatim_error("x" * 49) == "has 49 characters, at most 48 are allowed"
