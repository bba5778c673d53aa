"""``--root``: a folder, or an archive of one that is unpacked for as long as a command runs (``genplug capture``).

An archive comes from somebody else's machine: nothing of it is written outside the temporary folder, and no more than
is allowed. What unpacks it is imported for an archive only: an agent starts without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from gzip import GzipFile
    from tarfile import TarFile, TarInfo

MOST_MEMBERS = 200_000
MOST_BYTES = 1 << 30
"""Of the archive without compression, and of the files in it."""
KIND = "GENPLUG.kind"
"""A header of a member that is a regular file for other programs: ``socket`` or ``fifo`` is what it stands for."""

_MOST_DEPTH = 100
_MOST_AT_ONCE = 1 << 22
"""Bytes that are read in one piece: a member's extended header, which somebody could make endless."""
_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"


class RootError(Exception):
    """What ``--root`` names is neither a folder nor an archive of one; the text says why. The exit code is 2."""


@contextmanager
def opened_root(text: str) -> Iterator[Path]:
    """Give the folder that ``--root`` means: itself, or a temporary one with an archive's files, removed at the end.

    Of an archive (.tar, .tar.gz, .tgz) come regular files, folders, symlinks and, marked by :data:`KIND`, sockets and
    pipes; everything else is left out.

    Raises:
        RootError: it is neither, or an archive that is broken, too large, or reaches out of its folder.
    """
    path = Path(text)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise RootError(f"--root {text}: it cannot be looked at: {error.strerror}") from None
    if is_folder:
        yield path
    elif is_file and text.endswith(_SUFFIXES):
        from tempfile import TemporaryDirectory  # noqa: PLC0415 - see above

        with TemporaryDirectory(prefix="genplug-root-") as folder:
            _unpack(path, Path(folder))
            yield Path(folder)
    else:
        what = "it is neither a folder nor an archive" if path.exists() else "there is no such folder or archive"
        raise RootError(f"--root {text}: {what}; give a folder, or a {', '.join(_SUFFIXES)} of 'genplug capture'")


class _Bounded:
    """A stream that is no longer than :data:`MOST_BYTES`, whatever its headers say and however well it is packed."""

    def __init__(self, stream: "BinaryIO | GzipFile") -> None:
        self._stream = stream
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise RootError(f"a header of {size} bytes is no header")
        self._check(self.tell() + size)
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self._stream.seek(offset)

    @staticmethod
    def _check(offset: int) -> None:
        if offset > MOST_BYTES:
            raise RootError(f"it holds more than {MOST_BYTES >> 20} MiB")


def _unpack(path: Path, folder: Path) -> None:
    import tarfile  # noqa: PLC0415 - see above
    import zlib  # noqa: PLC0415 - as above
    from gzip import BadGzipFile, GzipFile  # noqa: PLC0415 - as above

    try:
        with path.open("rb") as file:
            is_packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            stream = _Bounded(GzipFile(fileobj=file) if is_packed else file)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", encoding="utf-8") as archive:
                _extract(archive, folder)
            # What is broken ends an archive early; the sum that tells stands at the end of the packed file.
            while stream.read(tarfile.RECORDSIZE):
                pass
    except RootError as error:
        raise RootError(f"--root {path}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, BadGzipFile) as error:
        raise RootError(f"--root {path}: it is no archive, or only a part of one: {error}") from None
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        name = Path(error.filename2 or error.filename).relative_to(folder)
        raise RootError(f"--root {path}: it holds '{name}' twice, as different things: nobody should use it") from None
    except (OSError, ValueError) as error:
        what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
        raise RootError(
            f"--root {path}: it cannot be unpacked in {folder.parent} (TMPDIR names another place): {what}"
        ) from None


def _extract(archive: "TarFile", folder: Path) -> None:
    links: dict[Path, str] = {}
    unpacked = 0
    for number, member in enumerate(archive, 1):
        unpacked += member.size
        if number > MOST_MEMBERS or unpacked > MOST_BYTES:
            raise RootError(f"it holds more than {MOST_MEMBERS} files, or {MOST_BYTES >> 20} MiB")
        place = _place(member.name, folder)
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            links[place] = member.linkname
        elif member.isreg():
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(archive, member, place)
    # Nothing can be written through a link that is not there yet: not through one of these links either.
    for place in links:
        place.parent.mkdir(parents=True, exist_ok=True)
    for place, target in links.items():
        place.symlink_to(target)


def _place(name: str, folder: Path) -> Path:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise RootError(f"{name!r} would lie outside of the folder it is unpacked to: nobody should use this archive")
    if len(parts) > _MOST_DEPTH:
        raise RootError(f"it has folders in folders, more than {_MOST_DEPTH} deep: '{'/'.join(parts[:4])}/...'")
    return folder.joinpath(*parts)


def _write(archive: "TarFile", member: "TarInfo", place: Path) -> None:
    import os  # noqa: PLC0415 - see above
    import shutil  # noqa: PLC0415 - as above
    import stat  # noqa: PLC0415 - as above

    kinds = {"socket": stat.S_IFSOCK, "fifo": stat.S_IFIFO}
    if kind := kinds.get(member.pax_headers.get(KIND, "")):
        os.mknod(place, kind | 0o600)
        return
    with place.open("wb") as target:
        shutil.copyfileobj(archive.extractfile(member), target)  # type: ignore[arg-type] # None is for what is no file
