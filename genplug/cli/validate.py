"""``genplug validate``: check configurations without a node, a kubelet or a cluster, and print every error."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from genplug.cli.options import add_policy
from genplug.cli.output import format_json

if TYPE_CHECKING:
    from genplug.spec.diagnostic import Diagnostic
    from genplug.spec.location import SourceLocation
    from genplug.spec.model import Config
    from genplug.spec.policy import Policy

DESCRIPTION = """\
Check a configuration, and print every error with its file, line and column and a suggestion. PATH is a file, a
directory such as a mounted ConfigMap, a ConfigMap manifest, or '-' for the standard input: a configuration, or the
output of `helm template` or `kubectl get -o yaml`.

Files and directories are merged into one configuration; each manifest and the standard input are checked separately.
The configuration is checked against the policy of --policy, or against the default policy. A policy in a manifest is
checked too.
"""
EPILOG = """\
examples:
  genplug validate genplug.yaml
  helm template ./chart | genplug validate -
  genplug validate /etc/genplug -o json
  genplug validate genplug.yaml --policy policy.yaml

Without --node-name, the configuration is checked once for each node that has a file node.<node-name>.yaml.

`genplug schema validation` describes the keys of `-o json`.

exit codes: 0 valid, 2 usage error, 78 invalid
"""
_STDIN = "<stdin>"
_Check: TypeAlias = "Callable[[], Config | Policy]"
"""Decodes a configuration or a policy, or raises ConfigInvalidError."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, directory, ConfigMap manifest, or '-'")
    add_policy(parser)
    parser.add_argument("--node-name", metavar="NAME", help="check the configuration of this node, with node.NAME.yaml")
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="format of the output (default: text)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing if there are no errors")


def run(arguments: argparse.Namespace) -> int:
    """Check, print and return the exit code."""
    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415 - --help does not need it
    from genplug.config.policy import load_policy  # noqa: PLC0415 - as above
    from genplug.spec.model import Config  # noqa: PLC0415 - as above

    valid: list[Config | Policy] = []
    diagnostics: list[Diagnostic] = []
    policy: Policy | None = None
    try:
        policy = load_policy(arguments.policy).policy
    except ConfigInvalidError as error:
        diagnostics += error.diagnostics
    for check in _checks(arguments.paths, arguments.node_name, policy):
        try:
            valid.append(check())
        except ConfigInvalidError as error:
            diagnostics += error.diagnostics
    # The checks of several nodes find the errors of the shared files again: ConfigInvalidError removes duplicates.
    found = ConfigInvalidError(diagnostics)
    if arguments.output == "json":
        configs = [item for item in valid if isinstance(item, Config)]
        print(format_json(_build_document(configs, found.diagnostics)))
    elif found.diagnostics:
        count = len(found.diagnostics)
        print(f"{found}\n\n{count} error{'' if count == 1 else 's'}", file=sys.stderr)
    elif not arguments.quiet:
        for item in valid:
            print(_summarize(item) if isinstance(item, Config) else f"{item.file}: valid policy")
    return 78 if found.diagnostics else 0


def _checks(paths: Sequence[str], node_name: str | None, policy: "Policy | None") -> Iterator[_Check]:
    """Yield a check for each configuration and policy in the paths."""
    from genplug.config.files import nodes_of  # noqa: PLC0415 - see run
    from genplug.config.load import load_files  # noqa: PLC0415 - see run

    merged = []
    for path in paths:
        if path == "-":
            yield from _stdin_checks(node_name, policy)
        elif (text := _read_manifest(path)) is not None:
            yield from _manifest_checks(text, path, node_name, policy)
        else:
            merged.append(Path(path))
    if merged:
        for node in [node_name] if node_name else [None, *nodes_of(merged)]:
            yield lambda node=node: load_files(merged, node, policy).config  # type: ignore[misc] # of a lambda's default


def _read_manifest(path: str) -> str | None:
    """Return the text of a manifest, and None for any other file: ``load_files`` reads that, and reports its errors."""
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

    diagnostics = Diagnostics()
    read = decode_utf8(sys.stdin.buffer.read(MAX_BYTES + 1), _STDIN, diagnostics)
    if read is None:
        yield partial(_raise, ConfigInvalidError(diagnostics.found))
    elif is_manifest(read.text):
        yield from _manifest_checks(read.text, _STDIN, node_name, policy)
    else:
        yield partial(load_text, read.text, _STDIN, policy)


def _manifest_checks(text: str, name: str, node_name: str | None, policy: "Policy | None") -> Iterator[_Check]:
    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415 - see run
    from genplug.config.manifest import find_manifests  # noqa: PLC0415 - see run

    try:
        manifests = find_manifests(text, name)
    except ConfigInvalidError as error:
        yield partial(_raise, error)
        return
    for manifest in manifests:
        if policies := manifest.policies:
            yield from (partial(manifest.policy, file) for file in policies)
            continue
        for node in [node_name] if node_name else [None, *sorted(set(manifest.nodes.values()))]:
            yield partial(manifest.load, node, policy)


def _raise(error: Exception) -> NoReturn:
    raise error


def _summarize(config: "Config") -> str:
    files, resources = len(config.files), len(config.resources)
    counts = f"{files} file{'' if files == 1 else 's'}, {resources} resource{'' if resources == 1 else 's'}"
    return f"{', '.join(config.files)}: valid, {counts}"


def _build_document(configs: Sequence["Config"], diagnostics: Sequence["Diagnostic"]) -> dict[str, object]:
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Validation",
        "valid": not diagnostics,
        "configurations": [
            {"files": list(config.files), "resources": list(config.resources), "sha256": config.sha256}
            for config in configs
        ],
        "problems": [
            {
                "code": diagnostic.code.value,
                **_build_location(diagnostic.location),
                "width": diagnostic.width,
                "path": diagnostic.key_path,
                "message": diagnostic.message,
                "first": _build_location(diagnostic.related_location) if diagnostic.related_location else None,
                "expected": diagnostic.expected,
                "hint": diagnostic.hint,
            }
            for diagnostic in diagnostics
        ],
    }


def _build_location(location: "SourceLocation") -> dict[str, object]:
    return {"file": location.file, "line": location.line, "column": location.column}
