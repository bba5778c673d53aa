"""``pci`` at its edges: several functions, links that were dead or asleep before, and real machines' trees."""

import errno
import os
from pathlib import Path

import pytest

from genplug.hardware.host import Host
from genplug.health.probes import pci
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.spec.probes import PciCheck
from genplug.spec.template import MissingAttributeError, Template
from tests.support.sysroots import extract_sysroot

WELL = Result(Outcome.PASSED)
A, B = "0000:3b:00.0", "0000:3b:00.1"
ALIVE, DEAD = b"\xde\x10\x82\x20" * 16, b"\xff" * 64
DOES_NOT_ANSWER = f"{A} does not answer: its configuration space reads as ones only, it has fallen off the bus"
t = Template.parse


class Function:
    """A PCI function as the kernel shows it."""

    def __init__(self, root: Path, address: str, driver: str = "nvidia", width: str = "16") -> None:
        self.root = root
        self.link = root / "sys/bus/pci/devices" / address
        self.location = root / "sys/devices/pci0000:3a" / address
        self.location.mkdir(parents=True)
        self.link.parent.mkdir(parents=True, exist_ok=True)
        self.link.symlink_to(f"../../../devices/pci0000:3a/{address}")
        self.write("current_link_width", f"{width}\n")
        self.answers(ALIVE)
        self.drives(driver)

    def write(self, name: str, text: str) -> None:
        (self.location / name).parent.mkdir(exist_ok=True)
        (self.location / name).write_text(text)

    def answers(self, config: bytes) -> None:
        # The kernel shows all of it to root.
        (self.location / "config").write_bytes(config + bytes(192))

    def drives(self, driver: str) -> None:
        """Bind another driver, or none."""
        (self.location / "driver").unlink(missing_ok=True)
        if driver:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
            (self.location / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")

    def sleeps(self, *, really: bool = True) -> None:
        self.write("power/runtime_status", "suspended\n" if really else "active\n")


class Looking:
    """A probe that looks again and again."""

    def __init__(self, root: Path, check: PciCheck, *addresses: str) -> None:
        self.check, self.eyes = check, CachedFileReader(Host(root))
        self.question = pci.make_request(check, {"pci.address": addresses or (A,)})
        self.memory: pci.Memory | None = None

    def __call__(self) -> Result:
        self.eyes.start_batch()
        result, self.memory = pci.evaluate(self.check, pci.run(self.question, self.eyes, 1), self.memory, 0)
        return result


@pytest.fixture
def function(tmp_path: Path) -> Function:
    return Function(tmp_path, A)


AT_START, ANY, EIGHT = PciCheck(keep_initial_width=True), PciCheck(), PciCheck(min_width=8)


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize("check", [ANY, EIGHT, AT_START])
def test_a_function_that_is_as_it_was_is_well_for_ever(tmp_path: Path, check: PciCheck) -> None:
    look = Looking(tmp_path, check)
    assert [look() for _ in range(3)] == [WELL] * 3


def test_one_byte_that_is_not_all_ones_is_an_answer(tmp_path: Path, function: Function) -> None:
    look = Looking(tmp_path, ANY)
    function.answers(DEAD[:-1] + b"\xfe")
    assert look() == WELL
    function.answers(DEAD)
    assert look() == Result(Outcome.FAILED, DOES_NOT_ANSWER)


def test_a_function_that_is_dead_or_gone_at_the_first_look_is_a_failure(tmp_path: Path, function: Function) -> None:
    function.answers(DEAD)
    assert Looking(tmp_path, ANY)() == Result(Outcome.FAILED, DOES_NOT_ANSWER)
    function.link.unlink()
    look = Looking(tmp_path, ANY)
    assert look() == Result(Outcome.FAILED, f"{A} is not on the PCI bus any more")
    function.link.symlink_to(f"../../../devices/pci0000:3a/{A}")
    function.answers(ALIVE)
    # What it is like now is what it has to stay.
    assert look() == WELL
    function.drives("vfio-pci")
    assert look().outcome is Outcome.FAILED


@pytest.mark.parametrize(("before", "after"), [("nvidia", ""), ("nvidia", "vfio-pci"), ("", "nvidia")])
def test_another_driver_is_a_fault_until_the_first_is_back(tmp_path: Path, before: str, after: str) -> None:
    function = Function(tmp_path, A, driver=before)
    look = Looking(tmp_path, ANY)
    assert look() == WELL
    function.drives(after)
    has, had = (f"driver '{one}'" if one else "no driver" for one in (after, before))
    assert look() == Result(Outcome.FAILED, f"{A} has {has}, wanted {had} as at the first look")
    function.drives(before)
    assert look() == WELL


def test_what_went_with_one_driver_comes_back_with_another(tmp_path: Path, function: Function) -> None:
    look = Looking(tmp_path, ANY)
    assert look() == WELL
    function.link.unlink()
    assert look().outcome is Outcome.FAILED
    function.link.symlink_to(f"../../../devices/pci0000:3a/{A}")
    function.drives("vfio-pci")
    assert look() == Result(Outcome.FAILED, f"{A} has driver 'vfio-pci', wanted driver 'nvidia' as at the first look")


@pytest.mark.parametrize(
    ("check", "first", "then", "said"),
    [
        (EIGHT, "8", "8", ""),
        (EIGHT, "16", "4", "x4, wanted at least x8"),
        (EIGHT, "4", "4", "x4, wanted at least x8"),
        (EIGHT, "16", "0", "x0, wanted at least x8"),
        # x16 in a slot of eight lanes is no fault, nor is one that has more than it had.
        (AT_START, "8", "8", ""),
        (AT_START, "8", "16", ""),
        (AT_START, "16", "8", "x8, wanted at least x16 as at the first look"),
        (PciCheck(min_width=8, keep_initial_width=True), "16", "8", "x8, wanted at least x16 as at the first look"),
        (PciCheck(min_width=8, keep_initial_width=True), "4", "4", "x4, wanted at least x8"),
        (ANY, "16", "1", ""),
    ],
)
def test_a_link_is_as_wide_as_it_should_be(tmp_path: Path, check: PciCheck, first: str, then: str, said: str) -> None:
    function, look = Function(tmp_path, A, width=first), Looking(tmp_path, check)
    look()
    function.write("current_link_width", then)
    assert look() == (Result(Outcome.FAILED, f"the link of {A} is {said}") if said else WELL)
    function.write("current_link_width", "32")
    assert look() == WELL


@pytest.mark.parametrize("check", [EIGHT, AT_START])
def test_a_link_that_reads_as_ones_is_dead_and_not_wide(tmp_path: Path, function: Function, check: PciCheck) -> None:
    look = Looking(tmp_path, check)
    assert look() == WELL
    function.write("current_link_width", "63")
    assert look() == Result(Outcome.FAILED, f"{A} does not answer: its link reads as ones only")
    function.write("current_link_width", "16")
    assert look() == WELL


@pytest.mark.parametrize("config", [ALIVE, DEAD], ids=["answers", "is-dead"])
def test_a_link_that_was_dead_at_the_first_look_sets_no_measure(
    tmp_path: Path, function: Function, config: bytes
) -> None:
    function.answers(config)
    function.write("current_link_width", "63")
    look = Looking(tmp_path, AT_START)
    assert look().outcome is Outcome.FAILED
    function.answers(ALIVE)
    function.write("current_link_width", "16")
    assert look() == WELL
    function.write("current_link_width", "8")
    assert look() == Result(Outcome.FAILED, f"the link of {A} is x8, wanted at least x16 as at the first look")


@pytest.mark.parametrize("check", [EIGHT, AT_START])
def test_a_width_that_cannot_be_read_is_an_error_and_no_measure(
    tmp_path: Path, function: Function, check: PciCheck
) -> None:
    error = Result(Outcome.ERROR, f"/sys/bus/pci/devices/{A}/current_link_width cannot be read")
    (function.location / "current_link_width").unlink()
    look = Looking(tmp_path, check)
    assert look() == error
    function.write("current_link_width", "Unknown")
    assert look() == error
    function.write("current_link_width", "8")
    assert look() == WELL


def test_a_configuration_space_that_cannot_be_read_is_an_error_but_a_lost_driver_is_seen(
    tmp_path: Path, function: Function
) -> None:
    look = Looking(tmp_path, ANY)
    assert look() == WELL
    (function.location / "config").unlink()
    (function.location / "config").mkdir()
    why = f"/sys/bus/pci/devices/{A}/config cannot be read: {os.strerror(errno.EISDIR)}"
    assert look() == Result(Outcome.ERROR, why)
    function.drives("")
    assert look() == Result(Outcome.FAILED, f"{A} has no driver, wanted driver 'nvidia' as at the first look")


def test_one_that_sleeps_is_well_but_keeps_its_driver(tmp_path: Path, function: Function) -> None:
    look = Looking(tmp_path, AT_START)
    assert look() == WELL
    function.sleeps()
    function.answers(DEAD)
    function.write("current_link_width", "63")
    assert look() == WELL
    function.drives("")
    assert look().outcome is Outcome.FAILED


def test_one_that_slept_at_the_first_look_is_measured_when_it_wakes(tmp_path: Path, function: Function) -> None:
    function.sleeps()
    look = Looking(tmp_path, AT_START)
    assert look() == WELL
    function.sleeps(really=False)
    assert look() == WELL
    function.write("current_link_width", "8")
    assert look() == Result(Outcome.FAILED, f"the link of {A} is x8, wanted at least x16 as at the first look")


@pytest.mark.parametrize(
    ("check", "sleeps", "untouched"),
    [
        (EIGHT, True, ("config", "current_link_width", "current_link_speed")),
        (ANY, False, ("current_link_width", "current_link_speed", "max_link_width")),
        (EIGHT, False, ("current_link_speed", "max_link_speed")),
    ],
)
def test_what_would_wake_a_function_or_says_nothing_is_not_read(
    tmp_path: Path, function: Function, check: PciCheck, *, sleeps: bool, untouched: tuple[str, ...]
) -> None:
    for name in untouched:
        (function.location / name).unlink(missing_ok=True)
        # Who reads it waits for ever.
        os.mkfifo(function.location / name)
    function.sleeps(really=sleeps)
    assert Looking(tmp_path, check)() == WELL


def test_of_several_functions_a_fault_counts_before_an_error(tmp_path: Path, function: Function) -> None:
    other = Function(tmp_path, B)
    look = Looking(tmp_path, ANY, A, B)
    assert look() == WELL
    (function.location / "config").unlink()
    assert look().outcome is Outcome.ERROR
    other.drives("vfio-pci")
    assert look() == Result(Outcome.FAILED, f"{B} has driver 'vfio-pci', wanted driver 'nvidia' as at the first look")
    function.link.unlink()
    assert look() == Result(Outcome.FAILED, f"{A} is not on the PCI bus any more")


def test_each_function_is_measured_by_itself(tmp_path: Path, function: Function) -> None:
    Function(tmp_path, B, driver="snd_hda_intel", width="1")
    look = Looking(tmp_path, AT_START, A, B)
    assert look() == look() == WELL
    function.write("current_link_width", "1")
    assert look().outcome is Outcome.FAILED


def test_another_address_is_looked_at_instead_of_the_devices_own(tmp_path: Path, function: Function) -> None:
    check = PciCheck(address=t("${sriov.pf}"))
    assert pci.make_request(check, {"pci.address": ("0000:3b:02.1",), "sriov.pf": (A,)}) == ("pci", "", A)
    assert pci.make_request(check, {"sriov.pf": (A,)}) == ("pci", "", A)
    function.answers(DEAD)
    answer = pci.run(pci.make_request(check, {"sriov.pf": (A,)}), CachedFileReader(Host(tmp_path)), 1)
    assert pci.evaluate(check, answer, None, 0)[0] == Result(Outcome.FAILED, DOES_NOT_ANSWER)


@pytest.mark.parametrize(("check", "lacking"), [(ANY, "pci.address"), (PciCheck(address=t("${sriov.pf}")), "sriov.pf")])
def test_a_device_without_an_address_cannot_be_asked(check: PciCheck, lacking: str) -> None:
    with pytest.raises(MissingAttributeError) as caught:
        pci.make_request(check, {"name": ("x",)})
    assert caught.value.name == lacking


def captured(name: str, root: Path) -> tuple[str, ...]:
    """Unpack a machine, and return the addresses of its functions."""
    extract_sysroot(name, root)
    devices = root / "sys/bus/pci/devices"
    return tuple(sorted(one.name for one in devices.iterdir() if (one / "vendor").exists()))


def test_every_function_of_a_real_machine_is_well(tmp_path: Path) -> None:
    addresses = captured("pmem-dax-xeon", tmp_path)
    assert len(addresses) > 100
    look = Looking(tmp_path, ANY, *addresses)
    assert look() == look() == WELL


def test_a_real_link_is_as_wide_as_it_was(tmp_path: Path) -> None:
    captured("infiniband-amdgpu", tmp_path)
    # A bridge and the disk below it have four lanes.
    addresses = ("0000:00:02.1", "0000:01:00.0")
    look = Looking(tmp_path, AT_START, *addresses)
    assert look() == WELL
    disk = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    (disk / "current_link_width").unlink()
    (disk / "current_link_width").write_text("1\n")
    assert look() == Result(Outcome.FAILED, "the link of 0000:01:00.0 is x1, wanted at least x4 as at the first look")
    assert Looking(tmp_path, EIGHT, *addresses)() == Result(
        Outcome.FAILED, "the link of 0000:00:02.1 is x4, wanted at least x8"
    )


def test_of_what_was_captured_without_its_configuration_space_nothing_is_known(tmp_path: Path) -> None:
    captured("pci-nvidia-p100", tmp_path)
    said = "/sys/bus/pci/devices/0000:06:00.0/config cannot be read: No such file or directory"
    assert Looking(tmp_path, ANY, "0000:06:00.0")() == Result(Outcome.ERROR, said)
