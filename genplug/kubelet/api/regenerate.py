"""Generate the protocol modules from the ``.proto`` files in this directory.

Requires grpcio-tools and mypy-protobuf (the ``dev`` extra). Generated code raises an error with a protobuf older than
its generator. A file that differs only in the version of the generator is therefore kept, so that newer tools do not
raise the minimum version of protobuf without need.
"""

import argparse
import re
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
"""The directory that contains ``genplug``; descriptor names and import paths are relative to it."""

_VERSION = re.compile(rb"# Protobuf Python Version: (\S+)\n")
_STAMP = re.compile(
    rb"(?P<before># Protobuf Python Version: )\S+|(?P<domain>Domain\.PUBLIC,\n)\s+\d+,\n\s+\d+,\n\s+\d+,\n\s+'\S*',"
)


class GeneratorError(Exception):
    """The generator is not installed, or it failed; the message states what to do."""


def generate(protos: list[Path]) -> dict[Path, bytes]:
    """Return the content that each generated file should have, by its path.

    Raises:
        GeneratorError: grpcio-tools or mypy-protobuf is not installed, or a .proto file is wrong.
    """
    stubs = shutil.which("protoc-gen-mypy", path=Path(sys.executable).parent) or shutil.which("protoc-gen-mypy")
    try:
        protoc = import_module("grpc_tools.protoc")
    except ImportError:
        protoc = None
    if protoc is None or stubs is None:
        raise GeneratorError("grpcio-tools or mypy-protobuf is not installed; run: pip install 'genplug[dev]'")
    with tempfile.TemporaryDirectory() as output:
        names = [str(proto.relative_to(ROOT)) for proto in protos]
        flags = [
            f"-I{ROOT}",
            f"--plugin=protoc-gen-mypy={stubs}",
            f"--python_out={output}",
            f"--mypy_out=quiet:{output}",
        ]
        if protoc.main(["protoc", *flags, *names]) != 0:
            raise GeneratorError("protoc failed for a .proto file; its error is above")
        return {ROOT / path.relative_to(output): path.read_bytes() for path in Path(output).rglob("*_pb2.py*")}


def is_current(path: Path, content: bytes) -> bool:
    """Return whether a file has this content, apart from the version of the generator."""
    return path.is_file() and _remove_versions(path.read_bytes()) == _remove_versions(content)


def protobuf_floor() -> tuple[int, ...]:
    """Return the oldest version of protobuf that accepts the committed modules."""
    stamps = [_VERSION.search(path.read_bytes()) for path in HERE.glob("*_pb2.py")]
    return max(tuple(map(int, stamp[1].split(b"."))) for stamp in stamps if stamp)


def main(arguments: list[str] | None = None) -> int:
    """Generate or check the modules; return 0, 1 if the check found differences, or 2 if the generator failed."""
    parser = argparse.ArgumentParser(prog="python -m genplug.kubelet.api.regenerate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write no file; exit with 1 if a file would change")
    is_check = parser.parse_args(arguments).check
    try:
        files = generate(sorted(HERE.glob("*.proto")))
    except GeneratorError as error:
        print(error, file=sys.stderr)
        return 2
    stale = {path: content for path, content in files.items() if not is_current(path, content)}
    for path, content in stale.items():
        print(f"{path.relative_to(ROOT)}: {'differs from its .proto file' if is_check else 'written'}")
        if not is_check:
            path.write_bytes(content)
    if stale and not is_check:
        print(f"pyproject.toml must require at least protobuf {'.'.join(map(str, protobuf_floor()))}")
    return 1 if is_check and stale else 0


def _remove_versions(content: bytes) -> bytes:
    return _STAMP.sub(lambda match: match["before"] or match["domain"], content)


if __name__ == "__main__":
    sys.exit(main())
