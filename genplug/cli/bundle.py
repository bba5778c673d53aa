"""``genplug bundle``: everything for a bug report in one archive, without secrets (docs/how-to/report-a-bug.md)."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli.options import CONFIG_HELP, ROOT_HELP, add_cdi_search_dirs, parse_address
from genplug.cli.output import format_table, print_message, table_width
from genplug.observe.text import count_noun

if TYPE_CHECKING:
    from genplug.bundle.contents import Bundle
    from genplug.cli.bundle_parts import BundleSources

DESCRIPTION = """\
Write what a bug report needs into one archive: versions, configuration and policy, status, metrics and readiness of the
agent, the plan, the checks of `genplug doctor`, the record of the node, the use of devices, the sockets of the kubelet,
limits of the system, and what the configuration reads from the node. A part that cannot be collected is listed with the
reason.

Secrets are removed: the values of environment variables, annotations and headers in the configuration, user names in
URLs, tokens, private keys, and values of names such as 'password'. REMOVED.json in the archive lists the file, the rule
and the place of each of them. Read the archive before you publish it: it contains names of devices, resources and
pods, and serial numbers that the configuration reads.

Options that are not set are those of the agent that runs on this node, as its command line and environment have them.
"""
EPILOG = """\
examples:
  genplug bundle -o bundle.tar.gz
  genplug bundle --dry-run                               list what would be in the archive
  genplug bundle -o bundle.tar.gz --log agent.log --no-pods
  kubectl logs --namespace genplug POD | genplug bundle -o bundle.tar.gz --log -
  kubectl exec --namespace genplug POD -- genplug bundle -o - > bundle.tar.gz

exit codes: 0 success, also if parts are missing, 1 the archive cannot be written, 2 usage error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("-o", "--output", metavar="FILE", help="archive to write (.tar.gz), or '-' for stdout")
    parser.add_argument("--dry-run", action="store_true", help="list the files and what is removed; write nothing")
    parser.add_argument("--log", metavar="FILE", help="log of the agent to include, or '-' for the standard input")
    parser.add_argument("--no-pods", action="store_true", help="replace the names of pods and namespaces by numbers")
    parser.add_argument(
        "--no-capture", action="store_true", help="leave out what the configuration reads from the node (node.tar.gz)"
    )
    parser.add_argument("--config", action="extend", nargs="+", metavar="PATH", default=[], help=CONFIG_HELP)
    parser.add_argument("--policy", metavar="FILE", type=Path, help="policy of the agent")
    parser.add_argument("--root", metavar="DIR", help=ROOT_HELP.replace("(default: /)", "(default: that of the agent)"))
    parser.add_argument("--kubelet-dir", metavar="DIR", help="directory of the kubelet (default: /var/lib/kubelet)")
    add_cdi_search_dirs(parser)
    parser.set_defaults(cdi_search_dirs=None)
    parser.add_argument("--node-name", metavar="NAME", help="name of the Kubernetes node")
    parser.add_argument(
        "--address", metavar="HOST:PORT", type=parse_address, help="address of the agent (default: that of the agent)"
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Collect, remove secrets, write the archive and return the exit code."""
    from genplug.bundle.contents import Kind, build_bundle  # noqa: PLC0415 - --help needs none of this
    from genplug.bundle.redaction import Redactor  # noqa: PLC0415 - as above
    from genplug.cli.bundle_parts import collect_parts, describe_pods, find_environment_secrets  # noqa: PLC0415
    from genplug.record.agent_process import AgentProcess  # noqa: PLC0415 - as above

    if arguments.output is None and not arguments.dry_run:
        arguments.usage_error("expected -o FILE or --dry-run")
    if code := _check_output(arguments):
        return code
    log = _read_log(arguments.log)
    if isinstance(log, str):
        print_message("bundle", log)
        return 2
    sources = _find_sources(arguments, log)
    parts = tuple(collect_parts(sources))
    redactor = Redactor()
    environments = [dict(os.environ)]
    if isinstance(sources.agent, AgentProcess):
        environments.append(dict(sources.agent.environment))
    texts = [part.content.decode("utf-8", "replace") for part in parts if part.kind is Kind.CONFIGURATION]
    for value in find_environment_secrets(texts, environments):
        redactor.add_secret(value)
    if arguments.no_pods:
        redactor.names.update(describe_pods(parts))
    bundle = build_bundle(parts, redactor)
    if arguments.dry_run:
        _print_contents(bundle)
        return 0
    return _write(bundle, arguments.output)


def _check_output(arguments: argparse.Namespace) -> int:
    """Return an exit code if the archive cannot be written to the output."""
    if arguments.dry_run:
        return 0
    if arguments.output == "-":
        if sys.stdout.isatty():
            print_message("bundle", "-o -: refusing to write a binary archive to a terminal; use a file or a pipe")
            return 2
        return 0
    path = Path(arguments.output)
    # The archive is renamed to its name, which must not replace a /dev/null.
    if path.exists() and not path.is_file():
        print_message("bundle", f"-o {path}: exists and is not a regular file; name a regular file, or '-' for stdout")
        return 2
    return 0


def _read_log(path: str | None) -> bytes | str | None:
    """Return the end of the log, None without a log, or the error as a text."""
    from genplug.spec.limits import MAX_BUNDLE_LOG_BYTES  # noqa: PLC0415 - see run

    if path is None:
        return None
    try:
        if path == "-":
            return _read_end(MAX_BUNDLE_LOG_BYTES)
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - MAX_BUNDLE_LOG_BYTES - 1, 0))
            return file.read(MAX_BUNDLE_LOG_BYTES + 1)
    except OSError as error:
        return f"--log {path}: cannot be read: {error.strerror}"


def _read_end(max_bytes: int) -> bytes:
    """Return the last bytes of the standard input, one more than the limit if there are more."""
    content = b""
    while chunk := sys.stdin.buffer.read(1 << 16):
        content = (content + chunk)[-max_bytes - 1 :]
    return content


def _find_sources(arguments: argparse.Namespace, log: bytes | None) -> "BundleSources":
    from genplug.cli.bundle_parts import BundleSources  # noqa: PLC0415 - see run
    from genplug.cli.record import add_agent_options, add_defaults  # noqa: PLC0415 - see run
    from genplug.record.agent_process import describe_method, find_agent, shares_files  # noqa: PLC0415 - see run
    from genplug.record.facts import Unknown  # noqa: PLC0415 - see run

    agent = find_agent()
    has_files = not isinstance(agent, Unknown) and shares_files(agent, describe_method(agent))
    variables = {}
    if not isinstance(agent, Unknown) and (arguments.config or has_files):
        add_agent_options(arguments, agent)
        variables = dict(agent.environment)
    if not arguments.config and os.environ.get("GENPLUG_CONFIG"):
        arguments.config = [path for path in os.environ["GENPLUG_CONFIG"].split(":") if path]
    add_defaults(arguments)
    options = _parse_directories(agent.arguments if not isinstance(agent, Unknown) else ())
    variables = dict(os.environ) | variables
    kubelet = Path(
        arguments.kubelet_dir or options.kubelet_dir or variables.get("GENPLUG_KUBELET_DIR") or "/var/lib/kubelet"
    )
    plugins = options.device_plugins_dir or variables.get("GENPLUG_DEVICE_PLUGINS_DIR") or kubelet / "device-plugins"
    resources = options.pod_resources_dir or variables.get("GENPLUG_POD_RESOURCES_DIR") or kubelet / "pod-resources"
    return BundleSources(
        config=tuple(arguments.config),
        policy=arguments.policy,
        root=arguments.root,
        node_name=arguments.node_name,
        cdi_search_dirs=arguments.cdi_search_dirs,
        address=arguments.address,
        plugin_dir=kubelet / "device-plugins" if arguments.kubelet_dir else Path(plugins),
        pod_resources_dir=kubelet / "pod-resources" if arguments.kubelet_dir else Path(resources),
        agent=agent,
        log=log,
        has_capture=not arguments.no_capture,
    )


def _parse_directories(words: tuple[str, ...]) -> argparse.Namespace:
    """Return the directories of the kubelet in the arguments of the agent."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in ("--kubelet-dir", "--device-plugins-dir", "--pod-resources-dir"):
        parser.add_argument(option)
    try:
        return parser.parse_known_args(words)[0]
    except argparse.ArgumentError:
        return parser.parse_known_args(())[0]


def _print_contents(bundle: "Bundle") -> None:
    """Print the files of a bundle, and what is removed from them."""
    rows = [
        (
            file.name,
            "-" if file.error else str(len(file.content)),
            (file.error and f"missing: {file.error}") or file.description,
        )
        for file in bundle.files
    ]
    print(format_table(("FILE", "BYTES", "CONTENT"), rows, table_width()))
    if bundle.removed:
        removed = [
            (str(entry["file"]), str(entry["count"]), str(entry["rule"]), ", ".join(entry["places"][:3]))
            for entry in bundle.removed
        ]
        print(f"\n{format_table(('FILE', 'REMOVED', 'RULE', 'PLACES'), removed, table_width())}")


def _write(bundle: "Bundle", output: str) -> int:
    from genplug.capture.writer import write_file  # noqa: PLC0415 - see run

    content = bundle.pack()
    try:
        if output == "-":
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            write_file(content, Path(output))
    except OSError as error:
        print_message("bundle", f"-o {output}: cannot be written: {error.strerror}")
        return 1
    for file in bundle.missing:
        print_message("bundle", f"without {file.name}: {file.error}")
    count = sum(entry["count"] for entry in bundle.removed)
    name = "stdout" if output == "-" else output
    print_message(
        "bundle",
        f"{name}: {len(bundle.files) - len(bundle.missing)} files, {len(content)} bytes; "
        f"{count_noun(count, 'value')} removed, which REMOVED.json lists; read the archive before you publish it",
    )
    return 0
