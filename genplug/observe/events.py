"""The event_log: everything worth telling happens here once, as an entry of a closed list of events.

Log lines and counters are both made of entries, so they cannot disagree. docs/reference/events.md lists the events;
a test keeps the two equal.
"""

import logging
from collections.abc import Callable, Mapping
from enum import Enum

from attrs import field, frozen


class Event(Enum):
    """What can happen: its name in the log, its level, and what it means."""

    STARTED = ("started", logging.INFO, "the process is up; facts: version, config, kubelet_dir, root, node")
    STOPPING = ("stopping", logging.INFO, "a signal asked for the end; sockets are closed and removed")
    CONFIG_LOADED = ("config_loaded", logging.INFO, "a configuration was read and is in force")
    CONFIG_INVALID = ("config_invalid", logging.ERROR, "a configuration was refused; the last good one, if any, stays")
    CONFIG_UNCHANGED = ("config_unchanged", logging.DEBUG, "files changed, their meaning did not")
    PLUGIN_DIR_UNUSABLE = ("plugin_dir_unusable", logging.ERROR, "the kubelet's directory cannot be used; tried again")
    PLUGIN_DIR_LOCKED = (
        "plugin_dir_locked",
        logging.WARNING,
        "another genplug serves this node; waiting for it to end",
    )
    PLUGIN_DIR_ACQUIRED = (
        "plugin_dir_acquired",
        logging.INFO,
        "the kubelet's directory is ours; facts: leftovers removed",
    )
    PLUGIN_DIR_REPLACED = (
        "plugin_dir_replaced",
        logging.ERROR,
        "the kubelet's directory was replaced on the host; the process ends",
    )
    KUBELET_RESTARTED = ("kubelet_restarted", logging.INFO, "kubelet.sock is a new one")
    KUBELET_SOCKET_MISSING = ("kubelet_socket_missing", logging.WARNING, "kubelet.sock is not there; waiting for it")
    REGISTERED = ("registered", logging.INFO, "the kubelet listens to this resource")
    DISCONNECTED = ("disconnected", logging.WARNING, "the kubelet no longer listens to this resource")
    REGISTRATION_FAILED = ("registration_failed", logging.WARNING, "a try to register failed; another follows")
    ENDPOINT_PHASE_CHANGED = ("endpoint_phase_changed", logging.DEBUG, "an endpoint came to another phase")
    LIST_SENT = ("list_sent", logging.DEBUG, "a list went to the kubelet")
    DEVICES_CHANGED = ("devices_changed", logging.INFO, "what a resource offers changed; facts: healthy, unhealthy")
    DEVICE_UNHEALTHY = ("device_unhealthy", logging.WARNING, "a device must not be used, with the reason")
    DEVICE_HEALTHY = ("device_healthy", logging.INFO, "a device may be used again")
    DEVICE_REMOVED = ("device_removed", logging.WARNING, "a device that was gone left the list")
    DEVICE_NODE_CONFLICT = ("device_node_conflict", logging.ERROR, "two devices claim one node; the first keeps it")
    RESOURCE_NAME_REJECTED = (
        "resource_name_rejected",
        logging.WARNING,
        "a device is left out for the name that its resource would have",
    )
    RESOURCE_REMOVED = ("resource_removed", logging.INFO, "a resource left the configuration; its list is empty now")
    RESOURCE_DRAINED = ("resource_drained", logging.INFO, "no pod uses a removed resource; its endpoint ends")
    POD_RESOURCES_UNAVAILABLE = (
        "pod_resources_unavailable",
        logging.WARNING,
        "pod-resources cannot be asked; removed resources stay",
    )
    ALLOCATED = ("allocated", logging.INFO, "a container got devices")
    ALLOCATION_REFUSED = ("allocation_refused", logging.WARNING, "a container got nothing, with the reason")
    PRE_START_FAILED = ("pre_start_failed", logging.WARNING, "a program before a container's start failed; tried again")
    INTERNAL_ERROR = ("internal_error", logging.ERROR, "a mistake of genplug's own; please report it")
    CDI_UNWRITABLE = ("cdi_unwritable", logging.ERROR, "a CDI file cannot be written or removed; tried again")
    CDI_REMOVED = ("cdi_removed", logging.INFO, "a CDI file of an earlier process that no pod uses was removed")
    PROBE_ERROR = ("probe_error", logging.WARNING, "a probe cannot look at devices; onError says what that means")
    PROBE_RECOVERED = ("probe_recovered", logging.INFO, "a probe can look at devices again")
    PROBE_WORKERS_EXHAUSTED = (
        "probe_workers_exhausted",
        logging.ERROR,
        "so many workers hang that nobody is left to look",
    )
    WATCH_DEGRADED = ("watch_degraded", logging.WARNING, "changes of some directories are only seen by looking again")

    def __init__(self, code: str, level: int, meaning: str) -> None:
        self.code = code
        self.level = level
        self.meaning = meaning


@frozen
class LogEvent:
    """One event: a sentence for people and facts for machines."""

    event: Event
    text: str
    facts: Mapping[str, object] = field(factory=dict)


class EventLog:
    """Writes entries to the ``genplug`` logger and hands them to listeners (the metrics)."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("genplug")
        # A program that sets up no log gets none, instead of Python's last resort on stderr.
        self._logger.addHandler(logging.NullHandler())
        self._listeners: list[Callable[[LogEvent], None]] = []

    def listen(self, listener: Callable[[LogEvent], None]) -> None:
        """Let a listener hear of every entry from now on."""
        self._listeners.append(listener)

    def emit_failure(self, text: str, error: BaseException, **facts: object) -> None:
        """Record a mistake of our own, with its traceback."""
        self.emit(Event.INTERNAL_ERROR, text, **facts)
        self._logger.error("%s", text, exc_info=error)

    def emit(self, event: Event, text: str, **facts: object) -> None:
        """Record that something happened."""
        entry = LogEvent(event, text, facts)
        if self._logger.isEnabledFor(event.level):
            self._logger.log(event.level, "%s", text, extra={"entry": entry})
        for listener in self._listeners:
            listener(entry)
