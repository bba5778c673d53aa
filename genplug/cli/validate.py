"""``genplug validate``: check configurations without a node, a kubelet or a cluster, and print every error."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genplug.cli.options import WARNINGS_CODE, add_input_driver, add_inputs, add_policy, build_request
from genplug.cli.output import format_json, print_message

if TYPE_CHECKING:
    from genplug.config.inputs import ConfigInput
    from genplug.spec.diagnostic import Diagnostic
    from genplug.spec.model import Config

DESCRIPTION = """\
Check a configuration, and print every error and warning with its file, line and column and a suggestion. PATH is a
file, a directory such as a mounted ConfigMap, a directory with a directory for each pool, a ConfigMap manifest, a
policy, or '-' for the standard input: a configuration, a policy, or the output of `helm template` or
`kubectl get -o yaml`. --values checks values files of the chart as `helm template` renders them: each pool is checked
with its own policy.

Files and directories are merged into one configuration; each manifest and the standard input are checked separately.
A configuration is checked against the policy of --policy, else against the policy of its pool or beside it, else
against the default policy.

--privileges prints what the agent needs from its container or service for each configuration, with the key that causes
it, the value of the chart and the setting of the systemd unit. Without a policy, it prints what a policy has to allow.
"""
EPILOG = """\
examples:
  genplug validate genplug.yaml
  genplug validate --values values.yaml
  genplug validate --values values.yaml --values production.yaml --pool lab
  helm template ./chart | genplug validate -
  genplug validate /etc/genplug -o json
  genplug validate genplug.yaml --policy policy.yaml
  genplug validate --strict -o github genplug.yaml                   in a pipeline
  genplug validate --privileges --values values.yaml                 before an installation

Without --node-name, the configuration is checked once for each node that has a file node.<node-name>.yaml.

A warning has no effect on the agent. `genplug schema validation` describes the keys of `-o json`, and `genplug schema
privileges` those with --privileges, if all configurations are valid. The output formats json, sarif and github are
printed to the standard output, errors and warnings as text to the standard error.

exit codes: 0 valid, 2 usage error, 3 warnings with --strict, 78 invalid
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("paths", nargs="*", metavar="PATH", help="file, directory, ConfigMap manifest, or '-'")
    add_inputs(parser)
    add_policy(parser)
    parser.add_argument("--node-name", metavar="NAME", help="check the configuration of this node, with node.NAME.yaml")
    add_input_driver(parser)
    parser.add_argument("--strict", action="store_true", help="exit with 3 if there are warnings and no errors")
    parser.add_argument(
        "-o",
        "--output",
        choices=("text", "json", "sarif", "github"),
        default="text",
        help="format of the output (default: text)",
    )
    parser.add_argument(
        "--privileges", action="store_true", help="print what the agent needs for each configuration, and why"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing if there are no errors and warnings")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Check, print and return the exit code."""
    from genplug.config.diagnostics import ConfigInvalidError, sort_unique  # noqa: PLC0415 - --help does not need it
    from genplug.config.inputs import find_inputs  # noqa: PLC0415 - as above

    if not arguments.paths and not arguments.values:
        arguments.usage_error("expected a PATH or --values FILE")
    if arguments.privileges and arguments.output not in ("text", "json"):
        arguments.usage_error(f"--privileges: expected -o text or json, found -o {arguments.output}")
    inputs = find_inputs(
        build_request(arguments, arguments.paths, has_all_nodes=True, is_unlimited=arguments.privileges)
    )
    valid: list[tuple[ConfigInput, Config]] = []
    errors: list[Diagnostic] = list(inputs.diagnostics)
    warnings: list[Diagnostic] = []
    summaries: list[str] = []
    policies: list[str] = []
    for policy in inputs.policies:
        try:
            loaded = policy.load()
        except ConfigInvalidError as error:
            errors += error.diagnostics
        else:
            warnings += loaded.warnings
            policies.append(f"{loaded.policy.file}: valid policy")
    if arguments.policy is not None:
        # The policy of the option is an argument of the check, and not its subject.
        del policies[:1]
    for found in inputs.configurations:
        try:
            valid.append((found, config := found.load()))
            warnings += config.warnings
            summaries.append(_summarize(found, config))
        except ConfigInvalidError as error:
            errors += error.diagnostics
    # The checks of several nodes and pools find the errors of shared files again.
    found_errors, found_warnings = sort_unique(errors), sort_unique(warnings)
    diagnostics = sort_unique((*found_errors, *found_warnings))
    _print(arguments, valid, diagnostics, [*dict.fromkeys(summaries + policies)])
    for note in inputs.notes:
        print_message("validate", note)
    if found_errors:
        return 78
    return WARNINGS_CODE if found_warnings and arguments.strict else 0


def _print(
    arguments: argparse.Namespace,
    valid: "Sequence[tuple[ConfigInput, Config]]",
    diagnostics: "Sequence[Diagnostic]",
    summaries: Sequence[str],
) -> None:
    from genplug.cli.diagnostic_formats import build_sarif, format_github  # noqa: PLC0415 - see run
    from genplug.config.diagnostics import format_diagnostics  # noqa: PLC0415 - see run

    is_privileges = arguments.privileges and not _has_errors(diagnostics)
    match arguments.output:
        case "json" if is_privileges:
            from genplug.cli.privileges import build_document  # noqa: PLC0415 - only this option needs it

            print(format_json(build_document(valid)))
        case "json":
            print(format_json(_build_document(valid, diagnostics)))
        case "sarif":
            print(format_json(build_sarif(diagnostics)))
        case "github":
            print(format_github(diagnostics), end="\n" if diagnostics else "")
        case _:
            if diagnostics:
                print(f"{format_diagnostics(diagnostics)}\n\n{_count(diagnostics)}", file=sys.stderr)
                if sys.stderr.isatty():
                    print(f"run 'genplug explain {diagnostics[0].code.value}' for details", file=sys.stderr)
            if is_privileges:
                from genplug.cli.privileges import format_text  # noqa: PLC0415 - as above

                print(*(format_text(found, config) for found, config in valid), sep="\n\n")
            elif not arguments.quiet and not _has_errors(diagnostics):
                print(*summaries, sep="\n", end="\n" if summaries else "")


def _has_errors(diagnostics: "Sequence[Diagnostic]") -> bool:
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)


def _count(diagnostics: "Sequence[Diagnostic]") -> str:
    """Return the numbers of errors and warnings as text."""
    severities = [diagnostic.severity.value for diagnostic in diagnostics]
    counts = [(severities.count(severity), severity) for severity in ("error", "warning")]
    return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts if count)


def _summarize(found: "ConfigInput", config: "Config") -> str:
    files, resources = len(config.files), len(config.resources)
    counts = f"{files} file{'' if files == 1 else 's'}, {resources} resource{'' if resources == 1 else 's'}"
    pool = f"pool {found.pool}, " if found.pool else ""
    return f"{', '.join(config.files)}: valid, {pool}{counts}"


def _build_document(
    valid: "Sequence[tuple[ConfigInput, Config]]", diagnostics: "Sequence[Diagnostic]"
) -> dict[str, object]:
    from genplug.cli.diagnostic_formats import build_problem  # noqa: PLC0415 - see run

    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Validation",
        "valid": not _has_errors(diagnostics),
        "configurations": [
            {
                "files": list(config.files),
                "pool": found.pool,
                "node": found.node_name,
                "policy": config.policy.file,
                "resources": list(config.resources),
                "sha256": config.sha256,
            }
            for found, config in valid
        ],
        "problems": [build_problem(diagnostic) for diagnostic in diagnostics],
    }
