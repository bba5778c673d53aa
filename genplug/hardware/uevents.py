"""Kernel uevents: what comes, goes and changes under /sys, where inotify tells of nothing.

The kernel broadcasts them by netlink (lib/kobject_uevent.c), since 4.18 into every network namespace of the initial
user namespace; those of network devices only into their own. Without the socket the slow rescan is all there is.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from attrs import frozen

from genplug.hardware.interests import Changes

_KOBJECT_UEVENT = 15  # NETLINK_KOBJECT_UEVENT, linux/netlink.h
_KERNEL = 1
"""The multicast group of the kernel's own events; the second one is udev's."""
_RECEIVE_BUFFER_FORCED = 33  # SO_RCVBUFFORCE, asm-generic/socket.h
_BUFFER = 1 << 20
_MOST_BYTES = 16_384
"""Bytes of a message; the kernel's have 2 048 and a header at most."""
_MOST_MESSAGES = 500
"""Messages dealt with before the loop's other work gets its turn."""


@frozen
class Uevent:
    """One event: what happened (``add``, ``remove``, ``change``, ``bind``, ...) to which device.

    ``devpath`` is without ``/sys``; ``values`` are all its ``KEY=VALUE`` parts.
    """

    action: str
    devpath: str
    subsystem: str
    values: Mapping[str, str]


def parse(message: bytes) -> Uevent | None:
    """Read a message of the kernel: ``ACTION@DEVPATH``, then ``KEY=VALUE`` parts, each ended by a zero; else None."""
    header, *parts = message.decode(errors="surrogateescape").split("\0")
    action, at, devpath = header.partition("@")
    values = dict(part.partition("=")[::2] for part in parts if "=" in part)
    if not at or not devpath.startswith("/") or values.get("ACTION") != action or values.get("DEVPATH") != devpath:
        return None
    return Uevent(action, devpath, values.get("SUBSYSTEM", ""), values)


def changes(event: Uevent) -> Changes:
    """Return the folders of /sys in which names came, went or changed because of an event."""
    found: dict[str, set[str]] = {}
    for path in filter(None, (event.devpath, event.values.get("DEVPATH_OLD"))):
        folder, _, name = path.rpartition("/")
        # Whether a subsystem is a bus or a class, an event does not say.
        for at in (f"/sys{folder}", f"/sys/bus/{event.subsystem}/devices", f"/sys/class/{event.subsystem}"):
            found.setdefault(at, set()).add(name)
        if driver := event.values.get("DRIVER"):
            found.setdefault(f"/sys/bus/{event.subsystem}/drivers/{driver}", set()).add(name)
    if "MAJOR" in event.values and "MINOR" in event.values:
        kind = "block" if event.subsystem == "block" else "char"
        found.setdefault(f"/sys/dev/{kind}", set()).add(f"{event.values['MAJOR']}:{event.values['MINOR']}")
    return {folder: frozenset(names) for folder, names in found.items()}


class Uevents:
    """Listens to the kernel. It belongs to the loop that it is made in; close it, or use it as a context manager.

    ``heard`` is called with each event, ``lost`` when the kernel had to drop some. Where nothing can be heard,
    ``failure`` says why, for an operator; it is empty otherwise.
    """

    def __init__(self, heard: Callable[[Uevent], None], lost: Callable[[], None]) -> None:
        self.failure = ""
        self._heard = heard
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        try:
            self._socket = _listening()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            self.failure = (
                f"the kernel's device events cannot be heard, changes of hardware under /sys are seen later: {reason}"
            )
        else:
            self._loop.add_reader(self._socket, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        for _ in range(_MOST_MESSAGES):
            if self._socket is None:
                return
            try:
                message, _, _, sender = self._socket.recvmsg(_MOST_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._lost()
                    continue
                self._failed(error)
                return
            # Anybody who is root may send one too; only the kernel has no process.
            event = parse(message) if sender[0] == 0 else None
            if event is not None:
                self._heard(event)

    def _failed(self, error: OSError) -> None:
        self.close()
        self.failure = f"the kernel's device events ended, changes of hardware under /sys are seen later: {error}"
        self._lost()


def _listening() -> socket.socket:
    listener = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _KOBJECT_UEVENT
    )
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        # Beyond the node's limit, where that is allowed.
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCED, _BUFFER)
        listener.bind((0, _KERNEL))
    except OSError:
        listener.close()
        raise
    return listener
