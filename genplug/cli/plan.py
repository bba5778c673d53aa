"""``genplug plan``: the devices that this node would offer, and the reason for each candidate. It changes nothing."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genplug.cli.options import CONFIG_HELP, add_node_name, add_policy, add_root
from genplug.cli.output import format_table, print_message

if TYPE_CHECKING:
    from genplug.allocation.offer import Grant
    from genplug.allocation.resource_state import ResourceState
    from genplug.hardware.explain import CandidateExplanation
    from genplug.hardware.host import Host
    from genplug.hardware.inventory import DeviceNode, Inventory
    from genplug.health.verdict import ProbeResults

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
  genplug plan --config genplug.yaml --policy policy.yaml            with the policy of the agent
  genplug plan --config genplug.yaml --root node.tar.gz              for a node that 'genplug capture' captured

`genplug schema plan` and `genplug schema allocation` describe the keys of `-o json` and `-o yaml`.

exit codes: 0 success, 1 an allocation was refused, 2 usage error, 78 the configuration is invalid, or two devices claim
the same device node
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        metavar="PATH",
        required=True,
        help=CONFIG_HELP,
    )
    add_policy(parser)
    add_root(parser)
    add_node_name(parser)
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "yaml"),
        default="table",
        help="format of the output (default: table; with --allocate: json)",
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


def run(arguments: argparse.Namespace) -> int:
    """Print the plan and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help does not need it

    with open_root(arguments.root) as arguments.root:
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics  # noqa: PLC0415 - see run
    from genplug.config.load import load  # noqa: PLC0415
    from genplug.hardware.discovery import discover  # noqa: PLC0415
    from genplug.hardware.explain import explain  # noqa: PLC0415
    from genplug.hardware.host import Host  # noqa: PLC0415
    from genplug.health.presence import NO_PROBE_RESULTS  # noqa: PLC0415
    from genplug.health.run_once import run_probes_once  # noqa: PLC0415
    from genplug.observe.text import join_names  # noqa: PLC0415

    try:
        config = load(tuple(map(Path, arguments.config)), arguments.node_name, arguments.policy).config
    except ConfigInvalidError as error:
        print(format_diagnostics(error.diagnostics), file=sys.stderr)
        return 78
    host = Host.at(arguments.root, node_name=arguments.node_name)
    inventory = discover(config, host)
    results, probe_errors = run_probes_once(inventory, host) if arguments.probe else (NO_PROBE_RESULTS, ())
    for probe_error in probe_errors:
        devices = join_names(probe_error.devices)
        text = f"{probe_error.resource}: probe {probe_error.probe} cannot check {devices}: {probe_error.error}"
        print_message("plan", text)
    for conflict in inventory.conflicts:
        print_message("plan", conflict.message)
    states = _build_states(inventory, host, results)
    code = 78 if inventory.conflicts else 0
    explanations = tuple(explain(inventory, host)) if arguments.explain else None
    if arguments.allocate:
        document, refused = _allocation_document(states, arguments.allocate)
        code = max(code, refused)
    else:
        document = _plan_document(states, inventory, explanations)
    if arguments.output == "yaml":
        import yaml  # noqa: PLC0415 - only this output needs it

        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    elif arguments.output == "json" or arguments.allocate:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(_format_plan(states, inventory))
        if explanations is not None:
            print("\n" + "\n\n".join(map(_format_explanation, explanations)))
    return code


def _build_states(inventory: "Inventory", host: "Host", results: "ProbeResults") -> "dict[str, ResourceState]":
    """Return the state of each resource, as the agent would serve it."""
    from genplug.allocation.offer import build_offer  # noqa: PLC0415 - see run
    from genplug.allocation.resource_state import ResourceState  # noqa: PLC0415
    from genplug.health.presence import evaluate_health  # noqa: PLC0415

    health = evaluate_health(inventory, None, {}, time.monotonic(), results)
    states = {
        name: ResourceState(build_offer(resource, health.devices.get(name, ())), host)
        for name, resource in inventory.resources.items()
    }
    # A template of a name without devices has no instance: the resource appears under the template.
    for name, scan in inventory.scans.items():
        if not any(resource.configured_name == name for resource in inventory.resources.values()):
            states[name] = ResourceState(build_offer(scan.resource, ()), host)
    return states


def _parse_request(text: str) -> tuple[str, int]:
    resource, separator, number = text.rpartition("=")
    if not separator or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"expected RESOURCE=N, for example nvidia.com/gpu=2, found {text!r}")
    return resource, int(number)


# Documents for -o json and -o yaml


def _plan_document(
    states: "Mapping[str, ResourceState]",
    inventory: "Inventory",
    explanations: "Sequence[CandidateExplanation] | None",
) -> dict[str, Any]:
    document = {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "Plan",
        "resources": [_resource_document(name, state, inventory) for name, state in states.items()],
        "conflicts": [conflict.message for conflict in inventory.conflicts],
    }
    if explanations is not None:
        document["explanations"] = [_explanation_document(explanation) for explanation in explanations]
    return document


def _resource_document(name: str, state: "ResourceState", inventory: "Inventory") -> dict[str, Any]:
    resource = state.offer.resource
    return {
        "name": name,
        "location": str(resource.location),
        "devices": [_grant_document(grant) for grant in state.offer.grants.values()],
        "considered": [
            {
                "path": outcome.path,
                "device": outcome.device,
                "reason": outcome.reason,
                "location": str(outcome.location),
            }
            for outcome in inventory.outcomes
            if outcome.resource in {name, resource.configured_name}
        ],
    }


def _grant_document(grant: "Grant") -> dict[str, Any]:
    devices = [health.device for health in grant.devices]
    return {
        "id": grant.id,
        "healthy": grant.healthy,
        "reason": grant.reason,
        "paths": [path for device in devices for path in device.candidates],
        "nodes": [_node_document(node) for device in devices for node in device.nodes],
        "companions": [_node_document(node) for device in devices for node in device.companions],
    }


def _node_document(node: "DeviceNode") -> dict[str, str]:
    return {
        "path": node.path,
        "resolved": node.info.resolved,
        "containerPath": node.container_path,
        "permissions": node.permissions,
        "numbers": node.info.describe_numbers(),
    }


def _explanation_document(explanation: "CandidateExplanation") -> dict[str, Any]:
    return {
        "path": explanation.path,
        "resource": explanation.resource,
        "location": str(explanation.location),
        "foundBy": explanation.found_by,
        "device": explanation.device,
        "reason": explanation.reason,
        "checks": [
            {"condition": check.condition, "passed": check.passed, "values": list(check.values), "file": check.origin}
            for check in explanation.checks
        ],
        "attributes": [
            {"name": attribute.name, "values": list(attribute.values), "file": attribute.origin}
            for attribute in explanation.attributes
        ],
    }


def _allocation_document(
    states: "Mapping[str, ResourceState]", requests: Sequence[tuple[str, int]]
) -> tuple[dict[str, Any], int]:
    """Return the document of ``--allocate``, and the exit code."""
    from genplug.allocation.errors import AllocationError  # noqa: PLC0415 - see run

    containers, code = [], 0
    for resource, count in requests:
        container: dict[str, Any] = {"resource": resource}
        try:
            container |= _allocate(states, resource, count)
        except (AllocationError, LookupError) as error:
            container["refused"] = str(error.args[0])
            print_message("plan", f"{resource}={count}: {error.args[0]}")
            code = 1
        containers.append(container)
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "Allocation", "containers": containers}, code


def _allocate(states: "Mapping[str, ResourceState]", resource: str, count: int) -> dict[str, Any]:
    """Return what a container would receive; the keys are those of ContainerAllocateResponse, in camel case.

    Raises:
        LookupError: there is no such resource, or it does not have enough healthy devices.
        AllocationError: the allocation is refused.
    """
    if resource not in states:
        raise LookupError(f"there is no resource {resource!r}; the configuration has {', '.join(states) or 'none'}")
    state = states[resource]
    healthy = [device.id for device in state.listed if device.healthy]
    if count > len(healthy):
        raise LookupError(
            f"requested {count}, but only {len(healthy)} of {len(state.listed)} devices are healthy; "
            "'genplug plan' without --allocate shows the reasons"
        )
    ids = state.choose_preferred(healthy, (), count)
    edits = state.allocate(ids)
    return {
        "ids": list(ids),
        "envs": dict(edits.env),
        "mounts": [
            {"containerPath": mount.container_path, "hostPath": mount.host_path, "readOnly": mount.read_only}
            for mount in edits.mounts
        ],
        "devices": [
            {"containerPath": node.container_path, "hostPath": node.host_path, "permissions": node.permissions}
            for node in edits.nodes
        ],
        "annotations": dict(edits.annotations),
        "cdiDevices": list(edits.cdi_devices),
    }


# Text for -o table


def _format_plan(states: "Mapping[str, ResourceState]", inventory: "Inventory") -> str:
    rows = []
    for name, state in states.items():
        for grant in state.offer.grants.values():
            nodes = ", ".join(
                f"{node.path} ({node.info.describe_numbers()})"
                for health in grant.devices
                for node in health.device.nodes
            )
            rows.append((name, grant.id, "healthy" if grant.healthy else "unhealthy", nodes, grant.reason))
        if not state.offer.grants:
            rows.append((name, "-", "none", "-", "no device of this node matches"))
    headings = ("RESOURCE", "DEVICE", "STATE", "NODES", "REASON")
    parts = [format_table(headings, rows) if rows else "the configuration has no resources"]
    if inventory.unmatched_globs:
        parts.append(
            "\n".join(
                f"{unmatched.resource}: nothing matches {unmatched.glob} ({unmatched.location})"
                for unmatched in inventory.unmatched_globs
            )
        )
    left_out = [
        (outcome.resource, outcome.path, outcome.reason) for outcome in inventory.outcomes if outcome.device is None
    ]
    if left_out:
        parts.append("left out:\n" + format_table(("RESOURCE", "PATH", "REASON"), left_out))
    return "\n\n".join(parts)


def _format_explanation(explanation: "CandidateExplanation") -> str:
    return "\n".join(_explanation_lines(explanation))


def _explanation_lines(explanation: "CandidateExplanation") -> Iterator[str]:
    """Yield the evaluation of a path: its outcome, its source, the conditions, the attributes."""
    if explanation.device is not None:
        yield f"{explanation.path}: device {explanation.device}"
    else:
        yield f"{explanation.path}: left out: {explanation.reason or 'see above'}"
    yield f"  {explanation.resource} ({explanation.location}), found by '{explanation.found_by}'"
    for check in explanation.checks:
        outcome = "passed" if check.passed else "failed"
        yield f"  {outcome}: where {check.condition}: {_format_values(check.values, check.origin)}"
    for attribute in explanation.attributes:
        yield f"  {attribute.name}: {_format_values(attribute.values, attribute.origin)}"


def _format_values(values: Sequence[str], origin: str) -> str:
    """Return the values of an attribute with their origin; an attribute without values does not exist."""
    text = ", ".join(map(repr, values)) if values else "does not exist"
    return f"{text}   <- {origin}" if origin else text
