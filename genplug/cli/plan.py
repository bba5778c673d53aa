"""``genplug plan``: what this node would offer now, and why each candidate is in or out. Looks, changes nothing."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genplug.cli.options import add_policy

if TYPE_CHECKING:
    from genplug.allocation.answers import Answers
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
  genplug plan --config genplug.yaml --policy policy.yaml            under the policy that the agent runs with

exit codes: 0 fine, 1 --allocate was refused, 78 invalid configuration, or one that claims a node twice here
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--config", action="extend", nargs="+", metavar="PATH", required=True, help="file or directory")
    add_policy(parser)
    parser.add_argument("--root", metavar="DIR", default="/", help="where the host's file system is seen (default: /)")
    parser.add_argument("--node-name", metavar="NAME", help="merge node.NAME.yaml last")
    parser.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="(default: table)")
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
    from genplug.allocation.answers import Answers  # noqa: PLC0415 - --help needs none of this
    from genplug.allocation.offers import offered  # noqa: PLC0415
    from genplug.config.load import load  # noqa: PLC0415
    from genplug.config.problem import ConfigInvalidError, rendered  # noqa: PLC0415
    from genplug.hardware.discover import discover  # noqa: PLC0415
    from genplug.hardware.host import Host  # noqa: PLC0415
    from genplug.health.presence import judge  # noqa: PLC0415

    try:
        config = load(tuple(map(Path, arguments.config)), arguments.node_name, arguments.policy).config
    except ConfigInvalidError as error:
        print(rendered(error.problems), file=sys.stderr)
        return 78
    host = Host.at(Path(arguments.root))
    inventory = discover(config, host)
    judgement = judge(inventory, None, {}, time.monotonic())
    answers = {
        name: Answers(offered(resource, judgement.devices.get(name, ())), host)
        for name, resource in config.resources.items()
    }
    for clash in inventory.clashes:
        print(clash.message, file=sys.stderr)
    code = 78 if inventory.clashes else 0
    document = _document(answers, inventory)
    if arguments.allocate:
        document, refused = _allocated(answers, arguments.allocate)
        code = max(code, refused)
    if arguments.output == "table" and not arguments.allocate:
        print(_table(answers, inventory))
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


def _document(answers: "Mapping[str, Answers]", inventory: "Inventory") -> dict[str, Any]:
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
            {"path": seen.path, "device": seen.device, "reason": seen.reason, "source": str(seen.place)}
            for seen in inventory.considered
            if seen.resource == name
        ]
        resources.append(
            {"name": name, "source": str(one.offer.resource.place), "devices": devices, "considered": considered}
        )
    clashes = [clash.message for clash in inventory.clashes]
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "Plan", "resources": resources, "clashes": clashes}


def _node(node: "DeviceNode") -> dict[str, str]:
    return {
        "path": node.path,
        "resolved": node.look.resolved,
        "containerPath": node.container_path,
        "permissions": node.permissions,
        "numbers": _numbers(node),
    }


def _numbers(node: "DeviceNode") -> str:
    return f"{node.look.kind} {node.look.major}:{node.look.minor}"


def _table(answers: "Mapping[str, Answers]", inventory: "Inventory") -> str:
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
    notes = [f"{note.resource}: nothing matches {note.glob} ({note.place})" for note in inventory.unmatched]
    parts = [table(("RESOURCE", "DEVICE", "STATE", "NODES", "REASON"), rows)] if rows else ["no resources: {}"]
    out = [(seen.resource, seen.path, seen.reason) for seen in inventory.considered if seen.device is None]
    if notes:
        parts += ["", *notes]
    if out:
        parts += ["", "left out:", table(("RESOURCE", "PATH", "REASON"), out)]
    return "\n".join(parts)


def _allocated(answers: "Mapping[str, Answers]", requests: list[tuple[str, int]]) -> tuple[dict[str, Any], int]:
    from genplug.allocation.refusal import Refusal  # noqa: PLC0415

    given, code = [], 0
    for resource, number in requests:
        answer: dict[str, Any] = {"resource": resource}
        try:
            answer |= _answer(answers, resource, number)
        except (Refusal, LookupError) as refusal:
            answer["refused"] = str(refusal.args[0])
            print(f"{resource}={number}: {refusal.args[0]}", file=sys.stderr)
            code = 1
        given.append(answer)
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "Allocation", "containers": given}, code


def _answer(answers: "Mapping[str, Answers]", resource: str, number: int) -> dict[str, Any]:
    if resource not in answers:
        raise LookupError(f"there is no resource {resource!r}; there are {', '.join(answers) or 'none'}")
    one = answers[resource]
    healthy = [listed.id for listed in one.listed if listed.healthy]
    if number > len(healthy):
        raise LookupError(f"only {len(healthy)} of {len(one.listed)} devices are healthy; `genplug plan` says why")
    ids = one.prefer(healthy, (), number)
    edits = one.allocate(ids)
    # The names are those of v1beta1 ContainerAllocateResponse.
    return {
        "ids": list(ids),
        "envs": dict(edits.env),
        "mounts": [
            {"container_path": mount.container_path, "host_path": mount.host_path, "read_only": mount.read_only}
            for mount in edits.mounts
        ],
        "devices": [
            {"container_path": node.container_path, "host_path": node.host_path, "permissions": node.permissions}
            for node in edits.nodes
        ],
        "annotations": dict(edits.annotations),
    }
