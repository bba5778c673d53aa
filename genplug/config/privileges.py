"""Finds what the agent needs from its container or service for a configuration, and why.

Each rule of :data:`_RULES` yields the needs of a resource; a probe kind describes its own needs
(``ProbeKind.needs``). Pure: a configuration in, needs out.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from genplug.health.probes import kind_of
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config, Resource, Serve
from genplug.spec.privileges import Need, NeedKind, find_hidden_path, find_read_needs


class Provision(Struct, frozen=True):
    """How an administrator provides what a need asks for.

    ``title`` names what is needed. ``chart`` is the value of the chart, ``systemd`` the setting of the unit, and
    ``policy`` the key of the policy, each empty if nothing has to be set. ``{subject}`` is the subject of the need.
    ``is_default`` is whether the chart and the unit provide it by default.
    """

    title: str
    chart: str = ""
    systemd: str = ""
    policy: str = ""
    is_default: bool = False


PROVISIONS: dict[NeedKind, Provision] = {
    NeedKind.DEVICE_ACCESS: Provision(
        "a privileged container, which may open all device nodes",
        "daemonset.privileged: true",
        policy="openProbe: true, for an `open` probe",
    ),
    NeedKind.KERNEL_LOG: Provision(
        "the capability SYSLOG, to read the kernel log",
        "daemonset.kernelLog: auto, the default; always for a ConfigMap that the chart does not create",
        "CapabilityBoundingSet=CAP_SYSLOG",
    ),
    NeedKind.UEVENTS: Provision(
        "a netlink socket in the user namespace of the host, to receive events of devices", is_default=True
    ),
    NeedKind.HOST_PATH: Provision(
        "the path {subject} of the host, read-only",
        "daemonset.hostMounts: [{subject}], or a directory above it",
        "ProtectHome=read-only for a path in /home or /root",
        "mounts.allow, read.allow or unixSocket.allow, by what uses the path",
    ),
    NeedKind.CDI_SPEC_DIR: Provision(
        "a writable directory for CDI files", "daemonset.cdiSpecDir: /var/run/cdi", "--cdi-dir /var/run/cdi"
    ),
    NeedKind.DRA_DRIVER: Provision(
        "the directories plugins_registry and plugins/<driver> of the kubelet, writable, and a ServiceAccount that may "
        "write ResourceSlices",
        "dra.enabled: auto, the default; always for a ConfigMap that the chart does not create",
        "--service-account-dir with a token, and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT",
    ),
    NeedKind.CDI_SEARCH_DIRS: Provision(
        "the directories of the CDI files of other programs, read-only",
        "daemonset.cdiSearchDirs: [/etc/cdi, /var/run/cdi]",
        policy="cdi.allow with the names of the devices",
    ),
    NeedKind.PROGRAM: Provision(
        "the program {subject} in the container of the agent",
        "the program in the image, or in daemonset.extraVolumes and daemonset.extraVolumeMounts",
        policy="exec.allow: [{subject}]",
    ),
    NeedKind.NETWORK: Provision(
        "a TCP connection to {subject}",
        "networkPolicy.enabled denies connections to other hosts; the loopback address is that of the pod",
        policy="http.allow, except for loopback addresses",
        is_default=True,
    ),
}
"""The provision of each kind of need."""


def find_needs(config: Config) -> tuple[Need, ...]:
    """Return the needs of a configuration, in the order of its resources; without duplicates."""
    needs = (need for resource in config.resources.values() for rule in _RULES for need in rule(resource))
    return tuple(dict.fromkeys(needs))


def build_security_context(needs: Iterable[Need]) -> dict[str, object]:
    """Return the security context of the agent's container that is sufficient for these needs, and no larger.

    It is that of the chart (``genplug.securityContext`` in ``templates/_helpers.tpl``) with its default values.
    """
    kinds = {need.kind for need in needs}
    context: dict[str, object] = {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "readOnlyRootFilesystem": True,
    }
    if NeedKind.DEVICE_ACCESS in kinds:
        return context | {"privileged": True}
    capabilities = {"drop": ["ALL"]} | ({"add": ["SYSLOG"]} if NeedKind.KERNEL_LOG in kinds else {})
    return context | {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "capabilities": capabilities,
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"type": "container_device_plugin_t"},
    }


def _find_probe_needs(resource: Resource) -> Iterator[Need]:
    for index, probe in enumerate(resource.health.probes):
        kind = kind_of(probe.check)
        key_path = f"{_path_of(resource)}.health.probes[{index}]"
        for need in kind.needs(probe.check):
            reason = f"the probe {need.reason}"
            yield Need(
                need.kind, need.subject, reason, probe.location, len(kind.name), key_path, resource.configured_name
            )


def _find_source_needs(resource: Resource) -> Iterator[Need]:
    for index, source in enumerate(resource.sources):
        key_path = f"{_path_of(resource)}.devices[{index}]"
        paths = [(glob.text, source.location) for glob in source.globs]
        paths += [(node.path.text, node.location) for node in (*source.nodes, *source.companions)]
        for path, location in paths:
            yield from _need_path(path, f"the devices are {path}", location, key_path, resource)
        for attribute in source.attributes:
            where = f"{key_path}.attributes.{attribute.name}"
            for need in (need for path in attribute.paths for need in find_read_needs(path.text)):
                reason, width = f"the attribute {need.reason}", len(attribute.name)
                yield Need(need.kind, need.subject, reason, attribute.location, width, where, resource.configured_name)


def _find_allocate_needs(resource: Resource) -> Iterator[Need]:
    allocate, key_path, name = resource.allocate, f"{_path_of(resource)}.allocate", resource.configured_name
    for mount in allocate.mounts:
        location = mount.host_path_location or mount.location
        reason = f"the agent verifies the source {mount.host_path.text} of a mount before a container starts"
        yield from _need_path(mount.host_path.text, reason, location, f"{key_path}.mounts", resource)
    if allocate.injects_by_cdi:
        location = allocate.inject_location or resource.location
        reason = "'inject: cdi' writes CDI files"
        yield Need(NeedKind.CDI_SPEC_DIR, "", reason, location, len("inject"), key_path, name)
    elif resource.serve is Serve.DRA:
        reason = "'serve: dra' writes CDI files"
        yield Need(NeedKind.CDI_SPEC_DIR, "", reason, resource.location, len(name), f"{_path_of(resource)}.serve", name)
    if allocate.cdi_devices:
        location = allocate.cdi_devices_location or resource.location
        reason = "'cdiDevices' names CDI devices of other programs, which the agent looks up"
        yield Need(NeedKind.CDI_SEARCH_DIRS, "", reason, location, len("cdiDevices"), key_path, name)


def _find_pre_start_needs(resource: Resource) -> Iterator[Need]:
    if resource.pre_start is not None:
        program = resource.pre_start.command[0].text
        reason = f"'preStart' runs the program {program} in the container of the agent"
        key_path = f"{_path_of(resource)}.preStart"
        yield Need(
            NeedKind.PROGRAM, program, reason, resource.pre_start.location, 1, key_path, resource.configured_name
        )


def _find_serve_needs(resource: Resource) -> Iterator[Need]:
    if resource.serve is Serve.DRA:
        name = resource.configured_name
        reason = "'serve: dra' runs a driver of Dynamic Resource Allocation"
        yield Need(NeedKind.DRA_DRIVER, "", reason, resource.location, len(name), f"{_path_of(resource)}.serve", name)


_RULES: tuple[Callable[[Resource], Iterator[Need]], ...] = (
    _find_source_needs,
    _find_probe_needs,
    _find_allocate_needs,
    _find_pre_start_needs,
    _find_serve_needs,
)
"""The rules: each yields needs of a resource."""


def _need_path(path: str, reason: str, location: SourceLocation, key_path: str, resource: Resource) -> Iterator[Need]:
    if hidden := find_hidden_path(path):
        yield Need(NeedKind.HOST_PATH, hidden, reason, location, len(path), key_path, resource.configured_name)


def _path_of(resource: Resource) -> str:
    return f"resources.{resource.configured_name}"
