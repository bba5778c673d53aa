"""Make the generated modules from the ``.proto`` files beside this one.

Needs grpcio-tools and mypy-protobuf (the ``dev`` extra). Generated code refuses a protobuf older than its generator, so
a file that differs in nothing but the generator's version is left as it is: whoever regenerates with newer tools does
not raise protobuf's floor for everybody without need.
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
"""The folder that holds ``genplug``: descriptor names and import paths are relative to it."""

_VERSION = re.compile(rb"# Protobuf Python Version: (\S+)\n")
_STAMP = re.compile(
    rb"(?P<before># Protobuf Python Version: )\S+|(?P<domain>Domain\.PUBLIC,\n)\s+\d+,\n\s+\d+,\n\s+\d+,\n\s+'\S*',"
)


class GeneratorError(Exception):
    """The generator is not installed or failed; the text says what to do."""


def generated(protos: list[Path]) -> dict[Path, bytes]:
    """Return what every generated file would hold now, by its path.

    Raises:
        GeneratorError: grpcio-tools or mypy-protobuf is not installed, or a .proto file is wrong.
    """
    stubs = shutil.which("protoc-gen-mypy", path=Path(sys.executable).parent) or shutil.which("protoc-gen-mypy")
    try:
        protoc = import_module("grpc_tools.protoc")
    except ImportError:
        protoc = None
    if protoc is None or stubs is None:
        raise GeneratorError("grpcio-tools and mypy-protobuf are needed: pip install 'genplug[dev]'")
    with tempfile.TemporaryDirectory() as made:
        names = [str(proto.relative_to(ROOT)) for proto in protos]
        flags = [f"-I{ROOT}", f"--plugin=protoc-gen-mypy={stubs}", f"--python_out={made}", f"--mypy_out=quiet:{made}"]
        if protoc.main(["protoc", *flags, *names]) != 0:
            raise GeneratorError("protoc refused a .proto file; its words are above")
        return {ROOT / path.relative_to(made): path.read_bytes() for path in Path(made).rglob("*_pb2.py*")}


def is_current(path: Path, content: bytes) -> bool:
    """Say whether a file holds this content, whichever version of the generator wrote it."""
    return path.is_file() and _unstamped(path.read_bytes()) == _unstamped(content)


def protobuf_floor() -> tuple[int, ...]:
    """Return the oldest protobuf that accepts the committed modules."""
    stamps = [_VERSION.search(path.read_bytes()) for path in HERE.glob("*_pb2.py")]
    return max(tuple(map(int, stamp[1].split(b"."))) for stamp in stamps if stamp)


def main(arguments: list[str] | None = None) -> int:
    """Regenerate, or check; return the exit status: 0, 1 if a check found differences, 2 without a generator."""
    parser = argparse.ArgumentParser(prog="python -m genplug.kubelet.api.regenerate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something would change")
    is_check = parser.parse_args(arguments).check
    try:
        files = generated(sorted(HERE.glob("*.proto")))
    except GeneratorError as error:
        print(error, file=sys.stderr)
        return 2
    stale = {path: content for path, content in files.items() if not is_current(path, content)}
    for path, content in stale.items():
        print(f"{path.relative_to(ROOT)}: {'is not what its .proto file says' if is_check else 'written'}")
        if not is_check:
            path.write_bytes(content)
    if stale and not is_check:
        print(f"protobuf's floor in pyproject.toml must be at least {'.'.join(map(str, protobuf_floor()))}")
    return 1 if is_check and stale else 0


def _unstamped(content: bytes) -> bytes:
    return _STAMP.sub(lambda match: match["before"] or match["domain"], content)


if __name__ == "__main__":
    sys.exit(main())
