"""The wanted slices of a node: names, chunks and JSON."""

import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.published import PublishedDevice, PublishedResource, Taint, Version
from genplug.allocation.slice_plan import find_dropped_fields, plan_writes
from genplug.allocation.slices import (
    ActualSlice,
    SliceScope,
    WantedPool,
    build_pool,
    device_document,
    digest_devices,
    pool_name,
    read_slice,
    slice_document,
    slice_name,
)

SCOPE = SliceScope("genplug.io", "node-1", "uid-1")
LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})*")


def text_with_ends(characters: str, ends: str, max_size: int) -> st.SearchStrategy[str]:
    """Return texts that begin and end with a letter or digit."""
    text = st.text(characters, min_size=1, max_size=max_size).map(lambda found: found.strip("-_."))
    return text.map(lambda found: found or ends)


def subdomains(max_size: int) -> st.SearchStrategy[str]:
    parts = st.lists(text_with_ends("abz059-", "a", 63), min_size=1, max_size=6)
    return parts.map(lambda found: ".".join(found)[:max_size].rstrip("-."))


nodes, drivers = subdomains(253), subdomains(63)
resources = st.tuples(subdomains(30), text_with_ends("abZ7-_.", "X", 33)).map("/".join)


def published(count: int, resource: str = "example.com/x", model: str = "a") -> PublishedResource:
    return PublishedResource(
        resource, tuple(PublishedDevice(f"x{number}", f"x{number}", {"model": model}, {}) for number in range(count))
    )


@given(driver=drivers, node=nodes, resource=resources, number=st.integers(0, 999))
def test_names_of_pool_and_slices_are_valid_for_every_resource_and_node(
    driver: str, node: str, resource: str, number: int
) -> None:
    pool = pool_name(node, resource)
    assert len(pool) <= 253
    assert all(SUBDOMAIN.fullmatch(part) for part in pool.split("/"))
    name = slice_name(SliceScope(driver, node, ""), pool, number)
    assert len(name) <= 253
    assert SUBDOMAIN.fullmatch(name)


@given(first=st.tuples(nodes, resources), second=st.tuples(nodes, resources))
def test_pools_of_different_resources_or_nodes_have_different_names(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert (pool_name(*first) == pool_name(*second)) == (first == second)


def test_pool_name_contains_node_and_resource() -> None:
    assert pool_name("node-1", "vendor.example/thing") == "node-1/vendor.example/thing"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("x", "x"),
        (63 * "a", 63 * "a"),
        ("Sriov_X", "sriov-x-dxnyys"),
        (f"A{54 * 'a'}_{7 * 'b'}", f"{55 * 'a'}-xfq4zd"),
        (f"A{62 * 'a'}", f"{56 * 'a'}-v6cay6"),
    ],
)
def test_pool_name_of_a_resource_is_the_same_in_every_release(name: str, label: str) -> None:
    assert pool_name("n", f"example.com/{name}") == f"n/example.com/{label}"


def test_slice_name_is_the_same_in_every_release() -> None:
    assert slice_name(SCOPE, "node-1/example.com/x", 7) == "genplug.io-node-1-7zkvoa2hjocb-007"


@pytest.mark.parametrize(
    ("node", "kept"),
    [
        (239 * "a", 239 * "a"),
        (240 * "a", f"{226 * 'a'}-wku5cyhcveju"),
        (f"-{223 * 'a'}-.{15 * 'b'}", f"-{223 * 'a'}-ypfdknqfjhre"),
    ],
)
def test_name_of_a_node_is_shortened_only_if_the_pool_name_is_too_long(node: str, kept: str) -> None:
    assert pool_name(node, "example.com/x") == f"{kept}/example.com/x"


def test_name_of_a_slice_has_as_much_of_the_node_as_is_allowed() -> None:
    scope = SliceScope(f"{53 * 'd'}.example.io", 253 * "a", "")
    name = slice_name(scope, "pool", 0)
    assert len(name) == 253
    assert name.startswith(f"{scope.driver}-{150 * 'a'}")


def test_resource_that_is_not_a_label_gets_a_hash() -> None:
    names = {pool_name("n", f"example.com/{name}") for name in ("Sriov_X", "sriov_x", "sriov.x", "sriov-x")}
    assert len(names) == 4
    assert "n/example.com/sriov-x" in names
    assert all(re.fullmatch(r"n/example\.com/sriov-x(-[a-z2-7]{6})?", name) for name in names)


def test_label_that_ends_like_a_hash_gets_another_hash() -> None:
    hashed = pool_name("n", "example.com/Sriov_X").rpartition("/")[2]
    assert pool_name("n", f"example.com/{hashed}") != pool_name("n", "example.com/Sriov_X")


def test_long_names_of_nodes_are_cut_and_differ() -> None:
    first, second = (pool_name("a" * 250 + end, "example.com/x") for end in "bc")
    assert first != second
    assert len(first) == 253
    assert slice_name(SCOPE, first, 0) != slice_name(SCOPE, second, 0)


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (64, [64]), (65, [64, 1]), (130, [64, 64, 2])])
def test_devices_are_cut_into_slices_of_64_in_their_order(count: int, sizes: list[int]) -> None:
    resource = published(count)
    pool = build_pool(resource, SCOPE)
    assert pool.resource == "example.com/x"
    assert [len(part.devices) for part in pool.slices] == sizes
    assert tuple(device for part in pool.slices for device in part.devices) == resource.devices
    assert [part.name for part in pool.slices] == sorted(part.name for part in pool.slices)


def test_slices_with_the_same_devices_are_reused() -> None:
    pool = build_pool(published(130), SCOPE)
    devices = published(130).devices
    changed = (*devices[:-1], replace(devices[-1], attributes={"model": "b"}))
    following = build_pool(PublishedResource("example.com/x", changed), SCOPE, pool)
    assert [new is old for new, old in zip(following.slices, pool.slices, strict=True)] == [True, True, False]
    assert following.slices[2].content != pool.slices[2].content


@pytest.mark.parametrize(("old", "new"), [(1, True), (True, 1), (0, False)])
def test_attribute_that_changes_between_bool_and_int_is_a_change(old: int, new: int) -> None:
    def build(value: int, previous: WantedPool | None = None) -> WantedPool:
        device = PublishedDevice("x0", "x0", {"value": value}, {})
        return build_pool(PublishedResource("example.com/x", (device,)), SCOPE, previous)

    previous = build(old)
    assert build(old, previous) is previous
    following = build(new, previous)
    assert following.slices[0].content == build(new).slices[0].content != previous.slices[0].content


def test_slice_of_the_server_has_the_number_of_its_devices_and_of_those_with_taints() -> None:
    devices = (*published(2).devices, PublishedDevice("y", "y", {}, {}, (Taint("a", "", "NoSchedule"),)))
    pool = build_pool(PublishedResource("example.com/x", devices), SCOPE)
    document = slice_document(SCOPE, pool, pool.slices[0], 1, uid="u", resource_version="7")
    assert (read_slice(document).devices, read_slice(document).tainted) == (3, 1)


def test_slice_is_read_with_all_its_fields() -> None:
    pool = build_pool(published(2), SCOPE)
    document = slice_document(SCOPE, pool, pool.slices[0], 3, uid="u", resource_version="7")
    expected = ActualSlice(
        name=pool.slices[0].name,
        uid="u",
        resource_version="7",
        driver="genplug.io",
        node="node-1",
        pool="node-1/example.com/x",
        generation=3,
        count=1,
        content=pool.slices[0].content,
        owners=("uid-1",),
        writer="",
        devices=2,
        tainted=0,
    )
    assert read_slice(document) == expected
    del document["spec"]["nodeName"]
    assert read_slice(document) == replace(expected, node="")


def test_new_slice_has_neither_a_uid_nor_a_version() -> None:
    pool = build_pool(published(1), SCOPE)
    assert set(slice_document(SCOPE, pool, pool.slices[0], 1)["metadata"]) == {"name", "ownerReferences"}
    metadata = slice_document(SCOPE, pool, pool.slices[0], 1, uid="u")["metadata"]
    assert (metadata["uid"], metadata["resourceVersion"]) == ("u", "")


@pytest.mark.parametrize(
    ("entries", "writer"),
    [
        ([], ""),
        ([{"time": "2026-01-01T00:00:00Z"}], ""),
        ([{"manager": "a", "time": "2026-01-02"}, {"manager": "b", "time": "2026-01-01"}, {"manager": "c"}], "a"),
        ([{"manager": "a", "time": "2026-01-02"}, {"manager": "b", "time": "2026-01-02"}], "b"),
    ],
)
def test_writer_is_the_manager_with_the_latest_time(entries: list[dict[str, str]], writer: str) -> None:
    pool = build_pool(published(1), SCOPE)
    document = slice_document(SCOPE, pool, pool.slices[0], 1, uid="u", resource_version="7")
    document["metadata"]["managedFields"] = entries
    assert read_slice(document).writer == writer


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    first = {"name": "x0", "attributes": {"a": {"int": 1}, "b": {"int": 2}}}
    second = {"attributes": {"b": {"int": 2}, "a": {"int": 1}}, "name": "x0"}
    assert digest_devices([first]) == digest_devices([second])


def test_digests_of_different_texts_that_are_not_quantities_differ() -> None:
    first, second = ({"name": "x0", "capacity": {"memory": {"value": text}}} for text in ("no", "other"))
    assert digest_devices([first]) != digest_devices([second])


def test_document_has_the_fields_of_the_api() -> None:
    device = PublishedDevice(
        "x0",
        "x0",
        {"model": "a", "ports": 2, "fast": True, "firmware": Version("1.2.3")},
        {"memory": "1Gi"},
        (Taint("genplug.io/unhealthy", "gone", "NoSchedule"),),
    )
    pool = build_pool(PublishedResource("example.com/x", (device,)), SCOPE)
    assert slice_document(SCOPE, pool, pool.slices[0], 3, uid="u", resource_version="7") == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {
            "name": pool.slices[0].name,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "uid-1", "controller": True}
            ],
            "uid": "u",
            "resourceVersion": "7",
        },
        "spec": {
            "driver": "genplug.io",
            "nodeName": "node-1",
            "pool": {"name": "node-1/example.com/x", "generation": 3, "resourceSliceCount": 1},
            "devices": [
                {
                    "name": "x0",
                    "attributes": {
                        "model": {"string": "a"},
                        "ports": {"int": 2},
                        "fast": {"bool": True},
                        "firmware": {"version": "1.2.3"},
                    },
                    "capacity": {"memory": {"value": "1Gi"}},
                    "taints": [{"key": "genplug.io/unhealthy", "value": "gone", "effect": "NoSchedule"}],
                }
            ],
        },
    }


def test_slice_of_the_server_is_equal_despite_its_own_fields_and_forms() -> None:
    taint = Taint("genplug.io/unhealthy", "", "NoSchedule")
    device = PublishedDevice("x0", "x0", {}, {"memory": "1024Mi"}, (taint,))
    pool = build_pool(PublishedResource("example.com/x", (device,)), SCOPE)
    document = slice_document(SCOPE, pool, pool.slices[0], 3, uid="u", resource_version="7")
    (answered,) = document["spec"]["devices"]
    answered["taints"][0] = {"key": taint.key, "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
    answered["capacity"]["memory"]["value"] = "1Gi"
    document["metadata"]["managedFields"] = [
        {"manager": "genplug", "time": "2026-01-01T00:00:00Z"},
        {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z"},
    ]
    actual = read_slice(document)
    assert actual.content == pool.slices[0].content
    assert (actual.pool, actual.generation, actual.count, actual.owners) == (pool.name, 3, 1, ("uid-1",))
    assert actual.writer == "kubectl-edit"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x1"},
        {"attributes": {"ports": {"int": 1}}},
        {"attributes": {"ports": {"string": "2"}}},
        {"capacity": {"memory": {"value": "2Gi"}}},
        {"capacity": {"memory": {"value": "no quantity"}}},
        {"taints": [{"key": "a", "effect": "NoExecute"}]},
        {"taints": []},
        {"allowMultipleAllocations": True},
    ],
)
def test_digest_differs_after_a_change_of_any_field(change: dict[str, object]) -> None:
    device = PublishedDevice("x0", "x0", {"ports": 2}, {"memory": "1Gi"}, (Taint("a", "", "NoSchedule"),))
    document = device_document(device)
    assert digest_devices([document]) != digest_devices([document | change])


def test_field_of_the_spec_that_genplug_never_sets_is_a_difference() -> None:
    pool = build_pool(published(1), SCOPE)
    document = slice_document(SCOPE, pool, pool.slices[0], 1, uid="u", resource_version="7")
    document["spec"]["allNodes"] = False
    assert read_slice(document).content == pool.slices[0].content
    document["spec"]["allNodes"] = True
    assert read_slice(document).content != pool.slices[0].content


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
PATHS = [
    ("metadata",),
    ("metadata", "ownerReferences"),
    ("metadata", "ownerReferences", 0),
    ("metadata", "managedFields"),
    ("spec",),
    ("spec", "pool"),
    ("spec", "pool", "generation"),
    ("spec", "devices"),
    ("spec", "devices", 0),
    ("spec", "devices", 0, "name"),
    ("spec", "devices", 0, "attributes"),
    ("spec", "devices", 0, "capacity"),
    ("spec", "devices", 0, "capacity", "memory"),
    ("spec", "devices", 0, "taints"),
    ("spec", "devices", 0, "taints", 0),
]


@example(path=("spec", "devices", 0, "name"), value=[])
@example(path=("spec", "pool", "generation"), value=math.inf)
@given(path=st.sampled_from(PATHS), value=values)
def test_any_value_in_an_object_is_read_or_an_error(path: tuple[str | int, ...], value: object) -> None:
    device = PublishedDevice("x0", "x0", {"ports": 2}, {"memory": "1Gi"}, (Taint("a", "", "NoSchedule"),))
    pool = build_pool(PublishedResource("example.com/x", (device,)), SCOPE)
    document: Any = slice_document(SCOPE, pool, pool.slices[0], 1, uid="u", resource_version="7")
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    try:
        actual = read_slice(document)
    except ValueError:
        return
    plan_writes([pool], [actual], SCOPE)
    find_dropped_fields([device], document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"metadata": None, "spec": {}},
        {"metadata": {"name": "a", "uid": "b", "resourceVersion": "1"}, "spec": {"driver": "d"}},
        {
            "metadata": {"name": "a", "uid": "b", "resourceVersion": "1"},
            "spec": {
                "driver": "d",
                "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
                "devices": ["text"],
            },
        },
    ],
)
def test_object_that_is_not_a_slice_is_an_error(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected a ResourceSlice"):
        read_slice(document)
