"""``genplug plan``: what this node would offer now, and why each candidate is in or out. Looks, changes nothing."""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genplug.cli.options import add_policy, add_root

if TYPE_CHECKING:
    from genplug.allocation.resource_state import ResourceState
    from genplug.hardware.explain import CandidateExplanation
    from genplug.hardware.inventory import DeviceNode, Inventory

DESCRIPTION = """\
Show what this node would offer now with a configuration, and why each path that a glob finds is in or out.
Nothing is registered and nothing is changed.
"""
EPILOG = """\
examples:
  genplug plan --config genplug.yaml
  genplug plan --config /etc/genplug --root /host -o json
  genplug plan --config genplug.yaml --allocate nvidia.com/gpu=2     print the exact answer for a container
  genplug plan --config genplug.yaml --explain         every condition and attribute, and the file it was read from
  genplug plan --config genplug.yaml --probe                         have every probe look once
  genplug plan --config genplug.yaml --policy policy.yaml            under the policy that the agent runs with
  genplug plan --config genplug.yaml --root node.tar.gz              of the node that 'genplug capture' wrote down

exit codes: 0 fine, 1 --allocate was refused, 2 wrong usage, 78 invalid configuration, or one that claims a node twice
here
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--config", action="extend", nargs="+", metavar="PATH", required=True, help="file or directory")
    add_policy(parser)
    add_root(parser)
    parser.add_argument("--node-name", metavar="NAME", help="merge node.NAME.yaml last")
    parser.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="(default: table)")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say of each path which condition let it in or out, and from which file each attribute came",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="have every probe look once, programs and URLs included, and show what it says; only the kernel's events "
        "are left to the agent",
    )
    parser.add_argument(
        "--allocate",
        action="append",
        metavar="RESOURCE=N",
        default=[],
        type=_request,
        help="print what a container that asks for N of RESOURCE would get; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan and return the exit code."""
    from genplug.capture.archive import open_root  # noqa: PLC0415 - --help needs none of this

    with open_root(arguments.root) as arguments.root:
        return _planned(arguments)


def _planned(arguments: argparse.Namespace) -> int:
    from genplug.allocation.offer import build_offer  # noqa: PLC0415
    from genplug.allocation.resource_state import ResourceState  # noqa: PLC0415 - see run
    from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics  # noqa: PLC0415
    from genplug.config.load import load  # noqa: PLC0415
    from genplug.hardware.discovery import discover  # noqa: PLC0415
    from genplug.hardware.explain import explain  # noqa: PLC0415
    from genplug.hardware.host import Host  # noqa: PLC0415
    from genplug.health.presence import NO_PROBE_RESULTS, evaluate_health  # noqa: PLC0415
    from genplug.health.run_once import run_probes_once  # noqa: PLC0415

    try:
        config = load(tuple(map(Path, arguments.config)), arguments.node_name, arguments.policy).config
    except ConfigInvalidError as error:
        print(format_diagnostics(error.problems), file=sys.stderr)
        return 78
    host = Host.at(arguments.root, node_name=arguments.node_name or os.environ.get("NODE_NAME"))
    inventory = discover(config, host)
    findings, troubles = run_probes_once(inventory, host) if arguments.probe else (NO_PROBE_RESULTS, ())
    for trouble in troubles:
        print(f"{trouble.resource}: probe {trouble.probe} cannot look: {trouble.error}", file=sys.stderr)
    judgement = evaluate_health(inventory, None, {}, time.monotonic(), findings)
    answers = {
        name: ResourceState(build_offer(resource, judgement.devices.get(name, ())), host)
        for name, resource in inventory.resources.items()
    }
    # A name that no device fills in is shown as it is written.
    for name, scan in inventory.scans.items():
        if not any(one.configured_name == name for one in inventory.resources.values()):
            answers[name] = ResourceState(build_offer(scan.resource, ()), host)
    for conflict in inventory.conflicts:
        print(conflict.message, file=sys.stderr)
    code = 78 if inventory.conflicts else 0
    document = _document(answers, inventory)
    explanation = tuple(explain(inventory, host)) if arguments.explain else ()
    if arguments.explain:
        document["explanations"] = [_explanation(one) for one in explanation]
    if arguments.allocate:
        document, refused = _allocated(answers, arguments.allocate)
        code = max(code, refused)
    if arguments.output == "table" and not arguments.allocate:
        print(_table(answers, inventory))
        if arguments.explain:
            print("\n" + _prose(explanation))
    elif arguments.output == "yaml":
        import yaml  # noqa: PLC0415

        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    else:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    return code


def _request(text: str) -> tuple[str, int]:
    resource, separator, number = text.rpartition("=")
    if not separator or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not RESOURCE=N, for example nvidia.com/gpu=2")
    return resource, int(number)


def _document(answers: "Mapping[str, ResourceState]", inventory: "Inventory") -> dict[str, Any]:
    resources = []
    for name, one in answers.items():
        devices = [
            {
                "id": grant.id,
                "healthy": grant.healthy,
                "reason": grant.reason,
                "paths": [path for judged in grant.devices for path in judged.device.candidates],
                "nodes": [_node(node) for judged in grant.devices for node in judged.device.nodes],
                "companions": [_node(node) for judged in grant.devices for node in judged.device.companions],
            }
            for grant in one.offer.grants.values()
        ]
        considered = [
            {"path": seen.path, "device": seen.device, "reason": seen.reason, "location": str(seen.location)}
            for seen in inventory.outcomes
            if seen.resource in {name, one.offer.resource.configured_name}
        ]
        resources.append(
            {"name": name, "location": str(one.offer.resource.location), "devices": devices, "considered": considered}
        )
    conflicts = [conflict.message for conflict in inventory.conflicts]
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "Plan", "resources": resources, "conflicts": conflicts}


def _node(node: "DeviceNode") -> dict[str, str]:
    return {
        "path": node.path,
        "resolved": node.info.resolved,
        "containerPath": node.container_path,
        "permissions": node.permissions,
        "numbers": _numbers(node),
    }


def _numbers(node: "DeviceNode") -> str:
    return f"{node.info.kind} {node.info.major}:{node.info.minor}"


def _table(answers: "Mapping[str, ResourceState]", inventory: "Inventory") -> str:
    from genplug.cli.tables import table  # noqa: PLC0415

    rows = []
    for name, one in answers.items():
        for grant in one.offer.grants.values():
            nodes = ", ".join(
                f"{node.path} ({_numbers(node)})" for judged in grant.devices for node in judged.device.nodes
            )
            rows.append((name, grant.id, "healthy" if grant.healthy else "unhealthy", nodes, grant.reason))
        if not one.offer.grants:
            rows.append((name, "-", "none", "-", "nothing on this node matches"))
    notes = [f"{note.resource}: nothing matches {note.glob} ({note.location})" for note in inventory.unmatched_globs]
    parts = [table(("RESOURCE", "DEVICE", "STATE", "NODES", "REASON"), rows)] if rows else ["no resources: {}"]
    out = [(seen.resource, seen.path, seen.reason) for seen in inventory.outcomes if seen.device is None]
    if notes:
        parts += ["", *notes]
    if out:
        parts += ["", "left out:", table(("RESOURCE", "PATH", "REASON"), out)]
    return "\n".join(parts)


def _explanation(one: "CandidateExplanation") -> dict[str, Any]:
    return {
        "path": one.path,
        "resource": one.resource,
        "location": str(one.location),
        "foundBy": one.found_by,
        "device": one.device,
        "reason": one.reason,
        "checks": [
            {"condition": check.condition, "passed": check.passed, "values": list(check.values), "file": check.origin}
            for check in one.checks
        ],
        "attributes": [
            {"name": attribute.name, "values": list(attribute.values), "file": attribute.origin}
            for attribute in one.attributes
        ],
    }


def _prose(explanation: "Sequence[CandidateExplanation]") -> str:
    """Return the explanation for people: a paragraph for each path."""
    lines = []
    for one in explanation:
        fate = f"device {one.device}" if one.device is not None else f"left out: {one.reason or 'see above'}"
        lines += ["", f"{one.path}: {fate}", f"  {one.resource} ({one.location}), found by '{one.found_by}'"]
        for check in one.checks:
            word = "in " if check.passed else "out"
            seen = f"it is {_shown(check.values)}" if check.values else "it does not exist"
            lines.append(f"  {word} by where {check.condition}: {seen}" + _origin(check.origin))
        for attribute in one.attributes:
            said = f"= {_shown(attribute.values)}" if attribute.values else "does not exist"
            lines.append(f"  {attribute.name} {said}" + _origin(attribute.origin))
    return "\n".join(lines[1:])


def _shown(values: "Sequence[str]") -> str:
    return ", ".join(repr(value) for value in values)


def _origin(origin: str) -> str:
    return f"   <- {origin}" if origin else ""


def _allocated(answers: "Mapping[str, ResourceState]", requests: list[tuple[str, int]]) -> tuple[dict[str, Any], int]:
    from genplug.allocation.errors import AllocationError  # noqa: PLC0415

    given, code = [], 0
    for resource, number in requests:
        answer: dict[str, Any] = {"resource": resource}
        try:
            answer |= _answer(answers, resource, number)
        except (AllocationError, LookupError) as refusal:
            answer["refused"] = str(refusal.args[0])
            print(f"{resource}={number}: {refusal.args[0]}", file=sys.stderr)
            code = 1
        given.append(answer)
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "Allocation", "containers": given}, code


def _answer(answers: "Mapping[str, ResourceState]", resource: str, number: int) -> dict[str, Any]:
    if resource not in answers:
        raise LookupError(f"there is no resource {resource!r}; there are {', '.join(answers) or 'none'}")
    one = answers[resource]
    healthy = [listed.id for listed in one.listed if listed.healthy]
    if number > len(healthy):
        raise LookupError(f"only {len(healthy)} of {len(one.listed)} devices are healthy; `genplug plan` says why")
    ids = one.choose_preferred(healthy, (), number)
    edits = one.allocate(ids)
    # The names are those of v1beta1 ContainerAllocateResponse, in camel case.
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
