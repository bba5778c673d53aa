"""The archive of a bundle: a gzipped tar whose bytes depend on its files only."""

import tarfile
from collections.abc import Mapping
from gzip import GzipFile
from io import BytesIO

from genplug.bundle.redaction import Redactor
from genplug.capture import archive as archives

_FILE_MODE = 0o600


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Return an archive with files, each readable by its owner only; equal files give equal bytes."""
    buffer = BytesIO()
    with (
        GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
    ):
        for name, content in files.items():
            # A directory in the archive, so that it does not fill the directory in which it is unpacked.
            member = tarfile.TarInfo(f"{archives.BUNDLE_DIRECTORY}/{name}")
            member.size, member.mode = len(content), _FILE_MODE
            archive.addfile(member, BytesIO(content))
    return buffer.getvalue()


def redact_capture(file: str, content: bytes, redactor: Redactor) -> bytes:
    """Return an archive of ``genplug capture`` without secrets in its files, names and targets of links.

    Raises:
        ValueError: the bytes are not an archive, or the archive is too large.
    """
    buffer = BytesIO()
    try:
        with (
            GzipFile(fileobj=BytesIO(content)) as source,
            tarfile.open(fileobj=source, mode="r|", encoding="utf-8") as members,
            GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as target,
        ):
            for number, member in enumerate(members, 1):
                if number > archives.MAX_MEMBERS or members.offset > archives.MAX_BYTES:
                    message = f"the archive has more than {archives.MAX_MEMBERS} files or {archives.MAX_BYTES} bytes"
                    raise ValueError(message)
                found = members.extractfile(member) if member.isreg() else None
                data = found.read() if found is not None else b""
                place = f"{file}/{member.name}"
                member.name = redactor.redact_text(place, member.name)
                member.linkname = redactor.redact_text(place, member.linkname)
                data = _redact_bytes(place, data, redactor)
                member.size = len(data)
                target.addfile(member, BytesIO(data))
    except (tarfile.TarError, OSError, EOFError) as error:
        message = f"expected an archive of 'genplug capture': {error}"
        raise ValueError(message) from None
    return buffer.getvalue()


def _redact_bytes(place: str, data: bytes, redactor: Redactor) -> bytes:
    """Return bytes without secrets; bytes that are not text are unchanged if they have none."""
    text = data.decode("latin-1")
    cleaned = redactor.redact_text(place, text)
    return data if cleaned == text else cleaned.encode("latin-1")
