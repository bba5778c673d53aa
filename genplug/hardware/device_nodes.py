"""The device nodes of a device and its companions: from the specs of a source to paths, container paths and faults."""

import posixpath
from collections.abc import Iterator, Sequence

from genplug.hardware.candidate_attributes import custom_attributes
from genplug.hardware.candidates import NOT_SENDABLE
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import Host, is_utf8, printable
from genplug.hardware.inventory import KIND_NAMES, Candidate, DeviceNode
from genplug.spec.globs import Glob, GlobError, escape_glob, has_magic
from genplug.spec.model import NodeSpec
from genplug.spec.template import MissingAttributeError, Values

DEFAULT_PERMISSIONS = "rw"


class _NothingMatchesError(Exception):
    """A glob that must find a node finds none."""


def own_nodes(candidates: Sequence[Candidate]) -> list[DeviceNode]:
    """Return those candidates that are nodes, each under its own path in the container.

    A device of other things (a function without a node, a directory, a socket) gives what ``allocate`` says, and no
    node.
    """
    found = ((candidate.path, candidate.info) for candidate in candidates)
    return [
        DeviceNode(path, path, DEFAULT_PERMISSIONS, look) for path, look in found if look is not None and look.is_device
    ]


def specified_nodes(
    specs: Sequence[NodeSpec], attributes: Values, host: Host, dependencies: Dependencies
) -> tuple[list[DeviceNode], list[str]]:
    """Return the nodes that specs ask for with these attributes, in the specs' order, and faults.

    ``dependencies`` get what may change the result.
    """
    nodes: list[DeviceNode] = []
    faults: list[str] = []
    for spec in specs:
        try:
            for path in _paths(spec, attributes, host, dependencies):
                node = _node(path, spec, attributes, host, dependencies)
                if isinstance(node, str):
                    faults.append(node)
                elif node is not None and node not in nodes:
                    nodes.append(node)
        except MissingAttributeError as error:
            if spec.optional:
                continue
            faults.append(f"'{error.name}', which a path at {spec.location} needs, has no value for this device")
        except GlobError as error:
            faults.append(f"a path at {spec.location} cannot be used: {error}")
        except _NothingMatchesError as error:
            faults.append(str(error))
    return nodes, faults


def without_collisions(
    nodes: Sequence[DeviceNode], companions: Sequence[DeviceNode]
) -> tuple[tuple[DeviceNode, ...], tuple[DeviceNode, ...], list[str]]:
    """Return nodes and companions of which each container path speaks once, and a fault for each that two want.

    A companion that is a node of the device as well is left out: the node's permissions count.
    """
    if len(nodes) <= 1 and not companions:
        return tuple(nodes), (), []
    locations: dict[str, DeviceNode] = {}
    faults: list[str] = []
    kept: dict[bool, list[DeviceNode]] = {False: [], True: []}
    for is_companion, node in (*((False, node) for node in nodes), *((True, node) for node in companions)):
        first = locations.setdefault(node.container_path, node)
        if first is node:
            kept[is_companion].append(node)
        elif not is_companion or first.info.numbers != node.info.numbers:
            faults.append(f"{first.path} and {node.path} both want to be {node.container_path} in the container")
    return tuple(kept[False]), tuple(kept[True]), faults


def _paths(spec: NodeSpec, attributes: Values, host: Host, dependencies: Dependencies) -> Iterator[str]:
    is_glob = any(isinstance(part, str) and has_magic(part) for part in spec.path.parts)
    if not is_glob:
        yield from spec.path.render_each(attributes)
        return
    for text in spec.path.render_each(attributes, escape_glob):
        found = host.glob(Glob.parse(text))
        dependencies.update(found.dependencies)
        if not found.paths and not spec.optional:
            raise _NothingMatchesError(f"nothing matches {text} ({spec.location})")
        yield from found.paths


def _node(
    path: str, spec: NodeSpec, attributes: Values, host: Host, dependencies: Dependencies
) -> DeviceNode | str | None:
    if not path.startswith("/"):
        return f"'{path}' is not an absolute path ({spec.location})"
    look = host.stat_tracked(path, dependencies)
    if look is None:
        return None if spec.optional else f"{path} {host.missing_reason(path) or 'does not exist'}"
    if not is_utf8(path) or not is_utf8(look.resolved):
        return f"{printable(path)}: {NOT_SENDABLE}"
    if not look.is_device:
        return f"{path} is {KIND_NAMES[look.kind]}, not a device node"
    if spec.container_path is None:
        return DeviceNode(path, posixpath.normpath(path), spec.permissions, look)
    container_path = spec.container_path.render({**attributes, **custom_attributes(path, look)})
    if not container_path.startswith("/"):
        return f"{path} cannot be '{container_path}' in the container: not an absolute path ({spec.location})"
    return DeviceNode(path, posixpath.normpath(container_path), spec.permissions, look)
