"""The inputs of ``genplug diff``: the configurations of both sides, the nodes and the pods."""

import argparse
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from genplug.cli.options import format_address
from genplug.cli.output import print_message
from genplug.cli.status import UnreachableError, fetch_status
from genplug.comparison.pods import PodUse
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, sort_unique
from genplug.config.inputs import STDIN, InputRequest, find_inputs, read_text
from genplug.config.manifest import MAX_BYTES
from genplug.kubelet.client import CallError
from genplug.kubelet.pod_resources import list_device_uses
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_DIFF_NODES
from genplug.spec.model import Config

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_DEADLINE_SECONDS = 5.0
_ENDED_PHASES = ("Succeeded", "Failed")


class InputError(Exception):
    """An input cannot be read or is ambiguous; the message states what to do."""


class Side(Struct, frozen=True):
    """The configurations before or after the change, by pool; the pool is empty if the input has no pools."""

    configs: Mapping[str, Config] = {}
    errors: tuple[Diagnostic, ...] = ()


class NodeInput(Struct, frozen=True):
    """A node to compare on: a path for ``open_root``, its name in the output, and its pool, or empty for any.

    ``option`` is the option that names the path.
    """

    root: str
    label: str = ""
    pool: str = ""
    option: str = "--node"


def read_sides(arguments: argparse.Namespace) -> tuple[Side, Side]:
    """Return the configurations before and after the change.

    Raises:
        InputError: an input is missing or ambiguous, or no agent responds.
    """
    old_paths, new_paths = _split_paths(arguments)
    policy = None if arguments.policy is None else str(arguments.policy)
    new = InputRequest(new_paths, arguments.values, arguments.pool, arguments.node_name, policy)
    old = InputRequest(
        old_paths, arguments.old_values, arguments.pool, arguments.node_name, arguments.old_policy or policy
    )
    streams = (*old_paths, *arguments.old_values, *new_paths, *arguments.values, policy, arguments.old_policy)
    if [*streams, arguments.pods].count(STDIN) > 1:
        arguments.usage_error("'-', the standard input, can be an argument once only")
    old_side = _read_side(old, "OLD") if old.paths or old.values else _read_active(arguments)
    new_side = _read_side(new, "NEW")
    if len(old_side.configs) == len(new_side.configs) == 1:
        # A configuration without pools is compared with that of a single pool.
        (pool,) = new_side.configs
        old_side = replace(old_side, configs=dict.fromkeys([pool], *old_side.configs.values()))
    return old_side, new_side


def _split_paths(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the paths before and after the change."""
    paths = [path for path in (arguments.old, arguments.new) if path is not None]
    old = paths[:-1] if not arguments.values else paths
    new = paths[-1:] if not arguments.values else []
    if len(old) > 1 or (old and arguments.old_values):
        arguments.usage_error("expected OLD or --old-values, and NEW or --values, not both")
    if not new and not arguments.values:
        arguments.usage_error("expected NEW or --values FILE")
    return old, new


def _read_side(request: InputRequest, name: str) -> Side:
    inputs = find_inputs(request)
    for note in inputs.notes:
        print_message("diff", note)
    errors: list[Diagnostic] = list(inputs.diagnostics)
    warnings: dict[str, list[Diagnostic]] = {}
    configs: dict[str, Config] = {}
    for policy in inputs.policies:
        try:
            warnings.setdefault(policy.pool, []).extend(policy.load().warnings)
        except ConfigInvalidError as error:
            errors += error.diagnostics
    for found in inputs.configurations:
        if found.pool in configs:
            pool = f"the pool {found.pool!r}" if found.pool else "no pool"
            raise InputError(f"{name} has several configurations of {pool}; pass one of them, or select it with --pool")
        try:
            config = found.load()
        except ConfigInvalidError as error:
            errors += error.diagnostics
        else:
            configs[found.pool] = replace(config, warnings=(*warnings.get(found.pool, ()), *config.warnings))
    if not configs and not errors:
        raise InputError(f"{name} has no configuration, only policies or references to a ConfigMap")
    # A side with errors is not a state in which an agent can be.
    return Side({} if errors else configs, sort_unique(errors))


def _read_active(arguments: argparse.Namespace) -> Side:
    """Return the configuration that is active in the agent of this node."""
    hint = "pass OLD, or run the command on the node of the agent"
    try:
        status = fetch_status(arguments.address)
    except UnreachableError as error:
        raise InputError(f"cannot find the configuration before the change: {error}; or pass OLD") from None
    files, policy = status["config"]["files"], status["config"]["policy"]
    if not files:
        raise InputError(f"the agent on {format_address(arguments.address)} has no active configuration; pass OLD")
    limits = str(policy) if Path(policy).is_file() else None
    node_name = status["node"] or arguments.node_name
    side = _read_side(InputRequest(files, node_name=node_name, policy=arguments.old_policy or limits), "OLD")
    if side.errors or [config.sha256 for config in side.configs.values()] != [status["config"]["sha256"]]:
        raise InputError(
            f"the files of the active configuration, {', '.join(files)}, do not have the content that the agent read: "
            f"they have changed or are not the files of this host; {hint}"
        )
    return side


def find_nodes(arguments: argparse.Namespace) -> list[NodeInput]:
    """Return the nodes of ``--node`` and ``--nodes``.

    Raises:
        InputError: there is no archive in the directory, or there are too many.
    """
    if arguments.no_node:
        return []
    nodes = [_parse_node(text) for text in arguments.node]
    if arguments.nodes is not None:
        nodes += (found := list(_list_nodes(Path(arguments.nodes))))
        if not found:
            raise InputError(
                f"--nodes {arguments.nodes}: found no archive; expected POOL.tar.gz, or archives in a directory POOL"
            )
    if len(nodes) > MAX_DIFF_NODES:
        raise InputError(f"found {len(nodes)} nodes, expected at most {MAX_DIFF_NODES}; select a pool with --pool")
    return nodes


def match_nodes(nodes: Sequence[NodeInput], pool: str, pools: Sequence[str]) -> list[NodeInput]:
    """Return the nodes of a pool; with a single pool, all nodes that no other pool is stated for."""
    if len(pools) == 1:
        named = [node for node in nodes if node.pool == pool]
        return named or list(nodes)
    return [node for node in nodes if node.pool == pool]


def _parse_node(text: str) -> NodeInput:
    pool, equals, archive = text.partition("=")
    if equals and "/" not in pool:
        return NodeInput(archive, archive, pool)
    return NodeInput(text, text, _strip_suffix(Path(text).name))


def _list_nodes(directory: Path) -> Iterator[NodeInput]:
    """Yield the archives and root directories in a directory, each with its pool."""
    try:
        for path in sorted(directory.iterdir()):
            if path.name.endswith(ARCHIVE_SUFFIXES) or _is_root(path):
                yield NodeInput(str(path), path.name, _strip_suffix(path.name), "--nodes")
            elif path.is_dir():
                for inner in sorted(path.iterdir()):
                    if inner.name.endswith(ARCHIVE_SUFFIXES) or _is_root(inner):
                        yield NodeInput(str(inner), f"{path.name}/{inner.name}", path.name, "--nodes")
    except OSError as error:
        raise InputError(f"--nodes {directory}: cannot be listed: {error.strerror}") from None


def _is_root(path: Path) -> bool:
    return (path / "dev").is_dir() or (path / "sys").is_dir()


def _strip_suffix(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in reversed(ARCHIVE_SUFFIXES) if name.endswith(suffix)), name)


def read_pods(arguments: argparse.Namespace, *, is_live: bool) -> tuple[PodUse, ...] | None:
    """Return the containers that use resources; None if they are not known.

    With ``is_live``, the node is that of this process, whose kubelet can report them.

    Raises:
        InputError: the file of ``--pods`` is neither a status nor a list of pods.
    """
    if arguments.pods is not None:
        return _read_pod_file(arguments.pods)
    socket = Path(arguments.pod_resources_dir, "kubelet.sock")
    if not is_live or not socket.exists():
        return None
    try:
        uses = asyncio.run(list_device_uses(socket, _DEADLINE_SECONDS))
    except CallError as error:
        print_message("diff", f"the pods that use devices are not known: {error}")
        return None
    return tuple(PodUse(use.namespace, use.pod, use.container, use.resource, use.ids) for use in uses)


def _read_pod_file(path: str) -> tuple[PodUse, ...]:
    diagnostics = Diagnostics()
    text = read_text(path, diagnostics)
    if text is None:
        raise InputError(f"--pods {path}: {diagnostics.found[0].message}")
    if len(text.text) > MAX_BYTES - 1:
        raise InputError(
            f"--pods {path}: is larger than {MAX_BYTES >> 20} MiB, the maximum; select the pods of a node with "
            "'--field-selector spec.nodeName=NODE'"
        )
    try:
        document = parse_json(text.text)
        match document:
            case {"kind": "Status", "resources": [*resources]}:
                return tuple(_read_status(resources))
            case {"kind": "List" | "PodList", "items": [*pods]}:
                return tuple(use for pod in pods for use in _read_pod(pod))
            case {"kind": "Pod"}:
                return tuple(_read_pod(document))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"--pods {path}: expected the output of 'genplug status -o json' or 'kubectl get pods -o json', found another "
        "document"
    )


def _read_status(resources: Sequence[Mapping[str, Any]]) -> Iterator[PodUse]:
    for resource in resources:
        for use in resource["inUse"] or ():
            namespace, pod, container = (str(use[key]) for key in ("namespace", "pod", "container"))
            yield PodUse(namespace, pod, container, str(resource["name"]), tuple(map(str, use["devices"])))


def _read_pod(pod: Mapping[str, Any]) -> Iterator[PodUse]:
    """Yield the extended resources that the containers of a pod request, unless the pod has ended or has no node."""
    spec = pod["spec"]
    if pod.get("status", {}).get("phase") in _ENDED_PHASES or not spec.get("nodeName"):
        return
    metadata = pod["metadata"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for name in container.get("resources", {}).get("limits", {}):
            # Only extended resources have a domain; the names of Kubernetes contain kubernetes.io.
            if "/" in name and "kubernetes.io/" not in name:
                yield PodUse(str(metadata["namespace"]), str(metadata["name"]), str(container["name"]), name, None)
