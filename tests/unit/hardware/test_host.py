"""The door to the node's files: looking, following symlinks under any root, finding what a glob matches."""

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import STAND_INS_MARKER, Host
from genplug.hardware.inventory import Kind, PathInfo
from genplug.spec.globs import Glob
from tests.support.hardware import NodeTree, node_tree


def find(tree: NodeTree, pattern: str) -> tuple[str, ...]:
    return tree.host.glob(Glob.parse(pattern)).paths


def directories(tree: NodeTree, pattern: str) -> set[str]:
    return set(tree.host.glob(Glob.parse(pattern)).directories)


def test_a_stand_in_is_the_device_that_its_text_says(tree: NodeTree) -> None:
    tree.write("/dev/a", "char 195:3\n")
    tree.write("/dev/b", "block 7:0")
    assert tree.host.stat("/dev/a") == PathInfo("/dev/a", Kind.CHAR, 195, 3)
    assert tree.host.stat("/dev/b") == PathInfo("/dev/b", Kind.BLOCK, 7, 0)


@pytest.mark.parametrize("text", ["", "char", "char 1", "char 1:2:3", "fifo 1:2", "char 1:2 and more" * 20, "\0"])
def test_a_file_that_says_anything_else_is_a_file(tree: NodeTree, text: str) -> None:
    tree.write("/dev/a", text)
    assert tree.host.stat("/dev/a") == PathInfo("/dev/a", Kind.FILE)


def test_without_the_marker_nothing_stands_for_a_device(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("char 1:3")
    assert Host.at(tmp_path).stat("/a") == PathInfo("/a", Kind.FILE)


def test_under_the_real_root_nothing_ever_stands_for_a_device(tmp_path: Path) -> None:
    link = tmp_path / "also-the-root"
    link.symlink_to("/")
    assert not Host.at(Path("/")).stand_ins
    assert not Host.at(link).stand_ins
    with pytest.raises(ValueError, match="other than /"):
        Host(link, stand_ins=True)


@pytest.mark.root
def test_a_real_node_has_the_kernels_numbers(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    host = Host.at(tmp_path)
    assert host.stat("/null") == PathInfo("/null", Kind.CHAR, 1, 3)
    assert host.stat("/disk") == PathInfo("/disk", Kind.BLOCK, 259, 70000)


def test_the_machines_own_null_device_is_seen_through_the_real_root() -> None:
    host = Host()
    assert host.stat("/dev/null") == PathInfo("/dev/null", Kind.CHAR, 1, 3)
    assert host.real_path("/dev/null") == Path("/dev/null")
    assert host.glob(Glob.parse("/dev/nul[l]")).paths == ("/dev/null",)


def test_every_kind_is_told_apart(tree: NodeTree) -> None:
    tree.directory("/dev/dir")
    tree.write("/dev/file")
    os.mkfifo(tree.at("/dev/fifo"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree.at("/dev/sock")))
        kinds = {
            name: look.kind for name in tree.host.list_directory("/dev") if (look := tree.host.stat(f"/dev/{name}"))
        }
    assert kinds == {"dir": Kind.DIRECTORY, "fifo": Kind.FIFO, "file": Kind.FILE, "sock": Kind.SOCKET}


def test_symlinks_stay_under_the_root_however_they_are_written(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB0", "188:0")
    tree.link("/dev/absolute", "/dev/ttyUSB0")
    tree.link("/dev/serial/by-id/relative", "../../ttyUSB0")
    tree.link("/dev/serial/climbing", "../../../../../../dev/ttyUSB0")
    tree.link("/dev/twice", "serial/by-id/relative")
    tree.link("/serial", "/dev/serial")
    expected = PathInfo("/dev/ttyUSB0", Kind.CHAR, 188, 0)
    for path in ("/dev/absolute", "/dev/serial/by-id/relative", "/dev/serial/climbing", "/dev/twice"):
        assert tree.host.stat(path) == expected, path
    assert tree.host.stat("/serial/by-id/relative") == expected
    assert tree.host.real_path("/serial/by-id/relative") == tree.at("/dev/ttyUSB0")


def test_a_link_out_of_the_root_does_not_lead_out(tree: NodeTree) -> None:
    tree.link("/dev/null", "/etc/hostname")
    assert tree.host.stat("/dev/null") is None


def test_what_cannot_be_seen_is_not_there_and_the_reason_can_be_asked(tree: NodeTree) -> None:
    tree.link("/dev/round", "round-again")
    tree.link("/dev/round-again", "round")
    tree.link("/dev/nowhere", "/dev/ttyUSB9")
    tree.write("/dev/file")
    reasons = {
        "/dev/missing": "does not exist",
        "/dev/file/below": "does not exist",
        "/dev/nowhere": "is a symlink to /dev/ttyUSB9, which does not exist",
        "/dev/round": "is a symlink loop",
        "/dev/nul\0": "is not a valid path",
        "/dev/" + "x" * 300: "cannot be accessed: File name too long",
        "/dev/file": "",
    }
    assert {path: tree.host.missing_reason(path) for path in reasons} == reasons
    assert {path for path in reasons if tree.host.exists(path)} == {"/dev/file"}


def test_a_glob_finds_paths_in_natural_order(tree: NodeTree) -> None:
    for number in (10, 2, 1, 20):
        tree.plug(f"/dev/nvidia{number}")
    tree.plug("/dev/nvidiactl")
    assert find(tree, "/dev/nvidia[0-9]*") == ("/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia10", "/dev/nvidia20")
    assert find(tree, "/dev/{nvidiactl,nvidia1,nothing}") == ("/dev/nvidia1", "/dev/nvidiactl")


def test_a_glob_does_not_match_hidden_names(tree: NodeTree) -> None:
    tree.plug("/dev/.hidden")
    assert find(tree, "/dev/*") == ()
    assert find(tree, "/dev/.h*") == ("/dev/.hidden",)


def test_a_glob_goes_through_symlinked_directories_but_two_stars_do_not(tree: NodeTree) -> None:
    tree.plug("/dev/real/x")
    tree.link("/dev/alias", "real")
    tree.link("/dev/real/round", "..")
    assert find(tree, "/dev/*/x") == ("/dev/alias/x", "/dev/real/x")
    assert find(tree, "/dev/alias/*") == ("/dev/alias/round", "/dev/alias/x")
    assert find(tree, "/dev/**/x") == ("/dev/real/x",)


def test_a_link_that_leads_nowhere_is_found(tree: NodeTree) -> None:
    tree.link("/dev/x", "gone")
    assert find(tree, "/dev/x") == find(tree, "/dev/?") == ("/dev/x",)


def test_the_directories_that_matter_are_those_that_were_listed(tree: NodeTree) -> None:
    tree.plug("/dev/dri/card0")
    tree.directory("/dev/dri/by-path")
    assert directories(tree, "/dev/dri/card*") == {"/dev/dri"}
    assert directories(tree, "/dev/dri/card0") == {"/dev/dri"}
    assert directories(tree, "/dev/dri/**") == {"/dev/dri", "/dev/dri/by-path"}
    assert directories(tree, "/dev/**/card*") == {"/dev", "/dev/dri", "/dev/dri/by-path"}


def test_where_a_patterns_directory_is_missing_the_nearest_existing_one_matters(tree: NodeTree) -> None:
    assert directories(tree, "/dev/infiniband/uverbs*") == {"/dev"}
    assert directories(tree, "/run/a/b/c*") == {"/"}
    tree.write("/dev/infiniband", "a file, not a directory")
    assert directories(tree, "/dev/infiniband/uverbs*") == {"/dev"}


def test_where_a_directory_is_reached_by_a_symlink_the_links_directory_matters_too(tree: NodeTree) -> None:
    tree.plug("/run/devices/x0")
    tree.link("/dev/mine", "/run/devices")
    assert directories(tree, "/dev/mine/x*") == {"/dev", "/run/devices"}


def test_a_look_names_the_directories_that_decide_it(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB0")
    tree.link("/dev/serial/by-id/there", "../../ttyUSB0")
    tree.link("/dev/serial/by-id/lost", "../../bus/usb/1")
    for host in (tree.host, tree.host.cached()):
        for path, expected in (
            ("/dev/serial/by-id/there", {"/dev/serial/by-id", "/dev"}),
            ("/dev/serial/by-id/lost", {"/dev/serial/by-id", "/dev"}),
            ("/dev/ttyUSB0", {"/dev"}),
            ("/proc/nothing/here", {"/"}),
        ):
            for _ in range(2):
                around = Dependencies()
                host.stat_tracked(path, around)
                assert around.directories == expected, path


def test_a_listing_of_nothing_is_empty(tree: NodeTree) -> None:
    tree.write("/dev/file")
    assert tree.host.list_directory("/dev/missing") == tree.host.list_directory("/dev/file") == ()
    assert tree.host.list_directory("/") == (STAND_INS_MARKER, "dev")


names = st.sampled_from(["a", "b1", "b10", ".c", "d"])
segments = st.sampled_from(["*", "?", "b*", "[ab]*", "{a,d}", "**", "a", "b1", ".c", ".*"])


@given(
    files=st.lists(st.lists(names, min_size=1, max_size=3), max_size=8),
    pattern=st.lists(segments, min_size=1, max_size=4),
    remembers=st.booleans(),
)
@settings(deadline=None)
def test_a_glob_finds_exactly_the_paths_whose_text_matches(
    *, files: list[list[str]], pattern: list[str], remembers: bool
) -> None:
    glob = Glob.parse("/" + "/".join(pattern))
    with node_tree() as tree:
        for parts in files:
            path = tree.at("/".join(parts))
            if not any(parent.is_file() for parent in path.parents) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        everything = ["/", *(f"/{path.relative_to(tree.root)}" for path in tree.root.rglob("*"))]
        host = tree.host.cached() if remembers else tree.host
        found = set(host.glob(glob).paths)
        expected = {path for path in everything if glob.matches(path)}
        if pattern[-1] == "**" and len(pattern) > 1:
            # As in a shell, what stands before '**' is a directory.
            before = Glob.parse("/" + "/".join(pattern[:-1]))
            expected -= {path for path in expected if before.matches(path) and tree.at(path).is_file()} - found
        assert found == expected
