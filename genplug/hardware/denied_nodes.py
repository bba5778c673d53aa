"""Device nodes that are not handed out: forbidden by the policy, or in the table of nodes that expose the host.

The table (:mod:`genplug.hardware.denied_node_table`) identifies nodes by their numbers, their class in /sys and their
driver, because a name can be chosen freely when a node is created.
"""

import re
from functools import lru_cache

from msgspec import Struct

from genplug.hardware.denied_node_table import (
    ACCESSES_STORAGE,
    ACTIVE_CONSOLE,
    EXPOSES_HOST,
    USB_STORAGE,
    DeniedNode,
    NodeIndex,
)
from genplug.hardware.host import Host
from genplug.hardware.inventory import Device, Kind, PathInfo
from genplug.spec.numbers import parse_natural
from genplug.spec.policy import Policy

_EXPOSES_HOST = NodeIndex.build(EXPOSES_HOST)
_ACCESSES_STORAGE = NodeIndex.build(ACCESSES_STORAGE)
_KNOWN_MAJORS = frozenset({1, 13, 81, 116, 195, 226, 231})
"""Majors of common devices (memory, input, video, sound, GPUs, InfiniBand) that the table knows by number only."""
_USB_MAJOR = 189
"""``USB_DEVICE_MAJOR`` of include/linux/usb.h: the nodes in /dev/bus/usb."""
_TABLES = (_EXPOSES_HOST, _ACCESSES_STORAGE)
_LISTED_MAJORS = frozenset({_USB_MAJOR, *_EXPOSES_HOST.by_major, *_ACCESSES_STORAGE.by_major})
_LISTED_SUBSYSTEMS = frozenset({"tty", *_EXPOSES_HOST.by_subsystem, *_ACCESSES_STORAGE.by_subsystem})
_LISTED_DRIVERS = frozenset({*_EXPOSES_HOST.by_driver, *_ACCESSES_STORAGE.by_driver})
_LISTED_NAMES = re.compile("|".join(table.names for table in _TABLES))
_MASS_STORAGE = "08"
"""``bInterfaceClass`` of USB mass storage (USB-IF, Defined Class Codes)."""


def denied_device_error(device: Device, policy: Policy, host: Host) -> str:
    """Return which device node of a device must not be handed out and by which rule, or an empty string.

    Raises:
        HangError: a file operation hangs.
    """
    for node in (*device.nodes, *device.companions):
        if reason := denied_node_error(node.info, policy, host):
            return reason if node.path in device.candidates else f"it includes {node.path}, {reason}"
    return ""


def denied_node_error(info: PathInfo, policy: Policy, host: Host) -> str:
    """Return by which rule a device node must not be handed out, or an empty string.

    Raises:
        HangError: a file operation hangs.
    """
    if info.kind is Kind.BLOCK:
        if policy.block:
            return policy.device_error(info.resolved)
        what = "a block device, that is a disk or a device built from disks"
        return f"refused by 'devices.block' of {policy.name}: {info.describe_numbers()} is {what}"
    identity = _identify(info, host)
    if not _may_be_listed(info, identity):
        return policy.device_error(info.resolved)
    if (entry := _find_exposing(info, identity, host)) is not None and entry.name not in policy.unsafe:
        what = f"{info.describe_numbers()} is {entry.what}"
        permission = f'devices: {{unsafe: ["{entry.name}"]}}'
        return f"refused by the built-in list: {what}; only a policy with '{permission}' allows it"
    if not policy.block and (entry := _find_storage(info, identity, host)) is not None:
        return f"refused by 'devices.block' of {policy.name}: {info.describe_numbers()} is {entry.what}"
    return policy.device_error(info.resolved)


def _may_be_listed(info: PathInfo, identity: "_Identity | None") -> bool:
    """Return whether a table can have an entry for a device: a fast path, because most devices have none."""
    if identity is None or info.major in _LISTED_MAJORS or identity.subsystem in _LISTED_SUBSYSTEMS:
        return True
    return identity.driver in _LISTED_DRIVERS or any(map(_LISTED_NAMES.fullmatch, identity.names))


class _Identity(Struct, frozen=True):
    """The facts by which the kernel identifies a character device; a text is empty if the fact is not known."""

    directory: str = ""
    subsystem: str = ""
    driver: str = ""
    names: tuple[str, ...] = ()


def _identify(info: PathInfo, host: Host) -> _Identity | None:
    """Return what a device is, or None if its numbers alone say so."""
    if info.major in _KNOWN_MAJORS:
        return None
    # Nodes of udev and of programs may have another name than the kernel gave them.
    names = (info.resolved.removeprefix("/dev/"),) if info.resolved.startswith("/dev/") else ()
    directory = host.resolve(f"/sys/dev/char/{info.major}:{info.minor}")
    if directory is None:
        drivers = _parse_drivers(host.read_text("/proc/devices") or "")
        return _Identity(driver=drivers.get(info.major, ""), names=names)
    subsystem = (host.resolve(f"{directory}/subsystem") or "").rpartition("/")[2]
    # In /sys, an exclamation mark stands for a slash in the name of a device.
    name = directory.rpartition("/")[2].replace("!", "/")
    return _Identity(directory, subsystem, names=(name, *names))


@lru_cache(maxsize=4)
def _parse_drivers(text: str) -> dict[int, str]:
    """Return the names of the drivers of character devices in /proc/devices, by major number."""
    lines = (line.split() for line in text.partition("Block devices")[0].splitlines())
    return {major: words[1] for words in lines if len(words) > 1 and (major := parse_natural(words[0])) is not None}


def _find_exposing(info: PathInfo, identity: _Identity | None, host: Host) -> DeniedNode | None:
    entry = _find(_EXPOSES_HOST, info, identity)
    if entry is None and identity is not None and identity.subsystem == "tty":
        # Documentation/ABI/testing/sysfs-tty: the consoles that the kernel writes to.
        active = (host.read_text("/sys/class/tty/console/active") or "").split()
        return ACTIVE_CONSOLE if identity.names[0] in active else None
    return entry


def _find_storage(info: PathInfo, identity: _Identity | None, host: Host) -> DeniedNode | None:
    entry = _find(_ACCESSES_STORAGE, info, identity)
    if entry is None and info.major == _USB_MAJOR and identity is not None and identity.directory:
        interfaces = (name for name in host.list_directory(identity.directory) if ":" in name)
        classes = (host.read_text(f"{identity.directory}/{name}/bInterfaceClass") for name in interfaces)
        return USB_STORAGE if _MASS_STORAGE in classes else None
    return entry


def _find(index: NodeIndex, info: PathInfo, identity: _Identity | None) -> DeniedNode | None:
    entry = index.find_by_numbers(info.major, info.minor)
    if entry is not None or identity is None:
        return entry
    entry = index.by_subsystem.get(identity.subsystem) or index.by_driver.get(identity.driver)
    if entry is not None:
        return entry
    return next(filter(None, map(index.find_by_name, identity.names)), None)
