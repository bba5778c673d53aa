"""Archives for ``--root``: unpacked, and searched like the file tree of a node."""

import gzip
import io
import os
import random
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genplug.capture.archive import KIND, MAX_BYTES, open_root
from genplug.capture.errors import RootError
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.file_tree import FileTree
from genplug.hardware.host import Host
from genplug.hardware.scan_errors import SearchLimitError
from genplug.spec.globs import Glob
from tests.fuzz.scratch import scratch_directory
from tests.fuzz.target import Target

_BLOCK = 512
_CHECKSUM = slice(148, 156)
_NAMES = (
    *(
        "dev/x0",
        "dev/x1",
        "sys/class/net/eth0",
        "sys/devices/a/uevent",
        "a",
        "a/b",
        "a/b/c",
        ".",
        "..",
        "../x",
        "/etc/x",
    ),
    *(
        "a/../../x",
        "GENPLUG-STAND-INS",
        "genplug-bundle/MANIFEST.json",
        "x\0y",
        "\udcff",
        "a" * 300,
        "d/" * 120,
        "a//b/",
        "",
    ),
)
_TARGETS = ("a", "../a", "/a", "..", "/", "a/b/c", "/etc/passwd", "../../../../etc", "dev", "\udcff", "x" * 5000, "")
_TYPES = (
    *(tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE),
    *(tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"\0", b"Z"),
)
_CONTENTS = (b"", b"char 240:1", b"block 8:0", b"socket", b"MAJOR=1\nMINOR=2\n", b"\xff\0", b"x" * 600)


def run_archive(content: bytes) -> None:
    """Unpack an archive, and read what is in it as the host of a scan."""
    outside = scratch_directory("archive")
    path = outside / "root.tar"
    path.write_bytes(content)
    with _use_temporary_directory(outside), open_root(str(path)) as root:
        # Nothing is written beside the directory of the archive.
        assert set(outside.iterdir()) == {path, root}
        size = sum(info.st_size for info in _walk(str(root)) if stat.S_ISREG(info.st_mode))
        assert size <= MAX_BYTES
        _search(str(root))
    assert list(outside.iterdir()) == [path]


@contextmanager
def _use_temporary_directory(directory: Path) -> Iterator[None]:
    """Unpack archives in a directory while the context is open."""
    previous, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        yield
    finally:
        tempfile.tempdir = previous


def _walk(directory: str) -> Iterator[os.stat_result]:
    """Yield the files of a directory; none of them is a device node, or was written through a symlink."""
    for entry in os.scandir(directory):
        info = entry.stat(follow_symlinks=False)
        assert not stat.S_ISCHR(info.st_mode)
        assert not stat.S_ISBLK(info.st_mode)
        yield info
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _search(root: str) -> None:
    tree = FileTree(root, is_cached=True)
    host = Host.at(Path(root))
    for text in ("/**", "/dev/*", "/a/*/*", "/sys/class/*/*/device"):
        try:
            paths = tree.find(Glob.parse(text)).paths
        except SearchLimitError:
            continue
        for path in paths[:50]:
            assert path.startswith("/")
            info = host.stat(path)
            if info is not None:
                assert info.resolved.startswith("/")
            try:
                resolved, _ = tree.resolve(path, Dependencies())
                tree.read(resolved, 100)
            except OSError:
                continue
            # The file is inside of the tree.
            real = os.path.realpath(root + resolved)
            assert real == root + resolved, (path, resolved)


def build_archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return an archive with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data


def list_archives() -> list[bytes]:
    socket, _ = marked = _member("run/x.sock")
    socket.pax_headers = {KIND: "socket"}
    members = [
        _member("dev", kind=tarfile.DIRTYPE),
        _member("dev/x0", b"char 240:1"),
        _member("GENPLUG-STAND-INS"),
        _member("sys/class/net/eth0", kind=tarfile.SYMTYPE, target="../../devices/eth0"),
        _member("sys/devices/eth0/device", kind=tarfile.DIRTYPE),
        marked,
    ]
    plain = build_archive(members)
    hostile = build_archive([_member("a", kind=tarfile.SYMTYPE, target="/tmp"), _member("a/x", b"x")])
    return [plain, gzip.compress(plain, mtime=0), hostile, build_archive([_member("../x")]), plain[:700], b""]


def mutate_archive(content: bytes, source: random.Random) -> bytes | None:
    """Change the members of an archive, or bytes of its headers, whose checksums are corrected."""
    is_compressed = content[:2] == b"\x1f\x8b"
    try:
        plain = gzip.decompress(content) if is_compressed else content
    except (OSError, EOFError, ValueError, zlib.error):
        return None
    if len(plain) > 1 << 20:
        return None
    changed = change_headers(plain, source) if source.random() < 0.5 else change_members(plain, source)
    if changed is None:
        return None
    return gzip.compress(changed, 1, mtime=0) if source.random() < 0.1 else changed


def change_headers(content: bytes, source: random.Random) -> bytes:
    """Return an archive with changed bytes in its headers, and valid checksums."""
    changed = bytearray(content)
    starts = [
        start for start in range(0, len(content) - _BLOCK + 1, _BLOCK) if content[start + 257 : start + 262] == b"ustar"
    ]
    for start in starts:
        for _ in range(source.choice((0, 1, 1, 3))):
            # The fields: name, mode, size, time, type, target, prefix.
            field = source.choice(
                ((0, 100), (100, 24), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155))
            )
            position = start + field[0] + source.randrange(field[1])
            changed[position] = source.choice((0, 0x20, 0x2E, 0x2F, 0x30, 0x37, 0x39, 0x80, 0xFF, *b"12345LKxgSZ"))
        header = changed[start : start + _BLOCK]
        header[_CHECKSUM] = b" " * 8
        changed[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(changed)


def change_members(content: bytes, source: random.Random) -> bytes | None:
    """Return an archive with changed members."""
    members = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in list(archive)[:20]:
                file = archive.extractfile(member) if member.isreg() and member.size < 1 << 16 else None
                members.append((member, file.read() if file is not None else b""))
    except Exception:  # noqa: BLE001 - the library raises anything for a broken header
        return None
    for _ in range(source.choice((1, 1, 2, 4))):
        new = _member(source.choice(_NAMES), source.choice(_CONTENTS), source.choice(_TYPES), source.choice(_TARGETS))
        if source.random() < 0.3:
            new[0].pax_headers = {
                source.choice((KIND, "path", "linkpath", "size", "GNU.sparse.map")): source.choice(
                    ("fifo", "socket", "9" * 20, "../x", "-1")
                )
            }
        if members and source.random() < 0.6:
            members[source.randrange(len(members))] = new
        else:
            members.insert(source.randrange(len(members) + 1), new)
    try:
        return build_archive(members)
    except (ValueError, UnicodeError, tarfile.TarError):
        return None


TARGETS = (
    Target(
        "archive",
        "archives for --root",
        run_archive,
        list_archives,
        allowed=(RootError,),
        words=(
            "ustar\x0000",
            "0000644\0",
            "../",
            "/etc/",
            KIND,
            "socket",
            "\x1f\x8b",
            "30 path=../x\n",
            "././@PaxHeader",
        ),
        max_bytes=32768,
        mutate=mutate_archive,
        share=2,
        short_runs=300,
    ),
)
