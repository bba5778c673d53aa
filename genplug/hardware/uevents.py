"""Kernel uevents: what comes, goes and changes under /sys, where inotify tells of nothing.

The kernel broadcasts them by netlink (lib/kobject_uevent.c): since 4.18 into every network namespace that the initial
user namespace owns, but those of network devices into their own only. They get lost, and not everything that changes
under /sys has one, so a slow rescan stays behind them; :attr:`Uevents.failure` says when it is all there is.
"""

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from attrs import frozen

from genplug.hardware.dependencies import Changes

_KOBJECT_UEVENT = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h
_KERNEL_GROUP = 1
"""The kernel's own broadcasts; udev sends its version of them to the second group."""

_RECEIVE_BUFFER_FORCED = 33  # SO_RCVBUFFORCE of asm-generic/socket.h, which the socket module does not name
_RECEIVE_BUFFER = 1 << 20
_MAX_BYTES = 1 << 14
"""More than any message has: its values fill 2 KiB at most (UEVENT_BUFFER_SIZE), its first line repeats two of them."""

_MAX_MESSAGES = 200
"""Messages dealt with before the loop's other work gets its turn."""

_OWNER_OF_NAMESPACE = 0xB701  # NS_GET_USERNS of linux/nsfs.h
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # the inode of /proc/*/ns/user there: PROC_USER_INIT_INO of linux/proc_ns.h


@frozen
class Uevent:
    """What happened to a device: ``add``, ``remove``, ``change``, ``move``, ``bind``, ``unbind``, ``online``, ...

    ``devpath`` is without ``/sys``; ``values`` are all of the kernel's ``KEY=VALUE``, these three included.
    """

    action: str
    devpath: str
    subsystem: str
    values: Mapping[str, str]


def parse_uevent(message: bytes) -> Uevent | None:
    """Read a message of the kernel: ``ACTION@DEVPATH`` and ``KEY=VALUE`` parts, each with a zero byte at its end.

    None is said of a message of udev's (it begins with ``libudev``), of a broken one and of one that was cut.
    """
    header, *parts = message.decode(errors="surrogateescape").split("\0")
    action, _, devpath = header.partition("@")
    values = dict(part.partition("=")[::2] for part in parts if "=" in part)
    subsystem = values.get("SUBSYSTEM", "")
    # The kernel writes the number last: without it, or without a zero byte after it, something was cut off.
    is_whole = message.endswith(b"\0") and "SEQNUM" in values
    is_device = devpath.startswith("/") and subsystem
    if not is_whole or not is_device or (values.get("ACTION"), values.get("DEVPATH")) != (action, devpath):
        return None
    return Uevent(action, devpath, subsystem, values)


def affected_paths(event: Uevent) -> Changes:
    """Return the directories of /sys in which names changed, or may have, because of an event.

    What an event does not say, this does not either: the driver that a device was unbound from, its IOMMU group.
    """
    found: dict[str, set[str]] = {}
    for devpath in filter(None, (event.devpath, event.values.get("DEVPATH_OLD"))):
        for directory, name in _names(devpath, event.subsystem):
            found.setdefault(directory, set()).add(name)
    name = event.devpath.rpartition("/")[2]
    if event.action in {"bind", "unbind"}:
        # The symlink "driver" comes and goes in the device's own directory, and whatever files the driver makes there.
        found[f"/sys{event.devpath}"] = set()
        if driver := event.values.get("DRIVER"):
            found[f"/sys/bus/{event.subsystem}/drivers/{driver}"] = {name}
    if "MAJOR" in event.values and "MINOR" in event.values:
        kind = "block" if event.subsystem == "block" else "char"
        found[f"/sys/dev/{kind}"] = {f"{event.values['MAJOR']}:{event.values['MINOR']}"}
    return {directory: frozenset(names) for directory, names in found.items()}


def _names(devpath: str, subsystem: str) -> Iterator[tuple[str, str]]:
    """Yield the directories in which there is a name for a device, and that name."""
    parent, _, name = devpath.rpartition("/")
    above, _, directory = parent.rpartition("/")
    yield f"/sys{parent}", name
    # Whether a subsystem is a bus or a class, an event does not say.
    yield f"/sys/bus/{subsystem}/devices", name
    yield f"/sys/class/{subsystem}", name
    if directory == subsystem:
        # A class's directory in its parent device's (.../0000:00:02.0/drm) comes with the first device and goes with
        # the last, without an event of its own.
        yield f"/sys{above}", directory
    if subsystem == "block":
        yield "/sys/block", name


class UeventListener:
    """Listens to the kernel's uevents. It belongs to the loop that it is made in.

    ``heard`` is called in the loop with each event, ``lost`` after the kernel had to drop some. Nothing raises where
    they cannot be heard: then ``failure`` is a sentence for an operator, and empty otherwise. Call
    :meth:`close` at the end.
    """

    def __init__(self, heard: Callable[[Uevent], None], lost: Callable[[], None]) -> None:
        self.failure = ""
        self._heard = heard
        self._lost = lost
        self._has_lost = False
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._open()

    def close(self) -> None:
        """Stop listening; nothing is called any more."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        if not _is_told():
            self._fail("this network namespace belongs to a user namespace, and the kernel tells those nothing")
            return
        try:
            self._socket = _listening()
        except OSError as error:
            self._fail(os.strerror(error.errno or 0))
        else:
            self._loop.add_reader(self._socket, self._read)

    def _fail(self, reason: str) -> None:
        self.failure = (
            f"the kernel's uevents cannot be heard, changes under /sys are seen by the slow rescan only: {reason}"
        )

    def _read(self) -> None:
        """Take what messages there are; if there are more, the loop calls again."""
        taken = 0
        while self._socket is not None and taken < _MAX_MESSAGES:
            try:
                message, _, _, sender = self._socket.recvmsg(_MAX_BYTES)
            except BlockingIOError:
                self._drained()
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    self.close()
                    self._fail(os.strerror(error.errno or 0))
                    self._lost()
                    return
                self._has_lost = True
                continue
            taken += 1
            # Whoever is privileged can send to this socket too; only the kernel does so from port 0.
            event = parse_uevent(message) if sender[0] == 0 else None
            if event is not None:
                self._heard(event)

    def _drained(self) -> None:
        # Not as soon as the kernel reports an overflow: until the queue is empty it drops what comes and says nothing
        # more of it (netlink_overrun). Whoever looked again before that would look too early.
        if self._has_lost:
            self._has_lost = False
            self._lost()


def _listening() -> socket.socket:
    """Return a socket that gets the kernel's events from now on.

    Raises:
        OSError: there is no netlink, or somebody forbids it.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    listening = socket.socket(socket.AF_NETLINK, kind, _KOBJECT_UEVENT)
    try:
        _enlarge(listening)
        listening.bind((0, _KERNEL_GROUP))
    except OSError:
        listening.close()
        raise
    return listening


def _enlarge(listening: socket.socket) -> None:
    """Make room for a burst; where only less is allowed, for less."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCED, _RECEIVE_BUFFER)
    except OSError:
        with suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def _is_told() -> bool:
    """Say whether the kernel tells this network namespace anything; true where that cannot be found out.

    In one that another user namespace than the initial one owns (a pod with ``hostUsers: false`` and a network of its
    own), a socket can be had as anywhere, but nothing ever comes.
    """
    try:
        network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        owner = fcntl.ioctl(network, _OWNER_OF_NAMESPACE)
    except OSError:
        # EPERM: the owner is above our own user namespace, and may be the initial one.
        return True
    finally:
        os.close(network)
    try:
        return os.fstat(owner).st_ino == _INITIAL_USER_NAMESPACE
    finally:
        os.close(owner)
