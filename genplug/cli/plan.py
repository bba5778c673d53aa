"""``genplug plan``: the devices that this node would offer, and the reason for each candidate. It changes nothing."""

import argparse
import gc
import time
from typing import TYPE_CHECKING

from genplug.cli.options import (
    CONFIG_HELP,
    WARNINGS_CODE,
    add_cdi_search_dirs,
    add_input_driver,
    add_inputs,
    add_node_name,
    add_policy,
    add_root,
    build_request,
)
from genplug.cli.output import format_json, format_yaml, print_lines, print_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from genplug.allocation.resource_state import ResourceState
    from genplug.hardware.host import Host
    from genplug.hardware.inventory import Inventory
    from genplug.health.status import ProbeError, ProbeWarning
    from genplug.health.verdict import ProbeResults
    from genplug.spec.diagnostic import Diagnostic
    from genplug.spec.model import Config

DESCRIPTION = """\
Show which devices this node would offer with a configuration, and why each path that a glob matches is included or
left out. The command registers nothing and changes nothing.
"""
EPILOG = """\
examples:
  genplug plan --config genplug.yaml
  genplug plan --config /etc/genplug --root /host -o json
  genplug plan --config genplug.yaml --allocate nvidia.com/gpu=2     what a container would receive
  genplug plan --config genplug.yaml --explain                       each condition and attribute, with its file
  genplug plan --config genplug.yaml --probe                         with the results of the probes
  genplug plan --values values.yaml --pool lab                       with values of the chart
  genplug plan --config genplug.yaml --policy policy.yaml            with the policy of the agent
  genplug plan --config genplug.yaml --root node.tar.gz              for a node that 'genplug capture' captured

`genplug schema plan` and `genplug schema allocation` describe the keys of `-o json` and `-o yaml`.

exit codes: 0 success, 1 an allocation was refused, 2 usage error, 3 warnings or conflicts with --strict, 78 the
configuration is invalid
"""

_MAX_DIGITS = 6
"""Digits of the number in ``--allocate``: no resource has a million devices."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        metavar="PATH",
        default=[],
        help=f"{CONFIG_HELP}; also a ConfigMap manifest, a directory of pools, or '-' for the standard input",
    )
    add_inputs(parser)
    add_policy(parser)
    add_root(parser)
    add_cdi_search_dirs(parser)
    add_node_name(parser)
    add_input_driver(parser)
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml"),
        default="table",
        help="format of the output; wide shows each replica, slice and token, and every path (default: table; with "
        "--allocate: json)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show for each path the conditions that it meets or fails, and the file that each attribute comes from",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="run every probe once, including programs and requests, and show the results; probes that wait for events "
        "of the kernel are not run",
    )
    parser.add_argument(
        "--allocate",
        action="append",
        metavar="RESOURCE=N",
        default=[],
        type=_parse_request,
        help="print what a container that requests N of RESOURCE would receive; can be repeated",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 3 if there are warnings or conflicts")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help does not need it

    # The values of a plan are needed until the command ends: a search for garbage among them finds none.
    gc.disable()
    with open_root(arguments.root) as arguments.root:
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from genplug.cli.plan_document import build_allocation_document, build_plan_document  # noqa: PLC0415 - see run
    from genplug.cli.plan_text import format_explanation, format_plan  # noqa: PLC0415
    from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics, sort_unique  # noqa: PLC0415
    from genplug.hardware.discovery import discover  # noqa: PLC0415
    from genplug.hardware.explain import explain  # noqa: PLC0415
    from genplug.hardware.host import Host  # noqa: PLC0415
    from genplug.hardware.scan_errors import HangError  # noqa: PLC0415
    from genplug.health.presence import NO_PROBE_RESULTS  # noqa: PLC0415
    from genplug.health.run_once import run_probes_once  # noqa: PLC0415

    try:
        config, driver = _load_config(arguments)
    except ConfigInvalidError as error:
        print_lines(format_diagnostics(error.diagnostics))
        return 78
    host = Host.at(arguments.root, node_name=arguments.node_name, cdi_dirs=arguments.cdi_search_dirs)
    try:
        inventory = discover(config, host)
    except HangError as error:
        print_message("plan", str(error))
        return 1
    warnings = sort_unique((*config.warnings, *inventory.warnings))
    if warnings:
        print_lines(format_diagnostics(warnings))
    results, probe_errors, probe_warnings = (
        run_probes_once(inventory, host) if arguments.probe else (NO_PROBE_RESULTS, (), ())
    )
    states = build_states(inventory, host, results)
    _print_remarks(states, inventory, probe_errors, probe_warnings)
    code = 0
    explanations = tuple(explain(inventory, host)) if arguments.explain else None
    if arguments.allocate or arguments.output in {"json", "yaml"}:
        if arguments.allocate:
            document, code = build_allocation_document(states, arguments.allocate)
        else:
            document = build_plan_document(states, inventory, explanations, warnings, driver)
        print(format_yaml(document) if arguments.output == "yaml" else f"{format_json(document)}\n", end="")
    else:
        is_wide = arguments.output == "wide"
        print(format_plan(states, inventory, is_wide=is_wide, driver=driver))
        if explanations is not None:
            texts = (format_explanation(explanation, is_wide=is_wide) for explanation in explanations)
            print("\n" + "\n\n".join(texts))
    has_warnings = bool(warnings or inventory.conflicts)
    return WARNINGS_CODE if has_warnings and arguments.strict and not code else code


def _load_config(arguments: argparse.Namespace) -> tuple["Config", str]:
    """Return the configuration that the options select, and the name of its driver of Dynamic Resource Allocation.

    Raises:
        ConfigInvalidError: with every error of the configuration and its policy.
    """
    from msgspec.structs import replace  # noqa: PLC0415 - see run

    from genplug.config.diagnostics import ConfigInvalidError  # noqa: PLC0415
    from genplug.config.inputs import find_inputs  # noqa: PLC0415

    if not arguments.config and not arguments.values:
        arguments.usage_error("expected --config PATH or --values FILE")
    inputs = find_inputs(build_request(arguments, arguments.config))
    for note in inputs.notes:
        print_message("plan", note)
    if inputs.diagnostics:
        raise ConfigInvalidError(inputs.diagnostics)
    if len(inputs.configurations) > 1:
        pools = [found.pool for found in inputs.configurations]
        hint = f"select a pool with --pool: {', '.join(pools)}" if all(pools) else "pass one of them"
        arguments.usage_error(f"found {len(pools)} configurations, and a plan is that of one node; {hint}")
    if not inputs.configurations:
        arguments.usage_error("found no configuration in the input, only policies or references to a ConfigMap")
    errors: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    for policy in inputs.policies:
        try:
            warnings += policy.load().warnings
        except ConfigInvalidError as error:
            errors += error.diagnostics
    try:
        config = inputs.configurations[0].load()
    except ConfigInvalidError as error:
        errors += error.diagnostics
    if errors:
        raise ConfigInvalidError(errors)
    return replace(config, warnings=(*warnings, *config.warnings)), inputs.configurations[0].driver


def _print_remarks(
    states: "Mapping[str, ResourceState]",
    inventory: "Inventory",
    probe_errors: "Iterable[ProbeError]",
    probe_warnings: "Iterable[ProbeWarning]",
) -> None:
    """Print what the table does not show: probes that cannot run, warnings, conflicts and limits."""
    from genplug.observe.text import summarize_probes  # noqa: PLC0415 - see run

    errors = ((error.resource, error.probe, error.devices, error.error) for error in probe_errors)
    warnings = ((warning.resource, warning.probe, warning.devices, warning.reason) for warning in probe_warnings)
    for line in (
        *summarize_probes(errors, "cannot check", "error"),
        *summarize_probes(warnings, "warns about", "reason"),
    ):
        print_message("plan", line)
    for conflict in inventory.conflicts:
        print_message("plan", conflict.message)
    for name, state in states.items():
        if state.offer.omission:
            print_message("plan", f"{name}: {state.offer.omission}")


def build_states(inventory: "Inventory", host: "Host", results: "ProbeResults") -> "dict[str, ResourceState]":
    """Return the state of each resource, as the agent would serve it."""
    from genplug.allocation.offer import build_offer, count_grants, share_grants  # noqa: PLC0415 - see run
    from genplug.allocation.resource_state import ResourceState  # noqa: PLC0415
    from genplug.health.presence import evaluate_health  # noqa: PLC0415

    health = evaluate_health(inventory, None, {}, time.monotonic(), results)
    devices = {name: health.devices.get(name, ()) for name in inventory.resources}
    shares = share_grants({name: count_grants(inventory.resources[name], devices[name]) for name in devices})
    states = {
        name: ResourceState(build_offer(resource, devices[name], shares[name] // (1 + len(resource.aliases))), host)
        for name, resource in inventory.resources.items()
    }
    # A template of a name without devices has no instance: the resource appears under the template.
    for name, scan in inventory.scans.items():
        if not any(resource.configured_name == name for resource in inventory.resources.values()):
            states[name] = ResourceState(build_offer(scan.resource, ()), host)
    return states


def _parse_request(text: str) -> tuple[str, int]:
    resource, separator, number = text.rpartition("=")
    if not separator or not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(f"expected RESOURCE=N, for example nvidia.com/gpu=2, found {text!r}")
    if len(number) > _MAX_DIGITS:
        raise argparse.ArgumentTypeError(f"expected a number of at most {_MAX_DIGITS} digits, found {len(number)}")
    if int(number) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text!r}")
    return resource, int(number)
