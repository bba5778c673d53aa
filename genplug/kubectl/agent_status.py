"""The status of an agent, as the plugin shows it: read from the document of ``genplug status -o json``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_number, read_text
from genplug.observe.text import describe_kept_endpoint, summarize_texts
from genplug.spec.limits import MAX_FILES

_MAX_RESOURCES = 1000
_MAX_TEXTS = 20
"""Reasons of an agent, and remarks of a resource."""
_MAX_TEXT_CHARACTERS = 1000
_OWN_FILE = re.compile(r"node\..+\.ya?ml")
"""The file of a configuration for a single node."""


class AgentState(StrEnum):
    """The state of the agent of a node."""

    READY = "Ready"
    NOT_READY = "NotReady"
    UNREACHABLE = "Unreachable"
    """The pod runs, and the agent does not respond to the plugin."""
    MISSING = "Missing"
    """The node should have an agent, and no pod runs there."""


class Source(StrEnum):
    """Where the numbers of a resource come from."""

    AGENT = "agent"
    NODE = "node"
    """The allocatable resources and the capacity of the Kubernetes node, which do not include the use."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of devices; the use can be unknown (None)."""

    healthy: int = 0
    unhealthy: int = 0
    in_use: int | None = 0
    free: int | None = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sums; a sum with an unknown number is unknown."""
        return Counts(
            self.healthy + other.healthy,
            self.unhealthy + other.unhealthy,
            _add(self.in_use, other.in_use),
            _add(self.free, other.free),
        )


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """A resource of a node."""

    name: str
    counts: Counts
    source: Source
    remarks: tuple[str, ...] = ()
    """Why devices are unhealthy or missing, the most important first."""


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """The active configuration of an agent."""

    sha256: str = ""
    files: tuple[str, ...] = ()
    loaded_at: str = ""
    error: str = ""
    """The error of the newest files; empty if the newest files are active."""

    @property
    def own_file(self) -> str:
        """The file that applies to this node only, if there is one."""
        return next((name for path in self.files if _OWN_FILE.fullmatch(name := path.rpartition("/")[2])), "")


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The part of the status document of an agent that the plugin shows."""

    state: AgentState
    reasons: tuple[str, ...]
    """Why the agent is not ready."""
    version: str
    config: ActiveConfig
    resources: tuple[ResourceStatus, ...]


def decode_agent_status(document: JSON) -> AgentStatus:
    """Return what the plugin shows of a status document; the agent can have another version than the plugin.

    Texts and lists are cut, because the plugin keeps the status of thousands of agents.
    """
    state, reasons = _decode_state(document)
    resources = islice(read_maps(document, "resources"), _MAX_RESOURCES)
    return AgentStatus(
        state=state,
        reasons=tuple(reason[:_MAX_TEXT_CHARACTERS] for reason in reasons[:_MAX_TEXTS]),
        version=read_text(document, "version")[:_MAX_TEXT_CHARACTERS],
        config=_decode_config(read_map(document, "config")),
        resources=tuple(_decode_resource(resource) for resource in resources),
    )


def _decode_state(document: JSON) -> tuple[AgentState, tuple[str, ...]]:
    if document.get("ready") is True:
        return AgentState.READY, ()
    return AgentState.NOT_READY, tuple(_read_list(document, "unready")) or ("the agent reports no reason",)


def _decode_config(config: JSON) -> ActiveConfig:
    return ActiveConfig(
        read_text(config, "sha256")[:_MAX_TEXT_CHARACTERS],
        tuple(file[:_MAX_TEXT_CHARACTERS] for file in islice(_read_list(config, "files"), MAX_FILES)),
        read_text(config, "loadedAt")[:_MAX_TEXT_CHARACTERS],
        read_text(config, "error")[:_MAX_TEXT_CHARACTERS],
    )


def _decode_resource(resource: JSON) -> ResourceStatus:
    healthy, unhealthy = (max(read_number(resource, key), 0) for key in ("healthy", "unhealthy"))
    in_use: int | None = None
    free: int | None = None
    if isinstance(resource.get("inUse"), list):
        used = {device for use in read_maps(resource, "inUse") for device in _read_list(use, "devices")}
        devices = {read_text(device, "id"): device.get("healthy") is True for device in read_maps(resource, "devices")}
        in_use = len(used & devices.keys())
        free = sum(is_healthy and device not in used for device, is_healthy in devices.items())
    counts = Counts(healthy, unhealthy, in_use, free)
    remarks = tuple(remark[:_MAX_TEXT_CHARACTERS] for remark in islice(_remarks(resource), _MAX_TEXTS))
    return ResourceStatus(read_text(resource, "name")[:_MAX_TEXT_CHARACTERS], counts, Source.AGENT, remarks)


def _remarks(resource: JSON) -> Iterator[str]:
    is_removed, is_moved = (resource.get(key) is True for key in ("removed", "moved"))
    if is_removed or is_moved:
        pods = resource.get("keptForPods")
        yield describe_kept_endpoint(is_moved=is_moved, pods=pods if isinstance(pods, int) else None)
    if resource.get("registered") is False and not is_removed:
        yield read_text(resource, "reason") or "not registered with the kubelet"
    expected = read_number(resource, "expected")
    if (healthy := read_number(resource, "healthyDevices")) < expected:
        yield f"{healthy} of {expected} expected devices are healthy"
    yield from summarize_texts(
        reason for device in read_maps(resource, "devices") if (reason := read_text(device, "reason"))
    )
    yield from _read_list(resource, "notes")


def _read_list(parent: JSON, key: str) -> Iterator[str]:
    values = parent.get(key)
    yield from (value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def _add(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right
