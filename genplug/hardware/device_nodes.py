"""Resolves the device nodes and companions of a device to paths, container paths and faults."""

from collections.abc import Iterator, Sequence

from genplug.hardware.candidate_attributes import PathAttributes
from genplug.hardware.candidates import NOT_UTF8
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import Host, is_utf8, printable
from genplug.hardware.inventory import KIND_NAMES, Candidate, DeviceNode, Kind
from genplug.hardware.kernel_modules import missing_node_hint
from genplug.spec.container_rules import node_target_error, normalize_container_path, path_error
from genplug.spec.globs import Glob, GlobError, escape_glob
from genplug.spec.limits import MAX_NODES_PER_DEVICE
from genplug.spec.model import NodeSpec
from genplug.spec.policy import Policy
from genplug.spec.template import LayeredValues, MissingAttributeError, RenderError, Values, combine_values

DEFAULT_PERMISSIONS = "rw"


class _NothingMatchesError(Exception):
    """A required glob matches nothing."""


class _RefusedGlobError(Exception):
    """The policy does not allow to search for a glob."""


def candidate_nodes(candidates: Sequence[Candidate]) -> list[DeviceNode]:
    """Return the candidates that are device nodes, each with its host path as container path.

    Other candidates (a PCI function, a directory, a socket) give what ``allocate`` defines and no device node.
    """
    is_group = len(candidates) > 1
    return [
        DeviceNode(candidate.path, candidate.path, DEFAULT_PERMISSIONS, info, is_group)
        for candidate in candidates
        if (info := candidate.info) is not None and info.is_device
    ]


def specified_nodes(
    specs: Sequence[NodeSpec], attributes: Values, host: Host, dependencies: Dependencies, policy: Policy
) -> tuple[list[DeviceNode], list[str]]:
    """Return the device nodes that specs render to with these attributes, in the order of the specs, and faults.

    The dependencies of the result are added to ``dependencies``.
    """
    nodes: dict[tuple[str, str, str], DeviceNode] = {}
    faults: list[str] = []
    for spec in specs:
        try:
            for path, selected in _paths(spec, attributes, host, dependencies, policy):
                node = _node(path, spec, selected, host, dependencies, policy)
                if isinstance(node, str):
                    faults.append(node)
                elif node is not None:
                    key = (node.path, node.container_path, node.permissions)
                    # A node that any of the specs requires is required.
                    if key not in nodes or not node.is_optional:
                        nodes[key] = node
                    if len(nodes) > MAX_NODES_PER_DEVICE:
                        faults.append(f"more than {MAX_NODES_PER_DEVICE} device nodes, the maximum ({spec.location})")
                        return [], faults
        except MissingAttributeError as error:
            if spec.optional:
                continue
            faults.append(f"a path at {spec.location} {error.describe('the device')}")
        except RenderError as error:
            faults.append(f"a path at {spec.location} {error.describe('the device')}")
        except GlobError as error:
            faults.append(f"a path at {spec.location} renders to an invalid glob: {error}")
        except (_NothingMatchesError, _RefusedGlobError) as error:
            faults.append(str(error))
    return list(nodes.values()), faults


def resolve_collisions(
    nodes: Sequence[DeviceNode], companions: Sequence[DeviceNode]
) -> tuple[tuple[DeviceNode, ...], tuple[DeviceNode, ...], list[str]]:
    """Return nodes and companions with unique container paths, and a fault for each path that two nodes map to.

    A companion that is also a node of the device is left out; the permissions of the node apply.
    """
    if len(nodes) <= 1 and not companions:
        return tuple(nodes), (), []
    by_container_path: dict[str, DeviceNode] = {}
    faults: list[str] = []
    kept: dict[bool, list[DeviceNode]] = {False: [], True: []}
    for is_companion, node in (*((False, node) for node in nodes), *((True, node) for node in companions)):
        first = by_container_path.setdefault(node.container_path, node)
        if first is node:
            kept[is_companion].append(node)
        elif not is_companion or first.info.numbers != node.info.numbers:
            faults.append(f"{first.path} and {node.path} both map to {node.container_path} in the container")
    return tuple(kept[False]), tuple(kept[True]), faults


def _paths(
    spec: NodeSpec, attributes: Values, host: Host, dependencies: Dependencies, policy: Policy
) -> Iterator[tuple[str, Values]]:
    """Yield each path on the host, with the attributes from which its path in the container is rendered."""
    context = () if spec.container_path is None else (spec.container_path,)
    is_glob = spec.path.has_glob
    rendered: dict[str, Values] = {}
    for selected in combine_values((spec.path,), attributes, context):
        rendered.setdefault(spec.path.render(selected, escape_glob if is_glob else str), selected)
    for text, selected in rendered.items():
        if not is_glob:
            yield text, selected
            continue
        glob = Glob.parse(text)
        if error := policy.node_glob_error(glob):
            raise _RefusedGlobError(f"{printable(text)} is {error} ({spec.location})")
        found = host.glob(glob)
        dependencies.update(found.dependencies)
        # A match that the policy does not allow to name is ignored: a reason would reveal that the path exists.
        allowed = (path for path in found.paths if not policy.candidate_error(path))
        paths = [path for path in allowed if not _is_ignored(path, host, dependencies)]
        if not paths and not spec.optional:
            hint = missing_node_hint(text)
            raise _NothingMatchesError(f"nothing matches {text} ({spec.location})" + (f": {hint}" if hint else ""))
        yield from ((path, selected) for path in paths)


def _is_ignored(path: str, host: Host, dependencies: Dependencies) -> bool:
    """Return whether a match of a glob is a link to nothing, or a directory of links such as /dev/snd/by-path."""
    info = host.stat_tracked(path, dependencies)
    return info is None or info.kind is Kind.DIRECTORY


def _node(  # noqa: PLR0913, PLR0917 - a node and where it is looked up
    path: str, spec: NodeSpec, attributes: Values, host: Host, dependencies: Dependencies, policy: Policy
) -> DeviceNode | str | None:
    if error := path_error(path):
        return f"'{printable(path)}' {error} ({spec.location})"
    # Before the stat: the reason must not reveal whether a path exists that the policy does not allow to name.
    if error := policy.candidate_error(path):
        return f"{printable(path)} is {error} ({spec.location})"
    info = host.stat_tracked(path, dependencies)
    if info is None:
        return None if spec.optional else f"{path} {host.missing_reason(path) or 'does not exist'}"
    if not is_utf8(path) or not is_utf8(info.resolved):
        return f"{printable(path)}: {NOT_UTF8}"
    if not info.is_device:
        return f"{path} is {KIND_NAMES[info.kind]}, not a device node"
    is_optional = spec.optional or spec.path.has_glob
    container_path = path
    if spec.container_path is not None:
        container_path = spec.container_path.render(LayeredValues(attributes, PathAttributes(path, info)))
    if error := node_target_error(container_path, info.resolved):
        return f"the container path '{printable(container_path)}' of {path} {error} ({spec.location})"
    return DeviceNode(path, normalize_container_path(container_path), spec.permissions, info, is_optional, spec.access)


def candidate_target_faults(nodes: Sequence[DeviceNode]) -> list[str]:
    """Return a fault for each node whose path on the host must not be its path in a container."""
    # The path of an existing node is a valid path, apart from bytes that are not UTF-8.
    changed = [node for node in nodes if node.path != node.info.resolved or not node.path.isascii()]
    if not changed:
        return []
    errors = ((node.path, node_target_error(node.path, node.info.resolved)) for node in changed)
    return [
        f"the container path '{path}' {error}; set another path with 'nodes' and 'as'"
        for path, error in errors
        if error
    ]
