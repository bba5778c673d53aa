"""Uevents and records of the kernel log."""

from genplug.hardware.uevents import affected_paths, parse_uevent
from genplug.health.kernel_log import parse_record
from genplug.health.probes.kernel_log import KernelLogCheck, RecordPatterns, evaluate, may_concern
from genplug.spec.regex import compile_regex
from genplug.spec.template import Template
from tests.fuzz.target import Target

_CHECK = KernelLogCheck((Template.parse(r"NVRM: Xid \(PCI:${pci.address}.*\): (79|119)"),))
_PATTERNS = RecordPatterns(((compile_regex(r"NVRM: Xid \(PCI:0000:01:00\.0.*\): (79|119)"),),))


def run_uevent(content: bytes) -> None:
    event = parse_uevent(content)
    if event is not None:
        assert event.devpath.startswith("/")
        assert event.subsystem
        for directory, names in affected_paths(event).items():
            assert directory.startswith("/sys")
            assert all("\0" not in name for name in names)


def list_uevents() -> list[bytes]:
    def message(action: str, devpath: str, *values: str) -> bytes:
        lines = (f"{action}@{devpath}", f"ACTION={action}", f"DEVPATH={devpath}", *values, "SEQNUM=42")
        return "".join(f"{line}\0" for line in lines).encode()

    disk = "/devices/pci0000:00/0000:00:02.0/block/sda"
    return [
        message("add", "/devices/virtual/tty/tty1", "SUBSYSTEM=tty", "MAJOR=4", "MINOR=1", "DEVNAME=tty1"),
        message("remove", disk, "SUBSYSTEM=block", "MAJOR=8", "MINOR=0", "DEVTYPE=disk"),
        message("bind", "/devices/pci0000:00/0000:00:02.0", "SUBSYSTEM=pci", "DRIVER=vfio-pci"),
        message("unbind", "/devices/pci0000:00/0000:00:02.0", "SUBSYSTEM=pci", "PCI_ID=10DE:2330"),
        message("move", "/devices/virtual/net/a", "SUBSYSTEM=net", "DEVPATH_OLD=/devices/virtual/net/b"),
        b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28\0\0\0\x28\0\0\0\x50",
    ]


def run_kernel_log(content: bytes) -> None:
    for record in parse_record(content):
        assert record.number >= 0
        result = evaluate(_PATTERNS, record.text)
        # The records that a probe evaluates are those that may concern any device.
        assert result is None or may_concern(_CHECK, record.text)


def list_records() -> list[bytes]:
    return [
        b"4,1234,5678901,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1234, GPU has fallen off the bus.\n",
        b"3,1234,5678901,-;NVRM: Xid (PCI:0000:01:00.0): 119\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n",
        b"6,0,0,c,caller=T1;Linux version 6.1.0 \\x0a\\xc3\\xa4\n",
        b"30,77,88,-;systemd[1]: started\n",
    ]


TARGETS = (
    Target(
        "uevent",
        "kernel uevents",
        run_uevent,
        list_uevents,
        words=(
            "ACTION=",
            "DEVPATH=",
            "DEVPATH_OLD=",
            "SUBSYSTEM=",
            "SEQNUM=",
            "MAJOR=",
            "MINOR=",
            "DRIVER=",
            "\0",
            "@",
        ),
        max_bytes=1024,
    ),
    Target(
        "kernel-log",
        "records of the kernel log",
        run_kernel_log,
        list_records,
        words=(";", ",-;", "\n", " DEVICE=", "NVRM: Xid (PCI:0000:01:00.0): 79", "٣", "²"),
        max_bytes=512,
    ),
)
