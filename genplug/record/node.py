"""Builds the record of a node from its files, the configuration, the process of the agent and the status. Pure values.

The record of a node has nothing that only the API server knows; it names the command that reads it.
"""

import hashlib
import os
import platform
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.record.agent_process import (
    AgentProcess,
    Security,
    describe_command,
    describe_method,
    describe_mounts,
    describe_security,
    is_in_container,
)
from genplug.record.behavior import AGENT_RESTART, KUBELET_RESTART, SKEW
from genplug.record.drivers import KERNEL_RELEASE_FILE, describe_devices, describe_drivers
from genplug.record.facts import JSON, Fact, Known, Unknown, build_document
from genplug.record.health import describe_health
from genplug.spec.model import Config
from genplug.spec.policy import Policy

API_VERSION = "genplug.io/v1alpha1"
NODE_KIND = "NodeRecord"
_FROM_CLUSTER = "only the API server knows it: 'kubectl genplug record' reads it"


class Generation(Struct, frozen=True):
    """When and by which command and version a record was made."""

    at: str
    command: str
    version: str


class NodeSources(Struct, frozen=True):
    """The sources of the record of a node.

    ``config`` and ``inventory`` are why there is none, if the configuration is invalid or a scan hangs. ``status`` is
    the document of ``/statusz``. ``files`` and ``policy_file`` are paths in the file system of this process.
    """

    generation: Generation
    host: Host
    agent: AgentProcess | Unknown
    config: Config | Unknown
    inventory: Inventory | Unknown
    status: JSON | Unknown
    policy_file: Path | None
    package: Fact


class Plugin(Struct, frozen=True):
    """The name and version of the plugin, and the image that it runs from."""

    name: Fact
    version: Fact
    image: Fact
    image_digest: Fact


class Deployment(Struct, frozen=True):
    """How the agent is deployed: what runs it, the tool that installed it, its package and its command."""

    method: Fact
    tool: Fact
    package: Fact
    command: Fact


class NodeFacts(Struct, frozen=True):
    """The node: its name, pool, kernel and operating system."""

    name: Fact
    pool: Fact
    kernel: Fact
    architecture: Fact
    operating_system: Fact


class Drivers(Struct, frozen=True):
    """The drivers and the firmware of the devices."""

    drivers: Fact
    devices: Fact


class Access(Struct, frozen=True):
    """The identity of the agent in the cluster, and who may change it."""

    service_account: Fact
    roles: Fact
    editors: Fact
    admission_policies: Fact


class Upgrade(Struct, frozen=True):
    """The upgrade plan, and what happens at restarts."""

    strategy: Fact
    supported_skew: Fact
    on_kubelet_restart: Fact
    on_agent_restart: Fact


class Configuration(Struct, frozen=True):
    """The configuration: its digest, its files with their digests, and the object that they come from."""

    sha256: Fact
    active_sha256: Fact
    files: Fact
    origin: Fact


class PolicyRecord(Struct, frozen=True):
    """The policy: the digest of its file, what it allows, and the object that it comes from."""

    file: Fact
    rules: Fact
    origin: Fact


class StatusNow(Struct, frozen=True):
    """The status of the agent when the record was made."""

    ready: Fact
    reasons: Fact
    devices: Fact


class NodeRecord(Struct, frozen=True):
    """The governance record of a node."""

    generated: Generation
    plugin: Plugin
    deployment: Deployment
    node: NodeFacts
    resources: Fact
    drivers: Drivers
    host_mounts: Fact
    security: Security
    access: Access
    health: Fact
    upgrade: Upgrade
    configuration: Configuration
    policy: PolicyRecord
    status: StatusNow

    def as_json(self) -> dict[str, Any]:
        """Return the document that ``schemas/record.schema.json`` describes."""
        return {"apiVersion": API_VERSION, "kind": NODE_KIND, **build_document(self)}


def build_node_record(sources: NodeSources) -> NodeRecord:
    """Return the record of a node."""
    agent = sources.agent
    method = describe_method(agent)
    devices = (
        sources.inventory
        if isinstance(sources.inventory, Unknown)
        else describe_devices(sources.inventory, sources.host)
    )
    return NodeRecord(
        generated=sources.generation,
        plugin=_describe_plugin(sources, method),
        deployment=Deployment(method, _describe_tool(method), sources.package, describe_command(agent)),
        node=_describe_node(sources, method),
        resources=_describe_resources(sources),
        drivers=Drivers(describe_drivers(devices, sources.host), devices),
        host_mounts=describe_mounts(agent, method),
        security=describe_security(agent, method),
        access=_describe_access(sources, method),
        health=sources.config if isinstance(sources.config, Unknown) else describe_health(sources.config),
        upgrade=Upgrade(_describe_strategy(method), SKEW, KUBELET_RESTART, AGENT_RESTART),
        configuration=_describe_configuration(sources, method),
        policy=_describe_policy(sources, method),
        status=_describe_status(sources.status),
    )


def _is_outside_of_container(method: Fact) -> bool:
    return isinstance(method, Known) and not is_in_container(method)


def _describe_access(sources: NodeSources, method: Fact) -> Access:
    """Return the facts of the cluster, or for an agent outside of a container the permissions of its files."""
    if not _is_outside_of_container(method):
        from_cluster = Unknown(_FROM_CLUSTER)
        return Access(from_cluster, from_cluster, from_cluster, from_cluster)
    no_pod = Unknown("the agent does not run in a pod, and has no service account")
    files = [] if isinstance(sources.config, Unknown) else list(map(Path, sources.config.files))
    files += [] if sources.policy_file is None else [sources.policy_file]
    editors = tuple(map(_describe_permissions, sorted({*files, *(file.parent for file in files)})))
    return Access(
        no_pod,
        no_pod,
        Known(editors, "owner, group and mode of the files and of their directories")
        if editors
        else Unknown("the files of the configuration are not known"),
        Unknown("admission policies do not apply to files of the host"),
    )


def _describe_permissions(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return f"{path}: cannot be accessed: {os.strerror(error.errno or 0)}"
    return f"{path}: user {status.st_uid}, group {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}"


def _describe_plugin(sources: NodeSources, method: Fact) -> Plugin:
    if isinstance(sources.status, Unknown):
        version: Fact = Known(sources.generation.version, "this command; the agent did not respond")
    else:
        version = Known(sources.status["version"], "/statusz of the agent")
    if _is_outside_of_container(method):
        image: Fact = Unknown("the agent does not run from an image")
    else:
        image = Unknown(f"a process cannot read from which image its container was made; {_FROM_CLUSTER}")
    return Plugin(Known("genplug", "this command"), version, image, image)


def _describe_tool(method: Fact) -> Fact:
    if isinstance(method, Unknown):
        return method
    if method.value.startswith("pod"):
        return Unknown(f"Helm, kustomize and kubectl mark the objects in the cluster; {_FROM_CLUSTER}")
    if method.value.startswith("systemd"):
        return Known("systemd", "the deployment method")
    return Unknown(f"nothing on the node names what started the {method.value.partition(' ')[0]}")


def _describe_node(sources: NodeSources, method: Fact) -> NodeFacts:
    host, name = sources.host, sources.host.node_name
    is_this_machine = not host.stand_ins
    release = host.read_text(KERNEL_RELEASE_FILE)
    if release:
        kernel: Fact = Known(release, KERNEL_RELEASE_FILE)
    elif is_this_machine:
        kernel = Known(platform.release(), "uname(2)")
    else:
        kernel = Unknown(f"the files under --root have no {KERNEL_RELEASE_FILE}")
    machine: Fact = Unknown("the files under --root are those of another machine")
    system = host.read_text("/etc/os-release") or host.read_text("/usr/lib/os-release")
    names = dict(line.partition("=")[::2] for line in (system or "").splitlines())
    pretty = names.get("PRETTY_NAME", "").strip("\"'")
    return NodeFacts(
        name=Known(name, "--node-name or NODE_NAME") if name else Unknown("neither --node-name nor NODE_NAME is set"),
        pool=Unknown(
            "the agent does not run in a pod, which has the label of the pool"
            if _is_outside_of_container(method)
            else f"the pool is a label of the pod of the agent; {_FROM_CLUSTER}"
        ),
        kernel=kernel,
        architecture=Known(platform.machine(), "uname(2)") if is_this_machine else machine,
        operating_system=Known(pretty, "/etc/os-release")
        if pretty
        else Unknown("/etc/os-release of the host is not visible under --root"),
    )


def _describe_resources(sources: NodeSources) -> Fact:
    config, inventory = sources.config, sources.inventory
    if isinstance(config, Unknown):
        return config
    counts: Mapping[str, int] = (
        {} if isinstance(inventory, Unknown) else {name: len(found) for name, found in inventory.devices.items()}
    )
    instances: dict[str, list[str]] = {}
    if not isinstance(inventory, Unknown):
        for name, resource in inventory.resources.items():
            instances.setdefault(resource.configured_name, []).append(name)
    records = tuple(
        {
            "name": resource.configured_name,
            "aliases": list(resource.aliases),
            "location": str(resource.location),
            "devices": inventory
            if isinstance(inventory, Unknown)
            else Known(
                sum(counts.get(name, 0) for name in instances.get(resource.configured_name, ())),
                "a scan by this command; replicas, slices and tokens of a device are not counted",
            ),
        }
        for resource in config.resources.values()
    )
    return Known(records, "'resources' of the configuration")


def _describe_strategy(method: Fact) -> Fact:
    if _is_outside_of_container(method):
        return Unknown("the node has no upgrade plan: install the new version and restart the agent")
    return Unknown(f"'updateStrategy' is a field of the DaemonSet; {_FROM_CLUSTER}")


def _describe_configuration(sources: NodeSources, method: Fact) -> Configuration:
    config, status = sources.config, sources.status
    if isinstance(config, Unknown):
        files: Fact = config
        digest: Fact = config
    else:
        files = Known(tuple(_list_files(config.files)), "the files, read by this command")
        digest = Known(config.sha256, "the merged content of the files")
    active: Fact
    if isinstance(status, Unknown):
        active = status
    elif found := status["config"]["sha256"]:
        active = Known(found, "/statusz of the agent")
    else:
        active = Unknown("the agent has no active configuration")
    paths = () if isinstance(config, Unknown) else config.files
    return Configuration(digest, active, files, _describe_origin(paths, method))


def _list_files(paths: Sequence[str]) -> Iterator[dict[str, object]]:
    for path in paths:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            yield {"path": path, "sha256": Unknown(f"{path} cannot be read: {os.strerror(error.errno or 0)}")}
        else:
            yield {"path": path, "sha256": Known(hashlib.sha256(content).hexdigest(), path)}


def _describe_origin(paths: Sequence[str], method: Fact) -> Fact:
    if _is_outside_of_container(method):
        return Known("files of the host", "the agent runs outside of a container")
    if any((Path(path).parent / "..data").is_symlink() for path in paths):
        return Unknown(f"the files are those of a ConfigMap or Secret, whose name a pod cannot read; {_FROM_CLUSTER}")
    if isinstance(method, Unknown):
        return method
    return Unknown("nothing in the container names where the files come from")


def _describe_policy(sources: NodeSources, method: Fact) -> PolicyRecord:
    path, config = sources.policy_file, sources.config
    rules: Fact = config if isinstance(config, Unknown) else Known(_list_rules(config.policy), config.policy.name)
    if path is None:
        default = Known("the default policy", "no --policy")
        return PolicyRecord(default, rules, default)
    [file] = _list_files((str(path),))
    return PolicyRecord(Known((file,), "--policy"), rules, _describe_origin((str(path),), method))


def _list_rules(policy: Policy) -> dict[str, object]:
    """Return what a policy allows, by the keys of the policy file."""
    return {
        "resources": list(policy.resources),
        "devices.allow": [glob.text for glob in policy.allow],
        "devices.deny": [glob.text for glob in policy.deny],
        "devices.block": policy.block,
        "devices.unsafe": list(policy.unsafe),
        "mounts.allow": [glob.text for glob in policy.mounts],
        "mounts.writable": [glob.text for glob in policy.writable],
        "mounts.targets": [glob.text for glob in policy.mount_targets],
        "exec.allow": [glob.text for glob in policy.programs],
        "read.allow": [glob.text for glob in policy.read.globs],
        "read.env": list(policy.read_env),
        "http.allow": list(policy.http),
        "unixSocket.allow": [glob.text for glob in policy.unix_sockets],
        "cdi.allow": list(policy.cdi),
        "annotations.allow": list(policy.annotations),
        "env.allow": list(policy.env),
        "supplementalGroups.allow": list(policy.groups),
        "openProbe": policy.open_probe,
    }


def _describe_status(status: JSON | Unknown) -> StatusNow:
    if isinstance(status, Unknown):
        return StatusNow(status, status, status)
    source = "/statusz of the agent"
    devices = tuple(
        {"resource": resource["name"], "healthy": resource["healthy"], "unhealthy": resource["unhealthy"]}
        for resource in status["resources"]
    )
    return StatusNow(Known(status["ready"], source), Known(tuple(status["unready"]), source), Known(devices, source))
