"""The frozen model of a configuration: what every other part of the program is told, and all it is told.

One decoder (``decode.py``) makes these values; nobody changes them. Field names follow the configuration language
(docs/reference/configuration.md); a ``location`` says where in which file a thing was written, for messages to people.
"""

from collections.abc import Mapping
from enum import StrEnum

from attrs import evolve, field, frozen

from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.probes import HealthSpec
from genplug.spec.selectors import Condition
from genplug.spec.template import Template


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
    """``preferredAllocation``: the policy, and what makes a group (``by``); None is by NUMA node.

    ``is_written`` is whether the configuration says so: what nobody wrote is not worth a question of the kubelet's
    where all devices stand on one NUMA node.
    """

    policy: Preference = Preference.PACKED
    by: Template | None = None
    is_written: bool = False


@frozen
class NodeSpec:
    """A device node of a device (``nodes``) or a companion (``with``).

    ``path`` renders to one path or glob for each value of the attributes it names; ``container_path`` (``as``) is None
    where the node keeps its path in the container. ``permissions`` is a subset of ``rwm`` in that order.
    """

    location: SourceLocation
    path: Template
    container_path: Template | None
    permissions: str
    optional: bool


@frozen
class CustomAttribute:
    """An attribute of the configuration's own: which file to read, and what of it is the value.

    ``path`` renders to one path or glob for each value of the attributes it names, ``find`` to a regular expression in
    which values stand for themselves (:func:`genplug.spec.regex.compiled`). With ``collect_all`` every file and
    every match counts, else the first; with ``takes_directory`` the name of the file's directory is the value.
    """

    location: SourceLocation
    name: str
    path: Template
    find: Template | None = None
    use_dir_name: bool = False
    collect_all: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The attributes that it is made of."""
        return self.path.names | (self.find.names if self.find is not None else frozenset())


@frozen
class Source:
    """One entry of ``devices``: globs, what is left out, and how candidates become devices.

    ``sysfs`` says where in /sys a device stands that the kernel does not link there. With ``is_id_verbatim`` the ID is
    what ``id`` renders to as it is, for those who read IDs from the kubelet.
    """

    location: SourceLocation
    globs: tuple[Glob, ...]
    exclude: tuple[Glob, ...]
    type: CandidateType
    where: tuple[Condition, ...]
    group_by: Template | None
    nodes: tuple[NodeSpec, ...]
    """Empty: the candidates themselves are the nodes."""
    companions: tuple[NodeSpec, ...]
    id: Template | None
    attributes: tuple[CustomAttribute, ...] = ()
    sysfs: Template | None = None
    is_id_verbatim: bool = False


@frozen
class MountSpec:
    """A mount of a container, as written: templates are rendered at Allocate."""

    location: SourceLocation
    host_path: Template
    container_path: Template
    read_only: bool
    optional: bool


@frozen
class AllocateSpec:
    """What a container gets beside its device nodes. Order is that of the file.

    ``cdi_devices`` are names that somebody else's CDI files define; with ``injects_by_cdi`` nodes and mounts go into
    CDI files of our own.
    """

    env: tuple[tuple[str, Template], ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    annotations: tuple[tuple[str, Template], ...] = ()
    cdi_devices: tuple[Template, ...] = ()
    injects_by_cdi: bool = False


@frozen
class PreStartSpec:
    """A program that runs before a container starts (``preStart``): its arguments, and seconds it may take."""

    location: SourceLocation
    command: tuple[Template, ...]
    timeout_seconds: float


@frozen
class Resource:
    """One resource name and all that was said about it.

    Where ``name_template`` is given, the configuration's ``name`` is its text; devices make one resource of it for each
    name that they have, which differ from it in ``name`` alone (``genplug.hardware.resource_naming``).
    ``replicas`` (at least 1) lists each device that often; ``tokens``, if given, makes one pool of that many grants
    instead; ``slices``, if given, renders to a number for each device. ``aliases`` are more names for the same devices.
    ``has_topology`` tells the kubelet the NUMA node. ``overlap`` allows a node of this resource in another resource
    that allows it too; one container gets at most ``max_per_container`` grants, and with ``distinct`` no two of one
    device. ``policy`` bounds which nodes and mounts it may hand out.
    """

    name: str
    location: SourceLocation
    sources: tuple[Source, ...]
    name_template: Template | None = None
    replicas: int = 1
    tokens: int | None = None
    slices: Template | None = None
    aliases: tuple[str, ...] = ()
    has_topology: bool = True
    overlap: bool = False
    max_per_container: int | None = None
    distinct: bool = False
    preference: PreferenceSpec = PreferenceSpec()
    allocate: AllocateSpec = field(factory=AllocateSpec)
    pre_start: PreStartSpec | None = None
    health: HealthSpec = field(factory=HealthSpec)
    policy: Policy = DEFAULT_POLICY

    @property
    def configured_name(self) -> str:
        """The name as the configuration has it."""
        return self.name_template.text if self.name_template is not None else self.name


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

    def restricted_by(self, policy: Policy) -> "Config":
        """Return what is left of the configuration under another policy."""
        allowed = {
            name: one
            for name, one in self.resources.items()
            if one.name_template is not None or not policy.resource_error(name)
        }
        resources = {
            name: evolve(
                one, policy=policy, aliases=tuple(alias for alias in one.aliases if not policy.resource_error(alias))
            )
            for name, one in allowed.items()
        }
        return evolve(self, resources=resources, policy=policy)
