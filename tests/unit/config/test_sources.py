"""Which files make a configuration, and that they are read as one consistent set."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, Diagnostics, ErrorCode
from genplug.config.files import nodes_of, read_files
from genplug.config.load import load
from genplug.testing.node.config_files import swap_config_map
from tests.support.configs import HEAD


def config(*names: str) -> str:
    """Return a configuration of these resources; a device each."""
    return (
        HEAD + "resources:\n" + "".join(f"  example.com/{one}: {{devices: [{{glob: /dev/{one}}}]}}\n" for one in names)
    )


def resources(*paths: Path, node_name: str | None = None) -> list[str]:
    return [name.removeprefix("example.com/") for name in load(paths, node_name).config.resources]


def refused(*paths: Path, node_name: str | None = None) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigInvalidError) as caught:
        load(paths, node_name)
    return caught.value.problems


def test_one_file_is_a_configuration_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_text(config("a"))
    assert resources(file) == ["a"]
    assert load([file]).directories == {tmp_path}


def test_the_files_of_a_directory_merge_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "20.yml").write_text("resources: {example.com/b: null, example.com/c: {devices: [{glob: /dev/c}]}}\n")
    (tmp_path / "10.yaml").write_text(config("a", "b"))
    (tmp_path / "30.json").write_text('{"resources": {"example.com/d": {"devices": [{"glob": "/dev/d"}]}}}')
    (tmp_path / "README.md").write_text("no configuration")
    (tmp_path / ".hidden.yaml").write_text("no configuration")
    (tmp_path / "40.yaml~").write_text("no configuration")
    assert resources(tmp_path) == ["a", "c", "d"]
    assert load([tmp_path]).directories == {tmp_path}
    assert load([tmp_path]).config.files == tuple(str(tmp_path / name) for name in ("10.yaml", "20.yml", "30.json"))


def test_several_paths_merge_in_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "z.yaml", tmp_path / "a"
    second.mkdir()
    first.write_text(config("a"))
    (second / "b.yaml").write_text("resources: {example.com/a: null, example.com/b: {devices: [{glob: /dev/b}]}}\n")
    assert resources(first, second) == ["b"]
    assert load([first, second]).directories == {tmp_path, second}


def test_a_nodes_own_file_merges_last_and_on_that_node_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("a"))
    (tmp_path / "z.yaml").write_text("resources: {example.com/z: {devices: [{glob: /dev/z}]}}\n")
    (tmp_path / "node.w1.example.com.yaml").write_text("resources: {example.com/z: null}\n")
    (tmp_path / "node.w2.yml").write_text("resources: {example.com/w2: {devices: [{glob: /dev/w2}]}}\n")
    assert resources(tmp_path) == ["a", "z"]
    assert resources(tmp_path, node_name="w1.example.com") == ["a"]
    assert resources(tmp_path, node_name="w2") == ["a", "z", "w2"]
    assert resources(tmp_path, node_name="w3") == ["a", "z"]
    assert nodes_of([tmp_path]) == ["w1.example.com", "w2"]


def test_a_nodes_own_file_merges_after_those_of_later_paths(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
    (one / "node.w1.yaml").write_text("resources: {example.com/b: null}\n")
    (one / "a.yaml").write_text(config("a"))
    (two / "b.yaml").write_text(config("b"))
    assert resources(one, two, node_name="w1") == ["a"]


@pytest.mark.parametrize("swaps", [1, 2])
def test_a_config_maps_directory_is_read_through_its_link(tmp_path: Path, swaps: int) -> None:
    for number in range(swaps):
        swap_config_map(tmp_path, {"a.yaml": config(f"a{number}"), "b.yaml": "{}"})
    assert resources(tmp_path) == [f"a{swaps - 1}"]
    assert load([tmp_path]).directories == {tmp_path}
    assert load([tmp_path]).config.files == (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))


def test_a_file_inside_a_config_maps_directory_is_watched_where_it_is_swapped(tmp_path: Path) -> None:
    swap_config_map(tmp_path, {"a.yaml": config("a")})
    assert resources(tmp_path / "a.yaml") == ["a"]
    assert tmp_path in load([tmp_path / "a.yaml"]).directories


def test_every_link_on_the_way_is_watched(tmp_path: Path) -> None:
    for name in ("real", "links", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "real" / "c.yaml").write_text(config("a"))
    (tmp_path / "links" / "c.yaml").symlink_to("../real/c.yaml")
    (tmp_path / "more" / "c.yaml").symlink_to(tmp_path / "links" / "c.yaml")
    assert load([tmp_path / "more" / "c.yaml"]).directories == {tmp_path / one for one in ("real", "links", "more")}
    (tmp_path / "more" / "directory").symlink_to("../real")
    assert load([tmp_path / "more" / "directory"]).directories == {tmp_path / "more", tmp_path / "real"}


def test_what_is_not_there_is_a_problem_and_its_nearest_directory_is_watched(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load([tmp_path / "not" / "there.yaml"])
    assert [one.code for one in caught.value.problems] == [ErrorCode.UNREADABLE]
    assert caught.value.directories == {tmp_path}


def test_links_in_a_circle_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    assert [one.code for one in refused(tmp_path / "a.yaml")] == [ErrorCode.UNREADABLE]


def test_no_path_at_all_is_a_problem() -> None:
    assert [one.code for one in refused()] == [ErrorCode.UNREADABLE]


def test_a_directory_without_configuration_is_a_problem(tmp_path: Path) -> None:
    assert [one.code for one in refused(tmp_path)] == [ErrorCode.UNREADABLE]
    (tmp_path / "node.w1.yaml").write_text(config("a"))
    assert [one.code for one in refused(tmp_path)] == [ErrorCode.UNREADABLE]
    assert resources(tmp_path, node_name="w1") == ["a"]


def test_a_directory_with_the_name_of_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").write_text(config("b"))
    (problem,) = refused(tmp_path)
    assert (problem.code, problem.location.file) == (ErrorCode.UNREADABLE, str(tmp_path / "a.yaml"))


def test_a_path_that_no_system_has_is_a_problem() -> None:
    assert [one.code for one in refused(Path("/tmp/a\0b"))] == [ErrorCode.UNREADABLE]


def test_a_file_that_never_ends_is_a_problem() -> None:
    assert [one.code for one in refused(Path("/dev/zero"))] == [ErrorCode.UNREADABLE]


def test_a_file_that_nobody_may_read_is_a_problem() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory, user = Path(name), os.geteuid()
        directory.chmod(0o755)
        (directory / "a.yaml").write_text(config("a"))
        (directory / "a.yaml").chmod(0)
        # Root may read everything: for a moment this process is nobody.
        os.seteuid(user or 65534)
        try:
            found = refused(directory)
        finally:
            os.seteuid(user)
    assert [one.code for one in found] == [ErrorCode.UNREADABLE]


def test_the_byte_that_is_not_utf8_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("a: ü\nb: ü\xff".encode("latin-1").replace(b"\xfc", "ü".encode()))
    (problem,) = refused(tmp_path)
    assert (problem.code, problem.location.line, problem.location.column) == (ErrorCode.UNREADABLE, 2, 5)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("a"), encoding="utf-8-sig")
    assert resources(tmp_path) == ["a"]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(config("a"),))
    writer.start()
    assert resources(pipe) == ["a"]
    writer.join()


@contextmanager
def while_read(pipe: Path, *changes: Callable[[], object]) -> Iterator[None]:
    """Let each change happen while a reader waits at ``pipe``, which is a pipe anew for each but the last."""

    def serve() -> None:
        for change in changes:
            with pipe.open("w") as writer:
                pipe.unlink(missing_ok=True)
                change()
                if change is not changes[-1]:
                    os.mkfifo(pipe)
                writer.write("old")

    os.mkfifo(pipe)
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    yield
    server.join()


def reading(path: Path) -> tuple[list[str], list[Diagnostic]]:
    problems = Diagnostics()
    found = read_files([path], None, problems)
    return [one.text for one in found.texts], problems.found


def test_a_config_map_that_is_swapped_meanwhile_is_read_again_as_a_whole(tmp_path: Path) -> None:
    swap_config_map(tmp_path, {"a.yaml": "old", "b.yaml": "old"})
    first = (tmp_path / "..data").resolve() / "a.yaml"
    first.unlink()
    with while_read(first, lambda: swap_config_map(tmp_path, dict.fromkeys(("a.yaml", "b.yaml", "c.yaml"), "new"))):
        assert reading(tmp_path) == (["new", "new", "new"], [])


def test_files_that_are_written_meanwhile_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("old")

    def change() -> None:
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).write_text("new")

    with while_read(tmp_path / "a.yaml", change):
        assert reading(tmp_path) == (["new", "new"], [])


def test_a_file_that_is_written_behind_the_reader_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("old")

    def change() -> None:
        (tmp_path / "a.yaml").write_text("newer")
        (tmp_path / "b.yaml").write_text("new")

    with while_read(tmp_path / "b.yaml", change):
        assert reading(tmp_path) == (["newer", "new"], [])


def test_files_that_come_and_go_meanwhile_are_seen(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("b")

    def change() -> None:
        (tmp_path / "a.yaml").write_text("a")
        (tmp_path / "b.yaml").unlink()
        (tmp_path / "c.yaml").write_text("c")

    with while_read(tmp_path / "a.yaml", change):
        assert reading(tmp_path) == (["a", "c"], [])


def test_a_file_that_only_comes_meanwhile_is_read_too(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    with while_read(first, lambda: second.write_text("b"), lambda: first.write_text("a")):
        assert reading(tmp_path) == (["a", "b"], [])


def test_a_config_map_whose_old_directory_lingers_is_read_anew(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "b.yaml").write_text(name)
    (tmp_path / "..new" / "a.yaml").write_text("new")
    (tmp_path / "..data").symlink_to("..old")

    def change() -> None:
        (tmp_path / "..tmp").symlink_to("..new")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        os.mkfifo(tmp_path / "..old" / "a.yaml")

    with while_read(tmp_path / "..old" / "a.yaml", change):
        assert reading(tmp_path) == (["new", "new"], [])


def test_files_that_never_come_to_rest_are_a_problem(tmp_path: Path) -> None:
    other = tmp_path / "b.yaml"
    other.write_text("")
    changes = [lambda length=length: other.write_text("x" * length) for length in range(1, 6)]
    with while_read(tmp_path / "a.yaml", *changes):
        _, problems = reading(tmp_path)
    assert [one.message for one in problems] == ["the files change while genplug reads them"]
