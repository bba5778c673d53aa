"""What tests of discovery are made of: a node's files in a directory, and short ways to write a configuration."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from genplug.hardware.host import STAND_INS_MARKER, Host
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.model import AllocateSpec, CandidateType, Config, NodeSpec, Resource, Source
from genplug.spec.policy import Policy
from genplug.spec.selectors import Condition, Selector
from genplug.spec.template import Template

LOCATION = SourceLocation("devices.yaml", 5, 7)
BLOCK = Policy(block=True)
"""Of block devices the default policy has none."""


class NodeTree:
    """A node's file system in a directory, with stand-ins for device nodes; ``host`` is the door to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / STAND_INS_MARKER).touch()
        (root / "dev").mkdir()
        self.host = Host.at(root)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def plug(self, path: str, numbers: str | None = None, kind: str = "char") -> None:
        """Make a device node; without numbers they follow from the path."""
        if numbers is None:
            numbers = f"240:{sum(ord(letter) * 31**at for at, letter in enumerate(path)) % 10**6}"
        self.write(path, f"{kind} {numbers}\n")

    def write(self, path: str, text: str = "") -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(text)

    def directory(self, path: str) -> None:
        self.at(path).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).symlink_to(target)

    def mknod(self, path: str, major: int, minor: int, kind: int) -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(self.at(path), kind | 0o600, os.makedev(major, minor))

    def unplug(self, path: str) -> None:
        self.at(path).unlink()


@contextmanager
def node_tree() -> Iterator[NodeTree]:
    root = Path(mkdtemp(prefix="gp", dir="/tmp"))
    try:
        yield NodeTree(root)
    finally:
        shutil.rmtree(root)


def source(  # noqa: PLR0913 - the keys of the language
    *globs: str,
    exclude: tuple[str, ...] = (),
    type: CandidateType = CandidateType.DEVICE,  # noqa: A002 - the language's own word
    where: tuple[Condition, ...] = (),
    group_by: str | None = None,
    nodes: tuple[NodeSpec, ...] = (),
    companions: tuple[NodeSpec, ...] = (),
    id: str | None = None,  # noqa: A002 - the language's own word
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


def node(
    path: str,
    as_: str | None = None,
    permissions: str = "rw",
    location: SourceLocation = LOCATION,
    *,
    optional: bool = False,
) -> NodeSpec:
    container_path = Template.parse(as_) if as_ is not None else None
    return NodeSpec(location, Template.parse(path), container_path, permissions, optional)


def where(attribute: str, selector: Selector) -> Condition:
    return Condition(LOCATION, attribute, selector)


def resource(
    name: str,
    *sources: Source,
    env: dict[str, str] | None = None,
    overlap: bool = False,
    policy: Policy = BLOCK,
) -> Resource:
    allocate = AllocateSpec(env=tuple((key, Template.parse(text)) for key, text in (env or {}).items()))
    return Resource(
        name, SourceLocation("devices.yaml", 3, 3), sources, overlap=overlap, allocate=allocate, policy=policy
    )


def config(*resources: Resource) -> Config:
    return Config({one.name: one for one in resources}, ("devices.yaml",), "0" * 64)
