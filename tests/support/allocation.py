"""What tests of allocation are made of: a node's files in a directory, judged devices, and the offers made of them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.hardware.candidate_attributes import merge_values, path_attributes
from genplug.hardware.host import STAND_INS_MARKER, Host
from genplug.hardware.inventory import Device, DeviceNode, Kind, PathInfo
from genplug.health.verdict import DeviceHealth, Verdict
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.model import AllocateSpec, MountSpec, Resource
from genplug.spec.policy import Policy
from genplug.spec.template import Template

X = "a.example/x"
LOCATION = SourceLocation("devices.yaml", 5, 7)
MOUNTS = Policy(writable=(Glob.parse("/**"),))
"""Of mounts the default policy has none."""


class Node:
    """A node's file system in a directory, with stand-ins for device nodes, and the devices that were found on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / STAND_INS_MARKER).touch()
        (root / "dev").mkdir()
        self.host = Host.at(root)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def plug(self, path: str, minor: int = 0, major: int = 240) -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(f"char {major}:{minor}\n")

    def node(self, path: str, container_path: str | None = None, permissions: str = "rw") -> DeviceNode:
        """Return a device node as it was found, plugged in now if it is not yet."""
        if not self.host.exists(path):
            self.plug(path, minor=sum(ord(letter) * 31**at for at, letter in enumerate(path)) % 10**6)
        look = self.host.stat(path)
        return DeviceNode(path, container_path or path, permissions, look or PathInfo(path, Kind.CHAR))

    def device(self, key: str, *nodes: DeviceNode, companions: tuple[DeviceNode, ...] = ()) -> Device:
        """Return a device; without nodes it has the one that its key names."""
        nodes = nodes or (self.node(f"/dev/{key}"),)
        attributes = merge_values([path_attributes(node.path, node.info) for node in nodes])
        candidates = tuple(node.path for node in nodes)
        return Device(key, key, X, LOCATION, candidates, nodes, companions, attributes)


@contextmanager
def made_node() -> Iterator[Node]:
    root = Path(mkdtemp(prefix="gp", dir="/tmp"))
    try:
        yield Node(root)
    finally:
        shutil.rmtree(root)


def mount(host_path: str, container_path: str, *, read_only: bool = True, optional: bool = False) -> MountSpec:
    return MountSpec(LOCATION, Template.parse(host_path), Template.parse(container_path), read_only, optional)


def resource(
    replicas: int = 1,
    tokens: int | None = None,
    env: dict[str, str] | None = None,
    mounts: tuple[MountSpec, ...] = (),
    annotations: dict[str, str] | None = None,
) -> Resource:
    allocate = AllocateSpec(
        env=tuple((name, Template.parse(text)) for name, text in (env or {}).items()),
        mounts=mounts,
        annotations=tuple((name, Template.parse(text)) for name, text in (annotations or {}).items()),
    )
    return Resource(X, LOCATION, (), replicas=replicas, tokens=tokens, allocate=allocate, policy=MOUNTS)


def healthy(*devices: Device) -> tuple[DeviceHealth, ...]:
    return tuple(DeviceHealth(device, Verdict(healthy=True, reason="", since=0)) for device in devices)


def unhealthy(device: Device, reason: str) -> DeviceHealth:
    return DeviceHealth(device, Verdict(healthy=False, reason=reason, since=0))


def offer(spec: Resource, *judged: DeviceHealth) -> ResourceOffer:
    return build_offer(spec, judged)
