"""Kernel uevents: captured messages, events of the running kernel, and reports of lost or unavailable events."""

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
from tests.support.processes import count_descriptors

# Captured from a kernel; a write to the file "uevent" of the device caused the bind event.
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
# The kernel removes the driver from the device before it sends the event (__device_release_driver).
UNBIND = BIND.replace(b"bind", b"unbind").replace(b"SYNTH_UUID=0\0DRIVER=virtio_rng\0", b"")


def parse_event(message: bytes) -> Uevent:
    event = parse_uevent(message)
    assert event is not None
    return event


def test_message_has_action_path_subsystem_and_values() -> None:
    event = parse_event(CHAR)
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


def test_path_that_is_not_utf_8_is_decoded_like_by_os_fsdecode() -> None:
    event = parse_event(MOVE)
    assert os.fsencode(event.devpath) == b"/devices/virtual/net/gp-\xff1"
    assert os.fsencode(event.values["DEVPATH_OLD"]) == b"/devices/virtual/net/gp-\xff0"


def test_value_can_contain_separators_and_a_part_can_lack_a_value() -> None:
    assert parse_event(PCI.replace(b"SEQNUM", b"WEDGED=rebind,a=b@c\0FLAG\0SEQNUM")).values["WEDGED"] == "rebind,a=b@c"


@pytest.mark.parametrize("message", [BIND, CHAR, BLOCK, PCI, MOVE, DRIVER])
def test_truncated_message_is_not_an_event(message: bytes) -> None:
    assert [length for length in range(len(message)) if parse_uevent(message[:length]) is not None] == []


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"libudev\0\xfe\xed\xca\xfe(\0\0\0(\0\0\0\x99\0\0\0" + BIND.partition(b"\0")[2], id="of udev"),
        pytest.param(b"libudev\0" + BIND, id="of udev with a kernel message inside"),
        pytest.param(BIND.partition(b"\0")[2], id="without a header"),
        pytest.param(BIND.replace(b"bind@", b"bind"), id="with half a header"),
        pytest.param(BIND.replace(b"/devices", b"devices"), id="with a relative path"),
        pytest.param(BIND.replace(b"ACTION=bind", b"ACTION=add"), id="with two actions"),
        pytest.param(BIND.replace(b"DEVPATH=/", b"DEVPATH=/x/"), id="with two paths"),
        pytest.param(BIND.replace(b"SUBSYSTEM=virtio\0", b""), id="without a subsystem"),
        pytest.param(b"\0\0\0", id="of zeros"),
    ],
)
def test_message_of_another_form_is_not_an_event(message: bytes) -> None:
    assert parse_uevent(message) is None


def find_affected(event: Uevent) -> dict[str, set[str]]:
    return {directory: set(names) for directory, names in affected_paths(event).items()}


def test_device_event_affects_the_directories_with_its_name() -> None:
    assert find_affected(parse_event(PCI)) == {
        "/sys/devices/pci0000:00": {"0000:00:01.0"},
        "/sys/bus/pci/devices": {"0000:00:01.0"},
        "/sys/class/pci": {"0000:00:01.0"},
    }
    assert find_affected(parse_event(CHAR)) == {
        "/sys/devices/virtual/mem": {"null"},
        "/sys/devices/virtual": {"mem"},
        "/sys/bus/mem/devices": {"null"},
        "/sys/class/mem": {"null"},
        "/sys/dev/char": {"1:3"},
    }


def test_class_device_event_affects_the_class_directory() -> None:
    assert find_affected(parse_event(BLOCK)) == {
        "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block": {"vda"},
        "/sys/devices/pci0000:00/0000:00:02.0/virtio1": {"block"},
        "/sys/bus/block/devices": {"vda"},
        "/sys/class/block": {"vda"},
        "/sys/block": {"vda"},
        "/sys/dev/block": {"254:0"},
    }


def test_move_event_affects_both_names() -> None:
    both = {os.fsdecode(b"gp-\xff0"), os.fsdecode(b"gp-\xff1")}
    assert find_affected(parse_event(MOVE)) == {
        "/sys/devices/virtual/net": both,
        "/sys/devices/virtual": {"net"},
        "/sys/bus/net/devices": both,
        "/sys/class/net": both,
    }


def test_bind_event_affects_the_driver_and_all_entries_of_the_device() -> None:
    bus = {
        "/sys/devices/pci0000:00/0000:00:05.0": {"virtio4"},
        "/sys/bus/virtio/devices": {"virtio4"},
        "/sys/class/virtio": {"virtio4"},
        "/sys/devices/pci0000:00/0000:00:05.0/virtio4": set[str](),
    }
    assert find_affected(parse_event(BIND)) == {**bus, "/sys/bus/virtio/drivers/virtio_rng": {"virtio4"}}
    assert find_affected(parse_event(UNBIND)) == bus


def test_driver_event_affects_the_drivers_of_the_bus() -> None:
    assert find_affected(parse_event(DRIVER))["/sys/bus/pci/drivers"] == {"virtio-pci"}


NULL = Path("/sys/class/mem/null/uevent")


def trigger_event() -> str:
    """Make the kernel send a change event of /dev/null, and return the UUID of the event."""
    name = str(uuid.uuid4())
    NULL.write_text(f"change {name}", encoding="ascii")
    return name


class Recorder:
    """Collects events and losses, and waits for them."""

    def __init__(self) -> None:
        self.all: list[Uevent] = []
        self.losses = 0
        self._news = asyncio.Event()

    def __call__(self, event: Uevent) -> None:
        self.all.append(event)
        self._news.set()

    def on_loss(self) -> None:
        self.losses += 1
        self._news.set()

    async def wait_for_loss(self) -> None:
        async with asyncio.timeout(10):
            while not self.losses:
                self._news.clear()
                await self._news.wait()

    async def wait_for(self, matches: Callable[[Uevent], bool]) -> Uevent:
        async with asyncio.timeout(10):
            while not (found := [event for event in self.all if matches(event)]):
                self._news.clear()
                await self._news.wait()
        return found[0]

    async def wait_for_uuid(self, name: str) -> Uevent:
        return await self.wait_for(lambda event: event.values.get("SYNTH_UUID") == name)


@contextmanager
def open_network_device(name: bytes) -> Iterator[Callable[[bytes], None]]:
    """Create a network device that exists while its file is open; yield a function that renames it."""
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
async def test_kernel_event_is_received() -> None:
    recorder = Recorder()
    with closing(UeventListener(recorder, recorder.on_loss)) as uevents:
        assert not uevents.failure
        event = await recorder.wait_for_uuid(trigger_event())
    assert recorder.losses == 0
    assert (event.action, event.devpath, event.subsystem) == ("change", "/devices/virtual/mem/null", "mem")
    assert event.values["DEVNAME"] == "null"


@pytest.mark.root
async def test_affected_paths_agree_with_sysfs_for_a_network_device() -> None:
    old, new = f"gp{os.getpid()}a", f"gp{os.getpid()}b"
    recorder = Recorder()

    async def wait_for_paths(action: str, name: str) -> set[Path]:
        devpath = f"/devices/virtual/net/{name}"
        event = await recorder.wait_for(lambda event: (event.action, event.devpath) == (action, devpath))
        return {Path(directory) / entry for directory, names in affected_paths(event).items() for entry in names}

    in_class, in_devices = Path("/sys/class/net"), Path("/sys/devices/virtual/net")
    with closing(UeventListener(recorder, recorder.on_loss)):
        with open_network_device(old.encode()) as rename:
            assert await wait_for_paths("add", old) >= {in_class / old, in_devices / old}
            assert (in_class / old).exists()
            assert (in_devices / old).exists()
            rename(new.encode())
            assert await wait_for_paths("move", new) >= {
                in_class / old,
                in_class / new,
                in_devices / old,
                in_devices / new,
            }
            assert not (in_class / old).exists()
            assert (in_class / new).exists()
        assert await wait_for_paths("remove", new) >= {in_class / new, in_devices / new}
        assert not (in_class / new).exists()


OVERFLOW_EVENTS = 6000
"""More events than fit into the receive buffer, which holds about 2 500."""


@pytest.mark.root
async def test_overflow_is_reported_once_and_later_events_are_received() -> None:
    recorder = Recorder()
    with closing(UeventListener(recorder, recorder.on_loss)) as uevents:
        for _ in range(OVERFLOW_EVENTS):
            trigger_event()
        await recorder.wait_for_loss()
        assert 0 < len(recorder.all) < OVERFLOW_EVENTS
        await recorder.wait_for_uuid(trigger_event())
        assert not uevents.failure
    assert recorder.losses == 1


@pytest.mark.root
async def test_overflow_during_the_read_of_the_queue_is_reported() -> None:
    reports: list[str] = []
    lost = asyncio.Event()

    def on_event(event: Uevent) -> None:
        if not reports:
            # The overflow is reported and the buffer has room, but the kernel drops events until all are read.
            reports.append(trigger_event())
        elif event.values.get("SYNTH_UUID") == reports[0]:
            reports.append("received")

    def on_loss() -> None:
        reports.append("lost")
        lost.set()

    with closing(UeventListener(on_event, on_loss)):
        for _ in range(OVERFLOW_EVENTS):
            trigger_event()
        async with asyncio.timeout(10):
            await lost.wait()
    assert reports[1:] == ["lost"]


@pytest.mark.root
async def test_burst_of_events_does_not_block_the_loop() -> None:
    recorder, turns = Recorder(), [0]
    with closing(UeventListener(recorder, recorder.on_loss)):
        for _ in range(1000):
            trigger_event()
        async with asyncio.timeout(10):
            while len(recorder.all) < 1000:
                await asyncio.sleep(0)
                turns.append(len(recorder.all))
    assert recorder.losses == 0
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 200


def list_netlink_ports() -> set[int]:
    lines = Path("/proc/net/netlink").read_text(encoding="ascii").splitlines()[1:]
    return {int(port) for _, protocol, port, *_ in map(str.split, lines) if protocol == "15"}


@pytest.mark.root
async def test_message_of_another_process_is_ignored() -> None:
    recorder = Recorder()
    before = list_netlink_ports()
    with (
        closing(UeventListener(recorder, recorder.on_loss)),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as other,
    ):
        [port] = list_netlink_ports() - before - {other.getsockname()[0]}
        assert other.sendto(BLOCK, (port, 0)) == len(BLOCK)
        await recorder.wait_for_uuid(trigger_event())
    assert parse_event(BLOCK) not in recorder.all


LISTEN = """
import asyncio, sys, uuid
from contextlib import closing
from pathlib import Path
from genplug.hardware.uevents import UeventListener

async def main():
    events = asyncio.Queue()
    with closing(UeventListener(events.put_nowait, lambda: None)) as uevents:
        print(uevents.failure, flush=True)
        sys.stdin.readline()
        async with asyncio.timeout(10):
            while not uevents.failure and (await events.get()).values.get("SYNTH_UUID") != sys.argv[1]:
                pass

asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("namespaces", "is_received"),
    [
        pytest.param(["--net"], True, id="network"),
        pytest.param(["--user", "--map-root-user"], True, id="user"),
        pytest.param(["--user", "--map-root-user", "--net"], False, id="user and network"),
    ],
)
def test_listener_in_a_namespace_receives_events_or_reports_a_failure(
    namespaces: list[str], *, is_received: bool
) -> None:
    name = str(uuid.uuid4())
    command = ["unshare", *namespaces, sys.executable, "-c", LISTEN, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdin is not None
        assert listener.stdout is not None
        failure = listener.stdout.readline()
        NULL.write_text(f"change {name}", encoding="ascii")
        listener.stdin.write("\n")
    assert listener.returncode == 0
    assert (not failure.strip()) == is_received
    if not is_received:
        assert "user namespace" in failure
        assert "only the periodic rescan detects changes" in failure


async def test_missing_socket_is_reported_as_a_failure() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        uevents = UeventListener(Recorder(), Recorder().on_loss)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "only the periodic rescan detects changes" in uevents.failure
    assert "Too many open files" in uevents.failure
    uevents.close()


@pytest.mark.root
@pytest.mark.filterwarnings("error")  # for a socket that is not closed
async def test_closed_listener_receives_no_events_and_holds_no_descriptor() -> None:
    open_before = count_descriptors()
    recorder, other = Recorder(), Recorder()
    uevents = UeventListener(recorder, recorder.on_loss)
    name = trigger_event()
    uevents.close()
    uevents.close()
    with closing(UeventListener(other, other.on_loss)):
        await other.wait_for_uuid(trigger_event())
    assert name not in {event.values.get("SYNTH_UUID") for event in recorder.all}
    assert count_descriptors() == open_before


@pytest.mark.root
async def test_callback_closes_the_listener() -> None:
    recorder, errors = Recorder(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def on_event(event: Uevent) -> None:
        recorder(event)
        uevents.close()

    uevents = UeventListener(on_event, recorder.on_loss)
    trigger_event()
    trigger_event()
    await recorder.wait_for(lambda _: True)
    assert len(recorder.all) == 1
    assert errors == []
