"""Devices on a node's files, their health, and the offers and states of a resource that has them."""

from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.hardware.candidate_attributes import PathAttributes
from genplug.hardware.inventory import Device, DeviceNode, Kind, PathInfo
from genplug.health.verdict import DeviceHealth, Verdict
from genplug.spec.container_text import ContainerText
from genplug.spec.globs import Glob
from genplug.spec.model import AllocateSpec, MountSpec, Resource
from genplug.spec.policy import Policy
from genplug.spec.template import Template, merge_values
from tests.support.hardware import LOCATION, NAME, NodeTree, build_variables

MOUNT_POLICY = Policy(writable=(Glob.parse("/**"),), cdi=("*",), annotations=("*",))
"""Allows mounts, which the default policy denies."""


class DeviceTree(NodeTree):
    """A node's file system in a directory, and the devices that discovery would find on it."""

    def make_node(self, path: str, container_path: str | None = None, permissions: str = "rw") -> DeviceNode:
        """Return a device node, which is created if it does not exist."""
        if not self.host.exists(path):
            self.plug(path)
        info = self.host.stat(path)
        return DeviceNode(path, container_path or path, permissions, info or PathInfo.of(path, Kind.CHAR))

    def make_device(self, key: str, *nodes: DeviceNode, companions: tuple[DeviceNode, ...] = ()) -> Device:
        """Return a device; its default node is ``/dev/KEY``."""
        nodes = nodes or (self.make_node(f"/dev/{key}"),)
        attributes = merge_values([PathAttributes(node.path, node.info) for node in nodes])
        candidates = tuple(node.path for node in nodes)
        return Device(key, key, NAME, LOCATION, candidates, nodes, companions, attributes)

    def make_healthy(self, *keys: str) -> tuple[DeviceHealth, ...]:
        """Return healthy devices with their default nodes."""
        return mark_healthy(*map(self.make_device, keys))


def build_mount_spec(
    host_path: str, container_path: str, *, read_only: bool = True, optional: bool = False
) -> MountSpec:
    return MountSpec(LOCATION, Template.parse(host_path), Template.parse(container_path), read_only, optional)


def build_resource(
    replicas: int = 1,
    tokens: int | None = None,
    env: dict[str, str] | None = None,
    mounts: tuple[MountSpec, ...] = (),
    annotations: dict[str, str] | None = None,
) -> Resource:
    allocate = AllocateSpec(
        env=build_variables(env or {}),
        mounts=mounts,
        annotations=tuple((name, ContainerText(Template.parse(text))) for name, text in (annotations or {}).items()),
    )
    return Resource(NAME, LOCATION, (), replicas=replicas, tokens=tokens, allocate=allocate, policy=MOUNT_POLICY)


def mark_healthy(*devices: Device) -> tuple[DeviceHealth, ...]:
    return tuple(DeviceHealth(device, Verdict(healthy=True, reason="", since=0)) for device in devices)


def mark_unhealthy(device: Device, reason: str) -> DeviceHealth:
    return DeviceHealth(device, Verdict(healthy=False, reason=reason, since=0))


def offer_devices(spec: Resource, *devices: DeviceHealth) -> ResourceOffer:
    return build_offer(spec, devices)


def build_state(tree: NodeTree, spec: Resource, *devices: DeviceHealth) -> ResourceState:
    """Return the state that answers the kubelet's calls for a resource."""
    return ResourceState(build_offer(spec, devices), tree.host)
