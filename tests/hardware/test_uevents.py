"""Kernel uevents: read from real messages, heard from the real kernel, and said where some were lost."""

import asyncio
import errno
import fcntl
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from genplug.hardware.uevents import Uevent, Uevents, changes, parse

BIND = (
    b"bind@/devices/pci0000:00/0000:00:03.0/virtio2\0ACTION=bind\0"
    b"DEVPATH=/devices/pci0000:00/0000:00:03.0/virtio2\0SUBSYSTEM=virtio\0DRIVER=virtio_net\0"
    b"MODALIAS=virtio:d00000001v00001AF4\0SEQNUM=1002\0"
)
ADD = (
    b"add@/devices/virtual/misc/fuse\0ACTION=add\0DEVPATH=/devices/virtual/misc/fuse\0SUBSYSTEM=misc\0"
    b"MAJOR=10\0MINOR=229\0DEVNAME=fuse\0SEQNUM=1003\0"
)
MOVE = (
    b"move@/devices/virtual/net/b\0ACTION=move\0DEVPATH=/devices/virtual/net/b\0SUBSYSTEM=net\0"
    b"DEVPATH_OLD=/devices/virtual/net/a\0SEQNUM=1004\0"
)


def test_a_message_is_an_action_a_path_and_values() -> None:
    event = parse(BIND)
    assert event is not None
    assert (event.action, event.devpath, event.subsystem) == (
        "bind",
        "/devices/pci0000:00/0000:00:03.0/virtio2",
        "virtio",
    )
    assert event.values["DRIVER"] == "virtio_net"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"libudev\0\xfe\xed\xca\xfe" + BIND,
        BIND[: BIND.index(b"\0")],
        b"bind@devices/x\0ACTION=bind\0DEVPATH=devices/x\0",
        b"bind@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0",
        b"nothing at all",
        os.urandom(64),
    ],
)
def test_what_the_kernel_does_not_say_so_is_no_event(message: bytes) -> None:
    assert parse(message) is None


def test_an_event_names_the_folders_in_which_it_can_be_seen() -> None:
    seen = [changes(event) for event in map(parse, (BIND, ADD, MOVE)) if event is not None]
    virtio2, fuse = frozenset({"virtio2"}), frozenset({"fuse"})
    assert seen == [
        {
            "/sys/devices/pci0000:00/0000:00:03.0": virtio2,
            "/sys/bus/virtio/devices": virtio2,
            "/sys/class/virtio": virtio2,
            "/sys/bus/virtio/drivers/virtio_net": virtio2,
        },
        {
            "/sys/devices/virtual/misc": fuse,
            "/sys/bus/misc/devices": fuse,
            "/sys/class/misc": fuse,
            "/sys/dev/char": frozenset({"10:229"}),
        },
        {
            "/sys/devices/virtual/net": frozenset({"a", "b"}),
            "/sys/bus/net/devices": frozenset({"a", "b"}),
            "/sys/class/net": frozenset({"a", "b"}),
        },
    ]


@contextmanager
def tap(name: str) -> Iterator[None]:
    """A network device of the kernel's: it is in /sys as long as its file is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF, a tap without header
        yield
    finally:
        os.close(file)


def never() -> None:
    raise AssertionError("nothing was lost")


@pytest.mark.root
async def test_the_kernel_is_heard_when_a_device_comes_and_goes() -> None:
    heard: asyncio.Queue[Uevent] = asyncio.Queue()
    with Uevents(heard.put_nowait, never) as uevents:
        assert not uevents.failure
        with tap("gpuevent0"):
            pass
        actions = []
        async with asyncio.timeout(10):
            while actions[-1:] != ["remove"]:
                event = await heard.get()
                if event.devpath == "/devices/virtual/net/gpuevent0":
                    actions.append(event.action)
    assert actions == ["add", "remove"]


@pytest.mark.root
async def test_what_the_kernel_had_to_drop_is_told() -> None:
    lost = asyncio.Event()
    heard: list[Uevent] = []
    with Uevents(heard.append, lost.set):
        # Nothing is read meanwhile; a buffer of a mebibyte holds some hundred devices' events.
        for _ in range(600):
            with tap("gpuevent1"):
                pass
        async with asyncio.timeout(10):
            await lost.wait()


async def test_a_process_without_descriptors_says_that_it_cannot_hear() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        uevents = Uevents(lambda _: None, never)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert uevents.failure.endswith(os.strerror(errno.EMFILE))
