"""What the kernel says by itself: lines of its log, and events."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.config.probes import KernelLogCheck, UeventCheck
from genplug.config.template import MissingAttributeError, Template
from genplug.hardware.uevents import Uevent
from genplug.health.kmsg import KernelLog, Line, parsed
from genplug.health.probes import kernel_log, uevent
from genplug.health.standing import Outcome

t = Template.parse
XID = KernelLogCheck(
    fail=t(r"NVRM: Xid \(PCI:${pci.address|replace:.0:}\): \d+"),
    ignore=t(r"NVRM: Xid \(PCI:[^)]*\): (13|31|43|45|68|109),"),
    clear=t(r"NVRM: loading NVIDIA UNIX|\(PCI:${pci.address|replace:.0:}\): 154, .* changed from .* to 0x0 "),
)
CARD = {"pci.address": ("0000:3b:00.0",)}


def last(*lines: str) -> str:
    """What a card's lines come to: of the last that says something, its outcome."""
    patterns = kernel_log.bound(XID, CARD)
    results = [result for line in lines if (result := kernel_log.judged(patterns, line)) is not None]
    return results[-1].outcome.name if results else ""


def test_a_line_is_of_one_device_and_a_fault_unless_it_is_ignored() -> None:
    assert last("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.") == "FAILED"
    assert last("NVRM: Xid (PCI:0000:3b:00): 31, MMU Fault") == ""
    assert last("NVRM: Xid (PCI:0000:5e:00): 79, GPU has fallen off the bus.") == ""
    # A value stands for itself: its dots are dots.
    assert last("NVRM: Xid (PCI:0000X3b:00): 79, GPU has fallen off the bus.") == ""


def test_what_is_left_from_before_the_driver_was_loaded_is_over() -> None:
    fault = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."
    loaded = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.124.06"
    assert last(fault, loaded) == "PASSED"
    assert last(fault, loaded, fault) == "FAILED"


def test_one_kind_of_line_sets_and_clears() -> None:
    said = "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from {} to {}"
    needs, needs_not = said.format("0x0 (None)", "0x1 (Reset)"), said.format("0x1 (Reset)", "0x0 (None)")
    assert (last(needs), last(needs, needs_not)) == ("FAILED", "PASSED")


def test_the_reason_is_the_line_cut_where_it_is_long() -> None:
    patterns = kernel_log.bound(KernelLogCheck(t("fault")), {})
    short, long = (kernel_log.judged(patterns, text) for text in ("a  fault\n", "fault" * 100))
    assert short is not None
    assert short.reason == "the kernel's log says: a fault"
    assert long is not None
    assert len(long.reason) < 200


def test_a_device_without_what_a_pattern_needs_cannot_be_told() -> None:
    with pytest.raises(MissingAttributeError, match=r"pci\.address"):
        kernel_log.bound(XID, {})


@given(st.text("0123456789abcdef:.", min_size=1), st.text(max_size=30))
def test_no_line_of_any_device_is_passed_over(address: str, rest: str) -> None:
    line = f"NVRM: Xid (PCI:{address.replace('.0', '')}): 79, {rest}"
    judged = kernel_log.judged(kernel_log.bound(XID, {"pci.address": (address,)}), line)
    if judged is not None:
        assert any(one.search(line) for one in kernel_log.hint(XID))


def test_lines_of_the_kernel_count_and_those_of_programs_do_not() -> None:
    record = (
        b"6,339,5140900,-;pci 0000:00:02.0: a; semicolon\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:02.0\n"
        b"30,340,5690716,-;systemd[1]: NVRM: Xid\nno record\n4,341,6,c;next\n4,x,6,-;broken\n"
    )
    assert list(parsed(record)) == [Line(339, "pci 0000:00:02.0: a; semicolon"), Line(341, "next")]


async def test_the_log_is_what_it_holds_and_what_comes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kmsg")
    writer = os.open(tmp_path / "kmsg", os.O_RDWR)
    os.write(writer, b"4,1,0,-;first\n4,2,0,-;second\n")
    heard: asyncio.Queue[Sequence[Line]] = asyncio.Queue()
    log = KernelLog(tmp_path / "kmsg", heard.put_nowait, lambda: None)
    assert await log.follow() == (Line(1, "first"), Line(2, "second"))
    os.write(writer, b"4,3,0,-;third\n")
    assert await asyncio.wait_for(heard.get(), 10) == [Line(3, "third")]
    log.close()
    os.close(writer)


async def test_a_log_that_ends_is_a_failure_that_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kmsg")
    writer = os.open(tmp_path / "kmsg", os.O_RDWR)
    failed = asyncio.Event()
    log = KernelLog(tmp_path / "kmsg", lambda _: None, failed.set)
    assert await log.follow() == ()
    os.close(writer)
    await asyncio.wait_for(failed.wait(), 10)
    assert log.failure == "the kernel's log (/dev/kmsg) cannot be read: No data available"


@pytest.mark.root
async def test_the_real_log_can_be_read_again_and_again() -> None:
    log = KernelLog(Path("/dev/kmsg"), lambda _: None, lambda: None)
    held = await log.follow()
    assert held
    assert [line.number for line in held] == sorted({line.number for line in held})
    assert held[-1] in await log.held()
    log.close()


DEVICE = "/devices/pci0000:00/0000:00:02.0"
WEDGED = UeventCheck(fail=t("^WEDGED=.*(rebind|bus-reset)"), clear=t("^ACTION=bind$"))


def heard(action: str, devpath: str, **values: str) -> str:
    patterns = uevent.bound(WEDGED, {"sysfs": (f"/sys{DEVICE}/drm/card0",)})
    event = Uevent(action, devpath, "drm", {"ACTION": action, "DEVPATH": devpath, **values})
    result = uevent.judged(patterns, event)
    return result.outcome.name if result is not None else ""


@pytest.mark.parametrize(
    ("action", "devpath", "values", "expected"),
    [
        ("change", f"{DEVICE}/drm/card0", {"WEDGED": "rebind,bus-reset"}, "FAILED"),
        # It has reset itself already.
        ("change", f"{DEVICE}/drm/card0", {"WEDGED": "none"}, ""),
        ("change", f"{DEVICE}/drm/card0", {"HOTPLUG": "1"}, ""),
        ("bind", DEVICE, {}, "PASSED"),
        ("change", f"{DEVICE}/drm/card0/card0-DP-1", {"WEDGED": "rebind"}, "FAILED"),
        ("change", f"{DEVICE}/drm/card01", {"WEDGED": "rebind"}, ""),
        ("change", "/devices/pci0000:00/0000:00:03.0/drm/card1", {"WEDGED": "rebind"}, ""),
    ],
)
def test_an_event_is_of_a_device_of_what_is_below_and_of_what_it_stands_on(
    action: str, devpath: str, values: dict[str, str], expected: str
) -> None:
    assert heard(action, devpath, **values) == expected


def test_whose_events_count_can_be_written_and_the_reason_says_what_was_sent() -> None:
    patterns = uevent.bound(UeventCheck(t("ACTION=unbind"), path=t("/sys/bus/x/${name}")), {"name": ("a",)})
    event = Uevent("unbind", "/bus/x/a", "x", {"ACTION": "unbind", "DEVPATH": "/bus/x/a"})
    result = uevent.judged(patterns, event)
    assert result is not None
    assert (result.outcome, result.reason) == (Outcome.FAILED, "the kernel sent ACTION=unbind (unbind of /sys/bus/x/a)")


@pytest.mark.parametrize(
    ("devpath", "driver", "expected"),
    [
        (DEVICE, "i915", True),
        (f"{DEVICE}/drm/card0", "x", True),
        (f"{DEVICE}/drm/card0/below", "x", False),
        (f"{DEVICE}/mlx5_core.rdma.0", "mlx5_ib", False),
        ("/devices/pci0000:00", "pcieport", False),
    ],
)
def test_a_driver_is_bound_to_a_device_or_to_what_it_is_a_part_of(devpath: str, driver: str, *, expected: bool) -> None:
    event = Uevent("bind", devpath, "pci", {"ACTION": "bind", "DEVPATH": devpath, "DRIVER": driver})
    assert uevent.is_bound_anew((f"/sys{DEVICE}/drm/card0",), event) is expected


def test_a_device_without_a_place_has_no_events() -> None:
    with pytest.raises(MissingAttributeError, match="sysfs"):
        uevent.bound(WEDGED, {})
