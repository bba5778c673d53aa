"""``genplug validate``: check configurations without a node, a kubelet or a cluster, and print every mistake."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genplug.config.model import Config
    from genplug.config.problem import Problem

DESCRIPTION = """\
Check a configuration and print every mistake in it, with file, line, column and what to write instead.
PATH is a file, a directory as a ConfigMap mounts it, a ConfigMap manifest, or '-' for standard input (a configuration,
or what `helm template` and `kubectl get -o yaml` print). Files of one call merge, as with several --config.
"""
EPILOG = """\
examples:
  genplug validate genplug.yaml
  helm template ./chart | genplug validate -
  genplug validate /etc/genplug -o json

Without --node-name, every node.<node-name>.yaml is checked over the rest, one after the other.
exit codes: 0 valid, 2 wrong usage, 78 invalid
"""
_STDIN = "<stdin>"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, directory, ConfigMap manifest, or '-'")
    parser.add_argument("--node-name", metavar="NAME", help="check as on this node: with node.NAME.yaml only")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing when all is well")


def run(arguments: argparse.Namespace) -> int:
    """Check, print and return the exit code."""
    from genplug.config.problem import ConfigInvalidError, rendered  # noqa: PLC0415 - --help needs none of this

    valid: list[Config] = []
    problems: dict[Problem, None] = {}
    for check in _checks(arguments.paths, arguments.node_name):
        try:
            valid.append(check())
        except ConfigInvalidError as error:
            problems |= dict.fromkeys(error.problems)
    if arguments.output == "json":
        print(json.dumps(_document(valid, list(problems)), indent=2, ensure_ascii=False))
    elif problems:
        print(rendered(problems), file=sys.stderr)
        print(f"\n{len(problems)} problem{'s' if len(problems) > 1 else ''}", file=sys.stderr)
    elif not arguments.quiet:
        for line in dict.fromkeys(_summary(config) for config in valid):
            print(line)
    return 78 if problems else 0


def _checks(paths: Sequence[str], node_name: str | None) -> Iterator[Callable[[], "Config"]]:
    """Yield one call for each configuration that the paths hold."""
    from genplug.config.configmap import is_manifest  # noqa: PLC0415 - see run
    from genplug.config.load import load, load_text  # noqa: PLC0415 - see run

    together = []
    for path in paths:
        name = _STDIN if path == "-" else path
        text = _text(path)
        if text is not None and is_manifest(text, name):
            yield from _manifest_checks(text, name, node_name)
        elif path == "-":
            yield partial(load_text, text or "", name)
        else:
            together.append(Path(path))
    if together:
        for node in [node_name] if node_name else [None, *_overlays(together)]:
            yield lambda node=node: load(together, node).config  # type: ignore[misc]


def _manifest_checks(text: str, name: str, node_name: str | None) -> Iterator[Callable[[], "Config"]]:
    from genplug.config.configmap import manifests  # noqa: PLC0415 - see run
    from genplug.config.load import load_texts  # noqa: PLC0415 - see run
    from genplug.config.sources import OVERLAY  # noqa: PLC0415 - see run

    found = manifests(text, name)
    if not found:
        yield partial(_nothing, name)
    for one in found:
        if not node_name:
            yield partial(load_texts, one.base, {name: text})
        for key, overlay in one.overlays.items():
            if node_name in (None, Path(key).stem.removeprefix(OVERLAY)):
                yield partial(load_texts, (*one.base, overlay), {name: text})


def _nothing(name: str) -> "Config":
    from genplug.config.place import Place  # noqa: PLC0415 - see run
    from genplug.config.problem import Code, ConfigInvalidError, Problem  # noqa: PLC0415 - see run

    hint = "a ConfigMap's data needs a key that ends in .yaml, .yml or .json with a configuration as its text"
    message = "no ConfigMap in it holds a configuration"
    raise ConfigInvalidError([Problem(Code.NO_RESOURCES, Place(name, 1, 1), message, hint=hint)])


def _text(path: str) -> str | None:
    """Return what standard input or a file says; None where it is a directory or cannot be read."""
    if path == "-":
        return sys.stdin.buffer.read().decode("utf-8-sig", "replace")
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None


def _overlays(paths: Sequence[Path]) -> list[str]:
    """Return the names of the nodes that have a file of their own in directories."""
    from genplug.config.sources import OVERLAY, is_config_file  # noqa: PLC0415 - see run

    names = [one.name for path in paths if path.is_dir() for one in path.iterdir() if is_config_file(one.name)]
    return sorted({Path(name).stem.removeprefix(OVERLAY) for name in names if name.startswith(OVERLAY)})


def _summary(config: "Config") -> str:
    count = len(config.resources)
    return f"{', '.join(config.files)}: valid, {count} resource{'' if count == 1 else 's'}"


def _document(valid: Sequence["Config"], problems: Sequence["Problem"]) -> dict[str, object]:
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Validation",
        "valid": not problems,
        "configurations": [{"files": list(one.files), "resources": list(one.resources)} for one in valid],
        "problems": [
            {
                "code": one.code.value,
                "file": one.place.file,
                "line": one.place.line,
                "column": one.place.column,
                "path": one.tree,
                "message": one.message,
                "expected": one.expected,
                "hint": one.hint,
            }
            for one in problems
        ],
    }
