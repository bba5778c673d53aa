"""Kernel uevents: read from real messages, heard from the real kernel, and said where they are lost or never come."""

import asyncio
import fcntl
import itertools
import os
import resource
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from genplug.hardware.uevents import Uevent, UeventListener, affected_paths, parse_uevent

# Captured from a kernel; the bind's was asked for by writing to the device's file "uevent".
BIND = (
    b"bind@/devices/pci0000:00/0000:00:05.0/virtio4\0ACTION=bind\0"
    b"DEVPATH=/devices/pci0000:00/0000:00:05.0/virtio4\0SUBSYSTEM=virtio\0SYNTH_UUID=0\0DRIVER=virtio_rng\0"
    b"MODALIAS=virtio:d00000004v00001AF4\0SEQNUM=27750\0"
)
CHAR = (
    b"change@/devices/virtual/mem/null\0ACTION=change\0DEVPATH=/devices/virtual/mem/null\0SUBSYSTEM=mem\0"
    b"SYNTH_UUID=12345678-1234-1234-1234-123456789abc\0SYNTH_ARG_A=B\0MAJOR=1\0MINOR=3\0DEVNAME=null\0DEVMODE=0666\0"
    b"SEQNUM=20128\0"
)
BLOCK = (
    b"change@/devices/pci0000:00/0000:00:02.0/virtio1/block/vda\0ACTION=change\0"
    b"DEVPATH=/devices/pci0000:00/0000:00:02.0/virtio1/block/vda\0SUBSYSTEM=block\0SYNTH_UUID=0\0MAJOR=254\0MINOR=0\0"
    b"DEVNAME=vda\0DEVTYPE=disk\0DISKSEQ=9\0SEQNUM=27752\0"
)
PCI = (
    b"change@/devices/pci0000:00/0000:00:01.0\0ACTION=change\0DEVPATH=/devices/pci0000:00/0000:00:01.0\0SUBSYSTEM=pci\0"
    b"SYNTH_UUID=0\0DRIVER=virtio-pci\0PCI_CLASS=FFFF00\0PCI_ID=1AF4:1045\0PCI_SUBSYS_ID=1AF4:1045\0"
    b"PCI_SLOT_NAME=0000:00:01.0\0MODALIAS=pci:v00001AF4d00001045sv00001AF4sd00001045bcFFscFFi00\0SEQNUM=27751\0"
)
MOVE = (
    b"move@/devices/virtual/net/gp-\xff1\0ACTION=move\0DEVPATH=/devices/virtual/net/gp-\xff1\0SUBSYSTEM=net\0"
    b"DEVPATH_OLD=/devices/virtual/net/gp-\xff0\0INTERFACE=gp-\xff1\0IFINDEX=1210\0SEQNUM=27758\0"
)
DRIVER = (
    b"change@/bus/pci/drivers/virtio-pci\0ACTION=change\0DEVPATH=/bus/pci/drivers/virtio-pci\0SUBSYSTEM=drivers\0"
    b"SYNTH_UUID=0\0SEQNUM=27753\0"
)
# As the kernel writes it: it has forgotten the driver before it tells (__device_release_driver).
UNBIND = BIND.replace(b"bind", b"unbind").replace(b"SYNTH_UUID=0\0DRIVER=virtio_rng\0", b"")


def read(message: bytes) -> Uevent:
    event = parse_uevent(message)
    assert event is not None
    return event


def test_a_message_is_an_action_a_path_a_subsystem_and_values() -> None:
    event = read(CHAR)
    assert (event.action, event.devpath, event.subsystem) == ("change", "/devices/virtual/mem/null", "mem")
    assert event.values == {
        "ACTION": "change",
        "DEVPATH": "/devices/virtual/mem/null",
        "SUBSYSTEM": "mem",
        "SYNTH_UUID": "12345678-1234-1234-1234-123456789abc",
        "SYNTH_ARG_A": "B",
        "MAJOR": "1",
        "MINOR": "3",
        "DEVNAME": "null",
        "DEVMODE": "0666",
        "SEQNUM": "20128",
    }


def test_a_name_that_is_not_utf8_is_kept_as_paths_of_python_keep_it() -> None:
    event = read(MOVE)
    assert os.fsencode(event.devpath) == b"/devices/virtual/net/gp-\xff1"
    assert os.fsencode(event.values["DEVPATH_OLD"]) == b"/devices/virtual/net/gp-\xff0"


def test_a_value_may_contain_what_separates_and_a_part_may_have_none() -> None:
    assert read(PCI.replace(b"SEQNUM", b"WEDGED=rebind,a=b@c\0FLAG\0SEQNUM")).values["WEDGED"] == "rebind,a=b@c"


@pytest.mark.parametrize("message", [BIND, CHAR, BLOCK, PCI, MOVE, DRIVER])
def test_a_message_that_was_cut_anywhere_is_none(message: bytes) -> None:
    assert [length for length in range(len(message)) if parse_uevent(message[:length]) is not None] == []


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"libudev\0\xfe\xed\xca\xfe(\0\0\0(\0\0\0\x99\0\0\0" + BIND.partition(b"\0")[2], id="of udev's"),
        pytest.param(b"libudev\0" + BIND, id="of udev's with the kernel's inside"),
        pytest.param(BIND.partition(b"\0")[2], id="without a header"),
        pytest.param(BIND.replace(b"bind@", b"bind"), id="with half a header"),
        pytest.param(BIND.replace(b"/devices", b"devices"), id="with a path that is none"),
        pytest.param(BIND.replace(b"ACTION=bind", b"ACTION=add"), id="with two actions"),
        pytest.param(BIND.replace(b"DEVPATH=/", b"DEVPATH=/x/"), id="with two paths"),
        pytest.param(BIND.replace(b"SUBSYSTEM=virtio\0", b""), id="without a subsystem"),
        pytest.param(b"\0\0\0", id="of zeros"),
    ],
)
def test_what_the_kernel_does_not_write_is_none(message: bytes) -> None:
    assert parse_uevent(message) is None


def named(event: Uevent) -> dict[str, set[str]]:
    return {directory: set(names) for directory, names in affected_paths(event).items()}


def test_a_device_has_a_name_in_its_parents_directory_its_subsystems_and_that_of_the_numbers() -> None:
    assert named(read(PCI)) == {
        "/sys/devices/pci0000:00": {"0000:00:01.0"},
        "/sys/bus/pci/devices": {"0000:00:01.0"},
        "/sys/class/pci": {"0000:00:01.0"},
    }
    assert named(read(CHAR)) == {
        "/sys/devices/virtual/mem": {"null"},
        "/sys/devices/virtual": {"mem"},
        "/sys/bus/mem/devices": {"null"},
        "/sys/class/mem": {"null"},
        "/sys/dev/char": {"1:3"},
    }


def test_a_classs_directory_comes_and_goes_with_its_devices_without_an_event_of_its_own() -> None:
    assert named(read(BLOCK)) == {
        "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block": {"vda"},
        "/sys/devices/pci0000:00/0000:00:02.0/virtio1": {"block"},
        "/sys/bus/block/devices": {"vda"},
        "/sys/class/block": {"vda"},
        "/sys/block": {"vda"},
        "/sys/dev/block": {"254:0"},
    }


def test_a_renamed_device_changes_both_names() -> None:
    both = {os.fsdecode(b"gp-\xff0"), os.fsdecode(b"gp-\xff1")}
    assert named(read(MOVE)) == {
        "/sys/devices/virtual/net": both,
        "/sys/devices/virtual": {"net"},
        "/sys/bus/net/devices": both,
        "/sys/class/net": both,
    }


def test_a_bound_device_has_a_name_in_its_drivers_directory_and_anything_may_be_new_in_its_own() -> None:
    bus = {
        "/sys/devices/pci0000:00/0000:00:05.0": {"virtio4"},
        "/sys/bus/virtio/devices": {"virtio4"},
        "/sys/class/virtio": {"virtio4"},
        "/sys/devices/pci0000:00/0000:00:05.0/virtio4": set[str](),
    }
    assert named(read(BIND)) == {**bus, "/sys/bus/virtio/drivers/virtio_rng": {"virtio4"}}
    assert named(read(UNBIND)) == bus


def test_a_driver_that_comes_changes_its_buss_directory_of_drivers() -> None:
    assert named(read(DRIVER))["/sys/bus/pci/drivers"] == {"virtio-pci"}


NULL = Path("/sys/class/mem/null/uevent")


def ask_for_event() -> str:
    """Have the kernel tell something harmless of /dev/null, and return what it can be known by."""
    name = str(uuid.uuid4())
    NULL.write_text(f"change {name}", encoding="ascii")
    return name


class Heard:
    """Collects events; ``until`` waits for the first that says enough."""

    def __init__(self) -> None:
        self.all: list[Uevent] = []
        self.losses = 0
        self._news = asyncio.Event()

    def __call__(self, event: Uevent) -> None:
        self.all.append(event)
        self._news.set()

    def lost(self) -> None:
        self.losses += 1
        self._news.set()

    async def until_lost(self) -> None:
        async with asyncio.timeout(10):
            while not self.losses:
                self._news.clear()
                await self._news.wait()

    async def until(self, is_it: Callable[[Uevent], bool]) -> Uevent:
        async with asyncio.timeout(10):
            while not (found := [event for event in self.all if is_it(event)]):
                self._news.clear()
                await self._news.wait()
        return found[0]

    async def until_named(self, name: str) -> Uevent:
        return await self.until(lambda event: event.values.get("SYNTH_UUID") == name)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def network_device(name: bytes) -> Iterator[Callable[[bytes], None]]:
    """Make a network device that is there while its file is open; what it gives renames it."""
    at = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)

    def rename(to: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, 0x8923, struct.pack("16s16s8x", name, to))  # SIOCSIFNAME

    try:
        fcntl.ioctl(at, 0x400454CA, struct.pack("16sH22x", name, 0x1002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI
        yield rename
    finally:
        os.close(at)


@pytest.mark.root
async def test_what_the_kernel_tells_is_heard() -> None:
    heard = Heard()
    with closing(UeventListener(heard, heard.lost)) as uevents:
        assert not uevents.failure
        event = await heard.until_named(ask_for_event())
    assert heard.losses == 0
    assert (event.action, event.devpath, event.subsystem) == ("change", "/devices/virtual/mem/null", "mem")
    assert event.values["DEVNAME"] == "null"


@pytest.mark.root
async def test_the_names_of_a_device_that_comes_is_renamed_and_goes_are_where_its_events_say() -> None:
    old, new = f"gp{os.getpid()}a", f"gp{os.getpid()}b"
    heard = Heard()

    async def told(action: str, name: str) -> set[Path]:
        event = await heard.until(lambda one: (one.action, one.devpath) == (action, f"/devices/virtual/net/{name}"))
        return {Path(directory) / one for directory, names in affected_paths(event).items() for one in names}

    in_class, in_devices = Path("/sys/class/net"), Path("/sys/devices/virtual/net")
    with closing(UeventListener(heard, heard.lost)):
        with network_device(old.encode()) as rename:
            assert await told("add", old) >= {in_class / old, in_devices / old}
            assert (in_class / old).exists()
            assert (in_devices / old).exists()
            rename(new.encode())
            assert await told("move", new) >= {in_class / old, in_class / new, in_devices / old, in_devices / new}
            assert not (in_class / old).exists()
            assert (in_class / new).exists()
        assert await told("remove", new) >= {in_class / new, in_devices / new}
        assert not (in_class / new).exists()


ENOUGH_TO_OVERFLOW = 6000
"""Events that are too many for the receive buffer, which holds some 2 500 of them."""


@pytest.mark.root
async def test_what_the_kernel_had_to_drop_is_told_once_and_hearing_goes_on() -> None:
    heard = Heard()
    with closing(UeventListener(heard, heard.lost)) as uevents:
        for _ in range(ENOUGH_TO_OVERFLOW):
            ask_for_event()
        await heard.until_lost()
        assert 0 < len(heard.all) < ENOUGH_TO_OVERFLOW
        await heard.until_named(ask_for_event())
        assert not uevents.failure
    assert heard.losses == 1


@pytest.mark.root
async def test_what_is_dropped_while_the_rest_is_read_is_told_too() -> None:
    told: list[str] = []
    lost = asyncio.Event()

    def note(event: Uevent) -> None:
        if not told:
            # The overflow is known and there is room again, but the kernel drops everything until all was read.
            told.append(ask_for_event())
        elif event.values.get("SYNTH_UUID") == told[0]:
            told.append("heard")

    def note_loss() -> None:
        told.append("lost")
        lost.set()

    with closing(UeventListener(note, note_loss)):
        for _ in range(ENOUGH_TO_OVERFLOW):
            ask_for_event()
        async with asyncio.timeout(10):
            await lost.wait()
    assert told[1:] == ["lost"]


@pytest.mark.root
async def test_many_events_leave_other_work_its_turn() -> None:
    heard, turns = Heard(), [0]
    with closing(UeventListener(heard, heard.lost)):
        for _ in range(1000):
            ask_for_event()
        async with asyncio.timeout(10):
            while len(heard.all) < 1000:
                await asyncio.sleep(0)
                turns.append(len(heard.all))
    assert heard.losses == 0
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 200


def listening_ports() -> set[int]:
    lines = Path("/proc/net/netlink").read_text(encoding="ascii").splitlines()[1:]
    return {int(port) for _, protocol, port, *_ in map(str.split, lines) if protocol == "15"}


@pytest.mark.root
async def test_what_another_process_sends_is_not_heard() -> None:
    heard = Heard()
    before = listening_ports()
    with closing(UeventListener(heard, heard.lost)), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as other:
        [port] = listening_ports() - before - {other.getsockname()[0]}
        assert other.sendto(BLOCK, (port, 0)) == len(BLOCK)
        await heard.until_named(ask_for_event())
    assert read(BLOCK) not in heard.all


LISTEN = """
import asyncio, sys, uuid
from contextlib import closing
from pathlib import Path
from genplug.hardware.uevents import UeventListener

async def main():
    heard = asyncio.Queue()
    with closing(UeventListener(heard.put_nowait, lambda: None)) as uevents:
        print(uevents.failure, flush=True)
        sys.stdin.readline()
        async with asyncio.timeout(10):
            while not uevents.failure and (await heard.get()).values.get("SYNTH_UUID") != sys.argv[1]:
                pass

asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("namespaces", "is_heard"),
    [
        pytest.param(["--net"], True, id="a network of its own"),
        pytest.param(["--user", "--map-root-user"], True, id="users of its own and the node's network"),
        pytest.param(["--user", "--map-root-user", "--net"], False, id="both of its own"),
    ],
)
def test_in_namespaces_it_hears_or_says_that_it_cannot(namespaces: list[str], *, is_heard: bool) -> None:
    name = str(uuid.uuid4())
    command = ["unshare", *namespaces, sys.executable, "-c", LISTEN, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdin is not None
        assert listener.stdout is not None
        failure = listener.stdout.readline()
        NULL.write_text(f"change {name}", encoding="ascii")
        listener.stdin.write("\n")
    assert listener.returncode == 0
    assert (not failure.strip()) == is_heard
    if not is_heard:
        assert "user namespace" in failure
        assert "only the periodic rescan detects changes" in failure


async def test_without_a_socket_nothing_fails_and_an_operator_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        uevents = UeventListener(Heard(), Heard().lost)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "only the periodic rescan detects changes" in uevents.failure
    assert "Too many open files" in uevents.failure
    uevents.close()


@pytest.mark.root
@pytest.mark.filterwarnings("error")  # of a socket that was only forgotten
async def test_after_closing_nothing_is_heard_and_nothing_is_open() -> None:
    open_before = open_descriptors()
    heard, other = Heard(), Heard()
    uevents = UeventListener(heard, heard.lost)
    name = ask_for_event()
    uevents.close()
    uevents.close()
    with closing(UeventListener(other, other.lost)):
        await other.until_named(ask_for_event())
    assert name not in {event.values.get("SYNTH_UUID") for event in heard.all}
    assert open_descriptors() == open_before


@pytest.mark.root
async def test_who_hears_may_close() -> None:
    heard, mistakes = Heard(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context))

    def note(event: Uevent) -> None:
        heard(event)
        uevents.close()

    uevents = UeventListener(note, heard.lost)
    ask_for_event()
    ask_for_event()
    await heard.until(lambda _: True)
    assert len(heard.all) == 1
    assert mistakes == []
