"""The table of device nodes that expose the node or its storage, and how each is recognized.

Numbers are those of the kernel's Documentation/admin-guide/devices.txt; for the others, a comment names the driver.
A driver that gets its number at boot is recognized by its class or bus in /sys, by its name in /proc/devices, or by the
name that the kernel gives its node in /dev.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

ANY_MINOR = range(1 << 20)
"""Every minor number."""


class DeniedNode(Struct, frozen=True):
    """Character devices that are denied for one reason.

    - ``name``: how a policy names the entry: the path or paths of its nodes.
    - ``what``: what they are, as a noun phrase that follows "is".
    - ``numbers``: pairs of a major number and minor numbers.
    - ``subsystems``: the names of their class or bus in /sys.
    - ``drivers``: the names of their drivers in /proc/devices.
    - ``names``: a regular expression of their names under /dev, for nodes whose number is assigned at boot.
    """

    name: str
    what: str
    numbers: tuple[tuple[int, range], ...] = ()
    subsystems: frozenset[str] = frozenset()
    drivers: frozenset[str] = frozenset()
    names: str = ""


def _at(major: int, *minors: int) -> tuple[tuple[int, range], ...]:
    return tuple((major, range(minor, minor + 1)) for minor in minors)


def _all(*majors: int) -> tuple[tuple[int, range], ...]:
    return tuple((major, ANY_MINOR) for major in majors)


EXPOSES_HOST: tuple[DeniedNode, ...] = (
    # Memory
    DeniedNode("/dev/mem", "/dev/mem, the memory of the host", _at(1, 1)),
    DeniedNode("/dev/kmem", "/dev/kmem, the memory of the kernel", _at(1, 2, 6)),
    DeniedNode("/dev/port", "/dev/port, the I/O ports of the host", _at(1, 4)),
    DeniedNode("/dev/oldmem", "/dev/oldmem, the memory of a kernel that crashed", _at(1, 12)),
    # drivers/char/broadcom of the Raspberry Pi kernel; the firmware behind vcio accesses all memory.
    DeniedNode(
        "/dev/vc-mem",
        "the memory of the host, or the firmware that accesses it",
        subsystems=frozenset({"vc-mem", "vcio"}),
        drivers=frozenset({"vc-mem", "vcio"}),
        names="vc-mem|vcio",
    ),
    DeniedNode("/dev/crash", "/dev/crash, the memory of the host", _at(10, 190), names="crash|fmem"),
    DeniedNode("/dev/snapshot", "/dev/snapshot, a copy of the memory of the host", _at(10, 231)),
    DeniedNode("/dev/userdma", "/dev/userdma, direct memory access", _at(10, 161)),
    # drivers/char/agp, arch/powerpc/platforms/powernv/opal-prd.c
    DeniedNode("/dev/agpgart", "a node that maps memory of the host", _at(10, 175), names="opal-prd"),
    # drivers/char/hpet.c maps the registers of the timer into the memory of a process.
    DeniedNode("/dev/hpet", "/dev/hpet, the registers of the timer of the host", _at(10, 228)),
    # Consoles and terminals
    DeniedNode("/dev/tty[0-9]*", "a console of the host", ((4, range(64)),)),
    DeniedNode("/dev/tty", "/dev/tty, the terminal of a process", _at(5, 0)),
    DeniedNode("/dev/console", "/dev/console, the console of the host", _at(5, 1)),
    DeniedNode("/dev/ptmx", "/dev/ptmx, which creates terminals of the host", _at(5, 2)),
    DeniedNode("/dev/ttyprintk", "/dev/ttyprintk, which writes to the log of the kernel", _at(5, 3)),
    DeniedNode("/dev/pts/*", "a terminal of the host", _all(2, 3, *range(128, 144))),
    DeniedNode("/dev/vcs*", "the screen contents of a console of the host", _all(7)),
    DeniedNode(
        "/dev/hvc*",
        "a console of the hypervisor",
        (*_all(229), *_at(204, 191)),
        drivers=frozenset({"hvc", "hvsi", "hvcs", "xvc"}),
        names=r"(?:hvc|hvsi|hvcs|xvc)\d+",
    ),
    DeniedNode("/dev/3270/*", "a 3270 terminal of the host", _all(227, 228)),
    DeniedNode(
        "/dev/ttyFW*",
        "a console of the firmware",
        (*((major, range(12, 15)) for major in (204, 205)), *_at(204, 40), *_at(205, 40)),
    ),
    DeniedNode("/dev/kbd", "the keyboard or the console of the host", _all(11)),
    DeniedNode("active console", "an active console of the host"),
    # Emulation of input devices
    DeniedNode("/dev/uinput", "/dev/uinput, which emulates input devices of the host", _at(10, 223)),
    DeniedNode("/dev/uhid", "/dev/uhid, which emulates input devices of the host", _at(10, 239)),
    DeniedNode("/dev/userio", "/dev/userio, which emulates input devices of the host", _at(10, 240)),
    DeniedNode("/dev/vhci", "/dev/vhci, which emulates Bluetooth controllers of the host", _at(10, 137)),
    # drivers/usb/gadget/legacy/raw_gadget.c
    DeniedNode("/dev/raw-gadget", "/dev/raw-gadget, which emulates USB devices", names="raw-gadget"),
    # drivers/usb/mon: the data of all USB devices, such as keyboards.
    DeniedNode(
        "/dev/usbmon*",
        "the data traffic of the USB devices of the host",
        subsystems=frozenset({"usbmon"}),
        drivers=frozenset({"usbmon"}),
        names=r"usbmon\d+",
    ),
    # Creation of devices
    DeniedNode("/dev/loop-control", "/dev/loop-control, which creates block devices from files", _at(10, 237)),
    DeniedNode(
        "/dev/ublk-control",
        "a node that creates block devices from programs",
        subsystems=frozenset({"ublk-char"}),
        drivers=frozenset({"ublk-char"}),
        names=r"ublk-control|ublkc\d+",
    ),
    DeniedNode("/dev/cuse", "/dev/cuse, which creates device nodes of the host", _at(10, 203)),
    DeniedNode("/dev/ussp_ctl", "/dev/ussp_ctl, which creates serial ports of the host", _at(10, 189)),
    DeniedNode("/dev/vtpmx", "/dev/vtpmx, which creates TPM devices of the host", names="vtpmx"),
    DeniedNode(
        "/dev/vduse/*",
        "a node that creates virtio devices from programs",
        subsystems=frozenset({"vduse"}),
        drivers=frozenset({"vduse"}),
        names="vduse/.+",
    ),
    # Control of the kernel, the processors and the machine
    DeniedNode("/dev/kmsg", "/dev/kmsg, the log of the kernel", _at(1, 11)),
    DeniedNode("/dev/cpu/*/msr", "the registers of a processor of the host", _all(202), subsystems=frozenset({"msr"})),
    DeniedNode(
        "/dev/cpu/*/cpuid", "the description of a processor of the host", _all(203), subsystems=frozenset({"cpuid"})
    ),
    DeniedNode("/dev/cpu/microcode", "/dev/cpu/microcode, the microcode of the processors", _at(10, 184)),
    DeniedNode("/dev/mcelog", "/dev/mcelog, the hardware errors of the host", _at(10, 227)),
    DeniedNode("/dev/autofs", "/dev/autofs, which controls mounts of the host", _at(10, 235)),
    DeniedNode(
        "/dev/cachefiles",
        "a node that manages a file system of the host",
        _all(67, 103, 185),
        # fs/dlm, fs/ocfs2, fs/orangefs, fs/ecryptfs
        names=r"cachefiles|ecryptfs|(?:misc/)?dlm[-_].+|(?:misc/)?ocfs2_control|pvfs2-req",
    ),
    DeniedNode("/dev/ipl", "a node that controls the network of the host", (*_all(36, 59, 64, 95), *_at(10, 242))),
    DeniedNode(
        "/dev/perfctr",
        "a node that controls or traces the kernel",
        (*_all(192, 193, 197), *_at(10, 132, 133, 153, 159, 182, 186, 198, 218, 226, 233)),
    ),
    DeniedNode("/dev/apm_bios", "a node that controls the power of the host", _at(10, 134, 154)),
    # drivers/pci/switch/switchtec.c; mst_pci of the NVIDIA firmware tools
    DeniedNode(
        "/dev/pciconf",
        "the configuration of PCI devices",
        _at(10, 143),
        subsystems=frozenset({"switchtec"}),
        drivers=frozenset({"switchtec"}),
        names=r"switchtec\d+|mst/.+",
    ),
    # drivers/char/nwflash.c, drivers/firmware/efi, drivers/platform/x86/dell-smbios, drivers/fwctl, and the supplicant
    # of drivers/tee, which stores the secrets of the firmware
    DeniedNode(
        "/dev/nvram",
        "the firmware of the host or of its devices, or its settings",
        (*_all(104), *_at(10, 139, 144, 160, 170, 178, 181, 188)),
        subsystems=frozenset({"fwctl"}),
        drivers=frozenset({"fwctl"}),
        names=r"efi_capsule_loader|efi_test|wmi/.+|fwctl/.+|teepriv\d+",
    ),
    # drivers/char/ipmi, drivers/misc/hpilo.c
    DeniedNode(
        "/dev/ipmi*",
        "the management controller of the host",
        (*_all(170, 207), *_at(10, 164, 173, 208, 209, 210, 211)),
        subsystems=frozenset({"ipmi", "iLO"}),
        drivers=frozenset({"ipmidev", "hpilo"}),
        names=r"ipmi(?:dev)?/?\d+|hpilo/.+",
    ),
    # drivers/misc/mei, drivers/platform/x86/amd/hsmp, drivers/platform/x86/intel/speed_select_if
    DeniedNode(
        "/dev/mei*",
        "the management engine or the power controller of the host",
        subsystems=frozenset({"mei"}),
        drivers=frozenset({"mei"}),
        names=r"mei\d*|hsmp|isst_interface",
    ),
    # drivers/xen, drivers/s390/char/vmcp.c, drivers/hv (the channels of the agents of Hyper-V); VirtualBox and VMware
    # run code in the kernel.
    DeniedNode(
        "/dev/xen/*",
        "the hypervisor of the host",
        (*_all(119), *_at(10, 165)),
        names=r"xen/.+|vmbus/.+|vmcp|vboxdrvu?|vboxnetctl|vmmon|mshv",
    ),
)
"""Character devices that give a container control over the node. A policy allows them by their names only."""


ACCESSES_STORAGE: tuple[DeniedNode, ...] = (
    DeniedNode(
        "/dev/sg*", "generic access to a SCSI device such as a disk", _all(21), subsystems=frozenset({"scsi_generic"})
    ),
    DeniedNode("/dev/bsg/*", "a node for commands to a disk", subsystems=frozenset({"bsg"}), names="bsg/.+|ses\\d+"),
    # drivers/nvme/host: control, namespaces and fabrics
    DeniedNode(
        "/dev/nvme*",
        "a node for commands to a disk",
        subsystems=frozenset({"nvme", "nvme-generic", "nvme-fabrics"}),
        drivers=frozenset({"nvme", "nvme-generic"}),
        names=r"nvme\d+.*|nvme-fabrics|ng\d+n\d+",
    ),
    DeniedNode(
        "/dev/st*",
        "a tape",
        _all(9, 12, 27, 37, 96, 206, 230),
        subsystems=frozenset({"scsi_tape", "tape390"}),
        drivers=frozenset({"st", "osst", "tape"}),
        names=r"n?o?st\d+[lma]?|[nr]tibm\d+",
    ),
    DeniedNode("/dev/sch*", "a changer of tapes or disks", _all(86), subsystems=frozenset({"scsi_changer"})),
    DeniedNode("/dev/pg*", "generic access to a disk on a parallel port", _all(97)),
    DeniedNode("/dev/mtd*", "a flash memory", _all(90), subsystems=frozenset({"mtd"})),
    DeniedNode(
        "/dev/ubi*",
        "volumes in a flash memory",
        subsystems=frozenset({"ubi"}),
        names=r"ubi\d+(?:_\d+)?|ubi_ctrl",
    ),
    # drivers/mmc/core/block.c, drivers/nvdimm
    DeniedNode(
        "/dev/mmcblk*rpmb",
        "a protected partition of a flash memory",
        subsystems=frozenset({"mmc_rpmb"}),
        drivers=frozenset({"rpmb"}),
        names=r"mmcblk\d+rpmb",
    ),
    DeniedNode(
        "/dev/ndctl*",
        "a node for commands to a non-volatile memory",
        subsystems=frozenset({"nd"}),
        drivers=frozenset({"ndctl", "dimmctl"}),
        names=r"ndctl\d+|nmem\d+",
    ),
    # drivers/message/fusion, drivers/scsi/mpt3sas (minors 221 and 222), megaraid, aacraid, 3w-*; I2O and DPT
    DeniedNode(
        "/dev/megaraid_sas_ioctl_node",
        "a node for commands to a disk controller",
        (*_all(151), *_at(10, 166, 202, 220, 221, 222)),
        drivers=frozenset({"megaraid_sas_ioctl", "megadev_legacy", "megadev", "aac", "twa", "twe", "twl", "dpti"}),
        names=r"megaraid_sas_ioctl.*|megadev.*|mpt\d?ctl|aac\d+|tw[ael]\d+|hpt\w+|gdth|fct\d+",
    ),
    DeniedNode("/dev/mapper/control", "/dev/mapper/control, which creates block devices from disks", _at(10, 236)),
    DeniedNode(
        "/dev/btrfs-control",
        "a node that controls a file system",
        _at(10, 234),
        names="zfs|bcachefs.*-ctl|lightnvm/control",
    ),
    DeniedNode("/dev/raw/*", "raw access to a block device", _all(162)),
    DeniedNode("/dev/etherd/*", "a node that controls network disks", _all(152)),
    DeniedNode("/dev/vx/*", "a volume manager", _all(109, 199, 200, 201)),
    DeniedNode(
        "/dev/obd*", "an object storage device", _all(186, 260), subsystems=frozenset({"scsi_osd"}), names="obd|scst_.+"
    ),
    DeniedNode("USB storage", "a USB device with a disk"),
)
"""Character devices that give access to disks and other storage. A policy allows them together with block devices."""

ACTIVE_CONSOLE = next(entry for entry in EXPOSES_HOST if entry.name == "active console")
USB_STORAGE = next(entry for entry in ACCESSES_STORAGE if entry.name == "USB storage")


class NodeIndex(Struct, frozen=True):
    """The entries of a table, by what identifies a node."""

    by_major: Mapping[int, tuple[tuple[range, DeniedNode], ...]]
    by_subsystem: Mapping[str, DeniedNode]
    by_driver: Mapping[str, DeniedNode]
    named: tuple[tuple[str, DeniedNode], ...]
    """Regular expressions of names."""
    names: str
    """A regular expression that matches what one of the names matches: a fast path, because most nodes match none."""

    @classmethod
    def build(cls, entries: tuple[DeniedNode, ...]) -> "NodeIndex":
        """Return the index of a table."""
        majors = {major for entry in entries for major, _ in entry.numbers}
        return cls(
            {major: tuple(_numbers_of(entries, major)) for major in majors},
            {name: entry for entry in entries for name in entry.subsystems},
            {name: entry for entry in entries for name in entry.drivers},
            tuple((entry.names, entry) for entry in entries if entry.names),
            "|".join(entry.names for entry in entries if entry.names),
        )

    def find_by_numbers(self, major: int, minor: int) -> DeniedNode | None:
        """Return the entry of a device number."""
        # Fast path: this runs for every device node of every scan.
        if (minors := self.by_major.get(major)) is None:
            return None
        return next((entry for numbers, entry in minors if minor in numbers), None)

    def find_by_name(self, name: str) -> DeniedNode | None:
        """Return the entry of the name of a node under /dev."""
        if re.fullmatch(self.names, name) is None:
            return None
        return next((entry for names, entry in self.named if re.fullmatch(names, name)), None)


def _numbers_of(entries: tuple[DeniedNode, ...], major: int) -> Iterator[tuple[range, DeniedNode]]:
    for entry in entries:
        yield from ((minors, entry) for number, minors in entry.numbers if number == major)
