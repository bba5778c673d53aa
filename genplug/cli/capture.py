"""``genplug capture``: write the files that configurations read to an archive (docs/how-to/capture.md)."""

import argparse
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import add_policy, add_root

if TYPE_CHECKING:
    from tarfile import TarInfo

    from genplug.hardware.file_tree import Access, FileTree
    from genplug.hardware.host import Host
    from genplug.health.workers.protocol import ProbeRequest
    from genplug.spec.model import Config

DESCRIPTION = """\
Write what a configuration reads of this node into an archive, so that others can plan with it elsewhere:
`genplug plan --root node.tar.gz` gives there what it gives here. Without --config, it is what the recipes of
`genplug init` read. In it are the names and numbers of /dev and those files of /sys and /proc that are read: no other
file, no environment.
"""
EPILOG = """\
examples:
  genplug capture -o node.tar.gz
  genplug capture -o node.tar.gz --config genplug.yaml --root /host
  genplug capture -o - | tar -tvzf -         look first at what would be in it

Serial numbers and UUIDs of hardware are in it where they are read, and in the names of links under /dev.
Some files of /sys and /proc are root's: run it as the agent runs.

exit codes: 0 fine, 1 it could not be written, 2 wrong usage, 78 invalid configuration
"""
_PATIENCE = 3.0
"""Seconds after which it says how far it is."""
_NOT_OF_DEV = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages", "/dev/fd")  # noqa: S108 - to stay out of it
"""Names under /dev that are of processes and not of hardware."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive to write, '-' for stdout")
    parser.add_argument("--config", action="extend", nargs="+", metavar="PATH", help="file or directory")
    add_policy(parser)
    add_root(parser)
    parser.add_argument("--node-name", metavar="NAME", help="merge node.NAME.yaml last")


def run(arguments: argparse.Namespace) -> int:
    """Write the archive and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help needs none of this
    from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics  # noqa: PLC0415 - as above

    out = None if arguments.output == "-" else Path(arguments.output)
    if out is None and sys.stdout.isatty():
        _say("-o -: stdout is a terminal, and an archive is no text: write it to a file or a pipe")
        return 2
    # What is written replaces what is there by a rename, which must not be done to a /dev/null.
    if out is not None and out.exists() and not out.is_file():
        _say(f"-o {out}: it exists and is no regular file; give the name of a file, or '-' for stdout")
        return 2
    try:
        configs = tuple(_configs(arguments))
    except ConfigInvalidError as error:
        print(format_diagnostics(error.problems), file=sys.stderr)
        return 78
    with open_root(arguments.root) as root:
        try:
            content, count = _packed(_members(_touched(configs, root, arguments.node_name), root))
            _write(content, out)
        except _TooMuchError as error:
            _say(str(error))
            return 1
        except OSError as error:
            _say(f"-o {arguments.output}: it cannot be written: {error.strerror}")
            return 1
    _say(f"{out or 'stdout'}: {count} entries, {len(content)} bytes; serial numbers may be among them")
    return 0


class _TooMuchError(Exception):
    """What is read is more than an archive may hold; the text says what to do."""


class _Touched:
    """A witness: the paths that were touched, those of them that were listed, and those that were read."""

    def __init__(self) -> None:
        from genplug.hardware.file_tree import Access  # noqa: PLC0415 - see run

        self.acts: dict[Access, set[str]] = {act: set() for act in Access}
        self._count, self._said = 0, time.monotonic()

    def __call__(self, act: "Access", path: str) -> None:
        self.acts[act].add(path)
        self._count += 1
        if time.monotonic() > self._said + _PATIENCE:
            self._said = time.monotonic()
            _say(f"{self._count} looks so far, the last at {path!r}")


def _configs(arguments: argparse.Namespace) -> "Iterator[Config]":
    """Yield the configuration that is asked for, or those of all recipes that this version understands."""
    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415 - see run
    from genplug.config.load import load, load_text  # noqa: PLC0415 - see run
    from genplug.recipes.catalog import shipped_recipes  # noqa: PLC0415 - see run

    if arguments.config:
        yield load(tuple(map(Path, arguments.config)), arguments.node_name, arguments.policy).config
        return
    for recipe in shipped_recipes().values():
        try:
            yield load_text(recipe.text, f"{recipe.kind}.yaml", None)
        except ConfigInvalidError as error:
            _say(f"without the recipe {recipe.kind}:\n{error}")


def _touched(configs: "Iterable[Config]", root: Path, node_name: str | None) -> _Touched:
    from genplug.hardware.discovery import discover  # noqa: PLC0415 - see run
    from genplug.hardware.explain import explain  # noqa: PLC0415 - see run
    from genplug.hardware.host import Host  # noqa: PLC0415 - see run
    from genplug.health.binding import probe_requests  # noqa: PLC0415 - see run

    touched = _Touched()
    host = Host.at(root, node_name=node_name or os.environ.get("NODE_NAME"), witness=touched)
    for config in configs:
        # `--explain` reads on where a scan stops at the first condition that does not hold.
        inventory = discover(config, host)
        for _ in explain(inventory, host):
            pass
        for name, devices in inventory.devices.items():
            for question in probe_requests(inventory.resources[name], devices):
                _read(question, host)
    return touched


def _read(question: "ProbeRequest", host: "Host") -> None:
    """Read what a probe reads of files, and nothing that a probe only calls or opens."""
    from genplug.health.probes import pci  # noqa: PLC0415 - see run
    from genplug.spec.globs import Glob  # noqa: PLC0415 - see run

    kind, *arguments = question
    if kind == "file":
        is_glob, *paths = arguments
        for written in paths:
            for path in host.glob(Glob.parse(written)).paths if is_glob else (written,):
                host.read_text(path)
    elif kind == "pci":
        for directory in (f"{pci.DEVICES}/{address}" for address in arguments[1:]):
            host.stat(f"{directory}/driver")
            for name in pci.FILES:
                host.read_text(f"{directory}/{name}")


def _members(touched: _Touched, root: Path) -> "Iterator[tuple[TarInfo, bytes]]":
    """Yield the archive members for every accessed path and for all of /dev; a directory precedes its entries.

    Every path of a witness is without symlinks, but for its last name.
    """
    from tarfile import TarInfo  # noqa: PLC0415 - see run

    from genplug.hardware.file_tree import Access, FileTree  # noqa: PLC0415 - see run
    from genplug.hardware.host import STAND_INS_MARKER, Host  # noqa: PLC0415 - see run

    host, tree = Host.at(root), FileTree(os.fspath(root).rstrip("/"))
    paths = set[str]().union(*touched.acts.values(), _of_dev(tree))
    # Attributes are made of names, too.
    paths |= {
        f"{at}/{entry.name}" for at in touched.acts[Access.LISTED] if _is_of_kernel(at) for entry in tree.entries(at)
    }
    paths |= {str(parent) for path in paths for parent in Path(path).parents}
    directories, left_out = {""}, []
    yield TarInfo(STAND_INS_MARKER), b""
    for path in sorted(paths - {"/"}):
        # A tree can change while it is looked at.
        if path.rpartition("/")[0] not in directories:
            continue
        try:
            mode = os.lstat(tree.prefix + path).st_mode
        except (OSError, ValueError):
            continue
        member, content = TarInfo(path.lstrip("/")), b""
        try:
            content = _filled(member, mode, path, host, tree, is_read=path in touched.acts[Access.READ])
        except OSError as error:
            # That it is there counts, even if nobody can read it.
            left_out += [path] if isinstance(error, PermissionError) else []
        if member.isdir():
            directories.add(path)
        member.size = len(content)
        yield member, content
    if left_out:
        _say(f"without the text of {len(left_out)} files that only others may read, such as {left_out[0]}")


def _of_dev(tree: "FileTree") -> Iterator[str]:
    waiting = ["/dev"]
    while waiting:
        for entry in tree.entries(at := waiting.pop()):
            if (path := f"{at}/{entry.name}") not in _NOT_OF_DEV:
                yield path
                waiting += [path] if entry.is_directory else []


def _filled(  # noqa: PLR0913 - what is known of a path
    member: "TarInfo", mode: int, path: str, host: "Host", tree: "FileTree", *, is_read: bool
) -> bytes:
    """Say in a member what stands at a path, and return its bytes.

    Raises:
        OSError: they cannot be read.
    """
    from tarfile import DIRTYPE, SYMTYPE  # noqa: PLC0415 - see run

    from genplug.capture.archive import KIND  # noqa: PLC0415 - see run
    from genplug.hardware.file_tree import MAX_TEXT_BYTES  # noqa: PLC0415 - see run
    from genplug.health.probes.pci import HEADER  # noqa: PLC0415 - see run

    if stat.S_ISLNK(mode):
        member.linkname, member.type = tree.target(path), SYMTYPE
    elif stat.S_ISDIR(mode):
        member.type, member.mode = DIRTYPE, 0o755
    elif stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        member.pax_headers = {KIND: "socket" if stat.S_ISSOCK(mode) else "fifo"}
    elif (look := host.stat(path)) is not None and look.is_device:
        return f"{look.kind} {look.major}:{look.minor}\n".encode()
    elif is_read and _is_of_kernel(path):
        # To read all of a configuration space can disturb a device.
        return tree.read(path, HEADER if path.endswith("/config") else MAX_TEXT_BYTES)
    return b""


def _is_of_kernel(path: str) -> bool:
    """Say whether a path is the kernel's word on the machine, and not on a process: its environment would be there."""
    top, _, rest = path.lstrip("/").partition("/")
    return top == "sys" or (top == "proc" and not rest[:1].isdecimal())


def _packed(members: "Iterable[tuple[TarInfo, bytes]]") -> tuple[bytes, int]:
    """Return an archive that depends on its members only, and how many they are."""
    import tarfile  # noqa: PLC0415 - see run
    from gzip import GzipFile  # noqa: PLC0415 - see run
    from io import BytesIO  # noqa: PLC0415 - see run

    from genplug.capture.archive import MAX_BYTES, MAX_MEMBERS  # noqa: PLC0415 - see run

    count, buffer = 0, BytesIO()
    with (
        GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
    ):
        for count, (member, content) in enumerate(members, 1):
            archive.addfile(member, BytesIO(content))
            if count > MAX_MEMBERS or archive.offset > MAX_BYTES:
                raise _TooMuchError(
                    f"the configuration reads more than an archive may hold ({MAX_MEMBERS} paths, "
                    f"{MAX_BYTES >> 20} MiB): name a --config with narrower globs; it was at {member.name!r}"
                )
    return buffer.getvalue(), count


def _write(content: bytes, out: Path | None) -> None:
    """Write an archive to stdout or, all of it or nothing and for its owner only, to a file."""
    from tempfile import NamedTemporaryFile  # noqa: PLC0415 - see run

    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).replace(out)
        except BaseException:
            Path(file.name).unlink()
            raise


def _say(text: str) -> None:
    print(f"genplug capture: {text}", file=sys.stderr)
