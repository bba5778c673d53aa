"""Device nodes that nobody gets: those that a policy refuses, and a built-in list of what gives a container the node.

The list goes by the kernel's numbers and not by names, because a name is what whoever made the node says. The numbers
are those of the kernel's Documentation/admin-guide/devices.txt. A few drivers of the disks have no number of their own
and get one at boot; their nodes are known by the names that the kernel itself gives them.
"""

import re
from collections.abc import Mapping

from genplug.hardware.inventory import Device, Kind, PathInfo
from genplug.spec.policy import Policy

_ANY = range(1 << 20)
"""Every minor number."""
_CONSOLE = "a console of the host"
_SCREEN = "what a console of the host shows"
_TERMINAL = "a terminal of the host"

# Not here: ttyS (4:64 and up), ttyUSB (188), ttyACM (166) and other serial ports, which lead out of the host.
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
        range(2, 3): "/dev/ptmx, which makes terminals of the host",
    },
    7: {_ANY: _SCREEN},
    10: {
        range(223, 224): "/dev/uinput, which types in the name of others",
        range(237, 238): "/dev/loop-control, which makes block devices of files",
    },
} | {major: {_ANY: _TERMINAL} for major in range(136, 144)}
"""Character devices that no policy allows: major number to minor numbers and what they are."""

_DISK_CHARS: Mapping[int, Mapping[range, str]] = {
    10: {range(236, 237): "/dev/mapper/control, which builds block devices of the disks"},
    21: {_ANY: "generic access to a SCSI device such as a disk"},
    162: {_ANY: "raw access to a block device"},
}
"""Character devices that reach the disks; who is allowed block devices is allowed them."""

_DISK_PATHS = re.compile(r"/dev/(?:nvme[0-9]|nvme-fabrics|ng[0-9]|bsg/)")
"""The same for drivers whose numbers are given out at boot."""


def denial_reason(device: Device, policy: Policy) -> str:
    """Say which node of a device may not be handed out, and by which rule; empty if all may."""
    for node in (*device.nodes, *device.companions):
        if reason := denied(node.info, policy):
            return reason if node.path in device.candidates else f"it would bring {node.path}, {reason}"
    return ""


def denied(look: PathInfo, policy: Policy) -> str:
    """Say by which rule a device node may not be handed out; empty if it may."""
    if look.kind is Kind.CHAR and (what := _found(_CHARS, look)):
        rule = "the built-in list, whatever a policy says"
    elif not policy.block and (what := _disk(look)):
        rule = f"'devices.block' of {policy.name}"
    else:
        return policy.device_error(look.resolved)
    return f"refused by {rule}: {look.kind} {look.major}:{look.minor} is {what}"


def _disk(look: PathInfo) -> str:
    """Say what a node has to do with block devices; empty for nothing."""
    if look.kind is Kind.BLOCK:
        return "a block device, a disk or what is built of disks"
    if _DISK_PATHS.match(look.resolved):
        return "the way to a disk's own commands"
    return _found(_DISK_CHARS, look)


def _found(table: Mapping[int, Mapping[range, str]], look: PathInfo) -> str:
    # Most majors are none of these, and this is asked of every node of every scan.
    if (minors := table.get(look.major)) is None:
        return ""
    return next((what for numbers, what in minors.items() if look.minor in numbers), "")
