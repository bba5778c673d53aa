"""Edits of repeated requests: what is built once, what is checked each time, and the bounds of what is kept."""

import os
import stat
from itertools import product

import pytest

from genplug.allocation import kept_edits
from genplug.allocation.allocate import allocate_edits
from genplug.allocation.errors import AllocationError
from genplug.allocation.kept_edits import MAX_KEPT_CHARACTERS, KeptEdits
from genplug.allocation.offer import ResourceOffer
from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from tests.support.allocation import DeviceTree, build_mount_spec, build_resource, offer_devices


def request(kept: KeptEdits, offer: ResourceOffer, host: Host, *ids: str) -> object:
    """Return the edits, or the text of the error."""
    try:
        return kept.allocate(offer, ids, host, is_complete=False)
    except AllocationError as error:
        return str(error)


def test_repeated_request_returns_the_same_edits_after_a_stat_of_each_path(tree: DeviceTree) -> None:
    accesses: list[tuple[Access, str]] = []
    host = Host.at(tree.root, recorder=lambda access, path: accesses.append((access, path)))
    spec = build_resource(mounts=(build_mount_spec("/run/${name}", "/in", optional=True),))
    offer, kept = offer_devices(spec, *tree.make_healthy("x0", "x1")), KeptEdits()
    first = request(kept, offer, host, "x1")
    accesses.clear()
    assert request(kept, offer, host, "x1") is first
    assert {(Access.STAT, "/dev/x1"), (Access.STAT, "/run")} <= set(accesses)
    assert request(kept, offer, host, "x0") != first


def test_request_has_the_result_of_present_paths_in_each_order_of_changes(tree: DeviceTree) -> None:
    mounts = tuple(build_mount_spec(f"/opt/{name}", f"/in/{name}", optional=name == "a") for name in "ab")
    offer = offer_devices(build_resource(tokens=2, mounts=mounts), *tree.make_healthy("x0", "x1"))
    (token, _), kept = offer.grants, KeptEdits()
    paths = [tree.at(path) for path in ("/dev/x0", "/dev/x1", "/opt/a", "/opt/b")]
    tree.at("/opt").mkdir()
    results = set()
    states = list(product((True, False), repeat=len(paths)))
    for state in (*states, *reversed(states)):
        for path, exists in zip(paths, state, strict=True):
            if not exists:
                path.unlink(missing_ok=True)
            elif not path.exists():
                tree.plug(f"/dev/{path.name}") if path.parent.name == "dev" else path.touch()
        result = request(kept, offer, tree.host, token)
        try:
            expected: object = allocate_edits(offer, [token], tree.host)
        except AllocationError as error:
            expected = str(error)
        assert result == expected
        results.add(str(result))
    # With and without the optional mount for each set of devices; an error without devices, and one without /opt/b.
    assert len(results) == 8


def test_number_of_kept_requests_is_limited(tree: DeviceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_edits, "MAX_KEPT", 2)
    offer, kept = offer_devices(build_resource(), *tree.make_healthy("x0", "x1", "x2")), KeptEdits()
    first, second, third = (request(kept, offer, tree.host, f"x{number}") for number in range(3))
    assert request(kept, offer, tree.host, "x2") is third
    for name, discarded in (("x0", first), ("x1", second)):
        repeated = request(kept, offer, tree.host, name)
        assert repeated == discarded
        assert repeated is not discarded


def test_requests_for_several_devices_do_not_discard_requests_for_a_device(
    tree: DeviceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_edits, "MAX_KEPT", 1)
    offer, kept = offer_devices(build_resource(), *tree.make_healthy("x0", "x1", "x2")), KeptEdits()
    first = request(kept, offer, tree.host, "x0")
    pair = request(kept, offer, tree.host, "x0", "x1")
    assert request(kept, offer, tree.host, "x0") is first
    assert request(kept, offer, tree.host, "x0", "x1") is pair
    request(kept, offer, tree.host, "x1", "x2")
    assert request(kept, offer, tree.host, "x0", "x1") is not pair


@pytest.mark.parametrize(("length", "is_kept"), [(100, True), (MAX_KEPT_CHARACTERS, False)])
def test_only_edits_with_short_texts_are_kept(tree: DeviceTree, length: int, is_kept: bool) -> None:  # noqa: FBT001
    offer, kept = offer_devices(build_resource(env={"A": "a" * length}), *tree.make_healthy("x0")), KeptEdits()
    first = request(kept, offer, tree.host, "x0")
    assert (request(kept, offer, tree.host, "x0") is first) == is_kept


@pytest.mark.root
def test_repeated_request_for_a_real_node_examines_its_path_only(tree: DeviceTree) -> None:
    accesses: list[str] = []
    make_node(tree, "real", stat.S_IFCHR, 3)
    host = Host.at(tree.root, recorder=lambda _, path: accesses.append(path))
    offer, kept = offer_devices(build_resource(), *tree.make_healthy("real")), KeptEdits()
    assert not kept.depends_on_dev_only(["real"])
    first = request(kept, offer, host, "real")
    assert kept.depends_on_dev_only(["real"])
    accesses.clear()
    assert request(kept, offer, host, "real") is first
    assert accesses == ["/dev/real"]


@pytest.mark.root
def test_repeated_request_for_a_real_node_has_the_result_for_the_present_node(tree: DeviceTree) -> None:
    make_node(tree, "real", stat.S_IFCHR, 3)
    offer, kept = offer_devices(build_resource(), *tree.make_healthy("real")), KeptEdits()
    first = request(kept, offer, tree.host, "real")
    for kind, minor in ((stat.S_IFCHR, 5), (stat.S_IFBLK, 3)):
        make_node(tree, "real", kind, minor)
        assert "cannot be allocated" in str(request(kept, offer, tree.host, "real"))
    make_node(tree, "real", stat.S_IFCHR, 3)
    assert request(kept, offer, tree.host, "real") is first
    tree.at("/dev/real").rename(tree.at("/dev/moved"))
    assert "cannot be allocated" in str(request(kept, offer, tree.host, "real"))
    tree.at("/dev/real").symlink_to("moved")
    assert "host_path='/dev/moved'" in str(request(kept, offer, tree.host, "real"))


def make_node(tree: DeviceTree, name: str, kind: int, minor: int) -> None:
    path = tree.at(f"/dev/{name}")
    path.unlink(missing_ok=True)
    os.mknod(path, kind | 0o600, os.makedev(1, minor))
