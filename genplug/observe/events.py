"""The journal: everything worth telling happens here once, as an entry of a closed list of events.

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
    FOLDER_UNUSABLE = ("folder_unusable", logging.ERROR, "the kubelet's folder cannot be used; tried again")
    FOLDER_LOCKED = ("folder_locked", logging.WARNING, "another genplug serves this node; waiting for it to end")
    FOLDER_HELD = ("folder_held", logging.INFO, "the kubelet's folder is ours; facts: leftovers removed")
    FOLDER_GONE = ("folder_gone", logging.ERROR, "the kubelet's folder was replaced on the host; the process ends")
    KUBELET_RESTARTED = ("kubelet_restarted", logging.INFO, "kubelet.sock is a new one")
    KUBELET_GONE = ("kubelet_gone", logging.WARNING, "kubelet.sock is not there; waiting for it")
    REGISTERED = ("registered", logging.INFO, "the kubelet listens to this resource")
    DISCONNECTED = ("disconnected", logging.WARNING, "the kubelet no longer listens to this resource")
    REGISTRATION_FAILED = ("registration_failed", logging.WARNING, "a try to register failed; another follows")
    ENDPOINT_MOVED = ("endpoint_moved", logging.DEBUG, "an endpoint came to another phase")
    LIST_SENT = ("list_sent", logging.DEBUG, "a list went to the kubelet")
    DEVICES_CHANGED = ("devices_changed", logging.INFO, "what a resource offers changed; facts: healthy, unhealthy")
    DEVICE_UNHEALTHY = ("device_unhealthy", logging.WARNING, "a device must not be used, with the reason")
    DEVICE_HEALTHY = ("device_healthy", logging.INFO, "a device may be used again")
    DEVICE_LEFT = ("device_left", logging.WARNING, "a device that was gone left the list")
    NODE_CLAIMED_TWICE = ("node_claimed_twice", logging.ERROR, "two devices claim one node; the first keeps it")
    NAME_REFUSED = ("name_refused", logging.WARNING, "a device is left out for the name that its resource would have")
    RESOURCE_REMOVED = ("resource_removed", logging.INFO, "a resource left the configuration; its list is empty now")
    RESOURCE_DRAINED = ("resource_drained", logging.INFO, "no pod uses a removed resource; its endpoint ends")
    PODS_UNKNOWN = ("pods_unknown", logging.WARNING, "pod-resources cannot be asked; removed resources stay")
    ALLOCATED = ("allocated", logging.INFO, "a container got devices")
    ALLOCATION_REFUSED = ("allocation_refused", logging.WARNING, "a container got nothing, with the reason")
    PRE_START_FAILED = ("pre_start_failed", logging.WARNING, "a program before a container's start failed; tried again")
    CALL_FAILED = ("call_failed", logging.ERROR, "a mistake of genplug's own; please report it")
    CDI_UNWRITABLE = ("cdi_unwritable", logging.ERROR, "a CDI file cannot be written or removed; tried again")
    CDI_REMOVED = ("cdi_removed", logging.INFO, "a CDI file of an earlier process that no pod uses was removed")
    PROBE_ERROR = ("probe_error", logging.WARNING, "a probe cannot look at devices; onError says what that means")
    PROBE_RECOVERED = ("probe_recovered", logging.INFO, "a probe can look at devices again")
    PROBES_EXHAUSTED = ("probes_exhausted", logging.ERROR, "so many workers hang that nobody is left to look")
    WATCH_DEGRADED = ("watch_degraded", logging.WARNING, "changes of some folders are only seen by looking again")

    def __init__(self, code: str, level: int, meaning: str) -> None:
        self.code = code
        self.level = level
        self.meaning = meaning


@frozen
class Entry:
    """One event: a sentence for people and facts for machines."""

    event: Event
    text: str
    facts: Mapping[str, object] = field(factory=dict)


class Journal:
    """Writes entries to the ``genplug`` logger and hands them to listeners (the metrics)."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("genplug")
        # A program that sets up no log gets none, instead of Python's last resort on stderr.
        self._logger.addHandler(logging.NullHandler())
        self._listeners: list[Callable[[Entry], None]] = []

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Let a listener hear of every entry from now on."""
        self._listeners.append(listener)

    def failure(self, text: str, error: BaseException, **facts: object) -> None:
        """Record a mistake of our own, with its traceback."""
        self.write(Event.CALL_FAILED, text, **facts)
        self._logger.error("%s", text, exc_info=error)

    def write(self, event: Event, text: str, **facts: object) -> None:
        """Record that something happened."""
        entry = Entry(event, text, facts)
        if self._logger.isEnabledFor(event.level):
            self._logger.log(event.level, "%s", text, extra={"entry": entry})
        for listener in self._listeners:
            listener(entry)
