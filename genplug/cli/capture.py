"""``genplug capture``: write the files that configurations read to an archive (docs/how-to/capture.md)."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import CONFIG_HELP, add_cdi_search_dirs, add_node_name, add_policy, add_root
from genplug.cli.output import print_message

if TYPE_CHECKING:
    from genplug.hardware.file_tree import Access
    from genplug.spec.model import Config

DESCRIPTION = """\
Write what a configuration and its probes read of this node into an archive.
`genplug plan --root node.tar.gz` prints the same on another machine as `genplug plan` prints here.
Without --config, the archive holds what the recipes of `genplug init` read.
It contains the names and device numbers under /dev, and the files of /sys and /proc that are read: no other files,
and no environment variables.
"""
EPILOG = """\
examples:
  genplug capture -o node.tar.gz
  genplug capture -o node.tar.gz --config genplug.yaml --root /host
  genplug capture -o - | tar -tvzf -         list what would be in the archive

The archive contains serial numbers and UUIDs of hardware if they are read, or are in names of links under /dev.
Only root may read some files of /sys and /proc: run the command as the user that runs the agent.

exit codes: 0 success, 1 the archive cannot be written, 2 usage error, 78 invalid configuration
"""
_PROGRESS_SECONDS = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="archive to write, or '-' for stdout")
    parser.add_argument(
        "--config", action="extend", nargs="+", metavar="PATH", help=f"{CONFIG_HELP} (default: all recipes)"
    )
    add_policy(parser)
    add_root(parser)
    add_cdi_search_dirs(parser)
    add_node_name(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the archive and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help needs none of this
    from genplug.capture.writer import TooLargeError, capture, write_file  # noqa: PLC0415 - as above
    from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics  # noqa: PLC0415 - as above
    from genplug.hardware.scan_errors import HangError  # noqa: PLC0415 - as above

    out = None if arguments.output == "-" else Path(arguments.output)
    if out is None and sys.stdout.isatty():
        print_message("capture", "-o -: refusing to write a binary archive to a terminal; use a file or a pipe")
        return 2
    # The archive is renamed to its name, which must not replace a /dev/null.
    if out is not None and out.exists() and not out.is_file():
        print_message("capture", f"-o {out}: exists and is not a regular file; name a regular file, or '-' for stdout")
        return 2
    try:
        configs = tuple(_load_configs(arguments))
    except ConfigInvalidError as error:
        print(format_diagnostics(error.diagnostics), file=sys.stderr)
        return 78
    with open_root(arguments.root) as root:
        try:
            archive = capture(
                configs,
                root,
                node_name=arguments.node_name,
                cdi_dirs=arguments.cdi_search_dirs,
                on_access=_Progress(),
            )
            if out is None:
                sys.stdout.buffer.write(archive.content)
                sys.stdout.buffer.flush()
            else:
                write_file(archive.content, out)
        except (HangError, TooLargeError) as error:
            print_message("capture", str(error))
            return 1
        except OSError as error:
            print_message("capture", f"-o {arguments.output}: cannot be written: {error.strerror}")
            return 1
    if archive.unreadable:
        number, first = len(archive.unreadable), archive.unreadable[0]
        print_message(
            "capture",
            f"without the text of {number} file(s) that this user may not read, such as {first}; run it as root",
        )
    if archive.omitted:
        number, first = len(archive.omitted), archive.omitted[0]
        print_message(
            "capture",
            f"without the text of {number} file(s) outside of /sys, /proc and /run/udev/data, such as {first}; "
            "attributes that are read from them do not exist in the archive",
        )
    size = f"{archive.members} entries, {len(archive.content)} bytes"
    print_message("capture", f"{out or 'stdout'}: {size}; it may contain serial numbers")
    return 0


class _Progress:
    """Prints from time to time how many paths have been accessed."""

    def __init__(self) -> None:
        self._count, self._printed = 0, time.monotonic()

    def __call__(self, _access: "Access", path: str) -> None:
        self._count += 1
        if time.monotonic() > self._printed + _PROGRESS_SECONDS:
            self._printed = time.monotonic()
            print_message("capture", f"{self._count} accesses so far, the last to {path!r}")


def _load_configs(arguments: argparse.Namespace) -> "Iterator[Config]":
    """Yield the configuration of --config, or those of all recipes that this version can load."""
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
            print_message("capture", f"without the recipe {recipe.kind}:")
            print(error, file=sys.stderr)
