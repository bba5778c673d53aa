"""``--root``: a directory, or an archive of one that is unpacked for as long as a command runs (``genplug capture``).

An archive comes from somebody else's machine: nothing of it is written outside the temporary directory, and no more
than is allowed. What unpacks it is imported for an archive only: an agent starts without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from gzip import GzipFile
    from tarfile import TarFile, TarInfo

MAX_MEMBERS = 200_000
MAX_BYTES = 1 << 30
"""Of the archive without compression, and of the files in it."""
KIND = "GENPLUG.kind"
"""A header of a member that is a regular file for other programs: ``socket`` or ``fifo`` is what it stands for."""

_MAX_DEPTH = 100
_MAX_AT_ONCE = 1 << 22
"""Bytes that are read in one piece: a member's extended header, which somebody could make endless."""
_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"


class RootError(Exception):
    """What ``--root`` names is neither a directory nor an archive of one; the text says why. The exit code is 2."""


@contextmanager
def open_root(text: str) -> Iterator[Path]:
    """Give the directory that ``--root`` means: itself, or a temporary one with an archive's files, removed at the end.

    Of an archive (.tar, .tar.gz, .tgz) come regular files, directories, symlinks and, marked by :data:`KIND`, sockets
    and pipes; everything else is left out.

    Raises:
        RootError: it is neither, or an archive that is broken, too large, or reaches out of its directory.
    """
    path = Path(text)
    try:
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise RootError(f"--root {text}: it cannot be looked at: {error.strerror}") from None
    if is_directory:
        yield path
    elif is_file and text.endswith(_SUFFIXES):
        from tempfile import TemporaryDirectory  # noqa: PLC0415 - see above

        with TemporaryDirectory(prefix="genplug-root-") as directory:
            _unpack(path, Path(directory))
            yield Path(directory)
    else:
        what = "it is neither a directory nor an archive" if path.exists() else "there is no such directory or archive"
        raise RootError(f"--root {text}: {what}; give a directory, or a {', '.join(_SUFFIXES)} of 'genplug capture'")


class _Bounded:
    """A stream that is no longer than :data:`MAX_BYTES`, whatever its headers say and however well it is packed."""

    def __init__(self, stream: "BinaryIO | GzipFile") -> None:
        self._stream = stream
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_AT_ONCE:
            raise RootError(f"a header of {size} bytes is no header")
        self._check(self.tell() + size)
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self._stream.seek(offset)

    @staticmethod
    def _check(offset: int) -> None:
        if offset > MAX_BYTES:
            raise RootError(f"it holds more than {MAX_BYTES >> 20} MiB")


def _unpack(path: Path, directory: Path) -> None:
    import tarfile  # noqa: PLC0415 - see above
    import zlib  # noqa: PLC0415 - as above
    from gzip import BadGzipFile, GzipFile  # noqa: PLC0415 - as above

    try:
        with path.open("rb") as file:
            is_packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            stream = _Bounded(GzipFile(fileobj=file) if is_packed else file)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", encoding="utf-8") as archive:
                _extract(archive, directory)
            # What is broken ends an archive early; the sum that tells stands at the end of the packed file.
            while stream.read(tarfile.RECORDSIZE):
                pass
    except RootError as error:
        raise RootError(f"--root {path}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, BadGzipFile) as error:
        raise RootError(f"--root {path}: it is no archive, or only a part of one: {error}") from None
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        name = Path(error.filename2 or error.filename).relative_to(directory)
        raise RootError(f"--root {path}: it holds '{name}' twice, as different things: nobody should use it") from None
    except (OSError, ValueError) as error:
        what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
        raise RootError(
            f"--root {path}: it cannot be unpacked in {directory.parent} (TMPDIR names another location): {what}"
        ) from None


def _extract(archive: "TarFile", directory: Path) -> None:
    links: dict[Path, str] = {}
    unpacked = 0
    for number, member in enumerate(archive, 1):
        unpacked += member.size
        if number > MAX_MEMBERS or unpacked > MAX_BYTES:
            raise RootError(f"it holds more than {MAX_MEMBERS} files, or {MAX_BYTES >> 20} MiB")
        location = _place(member.name, directory)
        if member.isdir():
            location.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            links[location] = member.linkname
        elif member.isreg():
            location.parent.mkdir(parents=True, exist_ok=True)
            _write(archive, member, location)
    # Nothing can be written through a link that is not there yet: not through one of these links either.
    for location in links:
        location.parent.mkdir(parents=True, exist_ok=True)
    for location, target in links.items():
        location.symlink_to(target)


def _place(name: str, directory: Path) -> Path:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise RootError(
            f"{name!r} would lie outside of the directory it is unpacked to: nobody should use this archive"
        )
    if len(parts) > _MAX_DEPTH:
        raise RootError(f"it has directories in directories, more than {_MAX_DEPTH} deep: '{'/'.join(parts[:4])}/...'")
    return directory.joinpath(*parts)


def _write(archive: "TarFile", member: "TarInfo", location: Path) -> None:
    import os  # noqa: PLC0415 - see above
    import shutil  # noqa: PLC0415 - as above
    import stat  # noqa: PLC0415 - as above

    kinds = {"socket": stat.S_IFSOCK, "fifo": stat.S_IFIFO}
    if kind := kinds.get(member.pax_headers.get(KIND, "")):
        os.mknod(location, kind | 0o600)
        return
    with location.open("wb") as target:
        shutil.copyfileobj(archive.extractfile(member), target)  # type: ignore[arg-type] # None is for what is no file
