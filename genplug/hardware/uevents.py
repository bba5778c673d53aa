"""Receives kernel uevents: additions, removals and changes of devices under /sys, where inotify reports nothing.

The kernel broadcasts uevents over netlink (lib/kobject_uevent.c): since Linux 4.18 to every network namespace that the
initial user namespace owns, except for events of network devices, which go to the namespace of the device. Uevents can
be lost, and not every change under /sys has one, so a slow rescan is the fallback. :attr:`UeventListener.failure` is
set if the rescan is all there is.
"""

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from msgspec import Struct

from genplug.hardware.dependencies import Changes
from genplug.spec.denials import describe_system_error

_KOBJECT_UEVENT = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h
_KERNEL_GROUP = 1
"""The multicast group of the kernel; udev sends its own messages to the second group."""

_RECEIVE_BUFFER_FORCED = 33  # SO_RCVBUFFORCE of asm-generic/socket.h, which the socket module does not name
_RECEIVE_BUFFER = 1 << 20
_MAX_BYTES = 1 << 14
"""Larger than any message: the values take at most 2 KiB (UEVENT_BUFFER_SIZE), the first line repeats two of them."""

_MAX_MESSAGES = 200
"""The most messages that are processed before the event loop runs other tasks."""

_OWNER_OF_NAMESPACE = 0xB701  # NS_GET_USERNS of linux/nsfs.h
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # the inode of /proc/*/ns/user there: PROC_USER_INIT_INO of linux/proc_ns.h


class Uevent(Struct, frozen=True):
    """An event of a device: ``add``, ``remove``, ``change``, ``move``, ``bind``, ``unbind``, ``online``, ...

    ``devpath`` does not include ``/sys``. ``values`` are all ``KEY=VALUE`` pairs of the kernel, including these three.
    """

    action: str
    devpath: str
    subsystem: str
    values: Mapping[str, str]


def parse_uevent(message: bytes) -> Uevent | None:
    """Parse a kernel message: ``ACTION@DEVPATH`` and ``KEY=VALUE`` parts, each terminated by a zero byte.

    Return None for messages of udev (they start with ``libudev``) and for malformed or truncated messages.
    """
    header, *parts = message.decode(errors="surrogateescape").split("\0")
    action, _, devpath = header.partition("@")
    values = dict(part.partition("=")[::2] for part in parts if "=" in part)
    subsystem = values.get("SUBSYSTEM", "")
    # The kernel writes the sequence number last: without it and its zero byte, the message is truncated.
    is_whole = message.endswith(b"\0") and "SEQNUM" in values
    is_device = devpath.startswith("/") and subsystem
    if not is_whole or not is_device or (values.get("ACTION"), values.get("DEVPATH")) != (action, devpath):
        return None
    return Uevent(action, devpath, subsystem, values)


def affected_paths(event: Uevent) -> Changes:
    """Return the directories under /sys in which names may have changed because of an event.

    Details that the event does not contain are missing: the driver that a device was unbound from, and its IOMMU group.
    """
    found: dict[str, set[str]] = {}
    for devpath in filter(None, (event.devpath, event.values.get("DEVPATH_OLD"))):
        for directory, name in _names(devpath, event.subsystem):
            found.setdefault(directory, set()).add(name)
    name = event.devpath.rpartition("/")[2]
    if event.action in {"bind", "unbind"}:
        # The symlink "driver" and the files of the driver appear or disappear in the directory of the device.
        found[f"/sys{event.devpath}"] = set()
        if driver := event.values.get("DRIVER"):
            found[f"/sys/bus/{event.subsystem}/drivers/{driver}"] = {name}
    if "MAJOR" in event.values and "MINOR" in event.values:
        kind = "block" if event.subsystem == "block" else "char"
        found[f"/sys/dev/{kind}"] = {f"{event.values['MAJOR']}:{event.values['MINOR']}"}
    return {directory: frozenset(names) for directory, names in found.items()}


def _names(devpath: str, subsystem: str) -> Iterator[tuple[str, str]]:
    """Yield the directories that contain an entry for a device, and the name of the entry."""
    parent, _, name = devpath.rpartition("/")
    above, _, directory = parent.rpartition("/")
    yield f"/sys{parent}", name
    # The event does not say whether a subsystem is a bus or a class.
    yield f"/sys/bus/{subsystem}/devices", name
    yield f"/sys/class/{subsystem}", name
    if directory == subsystem:
        # The class directory below a parent device (.../0000:00:02.0/drm) appears with the first device and disappears
        # with the last, without its own event.
        yield f"/sys{above}", directory
    if subsystem == "block":
        yield "/sys/block", name


class UeventListener:
    """Receives kernel uevents in the running event loop.

    ``on_event`` is called with each event, ``on_loss`` after the kernel dropped events. If uevents cannot be received,
    nothing is raised: ``failure`` is then a message for operators, and empty otherwise. Call :meth:`close` at the end.
    """

    def __init__(self, on_event: Callable[[Uevent], None], on_loss: Callable[[], None]) -> None:
        self.failure = ""
        self._on_event = on_event
        self._on_loss = on_loss
        self._has_overflowed = False
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._open()

    def close(self) -> None:
        """Close the socket; no callback is called afterwards."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        if not _can_receive():
            self._fail(
                "the kernel does not deliver uevents to network namespaces owned by a non-initial user namespace"
            )
            return
        try:
            self._socket = _open_socket()
        except OSError as error:
            self._fail(describe_system_error(error))
        else:
            self._loop.add_reader(self._socket, self._read)

    def _fail(self, reason: str) -> None:
        self.failure = (
            f"kernel uevents cannot be received, so only the periodic rescan detects changes under /sys: {reason}"
        )

    def _read(self) -> None:
        """Read the pending messages up to the limit; the event loop calls again for the rest."""
        count = 0
        while self._socket is not None and count < _MAX_MESSAGES:
            try:
                message, _, _, sender = self._socket.recvmsg(_MAX_BYTES)
            except BlockingIOError:
                self._on_queue_empty()
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    self.close()
                    self._fail(os.strerror(error.errno or 0))
                    self._on_loss()
                    return
                self._has_overflowed = True
                continue
            count += 1
            # Privileged processes can also send to this socket; messages of the kernel come from port 0.
            event = parse_uevent(message) if sender[0] == 0 else None
            if event is not None:
                self._on_event(event)

    def _on_queue_empty(self) -> None:
        # Report an overflow only when the queue is empty: until then the kernel silently drops further events
        # (netlink_overrun), so an earlier rescan could miss changes.
        if self._has_overflowed:
            self._has_overflowed = False
            self._on_loss()


def _open_socket() -> socket.socket:
    """Return a socket that receives kernel uevents.

    Raises:
        OSError: netlink is not available or not permitted.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    opened = socket.socket(socket.AF_NETLINK, kind, _KOBJECT_UEVENT)
    try:
        _enlarge_buffer(opened)
        opened.bind((0, _KERNEL_GROUP))
    except OSError:
        opened.close()
        raise
    return opened


def _enlarge_buffer(receiver: socket.socket) -> None:
    """Enlarge the receive buffer for bursts, up to the system limit without privileges."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCED, _RECEIVE_BUFFER)
    except OSError:
        with suppress(OSError):
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def _can_receive() -> bool:
    """Return whether this network namespace receives uevents; True if that is unknown.

    In a namespace that a non-initial user namespace owns (a pod with ``hostUsers: false`` and its own network), the
    socket can be opened, but receives nothing.
    """
    try:
        network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        owner = fcntl.ioctl(network, _OWNER_OF_NAMESPACE)
    except OSError:
        # EPERM: the owner is a parent of our user namespace, possibly the initial one.
        return True
    finally:
        os.close(network)
    try:
        return os.fstat(owner).st_ino == _INITIAL_USER_NAMESPACE
    finally:
        os.close(owner)
