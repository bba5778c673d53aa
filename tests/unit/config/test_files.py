"""The files of a configuration, and a consistent read of all of them."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import decode_utf8, nodes_of, read_files
from genplug.config.load import load
from genplug.spec.diagnostic import Diagnostic, DiagnosticCode, ErrorCode
from genplug.testing.node.config_files import swap_config_map
from tests.support.configs import CONFIG_HEADER, collect_diagnostics


def render_resources(*names: str) -> str:
    """Return a configuration with a resource of one device for each name."""
    return (
        CONFIG_HEADER
        + "resources:\n"
        + "".join(f"  example.com/{name}: {{devices: [{{glob: /dev/{name}}}]}}\n" for name in names)
    )


def load_names(*paths: Path, node_name: str | None = None) -> list[str]:
    """Return the resource names of a configuration, without their domain."""
    return [name.removeprefix("example.com/") for name in load(paths, node_name).config.resources]


def find_diagnostics(*paths: Path) -> tuple[Diagnostic, ...]:
    return collect_diagnostics(lambda: load(paths, None))


def find_codes(*paths: Path) -> list[DiagnosticCode]:
    return [diagnostic.code for diagnostic in find_diagnostics(*paths)]


def test_file_of_any_name_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_text(render_resources("a"))
    assert load_names(file) == ["a"]
    assert load([file]).directories == {tmp_path}


def test_files_of_a_directory_are_merged_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "20.yml").write_text("resources: {example.com/b: null, example.com/c: {devices: [{glob: /dev/c}]}}\n")
    (tmp_path / "10.yaml").write_text(render_resources("a", "b"))
    (tmp_path / "30.json").write_text('{"resources": {"example.com/d": {"devices": [{"glob": "/dev/d"}]}}}')
    (tmp_path / "README.md").write_text("not a configuration")
    (tmp_path / ".hidden.yaml").write_text("not a configuration")
    (tmp_path / "40.yaml~").write_text("not a configuration")
    assert load_names(tmp_path) == ["a", "c", "d"]
    assert load([tmp_path]).directories == {tmp_path}
    assert load([tmp_path]).config.files == tuple(str(tmp_path / name) for name in ("10.yaml", "20.yml", "30.json"))


def test_paths_are_merged_in_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "z.yaml", tmp_path / "a"
    second.mkdir()
    first.write_text(render_resources("a"))
    (second / "b.yaml").write_text("resources: {example.com/a: null, example.com/b: {devices: [{glob: /dev/b}]}}\n")
    assert load_names(first, second) == ["b"]
    assert load([first, second]).directories == {tmp_path, second}


def test_node_file_is_merged_last_on_that_node_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(render_resources("a"))
    (tmp_path / "z.yaml").write_text("resources: {example.com/z: {devices: [{glob: /dev/z}]}}\n")
    (tmp_path / "node.w1.example.com.yaml").write_text("resources: {example.com/z: null}\n")
    (tmp_path / "node.w2.yml").write_text("resources: {example.com/w2: {devices: [{glob: /dev/w2}]}}\n")
    assert load_names(tmp_path) == ["a", "z"]
    assert load_names(tmp_path, node_name="w1.example.com") == ["a"]
    assert load_names(tmp_path, node_name="w2") == ["a", "z", "w2"]
    assert load_names(tmp_path, node_name="w3") == ["a", "z"]
    assert nodes_of([tmp_path]) == ["w1.example.com", "w2"]


def test_node_file_is_merged_after_the_files_of_later_paths(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    (first / "node.w1.yaml").write_text("resources: {example.com/b: null}\n")
    (first / "a.yaml").write_text(render_resources("a"))
    (second / "b.yaml").write_text(render_resources("b"))
    assert load_names(first, second, node_name="w1") == ["a"]


@pytest.mark.parametrize("swaps", [1, 2])
def test_config_map_directory_is_read_through_its_link(tmp_path: Path, swaps: int) -> None:
    for number in range(swaps):
        swap_config_map(tmp_path, {"a.yaml": render_resources(f"a{number}"), "b.yaml": "{}"})
    assert load_names(tmp_path) == [f"a{swaps - 1}"]
    assert load([tmp_path]).directories == {tmp_path}
    assert load([tmp_path]).config.files == (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))


def test_directory_of_a_swapped_config_map_file_is_watched(tmp_path: Path) -> None:
    swap_config_map(tmp_path, {"a.yaml": render_resources("a")})
    assert load_names(tmp_path / "a.yaml") == ["a"]
    assert tmp_path in load([tmp_path / "a.yaml"]).directories


def test_directory_of_each_symlink_of_a_path_is_watched(tmp_path: Path) -> None:
    for name in ("real", "links", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "real" / "c.yaml").write_text(render_resources("a"))
    (tmp_path / "links" / "c.yaml").symlink_to("../real/c.yaml")
    (tmp_path / "more" / "c.yaml").symlink_to(tmp_path / "links" / "c.yaml")
    assert load([tmp_path / "more" / "c.yaml"]).directories == {tmp_path / name for name in ("real", "links", "more")}
    (tmp_path / "more" / "directory").symlink_to("../real")
    assert load([tmp_path / "more" / "directory"]).directories == {tmp_path / "more", tmp_path / "real"}


def test_missing_file_is_reported_and_its_nearest_directory_is_watched(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load([tmp_path / "not" / "there.yaml"])
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [ErrorCode.UNREADABLE]
    assert caught.value.directories == {tmp_path}


def test_symlink_loop_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    assert find_codes(tmp_path / "a.yaml") == [ErrorCode.UNREADABLE]


def test_missing_path_argument_is_reported() -> None:
    assert find_codes() == [ErrorCode.UNREADABLE]


def test_directory_without_configuration_is_reported(tmp_path: Path) -> None:
    assert find_codes(tmp_path) == [ErrorCode.UNREADABLE]
    (tmp_path / "node.w1.yaml").write_text(render_resources("a"))
    assert find_codes(tmp_path) == [ErrorCode.UNREADABLE]
    assert load_names(tmp_path, node_name="w1") == ["a"]


def test_directory_with_the_name_of_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").write_text(render_resources("b"))
    (diagnostic,) = find_diagnostics(tmp_path)
    assert (diagnostic.code, diagnostic.location.file) == (ErrorCode.UNREADABLE, str(tmp_path / "a.yaml"))


def test_path_with_null_character_is_reported() -> None:
    assert find_codes(Path("/tmp/a\0b")) == [ErrorCode.UNREADABLE]


def test_endless_file_is_reported() -> None:
    assert find_codes(Path("/dev/zero")) == [ErrorCode.UNREADABLE]


def test_file_without_read_permission_is_reported() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory, user = Path(name), os.geteuid()
        directory.chmod(0o755)
        (directory / "a.yaml").write_text(render_resources("a"))
        (directory / "a.yaml").chmod(0)
        # Root can read every file: the process takes another user ID for the read.
        os.seteuid(user or 65534)
        try:
            found = find_codes(directory)
        finally:
            os.seteuid(user)
    assert found == [ErrorCode.UNREADABLE]


def test_invalid_utf8_byte_is_reported_at_its_location(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("a: ü\nb: ü\xff".encode("latin-1").replace(b"\xfc", "ü".encode()))
    (diagnostic,) = find_diagnostics(tmp_path)
    assert (diagnostic.code, diagnostic.location.line, diagnostic.location.column) == (ErrorCode.UNREADABLE, 2, 5)


def test_byte_order_mark_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(render_resources("a"), encoding="utf-8-sig")
    assert load_names(tmp_path) == ["a"]


def test_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(render_resources("a"),))
    writer.start()
    assert load_names(pipe) == ["a"]
    writer.join()


@contextmanager
def change_during_read(pipe: Path, *changes: Callable[[], object]) -> Iterator[None]:
    """Run each change while a reader waits at ``pipe``, which is a pipe again for each read but the last."""

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


def read_texts(path: Path) -> tuple[list[str], list[Diagnostic]]:
    diagnostics = Diagnostics()
    found = read_files([path], None, diagnostics)
    return [file.text for file in found.texts], diagnostics.found


def test_config_map_that_is_swapped_during_the_read_is_read_again(tmp_path: Path) -> None:
    swap_config_map(tmp_path, {"a.yaml": "old", "b.yaml": "old"})
    first = (tmp_path / "..data").resolve() / "a.yaml"
    first.unlink()
    with change_during_read(
        first, lambda: swap_config_map(tmp_path, dict.fromkeys(("a.yaml", "b.yaml", "c.yaml"), "new"))
    ):
        assert read_texts(tmp_path) == (["new", "new", "new"], [])


def test_files_that_are_written_during_the_read_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("old")

    def change() -> None:
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).write_text("new")

    with change_during_read(tmp_path / "a.yaml", change):
        assert read_texts(tmp_path) == (["new", "new"], [])


def test_file_that_is_written_after_its_read_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("old")

    def change() -> None:
        (tmp_path / "a.yaml").write_text("newer")
        (tmp_path / "b.yaml").write_text("new")

    with change_during_read(tmp_path / "b.yaml", change):
        assert read_texts(tmp_path) == (["newer", "new"], [])


def test_files_that_are_added_and_removed_during_the_read_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("b")

    def change() -> None:
        (tmp_path / "a.yaml").write_text("a")
        (tmp_path / "b.yaml").unlink()
        (tmp_path / "c.yaml").write_text("c")

    with change_during_read(tmp_path / "a.yaml", change):
        assert read_texts(tmp_path) == (["a", "c"], [])


def test_file_that_is_added_during_the_read_is_read(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    with change_during_read(first, lambda: second.write_text("b"), lambda: first.write_text("a")):
        assert read_texts(tmp_path) == (["a", "b"], [])


def test_config_map_whose_old_directory_remains_is_read_again(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "b.yaml").write_text(name)
    (tmp_path / "..new" / "a.yaml").write_text("new")
    (tmp_path / "..data").symlink_to("..old")

    def change() -> None:
        (tmp_path / "..tmp").symlink_to("..new")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        os.mkfifo(tmp_path / "..old" / "a.yaml")

    with change_during_read(tmp_path / "..old" / "a.yaml", change):
        assert read_texts(tmp_path) == (["new", "new"], [])


def test_files_that_change_during_every_read_are_reported(tmp_path: Path) -> None:
    other = tmp_path / "b.yaml"
    other.write_text("")
    changes = [lambda length=length: other.write_text("x" * length) for length in range(1, 6)]
    with change_during_read(tmp_path / "a.yaml", *changes):
        _, diagnostics = read_texts(tmp_path)
    assert [diagnostic.message for diagnostic in diagnostics] == ["the files change while genplug reads them"]


@pytest.mark.parametrize(
    ("content", "location"),
    [
        (b"\xff", "f:1:1"),
        (b"\xef\xbb\xbf\x9d", "f:1:1"),
        (b"\xef\xbb\xbfa\n\xc3\xa9\xff", "f:2:2"),
        (b"\xef\xbb", "f:1:1"),
    ],
)
def test_invalid_byte_is_located_after_a_byte_order_mark(content: bytes, location: str) -> None:
    found = Diagnostics()
    assert decode_utf8(content, "f", found) is None
    assert [(diagnostic.code, str(diagnostic.location)) for diagnostic in found.found] == [
        (ErrorCode.UNREADABLE, location)
    ]
