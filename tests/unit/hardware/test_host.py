"""The host: stat, symlinks under any root, globs, and the directories that a result depends on."""

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
from tests.support.hardware import NodeTree, open_tree


def list_paths(tree: NodeTree, pattern: str) -> tuple[str, ...]:
    return tree.host.glob(Glob.parse(pattern)).paths


def list_directories(tree: NodeTree, pattern: str) -> set[str]:
    return set(tree.host.glob(Glob.parse(pattern)).directories)


def test_stand_in_has_the_kind_and_numbers_of_its_text(tree: NodeTree) -> None:
    tree.write("/dev/a", "char 195:3\n")
    tree.write("/dev/b", "block 7:0")
    assert tree.host.stat("/dev/a") == PathInfo.of("/dev/a", Kind.CHAR, 195, 3)
    assert tree.host.stat("/dev/b") == PathInfo.of("/dev/b", Kind.BLOCK, 7, 0)


@pytest.mark.parametrize("text", ["", "char", "char 1", "char 1:2:3", "fifo 1:2", "char 1:2 and more" * 20, "\0"])
def test_file_with_other_text_is_a_regular_file(tree: NodeTree, text: str) -> None:
    tree.write("/dev/a", text)
    assert tree.host.stat("/dev/a") == PathInfo.of("/dev/a", Kind.FILE)


def test_stand_in_without_the_marker_is_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("char 1:3")
    assert Host.at(tmp_path).stat("/a") == PathInfo.of("/a", Kind.FILE)


def test_stand_ins_are_disabled_under_the_real_root(tmp_path: Path) -> None:
    link = tmp_path / "also-the-root"
    link.symlink_to("/")
    assert not Host.at(Path("/")).stand_ins
    assert not Host.at(link).stand_ins
    with pytest.raises(ValueError, match="other than /"):
        Host(link, stand_ins=True)


@pytest.mark.root
def test_stat_returns_the_numbers_of_a_real_node(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    host = Host.at(tmp_path)
    assert host.stat("/null") == PathInfo.of("/null", Kind.CHAR, 1, 3)
    assert host.stat("/disk") == PathInfo.of("/disk", Kind.BLOCK, 259, 70000)


def test_null_device_is_found_under_the_real_root() -> None:
    host = Host()
    assert host.stat("/dev/null") == PathInfo.of("/dev/null", Kind.CHAR, 1, 3)
    assert host.process_path("/dev/null") == Path("/dev/null")
    assert host.glob(Glob.parse("/dev/nul[l]")).paths == ("/dev/null",)


def test_stat_distinguishes_all_kinds_of_files(tree: NodeTree) -> None:
    tree.make_directory("/dev/dir")
    tree.write("/dev/file")
    os.mkfifo(tree.at("/dev/fifo"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree.at("/dev/sock")))
        kinds = {
            name: info.kind for name in tree.host.list_directory("/dev") if (info := tree.host.stat(f"/dev/{name}"))
        }
    assert kinds == {"dir": Kind.DIRECTORY, "fifo": Kind.FIFO, "file": Kind.FILE, "sock": Kind.SOCKET}


def test_symlink_is_resolved_under_the_root(tree: NodeTree) -> None:
    tree.plug("/dev/ttyUSB0", "188:0")
    tree.link("/dev/absolute", "/dev/ttyUSB0")
    tree.link("/dev/serial/by-id/relative", "../../ttyUSB0")
    tree.link("/dev/serial/climbing", "../../../../../../dev/ttyUSB0")
    tree.link("/dev/twice", "serial/by-id/relative")
    tree.link("/serial", "/dev/serial")
    expected = PathInfo.of("/dev/ttyUSB0", Kind.CHAR, 188, 0)
    for path in ("/dev/absolute", "/dev/serial/by-id/relative", "/dev/serial/climbing", "/dev/twice"):
        assert tree.host.stat(path) == expected, path
    assert tree.host.stat("/serial/by-id/relative") == expected
    assert tree.host.process_path("/serial/by-id/relative") == tree.at("/dev/ttyUSB0")


def test_process_path_resolves_the_part_of_a_path_that_exists(tree: NodeTree) -> None:
    tree.make_directory("/var/run2")
    tree.link("/run2", "/var/run2")
    tree.link("/dangling", "/var/run3")
    assert tree.host.process_path("/run2/new/file") == tree.at("/var/run2/new/file")
    assert tree.host.process_path("/dangling") == tree.at("/dangling")
    assert tree.host.process_path("/") == tree.root


def test_symlink_does_not_leave_the_root(tree: NodeTree) -> None:
    tree.link("/dev/null", "/etc/hostname")
    assert tree.host.stat("/dev/null") is None


def test_missing_path_has_a_reason(tree: NodeTree) -> None:
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


def test_glob_returns_paths_in_natural_order(tree: NodeTree) -> None:
    for number in (10, 2, 1, 20):
        tree.plug(f"/dev/nvidia{number}")
    tree.plug("/dev/nvidiactl")
    assert list_paths(tree, "/dev/nvidia[0-9]*") == ("/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia10", "/dev/nvidia20")
    assert list_paths(tree, "/dev/{nvidiactl,nvidia1,nothing}") == ("/dev/nvidia1", "/dev/nvidiactl")


def test_glob_does_not_match_hidden_names(tree: NodeTree) -> None:
    tree.plug("/dev/.hidden")
    assert list_paths(tree, "/dev/*") == ()
    assert list_paths(tree, "/dev/.h*") == ("/dev/.hidden",)


def test_glob_follows_symlinked_directories_except_for_double_stars(tree: NodeTree) -> None:
    tree.plug("/dev/real/x")
    tree.link("/dev/alias", "real")
    tree.link("/dev/real/round", "..")
    assert list_paths(tree, "/dev/*/x") == ("/dev/alias/x", "/dev/real/x")
    assert list_paths(tree, "/dev/alias/*") == ("/dev/alias/round", "/dev/alias/x")
    assert list_paths(tree, "/dev/**/x") == ("/dev/real/x",)


def test_glob_finds_a_dangling_symlink(tree: NodeTree) -> None:
    tree.link("/dev/x", "gone")
    assert list_paths(tree, "/dev/x") == list_paths(tree, "/dev/?") == ("/dev/x",)


def test_glob_depends_on_the_directories_that_it_lists(tree: NodeTree) -> None:
    tree.plug("/dev/dri/card0")
    tree.make_directory("/dev/dri/by-path")
    assert list_directories(tree, "/dev/dri/card*") == {"/dev/dri"}
    assert list_directories(tree, "/dev/dri/card0") == {"/dev/dri"}
    assert list_directories(tree, "/dev/dri/**") == {"/dev/dri", "/dev/dri/by-path"}
    assert list_directories(tree, "/dev/**/card*") == {"/dev", "/dev/dri", "/dev/dri/by-path"}


def test_glob_depends_on_the_nearest_existing_directory(tree: NodeTree) -> None:
    assert list_directories(tree, "/dev/infiniband/uverbs*") == {"/dev"}
    assert list_directories(tree, "/run/a/b/c*") == {"/"}
    tree.write("/dev/infiniband", "a file, not a directory")
    assert list_directories(tree, "/dev/infiniband/uverbs*") == {"/dev"}


def test_glob_depends_on_the_directory_of_a_symlink(tree: NodeTree) -> None:
    tree.plug("/run/devices/x0")
    tree.link("/dev/mine", "/run/devices")
    assert list_directories(tree, "/dev/mine/x*") == {"/dev", "/run/devices"}


def test_stat_depends_on_the_directories_of_path_and_target(tree: NodeTree) -> None:
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
                dependencies = Dependencies()
                host.stat_tracked(path, dependencies)
                assert dependencies.directories == expected, path


def test_list_of_a_missing_directory_or_a_file_is_empty(tree: NodeTree) -> None:
    tree.write("/dev/file")
    assert tree.host.list_directory("/dev/missing") == tree.host.list_directory("/dev/file") == ()
    assert tree.host.list_directory("/") == (STAND_INS_MARKER, "dev")


names = st.sampled_from(["a", "b1", "b10", ".c", "d"])
segments = st.sampled_from(["*", "?", "b*", "[ab]*", "{a,d}", "**", "a", "b1", ".c", ".*"])


@given(
    files=st.lists(st.lists(names, min_size=1, max_size=3), max_size=8),
    pattern=st.lists(segments, min_size=1, max_size=4),
    is_cached=st.booleans(),
)
@settings(deadline=None)
def test_glob_finds_the_same_paths_as_a_match_on_all_paths(
    *, files: list[list[str]], pattern: list[str], is_cached: bool
) -> None:
    glob = Glob.parse("/" + "/".join(pattern))
    with open_tree(NodeTree) as tree:
        for parts in files:
            path = tree.at("/".join(parts))
            if not any(parent.is_file() for parent in path.parents) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        everything = ["/", *(f"/{path.relative_to(tree.root)}" for path in tree.root.rglob("*"))]
        host = tree.host.cached() if is_cached else tree.host
        found = set(host.glob(glob).paths)
        expected = {path for path in everything if glob.matches(path)}
        if pattern[-1] == "**" and len(pattern) > 1:
            # As in a shell, the path before '**' is a directory.
            before = Glob.parse("/" + "/".join(pattern[:-1]))
            expected -= {path for path in expected if before.matches(path) and tree.at(path).is_file()} - found
        assert found == expected


def test_inotify_reports_no_changes_in_mounted_sysfs_and_procfs(tree: NodeTree) -> None:
    assert tree.host.select_with_inotify(["/dev", "/sys/class"]) == ["/dev", "/sys/class"]
    assert os.path.ismount("/proc")
    assert Host().select_with_inotify(["/dev", "/", "/proc", "/proc/1", "/processes"]) == ["/dev", "/", "/processes"]
