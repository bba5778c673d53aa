"""The model of a configuration, as frozen values. Every other package works with these values only.

``genplug.config.decode`` builds them. Field names follow docs/reference/configuration.md. A ``location`` is the
position in the source file, for error messages.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

from genplug.spec.container_text import ContainerText, VariableSpec
from genplug.spec.diagnostic import Diagnostic
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.probes import HealthSpec
from genplug.spec.selectors import Condition
from genplug.spec.template import Template
from genplug.struct_values import compare_without, hide_in_repr


class CandidateType(StrEnum):
    """The file type that a path must have to become a candidate (``type``)."""

    DEVICE = "device"
    CHAR = "char"
    BLOCK = "block"
    DIRECTORY = "directory"
    FILE = "file"
    SOCKET = "socket"
    ANY = "any"


class Preference(StrEnum):
    """Which of the free devices to prefer (``preferredAllocation.policy``)."""

    NONE = "none"
    PACKED = "packed"
    SPREAD = "spread"
    CONTIGUOUS = "contiguous"


class PreferenceSpec(Struct, frozen=True):
    """``preferredAllocation``: the policy and the template ``by``.

    ``by`` groups devices, and None groups them by NUMA node. With :attr:`Preference.CONTIGUOUS`, ``by`` is the position
    of a device, and None is its ``index`` or the number of a slice.
    ``is_explicit`` is whether the configuration sets it. Without an explicit policy, the kubelet is asked to call
    GetPreferredAllocation only if the devices span several NUMA nodes.
    """

    policy: Preference = Preference.PACKED
    by: Template | None = None
    is_explicit: bool = False


@compare_without("location")
class NodeAccess(Struct, frozen=True):
    """The owner (user ID), the group (group ID) and the mode (permission bits) of a device node in the container.

    None leaves a value to the container runtime. ``location`` is that of the first of the keys.
    """

    owner: int | None = None
    group: int | None = None
    mode: int | None = None
    location: SourceLocation | None = None


DEFAULT_ACCESS = NodeAccess()


class NodeSpec(Struct, frozen=True):
    """A device node of a device (``nodes``) or a companion (``with``).

    ``path`` renders to a path or glob for each value of the attributes it refers to. ``container_path`` (``as``) is
    None if the path in the container equals the path on the host. ``permissions`` is a subset of ``rwm``, in that
    order.
    """

    location: SourceLocation
    path: Template
    container_path: Template | None
    permissions: str
    optional: bool
    access: NodeAccess = DEFAULT_ACCESS


class CustomAttribute(Struct, frozen=True):
    """A custom attribute (``attributes``): the file or the text to read and which part of it is the value.

    ``paths`` render to paths or globs, ``values`` to texts, for each value of the attributes they refer to; the first
    that gives a value is used. One of them is empty. ``find`` renders to a regular
    expression in which attribute values are escaped (:func:`genplug.spec.regex.render_regexes`). With ``collect_all``
    every file and every match gives a value, otherwise only the first. With ``use_dir_name`` the value is the name of
    the file's directory.
    """

    location: SourceLocation
    name: str
    paths: tuple[Template, ...] = ()
    find: Template | None = None
    use_dir_name: bool = False
    collect_all: bool = False
    values: tuple[Template, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of the attributes that its templates refer to."""
        templates = (*self.paths, *self.values, *((self.find,) if self.find is not None else ()))
        return frozenset[str]().union(*(template.names for template in templates))


class Source(Struct, frozen=True):
    """An entry of ``devices``: globs, exclusions, and how candidates become devices.

    ``sysfs`` renders to the sysfs directory of a device that the kernel does not link to one. With ``is_id_verbatim``
    the device ID is exactly what ``id`` renders to, for programs that read IDs from the kubelet.
    """

    location: SourceLocation
    globs: tuple[Glob, ...]
    exclude: tuple[Glob, ...]
    type: CandidateType
    where: tuple[Condition, ...]
    group_by: Template | None
    nodes: tuple[NodeSpec, ...]
    """If empty, the candidates themselves are the device nodes."""
    companions: tuple[NodeSpec, ...]
    id: Template | None
    attributes: tuple[CustomAttribute, ...] = ()
    sysfs: Template | None = None
    is_id_verbatim: bool = False


@compare_without("host_path_location")
class MountSpec(Struct, frozen=True):
    """A mount of a container (``allocate.mounts``); its templates are rendered at Allocate.

    ``host_path_location`` is that of the value of ``hostPath``.
    """

    location: SourceLocation
    host_path: Template
    container_path: Template
    read_only: bool
    optional: bool
    host_path_location: SourceLocation | None = None


@compare_without("inject_location", "cdi_devices_location")
class AllocateSpec(Struct, frozen=True):
    """The edits of a container in addition to its device nodes (``allocate``), in the order of the file.

    ``cdi_devices`` are qualified names that other programs' CDI files define. With ``injects_by_cdi``, device nodes and
    mounts are written to CDI files instead of the Allocate response, and so are ``supplemental_groups``: group IDs that
    the processes of the container get in addition. ``inject_location`` and ``cdi_devices_location`` are those of the
    keys.
    """

    env: tuple[VariableSpec, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    annotations: tuple[tuple[str, ContainerText], ...] = ()
    cdi_devices: tuple[Template, ...] = ()
    injects_by_cdi: bool = False
    supplemental_groups: tuple[int, ...] = ()
    inject_location: SourceLocation | None = None
    cdi_devices_location: SourceLocation | None = None


class PreStartSpec(Struct, frozen=True):
    """A program that runs before a container starts (``preStart``): its arguments and its timeout in seconds."""

    location: SourceLocation
    command: tuple[Template, ...]
    timeout_seconds: float


class Serve(StrEnum):
    """The API that serves the devices of a resource (``serve``)."""

    DEVICE_PLUGIN = "devicePlugin"
    DRA = "dra"


class AttributeType(StrEnum):
    """The type of a published attribute, which is the key of its value in a ResourceSlice."""

    STRING = "string"
    INT = "int"
    BOOL = "bool"
    VERSION = "version"


class AttributeSpec(Struct, frozen=True):
    """An attribute that is published with each device (``publish.attributes``).

    ``name`` is a C identifier, or ``domain/identifier``. An ``optional`` attribute is left out for a device without a
    value; without a value of any other attribute, the device is not published.
    """

    location: SourceLocation
    name: str
    value: Template
    type: AttributeType = AttributeType.STRING
    optional: bool = False


class CapacitySpec(Struct, frozen=True):
    """A capacity that is published with each device (``publish.capacity``); ``quantity`` renders to a quantity."""

    location: SourceLocation
    name: str
    quantity: Template


class PublishSpec(Struct, frozen=True):
    """The attributes and capacities that DRA publishes with each device (``publish``), in the order of the file."""

    attributes: tuple[AttributeSpec, ...] = ()
    capacity: tuple[CapacitySpec, ...] = ()


NO_PUBLISH = PublishSpec()


class Resource(Struct, frozen=True):
    """A resource: its name and its configuration.

    If ``name_template`` is set, ``name`` is its text, and discovery creates a resource for each name that the devices
    render it to; these differ in ``name`` only (``genplug.hardware.resource_naming``).

    - ``replicas`` (at least 1): how often each device is listed.
    - ``tokens``: the number of grants of one pool that stands for all devices, or None.
    - ``slices``: renders to the number of slices of each device, or None.
    - ``aliases``: further resource names for the same devices.
    - ``expected``: the number of healthy devices that the node should have at least, or None (``expect.min``).
    - ``has_topology``: whether the device list has the NUMA nodes.
    - ``overlap``: whether a device node may also belong to another resource that sets it.
    - ``max_per_container``: the maximum number of grants of a container; with ``distinct``, at most one per device.
    - ``policy``: limits the device nodes and mounts that it may hand out.
    - ``serve``: the API that serves its devices; ``publish`` applies to DRA only.
    """

    name: str
    location: SourceLocation
    sources: tuple[Source, ...]
    name_template: Template | None = None
    replicas: int = 1
    tokens: int | None = None
    slices: Template | None = None
    aliases: tuple[str, ...] = ()
    expected: int | None = None
    has_topology: bool = True
    overlap: bool = False
    max_per_container: int | None = None
    distinct: bool = False
    preference: PreferenceSpec = PreferenceSpec()
    allocate: AllocateSpec = field(default_factory=AllocateSpec)
    pre_start: PreStartSpec | None = None
    health: HealthSpec = field(default_factory=HealthSpec)
    policy: Policy = DEFAULT_POLICY
    serve: Serve = Serve.DEVICE_PLUGIN
    publish: PublishSpec = NO_PUBLISH

    @property
    def configured_name(self) -> str:
        """The name in the configuration, verbatim."""
        return self.name_template.text if self.name_template is not None else self.name


@compare_without("content")
@hide_in_repr("content")
class Config(Struct, frozen=True):
    """A complete configuration: its resources by name, in the order of the files.

    ``files`` are the files it was read from. ``sha256`` is the digest of the merged content, which compares the
    configuration of two nodes, or of a ConfigMap and a node. ``policy`` limits every resource. ``warnings`` are what
    its author probably did not intend. ``withdrawn`` are the names that a later policy forbids, which are no longer
    offered.
    """

    resources: Mapping[str, Resource]
    files: tuple[str, ...]
    sha256: str
    policy: Policy = DEFAULT_POLICY
    warnings: tuple[Diagnostic, ...] = ()
    withdrawn: tuple[str, ...] = ()
    content: str = ""
    """The merged content as JSON, with the defaults in each resource; ``sha256`` is its digest."""

    def restricted_by(self, policy: Policy) -> "Config":
        """Return this configuration without the resources and aliases that ``policy`` forbids."""
        allowed = {
            name: resource
            for name, resource in self.resources.items()
            if resource.name_template is not None or not policy.resource_error(name)
        }
        resources = {
            name: replace(
                resource,
                policy=policy,
                aliases=tuple(alias for alias in resource.aliases if not policy.resource_error(alias)),
            )
            for name, resource in allowed.items()
        }
        kept = {name for resource in resources.values() for name in (resource.name, *resource.aliases)}
        names = (name for resource in self.resources.values() for name in (resource.name, *resource.aliases))
        withdrawn = (*self.withdrawn, *(name for name in names if name not in kept))
        return replace(self, resources=resources, policy=policy, withdrawn=withdrawn)
