"""``genplug convert``: the configuration of another device plugin as a configuration of genplug."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import WARNINGS_CODE
from genplug.cli.output import format_json, print_message

if TYPE_CHECKING:
    from genplug.convert.conversion import Conversion

FORMATS = ("generic-device-plugin", "smarter", "rdma-shared", "sriov", "nvidia", "intel", "akri", "kubevirt")
"""The names of :data:`genplug.convert.formats.FORMATS`, which --help does not import."""
DESCRIPTION = """\
Print the configuration of another device plugin as a configuration of genplug. FILE is the plugin's own file, a
ConfigMap or a workload that contains it, a custom resource of its operator, or '-' for the standard input. Without
--from, the format is recognized.

The result is always valid. A comment describes each part that the configuration does not express: what, where, why,
and what to do instead. The command reads the file only; compare the devices with 'genplug plan' on a node.
"""
EPILOG = """\
examples:
  genplug convert config.json > genplug.yaml
  genplug convert --from sriov config.json -o json
  kubectl get configmap -n kube-system device-plugin-config -o yaml | genplug convert --from sriov -
  genplug convert daemonset.yaml --policy-output policy.yaml > genplug.yaml
  genplug convert --strict conf.yaml > genplug.yaml                   in a pipeline

The formats are those of generic-device-plugin, smarter-device-manager (smarter), k8s-rdma-shared-dev-plugin
(rdma-shared), the SR-IOV network device plugin (sriov), the NVIDIA device plugin (nvidia), Intel's device plugins and
their operator (intel), the udev handler of Akri (akri), and permitted host devices of KubeVirt (kubevirt).

`genplug schema conversion` describes the keys of `-o json`.

exit codes: 0 success, 1 FILE of --policy-output cannot be created, 2 usage error, 3 something is not expressed and
--strict is set, 78 FILE is not valid for its format
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("file", metavar="FILE", help="configuration of another device plugin, or '-'")
    parser.add_argument("--from", dest="plugin", choices=FORMATS, help="format of FILE (default: recognized)")
    parser.add_argument(
        "-o", "--output", choices=("yaml", "json"), default="yaml", help="format of the output (default: yaml)"
    )
    parser.add_argument("--policy-output", metavar="FILE", help="file to create with the policy, if it needs a policy")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if something is not expressed")


def run(arguments: argparse.Namespace) -> int:
    """Convert, print and return the exit code."""
    from genplug.config.diagnostics import (  # noqa: PLC0415 - --help does not need it
        ConfigInvalidError,
        Diagnostics,
        format_diagnostics,
    )
    from genplug.config.inputs import read_text  # noqa: PLC0415 - as above
    from genplug.convert.formats import convert_text  # noqa: PLC0415 - as above
    from genplug.convert.yaml_writer import format_conversion  # noqa: PLC0415 - as above

    diagnostics = Diagnostics()
    file = read_text(arguments.file, diagnostics)
    if file is None:
        print(format_diagnostics(diagnostics.found), file=sys.stderr)
        return 78
    try:
        conversion = convert_text(file.text, file.name, arguments.plugin)
    except ConfigInvalidError as error:
        print(format_diagnostics(error.diagnostics), file=sys.stderr)
        return 78
    if arguments.output == "json":
        print(format_json(build_document(conversion)))
    else:
        print(format_conversion(conversion), end="")
    # The messages follow the configuration on a terminal and in a pipe.
    sys.stdout.flush()
    code = _write_policy(conversion, arguments.policy_output)
    _print_summary(conversion)
    if code == 0 and arguments.strict and conversion.attention_count:
        return WARNINGS_CODE
    return code


def build_document(conversion: "Conversion") -> dict[str, object]:
    """Return a conversion as a JSON document."""
    from genplug.convert.yaml_writer import HEADER  # noqa: PLC0415 - see run

    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Conversion",
        "from": conversion.plugin,
        "file": conversion.file,
        "configuration": {**HEADER, "resources": dict(conversion.resources)},
        "policy": conversion.policy,
        "remarks": [
            {
                "kind": remark.kind.value,
                "resource": remark.resource,
                "key": remark.key,
                "line": remark.location.line,
                "column": remark.location.column,
                "message": remark.message,
                "action": remark.action,
            }
            for remark in conversion.remarks
        ],
    }


def _write_policy(conversion: "Conversion", output: str | None) -> int:
    """Write the policy that a configuration needs to a new file, and return the exit code."""
    from genplug.convert.yaml_writer import format_document  # noqa: PLC0415 - see run

    if conversion.policy is None:
        if output is not None:
            print_message("convert", f"{output} is not created: the default policy allows the configuration")
        return 0
    if output is None:
        print_message(
            "convert",
            "the default policy does not allow the configuration: '--policy-output policy.yaml' writes a policy that "
            "does; pass '--policy policy.yaml' to validate, plan and run",
        )
        return 0
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(format_document(conversion.policy))
    except FileExistsError:
        message = "the file exists and is not overwritten; use another name, or remove it"
    except OSError as error:
        message = f"the file cannot be created: {error.strerror}"
    else:
        print_message("convert", f"policy: {output}; pass '--policy {output}' to validate, plan and run")
        return 0
    print_message("convert", f"--policy-output {output}: {message}")
    return 1


def _print_summary(conversion: "Conversion") -> None:
    resources, attention = len(conversion.resources), conversion.attention_count
    nouns = "resource" if resources == 1 else "resources", "thing needs" if attention == 1 else "things need"
    where = "; see the comments with 'Not converted' and 'Unknown key'" if attention else ""
    text = f"converted {resources} {nouns[0]} from {conversion.title}, {attention} {nouns[1]} attention{where}"
    print_message("convert", text)
