"""Device nodes that are never handed out: forbidden by the policy, or on a built-in list of nodes that expose the host.

The list uses device numbers, because a name can be chosen freely when a node is created. The numbers are those of the
kernel's Documentation/admin-guide/devices.txt. Some disk drivers get a number at boot; their nodes are recognized by
the names that the kernel gives them.
"""

import re
from collections.abc import Mapping

from genplug.hardware.inventory import Device, Kind, PathInfo
from genplug.spec.policy import Policy

_ANY = range(1 << 20)
"""Every minor number."""
_CONSOLE = "a console of the host"
_SCREEN = "the screen contents of a console of the host"
_TERMINAL = "a terminal of the host"

# Serial ports such as ttyS (4:64 and up), ttyUSB (188) and ttyACM (166) are allowed: they lead out of the host.
_CHARS: Mapping[int, Mapping[range, str]] = {
    1: {
        range(1, 2): "/dev/mem, the memory of the host",
        range(2, 3): "/dev/kmem, the memory of the kernel",
        range(4, 5): "/dev/port, the I/O ports of the host",
        range(11, 12): "/dev/kmsg, the log of the kernel",
    },
    2: {_ANY: _TERMINAL},
    3: {_ANY: _TERMINAL},
    4: {range(64): _CONSOLE},
    5: {
        range(1): "/dev/tty, the terminal of a process",
        range(1, 2): "/dev/console, the console of the host",
        range(2, 3): "/dev/ptmx, which creates terminals of the host",
    },
    7: {_ANY: _SCREEN},
    10: {
        range(223, 224): "/dev/uinput, which emulates input devices of the host",
        range(237, 238): "/dev/loop-control, which creates block devices from files",
    },
} | {major: {_ANY: _TERMINAL} for major in range(136, 144)}
"""Character devices that no policy allows: what they are, by major and minor number."""

_DISK_CHARS: Mapping[int, Mapping[range, str]] = {
    10: {range(236, 237): "/dev/mapper/control, which creates block devices from disks"},
    21: {_ANY: "generic access to a SCSI device such as a disk"},
    162: {_ANY: "raw access to a block device"},
}
"""Character devices that access disks; allowed together with block devices."""

_DISK_PATHS = re.compile(r"/dev/(?:nvme[0-9]|nvme-fabrics|ng[0-9]|bsg/)")
"""Device nodes that access disks and whose numbers are assigned at boot."""


def denied_device_error(device: Device, policy: Policy) -> str:
    """Return which device node of a device must not be handed out and by which rule, or an empty string."""
    for node in (*device.nodes, *device.companions):
        if reason := denied_node_error(node.info, policy):
            return reason if node.path in device.candidates else f"it includes {node.path}, {reason}"
    return ""


def denied_node_error(info: PathInfo, policy: Policy) -> str:
    """Return by which rule a device node must not be handed out, or an empty string."""
    if info.kind is Kind.CHAR and (what := _find(_CHARS, info)):
        rule = "the built-in list, which no policy can change"
    elif not policy.block and (what := _disk_access(info)):
        rule = f"'devices.block' of {policy.name}"
    else:
        return policy.device_error(info.resolved)
    return f"refused by {rule}: {info.describe_numbers()} is {what}"


def _disk_access(info: PathInfo) -> str:
    """Return how a device node accesses block devices, or an empty string."""
    if info.kind is Kind.BLOCK:
        return "a block device, that is a disk or a device built from disks"
    if _DISK_PATHS.match(info.resolved):
        return "a node for commands to a disk"
    return _find(_DISK_CHARS, info)


def _find(table: Mapping[int, Mapping[range, str]], info: PathInfo) -> str:
    # Fast path: this runs for every device node of every scan.
    if (minors := table.get(info.major)) is None:
        return ""
    return next((what for numbers, what in minors.items() if info.minor in numbers), "")
