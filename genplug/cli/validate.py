"""``genplug validate``: check configurations without a node, a kubelet or a cluster, and print every mistake."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from genplug.cli.options import add_policy

if TYPE_CHECKING:
    from genplug.config.diagnostics import Diagnostic
    from genplug.spec.location import SourceLocation
    from genplug.spec.model import Config
    from genplug.spec.policy import Policy

DESCRIPTION = """\
Check a configuration and print every mistake in it, with file, line, column and what to write instead.
PATH is a file, a directory as a ConfigMap mounts it, a ConfigMap manifest, or '-' for standard input (a configuration,
or what `helm template` and `kubectl get -o yaml` print). Files and directories of one call merge, as with several
--config; each manifest and standard input stand for themselves. What a policy has to allow, such as mounts, is checked
against the file of --policy; without one, against the default policy. A policy in a manifest is checked by itself.
"""
EPILOG = """\
examples:
  genplug validate genplug.yaml
  helm template ./chart | genplug validate -
  genplug validate /etc/genplug -o json
  genplug validate genplug.yaml --policy policy.yaml

Without --node-name, every node.<node-name>.yaml is checked over the rest, one after the other.
exit codes: 0 valid, 2 wrong usage, 78 invalid
"""
_STDIN = "<stdin>"
_Check: TypeAlias = "Callable[[], Config | Policy]"
"""Decodes one configuration or policy, or raises what is wrong with it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, directory, ConfigMap manifest, or '-'")
    add_policy(parser)
    parser.add_argument("--node-name", metavar="NAME", help="check as on this node: with node.NAME.yaml only")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing when all is well")


def run(arguments: argparse.Namespace) -> int:
    """Check, print and return the exit code."""
    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415 - as above
    from genplug.config.policy import load_policy  # noqa: PLC0415 - as above
    from genplug.spec.model import Config  # noqa: PLC0415 - --help needs none of this

    valid: list[Config | Policy] = []
    problems: list[Diagnostic] = []
    policy: Policy | None = None
    try:
        policy = load_policy(arguments.policy).policy
    except ConfigInvalidError as error:
        problems += error.problems
    for check in _checks(arguments.paths, arguments.node_name, policy):
        try:
            valid.append(check())
        except ConfigInvalidError as error:
            problems += error.problems
    # What is wrong in the rest is wrong with each node's file over it, too.
    found = ConfigInvalidError(problems)
    if arguments.output == "json":
        configs = [one for one in valid if isinstance(one, Config)]
        print(json.dumps(_document(configs, found.problems), indent=2, ensure_ascii=False))
    elif found.problems:
        count = len(found.problems)
        print(f"{found}\n\n{count} problem{'' if count == 1 else 's'}", file=sys.stderr)
    elif not arguments.quiet:
        for one in valid:
            print(_summary(one) if isinstance(one, Config) else f"{one.file}: valid policy")
    return 78 if found.problems else 0


def _checks(paths: Sequence[str], node_name: str | None, policy: "Policy | None") -> Iterator[_Check]:
    """Yield one call for each configuration that the paths hold."""
    from genplug.config.files import nodes_of  # noqa: PLC0415 - see run
    from genplug.config.load import load_files  # noqa: PLC0415 - see run

    together = []
    for path in paths:
        if path == "-":
            yield from _stdin_checks(node_name, policy)
        elif (text := _manifest_text(path)) is not None:
            yield from _manifest_checks(text, path, node_name, policy)
        else:
            together.append(Path(path))
    if together:
        for node in [node_name] if node_name else [None, *nodes_of(together)]:
            yield lambda node=node: load_files(together, node, policy).config  # type: ignore[misc] # of a lambda's default


def _manifest_text(path: str) -> str | None:
    """Return the text of a manifest; None of anything else: ``load_files`` is to read it, and to complain."""
    from genplug.config.manifest import is_manifest  # noqa: PLC0415 - see run

    try:
        text = Path(path).read_bytes().decode("utf-8-sig") if Path(path).is_file() else ""
    except (OSError, UnicodeDecodeError):
        return None
    return text if is_manifest(text) else None


def _stdin_checks(node_name: str | None, policy: "Policy | None") -> Iterator[_Check]:
    from genplug.config.diagnostics import ConfigInvalidError, Diagnostics  # noqa: PLC0415 - see run
    from genplug.config.files import decode_utf8  # noqa: PLC0415 - see run
    from genplug.config.load import load_text  # noqa: PLC0415 - see run
    from genplug.config.manifest import MAX_BYTES, is_manifest  # noqa: PLC0415 - see run

    problems = Diagnostics()
    read = decode_utf8(sys.stdin.buffer.read(MAX_BYTES + 1), _STDIN, problems)
    if read is None:
        yield partial(_raise, ConfigInvalidError(problems.found))
    elif is_manifest(read.text):
        yield from _manifest_checks(read.text, _STDIN, node_name, policy)
    else:
        yield partial(load_text, read.text, _STDIN, policy)


def _manifest_checks(text: str, name: str, node_name: str | None, policy: "Policy | None") -> Iterator[_Check]:
    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415 - see run
    from genplug.config.manifest import find_manifests  # noqa: PLC0415 - see run

    try:
        found = find_manifests(text, name)
    except ConfigInvalidError as error:
        yield partial(_raise, error)
        return
    for manifest in found:
        if policies := manifest.policies:
            yield from (partial(manifest.policy, one) for one in policies)
            continue
        for node in [node_name] if node_name else [None, *sorted(set(manifest.nodes.values()))]:
            yield partial(manifest.load, node, policy)


def _raise(error: Exception) -> "Config":
    raise error


def _summary(config: "Config") -> str:
    files, resources = len(config.files), len(config.resources)
    counted = f"{files} file{'' if files == 1 else 's'}, {resources} resource{'' if resources == 1 else 's'}"
    return f"{', '.join(config.files)}: valid, {counted}"


def _document(valid: Sequence["Config"], problems: Sequence["Diagnostic"]) -> dict[str, object]:
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Validation",
        "valid": not problems,
        "configurations": [
            {"files": list(one.files), "resources": list(one.resources), "sha256": one.sha256} for one in valid
        ],
        "problems": [
            {
                "code": one.code.value,
                **_position(one.location),
                "width": one.width,
                "path": one.key_path,
                "message": one.message,
                "first": _position(one.related_location) if one.related_location else None,
                "expected": one.expected,
                "hint": one.hint,
            }
            for one in problems
        ],
    }


def _position(location: "SourceLocation") -> dict[str, object]:
    return {"file": location.file, "line": location.line, "column": location.column}
