"""The files of a bundle, and its two lists: ``MANIFEST.json`` and ``REMOVED.json``."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from genplug import __version__
from genplug.bundle.archive import pack_files, redact_capture
from genplug.bundle.redaction import Redactor
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_BUNDLE_BYTES, MAX_BUNDLE_FILE_BYTES

MANIFEST, REMOVED = "MANIFEST.json", "REMOVED.json"
_VERSION = "genplug.io/v1alpha1"


class Kind(StrEnum):
    """How secrets are removed from a part of a bundle."""

    TEXT = "text"
    DOCUMENT = "document"
    CONFIGURATION = "configuration"
    CAPTURE = "capture"
    LOG = "log"


class Part(Struct, frozen=True):
    """A part that was collected: its file name, what it is, and its content, or the reason why it is missing."""

    file: str
    description: str
    kind: Kind
    content: bytes = b""
    error: str = ""


class BundleFile(Struct, frozen=True):
    """A file of a bundle: its content without secrets, or the reason why it is missing."""

    name: str
    description: str
    content: bytes
    error: str


class Bundle(Struct, frozen=True):
    """A bundle: its files, in the order of the archive, and the removals as a document."""

    files: tuple[BundleFile, ...]
    removed: Sequence[Any]

    @property
    def missing(self) -> tuple[BundleFile, ...]:
        """The files without content."""
        return tuple(file for file in self.files if file.error)

    def pack(self) -> bytes:
        """Return the archive."""
        return pack_files({file.name: file.content for file in self.files if not file.error})


def build_bundle(parts: Iterable[Part], redactor: Redactor) -> Bundle:
    """Return a bundle without secrets.

    The secrets of all configurations are found first, because they are removed from every file.
    """
    collected = tuple(parts)
    for part in collected:
        if part.kind is Kind.CONFIGURATION:
            redactor.find_secrets(part.content.decode("utf-8", "replace"))
    files, size = [], 0
    for part in collected:
        file = _build_file(part, redactor)
        if size + len(file.content) > MAX_BUNDLE_BYTES:
            reason = f"the bundle would have more than {MAX_BUNDLE_BYTES >> 20} MiB; send this part separately"
            file = BundleFile(part.file, part.description, b"", reason)
        size += len(file.content)
        files.append(file)
    removed = [
        {"file": removal.file, "rule": removal.rule, "count": removal.count, "places": removal.places}
        for removal in redactor.removals
    ]
    files.append(_build_list(REMOVED, "what was removed: file, rule and places", "BundleRemovals", "removed", removed))
    entries = [
        {
            "file": file.name,
            "description": file.description,
            "bytes": len(file.content),
            "sha256": hashlib.sha256(file.content).hexdigest() if not file.error else None,
            "error": file.error,
        }
        for file in files
    ]
    manifest = _build_list(MANIFEST, "the files of the bundle", "BundleManifest", "files", entries)
    return Bundle((manifest, *files), removed)


def _build_file(part: Part, redactor: Redactor) -> BundleFile:
    """Return a part without secrets; a part from which they cannot be removed is missing."""
    if part.error:
        return BundleFile(part.file, part.description, b"", redactor.redact_text(MANIFEST, part.error))
    if part.kind is not Kind.CAPTURE and len(part.content) > MAX_BUNDLE_FILE_BYTES:
        reason = f"the part has {len(part.content)} bytes, more than the {MAX_BUNDLE_FILE_BYTES} of a file in a bundle"
        return BundleFile(part.file, part.description, b"", reason)
    try:
        content = _redact(part, redactor)
    except Exception as error:  # noqa: BLE001 - a part without redaction must not be sent
        reason = f"secrets cannot be removed: {type(error).__name__}"
        return BundleFile(part.file, part.description, b"", reason)
    return BundleFile(part.file, part.description, content, "")


def _redact(part: Part, redactor: Redactor) -> bytes:
    if part.kind is Kind.CAPTURE:
        return redact_capture(part.file, part.content, redactor)
    text = part.content.decode("utf-8", "replace")
    if part.kind is Kind.CONFIGURATION:
        return redactor.redact_configuration(part.file, text).encode()
    if part.kind is Kind.DOCUMENT:
        return redactor.redact_document(part.file, parse_json(text)).encode()
    redact = redactor.redact_log if part.kind is Kind.LOG else redactor.redact_text
    return redact(part.file, text).encode()


def _build_list(name: str, description: str, kind: str, key: str, entries: Sequence[Any]) -> BundleFile:
    document = {"apiVersion": _VERSION, "kind": kind, "version": __version__, key: entries}
    return BundleFile(name, description, (json.dumps(document, indent=2) + "\n").encode(), "")
