"""``genplug doctor``: check this machine, and the configuration against it. It changes nothing."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from genplug.cli import run as run_command
from genplug.cli.options import CONFIG_HELP, WARNINGS_CODE, add_color, add_policy
from genplug.cli.output import format_json, format_yaml, print_message, use_color

if TYPE_CHECKING:
    from genplug.doctor.facts import Machine

DESCRIPTION = """\
Check whether the agent can work on this machine, and whether the machine has what the configuration needs. Each finding
states what was found, why it matters and what to do. The command works with and without a running agent, and changes
nothing.
"""
EPILOG = """\
examples:
  genplug doctor
  genplug doctor --config genplug.yaml -o wide           with the checks that are ok
  genplug doctor --list                                  the names of the checks
  genplug doctor --check cdi --check kubelet-socket      only these checks
  genplug doctor --config genplug.yaml --root node.tar.gz
  kubectl exec --namespace genplug daemonset/genplug -- genplug doctor

Without --config and --root, the command uses the options of the agent that runs beside it, for example in the same
container.
With an archive of 'genplug capture', what the archive does not contain is unknown.

`genplug schema doctor` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 ready, 2 usage error or unknown check, 3 warnings with --strict, 4 a check found an error
"""
_USAGE_ERROR, _NOT_READY = 2, 4
_OPTIONS = (
    *("config", "policy", "kubelet_dir", "device_plugins_dir", "pod_resources_dir"),
    *("root", "cdi_dir", "cdi_search_dirs", "node_name", "dra_driver", "service_account_dir"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    config = os.environ.get(f"{run_command.PREFIX}CONFIG")
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        metavar="PATH",
        default=None,
        help=f"{CONFIG_HELP} (default: GENPLUG_CONFIG from the environment, else that of the agent)",
    )
    parser.set_defaults(environment_config=config.split(":") if config else None)
    add_policy(parser)
    run_command.add_host_options(parser)
    run_command.add_dra_options(parser)
    parser.add_argument(
        "--check", action="append", metavar="NAME", default=[], help="run only this check; can be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list the checks and exit")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml"),
        default="table",
        help="format of the output; wide shows the checks that are ok (default: table)",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 3 if there are warnings")
    add_color(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the report and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help needs none of this
    from genplug.cli.doctor_text import format_checks, format_findings  # noqa: PLC0415 - as above
    from genplug.doctor.checks import CHECKS, select_checks  # noqa: PLC0415 - as above
    from genplug.doctor.findings import Report, Severity, run_checks  # noqa: PLC0415 - as above
    from genplug.doctor.gather import gather_facts  # noqa: PLC0415 - as above

    use_color(arguments.color)
    if arguments.list:
        print(format_checks(CHECKS))
        return 0
    try:
        checks = select_checks(arguments.check)
    except KeyError as error:
        from genplug.config.schema import did_you_mean  # noqa: PLC0415 - only an error needs it

        name = str(error.args[0])
        hint = did_you_mean(name, [check.name for check in CHECKS]) or "'genplug doctor --list' lists the checks"
        print_message("doctor", f"no check has the name {name!r}; {hint}")
        return _USAGE_ERROR
    _add_agent_options(arguments)
    with open_root(arguments.root) as root:
        facts = gather_facts(_build_machine(arguments, root))
    report = Report(run_checks(checks, facts), arguments.node_name)
    match arguments.output:
        case "json":
            print(format_json(report.as_json()))
        case "yaml":
            print(format_yaml(report.as_json()), end="")
        case output:
            print(format_findings(report, is_wide=output == "wide"))
    # A thread that hangs in a system call does not keep the process.
    sys.stdout.flush()
    if not report.is_ready:
        return _NOT_READY
    has_warnings = any(finding.severity is Severity.WARNING for finding in report.findings)
    return WARNINGS_CODE if arguments.strict and has_warnings else 0


def _build_machine(arguments: argparse.Namespace, root: Path) -> "Machine":
    from genplug.agent import Settings  # noqa: PLC0415 - see run
    from genplug.doctor.facts import Machine  # noqa: PLC0415 - see run
    from genplug.hardware.host import Host  # noqa: PLC0415 - see run

    settings = Settings(
        config=tuple(map(Path, arguments.config or ())),
        root=root,
        kubelet_dir=Path(arguments.kubelet_dir),
        device_plugins_dir=Path(arguments.device_plugins_dir) if arguments.device_plugins_dir else None,
        pod_resources_dir=Path(arguments.pod_resources_dir) if arguments.pod_resources_dir else None,
        node_name=arguments.node_name,
        policy=arguments.policy,
        cdi_dir=arguments.cdi_dir,
        cdi_search_dirs=arguments.cdi_search_dirs,
        dra_driver=arguments.dra_driver,
        account_dir=Path(arguments.service_account_dir),
    )
    return Machine(settings, is_archive=Host.at(root).is_archive)


def _add_agent_options(arguments: argparse.Namespace) -> None:
    """Use the configuration of the environment, or all options of the agent whose files this process shares."""
    from genplug.record.agent_process import AgentProcess, describe_method, find_agent, shares_files  # noqa: PLC0415

    if arguments.config is not None:
        return
    arguments.config = arguments.environment_config
    if arguments.config is not None or arguments.root != "/":
        return
    agent = find_agent()
    if isinstance(agent, AgentProcess) and shares_files(agent, describe_method(agent)):
        found = parse_agent_arguments(agent.arguments)
        if found is not None:
            for name in _OPTIONS:
                setattr(arguments, name, getattr(found, name))
            print_message("doctor", f"using the options of the agent (PID {agent.pid}): {' '.join(agent.arguments)}")


def parse_agent_arguments(words: Sequence[str]) -> argparse.Namespace | None:
    """Return the options of an agent with these arguments of ``genplug run``, None if this version has other options.

    Their defaults come from the environment of this process, which is that of the agent in its container.
    """
    parser = argparse.ArgumentParser(add_help=False)
    run_command.configure(parser)
    try:
        with redirect_stderr(io.StringIO()):
            return parser.parse_args([word for word in words if word])
    except SystemExit:
        return None
