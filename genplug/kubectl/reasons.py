"""The reasons that an agent reports for its resources, for the commands that explain a pod."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_text


@dataclass(frozen=True, slots=True)
class DeviceFailure:
    """An unhealthy device. ``since`` is a time in RFC 3339, or empty if it is not known."""

    id: str
    reason: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class ResourceReasons:
    """Why a resource of an agent has fewer devices than expected, and what it refused last."""

    failures: tuple[DeviceFailure, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str = ""
    """The last Allocate request that the agent refused, or an empty text."""
    refused: str = ""
    """The time of that request."""


@dataclass(frozen=True, slots=True)
class AgentReasons:
    """The answer of the agent of a node."""

    node: str
    pod: str = ""
    """Namespace and name of the agent's pod, or an empty text if the node has no agent."""
    error: str = ""
    """Why the agent did not respond, or an empty text."""
    config_error: str = ""
    """The first line of the error of the newest configuration, or an empty text."""
    withdrawn: tuple[str, ...] = ()
    """Resources that the policy refuses."""
    resources: Mapping[str, ResourceReasons] = field(default_factory=dict)


NO_REASONS = ResourceReasons()


def decode_reasons(node: str, pod: str, status: JSON) -> AgentReasons:
    """Return the reasons in the status document of an agent, which can have another version."""
    config = read_map(status, "config")
    error = read_text(config, "error").strip().splitlines()
    return AgentReasons(
        node=node,
        pod=pod,
        config_error=error[0] if error else "",
        withdrawn=_texts(config, "withdrawn"),
        resources={read_text(entry, "name"): _decode_resource(entry) for entry in read_maps(status, "resources")},
    )


def _decode_resource(entry: JSON) -> ResourceReasons:
    refusal = read_map(entry, "lastRefusal")
    reason = read_text(entry, "reason")
    is_registered = entry.get("registered") is True or entry.get("hasNoInstances") is True
    state = "not published" if entry.get("phase") == "unpublished" else "not registered"
    registration = () if is_registered else (f"{state}: {reason or 'the agent is starting'}",)
    return ResourceReasons(
        failures=tuple(
            DeviceFailure(read_text(device, "id"), read_text(device, "reason"), read_text(device, "since"))
            for device in read_maps(entry, "devices")
            if device.get("healthy") is False
        ),
        notes=(*registration, *_texts(entry, "notes")),
        refusal=read_text(refusal, "message"),
        refused=read_text(refusal, "time"),
    )


def _texts(parent: JSON, key: str) -> tuple[str, ...]:
    value = parent.get(key)
    return tuple(map(str, value)) if isinstance(value, list) else ()
