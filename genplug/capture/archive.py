"""``--root``: a directory, or an archive of ``genplug capture``, which is unpacked while a command runs.

An archive is not trusted: its files are not written outside the temporary directory, it cannot fill the disk, and every
error in it is a :class:`RootError`.
The modules that unpack are imported for an archive only: the agent starts without them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from genplug.capture.errors import RootError

if TYPE_CHECKING:
    from gzip import GzipFile
    from tarfile import TarFile, TarInfo

MAX_MEMBERS = 200_000
MAX_BYTES = 1 << 30
"""The limit of the archive without compression, and of the files in it."""
KIND = "GENPLUG.kind"
"""A header of a member that is a regular file for other programs and represents a ``socket`` or a ``fifo``."""

BUNDLE_DIRECTORY = "genplug-bundle"
"""The directory in an archive of ``genplug bundle``, which contains the archive of ``genplug capture``."""

_MAX_DEPTH = 100
_MAX_READ_BYTES = 1 << 22
"""Bytes that are read at once: the archive itself states the length of the extended header of a member."""
_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def open_root(text: str, option: str = "--root") -> Iterator[Path]:
    """Yield the directory that an option names, or a temporary directory with the files of an archive.

    Regular files, directories, symlinks and, marked by :data:`KIND`, sockets and pipes are unpacked from an archive
    (.tar, .tar.gz, .tgz); everything else is left out.

    Raises:
        RootError: the path is neither, or the archive is broken, too large, or has paths outside of its directory.
    """
    path = Path(text)
    try:
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise RootError(f"{option} {text}: cannot be accessed: {error.strerror}") from None
    if is_directory:
        yield path
    elif is_file and text.endswith(_SUFFIXES):
        from tempfile import TemporaryDirectory  # noqa: PLC0415 - for an archive only

        with TemporaryDirectory(prefix="genplug-root-") as directory:
            try:
                _unpack(path, Path(directory))
            except RootError as error:
                raise RootError(f"{option} {text}: {error}") from None
            _mark(Path(directory))
            yield Path(directory)
    else:
        found = "is neither a directory nor an archive" if path.exists() else "does not exist"
        raise RootError(
            f"{option} {text}: {found}; expected a directory, or a {', '.join(_SUFFIXES)} of 'genplug capture'"
        )


class _BoundedStream:
    """A stream of at most :data:`MAX_BYTES`, whatever its headers state and however well it is compressed."""

    def __init__(self, stream: "BinaryIO | GzipFile") -> None:
        self._stream = stream
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            raise RootError(f"has a header of {size} bytes, expected at most {_MAX_READ_BYTES}")
        self._check(self.tell() + size)
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self._stream.seek(offset)

    @staticmethod
    def _check(offset: int) -> None:
        if offset > MAX_BYTES:
            raise RootError(f"contains more than {MAX_BYTES >> 20} MiB")


def _unpack(path: Path, directory: Path) -> None:
    """Unpack an archive.

    Raises:
        RootError: it cannot be unpacked.
    """
    import tarfile  # noqa: PLC0415 - for an archive only
    from gzip import GzipFile  # noqa: PLC0415 - as above

    try:
        with path.open("rb") as file:
            is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            stream = _BoundedStream(GzipFile(fileobj=file) if is_compressed else file)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", encoding="utf-8") as archive:
                _extract(archive, directory)
            # A truncated archive can look complete: gzip verifies its checksum at the end of the file.
            while stream.read(tarfile.RECORDSIZE):
                pass
    except RootError:
        raise
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        name = Path(error.filename2 or error.filename).relative_to(directory)
        raise RootError(f"contains '{name}' twice, or below a file; do not use this archive") from None
    except OSError as error:
        if error.filename is None:
            # GzipFile reports a broken file as an OSError without a path.
            raise _not_an_archive(error) from None
        raise RootError(
            f"cannot be unpacked in {directory.parent} (set TMPDIR for another directory): "
            f"{error.strerror}: {error.filename}"
        ) from None
    except Exception as error:  # noqa: BLE001 - the library raises anything for a broken header
        raise _not_an_archive(error) from None
    if (directory / BUNDLE_DIRECTORY / "MANIFEST.json").is_file():
        raise RootError(
            f"is an archive of 'genplug bundle', expected an archive of 'genplug capture'; unpack it, and use "
            f"{BUNDLE_DIRECTORY}/node.tar.gz"
        )


def _mark(directory: Path) -> None:
    """Mark the files as those of an archive, unless the archive has no stand-ins for device nodes."""
    from genplug.hardware.host import CAPTURE_MARK, STAND_INS_MARKER  # noqa: PLC0415 - for an archive only

    marker = directory / STAND_INS_MARKER
    if marker.is_file() and not marker.is_symlink():
        marker.write_text(CAPTURE_MARK, "utf-8")


def _not_an_archive(error: Exception) -> RootError:
    return RootError(f"is not an archive, or only a part of one: {error or type(error).__name__}")


def _extract(archive: "TarFile", directory: Path) -> None:
    links: dict[Path, str] = {}
    size = 0
    for number, member in enumerate(archive, 1):
        size += member.size
        if number > MAX_MEMBERS or size > MAX_BYTES:
            raise RootError(f"contains more than {MAX_MEMBERS} files, or {MAX_BYTES >> 20} MiB")
        path = _target_path(member.name, directory)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            links[path] = member.linkname
        elif member.isreg():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(archive, member, path)
    # Links come last, so that nothing can be written through a link: neither a file, nor another link.
    for path in links:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path, target in links.items():
        path.symlink_to(target)


def _target_path(name: str, directory: Path) -> Path:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise RootError(f"contains {name!r}, which is outside of its directory; do not use this archive")
    if len(parts) > _MAX_DEPTH:
        raise RootError(f"contains directories more than {_MAX_DEPTH} deep: '{'/'.join(parts[:4])}/...'")
    return directory.joinpath(*parts)


def _write(archive: "TarFile", member: "TarInfo", path: Path) -> None:
    import os  # noqa: PLC0415 - for an archive only
    import shutil  # noqa: PLC0415 - as above
    import stat  # noqa: PLC0415 - as above

    kinds = {"socket": stat.S_IFSOCK, "fifo": stat.S_IFIFO}
    if kind := kinds.get(member.pax_headers.get(KIND, "")):
        try:
            os.mknod(path, kind | 0o600)
        except FileExistsError as error:
            # mknod does not name the file.
            raise FileExistsError(error.errno, error.strerror, os.fspath(path)) from None
        return
    # A new file: opening a pipe that an earlier member made would wait for a reader.
    with path.open("xb") as target:
        shutil.copyfileobj(archive.extractfile(member), target)  # type: ignore[arg-type] # it is a regular file
