"""The frozen model of a configuration: what every other part of the program is told, and all it is told.

One decoder (``decode.py``) makes these values; nobody changes them. Field names follow the configuration language
(docs/config-language.md); a ``place`` says where in which file a thing was written, for messages to people.
"""

from collections.abc import Mapping
from enum import StrEnum

from attrs import evolve, field, frozen

from genplug.config.globs import Glob
from genplug.config.place import Place
from genplug.config.policy import DEFAULT_POLICY, Policy
from genplug.config.selectors import Condition
from genplug.config.template import Template


class CandidateType(StrEnum):
    """What a path must be to become a candidate (config-language: ``type``)."""

    DEVICE = "device"
    CHAR = "char"
    BLOCK = "block"
    DIRECTORY = "directory"
    FILE = "file"
    SOCKET = "socket"
    ANY = "any"


class Preference(StrEnum):
    """Which of the free devices to suggest (config-language: ``preferredAllocation.policy``)."""

    NONE = "none"
    PACKED = "packed"
    SPREAD = "spread"


@frozen
class PreferenceSpec:
    """``preferredAllocation``: the policy, and what makes a group (``by``); None is by NUMA node."""

    policy: Preference = Preference.NONE
    by: Template | None = None


@frozen
class NodeSpec:
    """A device node of a device (``nodes``) or a companion (``with``).

    ``path`` renders to one path or glob for each value of the attributes it names; ``container_path`` (``as``) is None
    where the node keeps its path in the container. ``permissions`` is a subset of ``rwm`` in that order.
    """

    place: Place
    path: Template
    container_path: Template | None
    permissions: str
    optional: bool


@frozen
class Source:
    """One entry of ``devices``: globs, what is left out, and how candidates become devices."""

    place: Place
    globs: tuple[Glob, ...]
    exclude: tuple[Glob, ...]
    type: CandidateType
    where: tuple[Condition, ...]
    group_by: Template | None
    nodes: tuple[NodeSpec, ...]
    """Empty: the candidates themselves are the nodes."""
    companions: tuple[NodeSpec, ...]
    id: Template | None


@frozen
class MountSpec:
    """A mount of a container, as written: templates are rendered at Allocate."""

    place: Place
    host_path: Template
    container_path: Template
    read_only: bool
    optional: bool


@frozen
class AllocateSpec:
    """What a container gets beside its device nodes. Order is that of the file."""

    env: tuple[tuple[str, Template], ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    annotations: tuple[tuple[str, Template], ...] = ()


@frozen
class HealthSpec:
    """How long a device that vanished stays in the list, Unhealthy (seconds)."""

    keep_gone_seconds: float = 60.0


@frozen
class Resource:
    """One resource name and all that was said about it.

    ``replicas`` (at least 1) lists each device that often; ``tokens``, if given, makes one pool of that many grants
    instead. ``overlap`` allows a node of this resource in another resource that allows it too; one container gets at
    most ``most_per_container`` grants, and with ``distinct`` no two of one device. ``policy`` bounds which nodes and
    mounts it may hand out.
    """

    name: str
    place: Place
    sources: tuple[Source, ...]
    replicas: int = 1
    tokens: int | None = None
    overlap: bool = False
    most_per_container: int | None = None
    distinct: bool = False
    preference: PreferenceSpec = PreferenceSpec()
    allocate: AllocateSpec = field(factory=AllocateSpec)
    health: HealthSpec = field(factory=HealthSpec)
    policy: Policy = DEFAULT_POLICY


@frozen
class Config:
    """A whole configuration: resources by name in the order of the files.

    ``files`` are the files it was read from; ``sha256`` is over the merged content, so that two nodes, or a ConfigMap
    and a node, can be compared. ``policy`` is what bounds it, and each of its resources.
    """

    resources: Mapping[str, Resource]
    files: tuple[str, ...]
    sha256: str
    policy: Policy = DEFAULT_POLICY

    def bounded(self, policy: Policy) -> "Config":
        """Return what is left of the configuration under another policy."""
        allowed = {name: one for name, one in self.resources.items() if not policy.resource_fault(name)}
        resources = {name: evolve(one, policy=policy) for name, one in allowed.items()}
        return evolve(self, resources=resources, policy=policy)
