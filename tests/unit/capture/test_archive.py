"""``--root`` of an archive: the same as of its directory, and what a hostile archive cannot do."""

import asyncio
import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.bundle.archive import pack_files
from genplug.capture import archive as archives
from genplug.capture.errors import RootError
from genplug.cli.main import main
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: "/dev/{x,by-id/*}"}]}
"""
TREE = """
/dev/x char 240:0
/dev/y char 240:1
/dev/by-id/absolute -> /dev/y
/dev/by-id/relative -> ../x
/dev/by-id/nowhere -> ../../../../etc/passwd
/dev/by-id/directory -> /dev
/sys/a/b/ directory
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for temporary files, which is empty at the end."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    assert not list(directory.iterdir())


def plan(directory: Path, root: Path | str, *flags: str) -> int:
    (directory / "c.yaml").write_text(CONFIG)
    return main(["plan", "--config", str(directory / "c.yaml"), "--root", str(root), *flags])


@pytest.mark.parametrize("name", ["node.tar", "node.tar.gz", "node.tgz"])
@pytest.mark.usefixtures("temporary")
def test_archive_is_planned_like_its_directory(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_tree(TREE, tmp_path / "root")
    with tarfile.open(tmp_path / name, "w" if name.endswith("r") else "w:gz") as archive:
        # As `tar -C root -c .` writes it.
        archive.add(tmp_path / "root", ".")
    assert plan(tmp_path, tmp_path / "root", "-o", "json") == 0
    document = capsys.readouterr().out
    assert plan(tmp_path, tmp_path / name, "-o", "json") == 0
    assert capsys.readouterr().out == document
    [resource] = json.loads(document)["resources"]
    assert [device["nodes"][0]["resolved"] for device in resource["devices"]] == ["/dev/y", "/dev/x"]


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    content: bytes = b"",
    fields: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Return the bytes of a member in an archive; ``fields`` are in its extended header."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, link, len(content), dict(fields)
    padding = b"\0" * (-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.PAX_FORMAT) + content + padding


def written(path: Path, *members: bytes) -> Path:
    with gzip.open(path, "wb") as file:
        file.write(b"".join(members) + b"\0" * 2 * tarfile.BLOCKSIZE)
    return path


def everything(directory: Path) -> dict[str, str]:
    """Return all that is in a directory: kinds, texts and targets."""
    found = {}
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        text = str(path.readlink()) if path.is_symlink() else path.read_text("latin-1") if stat.S_ISREG(mode) else ""
        found[str(path.relative_to(directory))] = f"{stat.filemode(mode)[0]}{text}"
    return found


HOSTILE: dict[str, tuple[Callable[[str], list[bytes]], str]] = {
    "a climbing name": (lambda _: [member("../../evil", content=b"x")], "outside of its directory"),
    "a name that climbs later": (lambda _: [member("dev/../../evil", content=b"x")], "outside of its directory"),
    "an absolute name": (lambda outside: [member(f"{outside}/evil", content=b"x")], "outside of its directory"),
    "an absolute directory": (lambda outside: [member(f"{outside}/evil", tarfile.DIRTYPE)], "outside of its directory"),
    "a climbing link": (lambda outside: [member("../evil", tarfile.SYMTYPE, outside)], "outside of its directory"),
    "a file through a link": (
        lambda outside: [member("a", tarfile.SYMTYPE, outside), member("a/evil", content=b"x")],
        "twice, or below a file",
    ),
    "a file in place of a link": (
        lambda outside: [member("a", tarfile.SYMTYPE, f"{outside}/kept"), member("a", content=b"x")],
        "twice, or below a file",
    ),
    "a link through a link": (
        lambda outside: [member("a", tarfile.SYMTYPE, outside), member("a/evil", tarfile.SYMTYPE, "x")],
        "twice, or below a file",
    ),
    "a directory through a link": (
        lambda outside: [member("a", tarfile.SYMTYPE, outside), member("a/evil", tarfile.DIRTYPE)],
        "twice, or below a file",
    ),
    "a link in place of everything": (
        lambda outside: [member("./", tarfile.SYMTYPE, outside)],
        "twice, or below a file",
    ),
    "a file in a file": (
        lambda _: [member("a", content=b"x"), member("a/b", content=b"x")],
        "twice, or below a file",
    ),
    "a name with a zero byte": (lambda _: [member("a", content=b"x", fields={"path": "a\0b"})], "null byte"),
    "a name without end": (lambda _: [member("a", content=b"x", fields={"path": "x" * 5000})], "File name too long"),
    "directories without end": (lambda _: [member("/".join("x" * 1000), tarfile.DIRTYPE)], "more than 100 deep"),
    "a pipe and a file of one name": (
        lambda _: [member("a", fields={archives.KIND: "fifo"}), member("a", content=b"x")],
        "twice, or below a file",
    ),
    "a pipe twice": (lambda _: [member("a", fields={archives.KIND: "fifo"})] * 2, "twice, or below a file"),
    "nested extended headers": (
        lambda _: [*[member("a", tarfile.XHDTYPE)] * 2000, member("a")],
        "is not an archive",
    ),
    "a header without end": (lambda _: [member("a", fields={"path": "x" * (5 << 20)})], "has a header of"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.usefixtures("temporary")
def test_hostile_archive_is_refused_and_writes_nothing_outside(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    build_tree("/kept = 1", outside)
    members, reason = HOSTILE[what]
    archive = written(tmp_path / "node.tar.gz", *members(str(outside)))
    before = everything(tmp_path)
    assert plan(tmp_path, archive) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"genplug plan: --root {archive}: ")
    assert reason in output.err
    assert everything(tmp_path) == before | {"c.yaml": f"-{CONFIG}"}


@pytest.mark.usefixtures("temporary")
def test_only_files_directories_and_links_are_unpacked_with_default_modes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    info = tarfile.TarInfo("dev/suid")
    info.mode, info.uid = 0o6777, 12345
    archive = written(
        tmp_path / "node.tar.gz",
        info.tobuf(),
        member("dev/empty/", tarfile.DIRTYPE),
        member("dev/link", tarfile.SYMTYPE, "/nowhere"),
        member("dev/null", tarfile.CHRTYPE),
        member("dev/sda", tarfile.BLKTYPE),
        member("dev/pipe", tarfile.FIFOTYPE),
        member("dev/hard", tarfile.LNKTYPE, str(tmp_path / "secret")),
        member("run/x.sock", fields={archives.KIND: "socket"}),
        member("run/x.pipe", fields={archives.KIND: "fifo"}),
        member("run/x.what", fields={archives.KIND: "what"}),
    )
    with archives.open_root(str(archive)) as root:
        assert everything(root) == {
            "dev": "d",
            "dev/empty": "d",
            "dev/link": "l/nowhere",
            "dev/suid": "-",
            "run": "d",
            "run/x.pipe": "p",
            "run/x.sock": "s",
            "run/x.what": "-",
        }
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        status = (root / "dev/suid").stat()
        assert (status.st_uid, status.st_mode & 0o7111) == (os.geteuid(), 0)
    assert not root.exists()


@pytest.mark.parametrize(
    ("bound", "members"),
    [
        (("MAX_MEMBERS", 3), [member(f"dev/x{number}") for number in range(4)]),
        (("MAX_BYTES", 1 << 20), [member("dev/x", content=b"\0" * (2 << 20))]),
        (("MAX_BYTES", 1 << 20), [member(f"dev/x{number}", content=b"\0" * 400_000) for number in range(3)]),
        # A sparse file: what is not stored would be written.
        (
            ("MAX_BYTES", 1 << 20),
            [member("dev/x", content=b"x", fields={"GNU.sparse.map": "0,1", "GNU.sparse.size": "2097152"})],
        ),
        # Much to read, and nothing to write.
        (("MAX_BYTES", 1 << 20), [member(f"dev/x{number}", fields={"comment": "c" * 1000}) for number in range(600)]),
    ],
    ids=["members", "large", "large-together", "sparse", "headers"],
)
@pytest.mark.usefixtures("temporary")
def test_size_of_unpacked_archive_is_bounded(
    bound: tuple[str, int],
    members: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = written(tmp_path / "node.tar.gz", *members)
    with archives.open_root(str(archive)) as root:
        assert len(list((root / "dev").iterdir())) == len(members)
    monkeypatch.setattr(archives, *bound)
    assert plan(tmp_path, archive) == 2
    assert "contains more than" in capsys.readouterr().err


@pytest.mark.usefixtures("temporary")
def test_file_that_is_not_an_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = written(tmp_path / "whole.tar.gz", member("dev/x", content=os.urandom(5000)))
    (tmp_path / "half.tar.gz").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "broken.tar.gz").write_bytes(whole.read_bytes()[:3000] + b"x" * 3000)
    (tmp_path / "text.tar").write_text("text\n" * 1000)
    (tmp_path / "empty.tar").touch()
    (tmp_path / "node.zip").touch()
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "bundle.tar.gz").write_bytes(pack_files({"MANIFEST.json": b"{}"}))
    for name, reason in {
        "bundle.tar.gz": "is an archive of 'genplug bundle', expected an archive of 'genplug capture'; unpack it",
        "half.tar.gz": "is not an archive, or only a part of one",
        "broken.tar.gz": "is not an archive",
        "text.tar": "is not an archive",
        "empty.tar": "is not an archive",
        "node.zip": "is neither a directory nor an archive",
        "pipe.tar": "is neither a directory nor an archive",
        "missing": "does not exist; expected a directory, or a .tar, .tar.gz, .tgz",
    }.items():
        assert plan(tmp_path, tmp_path / name) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert f"--root {tmp_path / name}: {reason}" in " ".join(output.err.split())


async def test_agent_runs_on_an_archive_and_removes_its_files(
    node: FakeNode, kubelet: KubeletStandIn, temporary: Path
) -> None:
    build_tree(TREE, node.directory / "tree")
    with tarfile.open(node.directory / "node.tar.gz", "w:gz") as archive:
        archive.add(node.directory / "tree", ".")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "genplug", "run", "--config", node.write_config(CONFIG)),
        *("--root", node.directory / "node.tar.gz", "--kubelet-dir", node.kubelet_dir),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        devices = await kubelet.wait_for_list("a.io/x")
        assert len(devices.healthy) == 2
        assert [name[:13] for name in os.listdir(temporary)] == ["genplug-root-"]  # noqa: PTH208 - no Path in a loop
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def test_agent_without_its_root_exits_with_the_reason(tmp_path: Path) -> None:
    command: list[Any] = [sys.executable, "-m", "genplug", "run", "--config", tmp_path, "--root", tmp_path / "host"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "genplug run: --root" in done.stderr
    assert "does not exist" in done.stderr


@pytest.mark.usefixtures("temporary")
def test_directory_with_suffix_of_archive_and_compressed_tar_without_suffix_are_opened(tmp_path: Path) -> None:
    (tmp_path / "directory.tar").mkdir()
    with archives.open_root(str(tmp_path / "directory.tar")) as root:
        assert root == tmp_path / "directory.tar"
    with archives.open_root(str(written(tmp_path / "packed.tar", member("dev/x")))) as root:
        assert (root / "dev/x").is_file()


WHOLE = b"".join(
    member(name, content=b"text" * 40, fields=fields)
    for name, fields in {"dev/x": {}, "dev/y": {"comment": "c" * 600}, "dev/z": {archives.KIND: "fifo"}}.items()
)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_archive_with_changed_bytes_is_unpacked_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for offset, byte in changes:
        content[offset] = byte
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "node.tar"
        path.write_bytes(content + b"\0" * 2 * tarfile.BLOCKSIZE)
        try:
            with archives.open_root(str(path)) as root:
                assert root.is_dir()
        except RootError as error:
            assert str(error).startswith(f"--root {path}: ")  # noqa: PT017 - both ends are right
