"""A node's files in a directory, and short ways to build the specifications of resources and their sources."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

from genplug.hardware.dependencies import Changes
from genplug.hardware.discovery import build_inventory, discover, scan_resource, select_scans
from genplug.hardware.host import STAND_INS_MARKER, Host
from genplug.hardware.inventory import Device, Inventory
from genplug.spec.container_text import ContainerText, VariableSpec
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.model import AllocateSpec, CandidateType, Config, NodeSpec, Resource, Source
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules
from genplug.spec.selectors import Condition, Selector
from genplug.spec.template import Template

NAME = "a.example/x"
LOCATION = SourceLocation("devices.yaml", 5, 7)
BLOCK_POLICY = Policy(block=True, read=parse_read_rules(("/**",)), read_env=("GENPLUG_TEST_*",))
"""Allows block devices and reading files and variables, which the default policy denies."""


class NodeTree:
    """A node's file system in a directory, with stand-ins for device nodes; ``host`` reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / STAND_INS_MARKER).touch()
        (root / "dev").mkdir()
        self.host = Host.at(root)

    def at(self, path: str) -> Path:
        """Return the real path of a path of the node."""
        return self.root / path.lstrip("/")

    def plug(self, path: str, numbers: str | None = None, kind: str = "char") -> None:
        """Create a stand-in for a device node; numbers that are not given follow from the path."""
        if numbers is None:
            numbers = f"240:{sum(ord(letter) * 31**index for index, letter in enumerate(path)) % 10**6}"
        self.write(path, f"{kind} {numbers}\n")

    def unplug(self, path: str) -> None:
        self.at(path).unlink()

    def write(self, path: str, text: str = "") -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(text)

    def make_directory(self, path: str) -> None:
        self.at(path).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).symlink_to(target)

    def mknod(self, path: str, major: int, minor: int, kind: int) -> None:
        """Create a real device node, as root."""
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(self.at(path), kind | 0o600, os.makedev(major, minor))


Tree = TypeVar("Tree", bound=NodeTree)


@contextmanager
def open_tree(tree_type: type[Tree]) -> Iterator[Tree]:
    """Create a tree in a directory with a short path, and remove it at the end."""
    root = Path(mkdtemp(prefix="gp", dir="/tmp"))
    try:
        yield tree_type(root)
    finally:
        shutil.rmtree(root)


def build_source(  # noqa: PLR0913 - the keys of a source
    *globs: str,
    exclude: tuple[str, ...] = (),
    type: CandidateType = CandidateType.DEVICE,  # noqa: A002 - the name of the key
    where: tuple[Condition, ...] = (),
    group_by: str | None = None,
    nodes: tuple[NodeSpec, ...] = (),
    companions: tuple[NodeSpec, ...] = (),
    id: str | None = None,  # noqa: A002 - the name of the key
    location: SourceLocation = LOCATION,
) -> Source:
    return Source(
        location=location,
        globs=tuple(Glob.parse(glob) for glob in globs),
        exclude=tuple(Glob.parse(glob) for glob in exclude),
        type=type,
        where=where,
        group_by=Template.parse(group_by) if group_by is not None else None,
        nodes=nodes,
        companions=companions,
        id=Template.parse(id) if id is not None else None,
    )


def build_node_spec(
    path: str,
    as_: str | None = None,
    permissions: str = "rw",
    location: SourceLocation = LOCATION,
    *,
    optional: bool = False,
) -> NodeSpec:
    container_path = Template.parse(as_) if as_ is not None else None
    return NodeSpec(location, Template.parse(path), container_path, permissions, optional)


def build_condition(attribute: str, selector: Selector) -> Condition:
    return Condition(LOCATION, attribute, selector)


def build_variables(env: Mapping[str, str]) -> tuple[VariableSpec, ...]:
    return tuple(VariableSpec(Template.parse(name), ContainerText(Template.parse(text))) for name, text in env.items())


def build_resource(
    name: str,
    *sources: Source,
    env: dict[str, str] | None = None,
    overlap: bool = False,
    policy: Policy = BLOCK_POLICY,
) -> Resource:
    allocate = AllocateSpec(env=build_variables(env or {}))
    return Resource(
        name, SourceLocation("devices.yaml", 3, 3), sources, overlap=overlap, allocate=allocate, policy=policy
    )


def build_config(*resources: Resource) -> Config:
    return Config({resource.name: resource for resource in resources}, ("devices.yaml",), "0" * 64)


def discover_sources(tree: NodeTree, *sources: Source, policy: Policy = BLOCK_POLICY) -> Inventory:
    """Return the inventory of a resource with these sources."""
    return discover(build_config(build_resource(NAME, *sources, policy=policy)), tree.host)


def rescan(config: Config, host: Host, previous: Inventory, changes: Changes | None) -> Inventory:
    """Return the inventory after changes (None: any change), from the scans that the agent selects."""
    cached, scans = host.cached(), dict(previous.scans)
    for name, limit in select_scans(config, previous.scans, changes).items():
        scans[name] = scan_resource(config.resources[name], cached, previous.scans.get(name), limit)
    return build_inventory(config, scans, previous)[0]


def list_devices(inventory: Inventory, name: str = NAME) -> tuple[Device, ...]:
    return inventory.devices[name]


def list_ids(inventory: Inventory, name: str = NAME) -> list[str]:
    return [device.id for device in list_devices(inventory, name)]


def find_reason(inventory: Inventory, path: str, name: str = NAME) -> str:
    """Return why a path is excluded, or the device that it belongs to and why."""
    [outcome] = [outcome for outcome in inventory.outcomes if outcome.path == path and outcome.resource == name]
    return outcome.reason if outcome.device is None else f"in {outcome.device}: {outcome.reason}"
