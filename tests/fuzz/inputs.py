"""The inputs that are kept: corpora, which reach much code, and findings, which failed once."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.fuzz.target import Target

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"
_MAX_CORPUS_BYTES = 14 << 10
"""Bytes of the corpus of a target."""
_OVERHEAD_BYTES = 130
"""Bytes of an archive for an input, beside the input: its name and numbers, twice."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def read_corpus(target: Target) -> Mapping[str, bytes]:
    """Return the inputs of the corpus of a target by their names; empty without a corpus."""
    path = CORPUS / f"{target.name}.zip"
    if not path.exists():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_findings(target: Target) -> Mapping[str, bytes]:
    """Return the inputs that a target failed with once, by the names of their files."""
    return {path.name: path.read_bytes() for path in sorted((FINDINGS / target.name).glob("*"))}


def write_corpus(target: Target, inputs: Iterable[bytes]) -> None:
    """Write the corpus of a target; equal inputs give an equal file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for content in sorted(set(inputs), key=lambda content: (len(content), content)):
            archive.writestr(zipfile.ZipInfo(name_input(content), _EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{target.name}.zip").write_bytes(buffer.getvalue())


def limit_size(inputs: Sequence[bytes]) -> list[bytes]:
    """Return inputs until they exceed the size of a corpus, the smallest first; each is counted as compressed."""
    kept, size = [], 0
    for content in sorted(inputs, key=len):
        size += len(zlib.compress(content)) + _OVERHEAD_BYTES
        if size > _MAX_CORPUS_BYTES:
            break
        kept.append(content)
    return kept


def name_input(content: bytes) -> str:
    """Return a name for an input, which depends on its content only."""
    return hashlib.sha256(content).hexdigest()[:16]


def all_inputs(target: Target) -> list[bytes]:
    """Return the seeds, the corpus and the findings of a target, each input once."""
    found = [*target.seeds(), *read_corpus(target).values(), *read_findings(target).values()]
    return list(dict.fromkeys(found))
