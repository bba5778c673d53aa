"""The probe ``pci``: several functions, links that were dead or suspended before, and trees of real machines."""

import errno
import os
from pathlib import Path

import pytest

from genplug.hardware.host import Host
from genplug.health.probes import pci
from genplug.health.probes.pci import PciCheck
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.spec.template import MissingAttributeError, Template
from tests.support.probes import PASSED, make_device
from tests.support.sysroots import extract_sysroot

A, B = "0000:3b:00.0", "0000:3b:00.1"
ALIVE, DEAD = b"\xde\x10\x82\x20" * 16, b"\xff" * 64
DOES_NOT_ANSWER = f"{A} does not answer: its configuration space reads as all ones, so it has fallen off the bus"
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
        self.set_config(ALIVE)
        self.bind_driver(driver)

    def write(self, name: str, text: str) -> None:
        (self.location / name).parent.mkdir(exist_ok=True)
        (self.location / name).write_text(text)

    def set_config(self, config: bytes) -> None:
        # The kernel shows the whole space to root.
        (self.location / "config").write_bytes(config + bytes(192))

    def bind_driver(self, driver: str) -> None:
        """Bind another driver, or none."""
        (self.location / "driver").unlink(missing_ok=True)
        if driver:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
            (self.location / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")

    def set_power(self, *, suspended: bool) -> None:
        self.write("power/runtime_status", "suspended\n" if suspended else "active\n")

    def suspend(self) -> None:
        self.set_power(suspended=True)

    def resume(self) -> None:
        self.set_power(suspended=False)


class Probe:
    """A probe that can be run again and again."""

    def __init__(self, root: Path, check: PciCheck, *addresses: str) -> None:
        self.check, self.reader = check, CachedFileReader(Host(root))
        self.request = pci.make_request(check, make_device({"pci.address": addresses or (A,)}))
        self.memory: pci.Memory | None = None

    def __call__(self) -> Result:
        self.reader.start_batch()
        result, self.memory = pci.evaluate(self.check, pci.run(self.request, self.reader, 1), self.memory, 0)
        return result


@pytest.fixture
def function(tmp_path: Path) -> Function:
    return Function(tmp_path, A)


AT_START, ANY, EIGHT = PciCheck(keep_initial_width=True), PciCheck(), PciCheck(min_width=8)


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize("check", [ANY, EIGHT, AT_START])
def test_unchanged_function_passes(tmp_path: Path, check: PciCheck) -> None:
    run = Probe(tmp_path, check)
    assert [run() for _ in range(3)] == [PASSED] * 3


def test_header_with_a_zero_bit_is_an_answer(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, ANY)
    function.set_config(DEAD[:-1] + b"\xfe")
    assert run() == PASSED
    function.set_config(DEAD)
    assert run() == Result(Outcome.FAILED, DOES_NOT_ANSWER)


def test_function_that_is_dead_or_gone_at_first_run_fails(tmp_path: Path, function: Function) -> None:
    function.set_config(DEAD)
    assert Probe(tmp_path, ANY)() == Result(Outcome.FAILED, DOES_NOT_ANSWER)
    function.link.unlink()
    run = Probe(tmp_path, ANY)
    assert run() == Result(Outcome.FAILED, f"{A} is no longer on the PCI bus")
    function.link.symlink_to(f"../../../devices/pci0000:3a/{A}")
    function.set_config(ALIVE)
    # Its driver from now on is the expected one.
    assert run() == PASSED
    function.bind_driver("vfio-pci")
    assert run().outcome is Outcome.FAILED


@pytest.mark.parametrize(("before", "after"), [("nvidia", ""), ("nvidia", "vfio-pci"), ("", "nvidia")])
def test_other_driver_fails_until_first_driver_is_bound_again(tmp_path: Path, before: str, after: str) -> None:
    function = Function(tmp_path, A, driver=before)
    run = Probe(tmp_path, ANY)
    assert run() == PASSED
    function.bind_driver(after)
    has, had = (f"driver '{name}'" if name else "no driver" for name in (after, before))
    assert run() == Result(Outcome.FAILED, f"{A} has {has}, expected {had} as at the first run")
    function.bind_driver(before)
    assert run() == PASSED


def test_function_that_returns_with_other_driver_fails(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, ANY)
    assert run() == PASSED
    function.link.unlink()
    assert run().outcome is Outcome.FAILED
    function.link.symlink_to(f"../../../devices/pci0000:3a/{A}")
    function.bind_driver("vfio-pci")
    assert run() == Result(Outcome.FAILED, f"{A} has driver 'vfio-pci', expected driver 'nvidia' as at the first run")


@pytest.mark.parametrize(
    ("check", "first", "then", "text"),
    [
        (EIGHT, "8", "8", ""),
        (EIGHT, "16", "4", "x4, expected at least x8"),
        (EIGHT, "4", "4", "x4, expected at least x8"),
        (EIGHT, "16", "0", "x0, expected at least x8"),
        # Neither x16 in a slot of eight lanes nor a wider link is a failure.
        (AT_START, "8", "8", ""),
        (AT_START, "8", "16", ""),
        (AT_START, "16", "8", "x8, expected at least x16 as at the first run"),
        (PciCheck(min_width=8, keep_initial_width=True), "16", "8", "x8, expected at least x16 as at the first run"),
        (PciCheck(min_width=8, keep_initial_width=True), "4", "4", "x4, expected at least x8"),
        (ANY, "16", "1", ""),
    ],
)
def test_link_width_is_compared_with_expected_width(
    tmp_path: Path, check: PciCheck, first: str, then: str, text: str
) -> None:
    function, run = Function(tmp_path, A, width=first), Probe(tmp_path, check)
    run()
    function.write("current_link_width", then)
    assert run() == (Result(Outcome.FAILED, f"the link of {A} is {text}") if text else PASSED)
    function.write("current_link_width", "32")
    assert run() == PASSED


@pytest.mark.parametrize("check", [EIGHT, AT_START])
def test_link_width_of_all_ones_fails(tmp_path: Path, function: Function, check: PciCheck) -> None:
    run = Probe(tmp_path, check)
    assert run() == PASSED
    function.write("current_link_width", "63")
    assert run() == Result(Outcome.FAILED, f"{A} does not answer: its link width reads as all ones")
    function.write("current_link_width", "16")
    assert run() == PASSED


@pytest.mark.parametrize("config", [ALIVE, DEAD], ids=["answers", "is-dead"])
def test_dead_link_at_first_run_is_not_the_initial_width(tmp_path: Path, function: Function, config: bytes) -> None:
    function.set_config(config)
    function.write("current_link_width", "63")
    run = Probe(tmp_path, AT_START)
    assert run().outcome is Outcome.FAILED
    function.set_config(ALIVE)
    function.write("current_link_width", "16")
    assert run() == PASSED
    function.write("current_link_width", "8")
    assert run() == Result(Outcome.FAILED, f"the link of {A} is x8, expected at least x16 as at the first run")


WIDTH_ERROR = Result(Outcome.ERROR, f"/sys/bus/pci/devices/{A}/current_link_width cannot be read")


def test_width_of_thousands_of_digits_is_an_error(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, AT_START)
    assert run() == PASSED
    function.write("current_link_width", "1" * 5000)
    assert run() == WIDTH_ERROR


def test_unreadable_width_is_an_error_if_a_width_is_required(tmp_path: Path, function: Function) -> None:
    (function.location / "current_link_width").unlink()
    run = Probe(tmp_path, EIGHT)
    assert run() == WIDTH_ERROR
    function.write("current_link_width", "Unknown")
    assert run() == WIDTH_ERROR
    function.write("current_link_width", "8")
    assert run() == PASSED


@pytest.mark.parametrize("text", [None, "Unknown"])
def test_function_without_a_width_at_the_first_run_has_no_width_to_keep(
    tmp_path: Path, function: Function, text: str | None
) -> None:
    (function.location / "current_link_width").unlink()
    if text is not None:
        function.write("current_link_width", text)
    run = Probe(tmp_path, AT_START)
    assert run() == PASSED
    assert run() == PASSED
    # A width that appears later is kept from then on.
    function.write("current_link_width", "8")
    assert run() == PASSED
    function.write("current_link_width", "4")
    assert run() == Result(Outcome.FAILED, f"the link of {A} is x4, expected at least x8 as at the first run")


def test_width_that_disappears_is_an_error(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, AT_START)
    assert run() == PASSED
    (function.location / "current_link_width").unlink()
    assert run() == WIDTH_ERROR


def test_unreadable_configuration_space_is_an_error_unless_driver_is_lost(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, ANY)
    assert run() == PASSED
    (function.location / "config").unlink()
    (function.location / "config").mkdir()
    why = f"/sys/bus/pci/devices/{A}/config cannot be read: {os.strerror(errno.EISDIR)}"
    assert run() == Result(Outcome.ERROR, why)
    function.bind_driver("")
    assert run() == Result(Outcome.FAILED, f"{A} has no driver, expected driver 'nvidia' as at the first run")


def test_suspended_function_passes_while_it_keeps_its_driver(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, AT_START)
    assert run() == PASSED
    function.suspend()
    function.set_config(DEAD)
    function.write("current_link_width", "63")
    assert run() == PASSED
    function.bind_driver("")
    assert run().outcome is Outcome.FAILED


def test_function_suspended_at_first_run_gets_initial_width_when_resumed(tmp_path: Path, function: Function) -> None:
    function.suspend()
    run = Probe(tmp_path, AT_START)
    assert run() == PASSED
    function.resume()
    assert run() == PASSED
    function.write("current_link_width", "8")
    assert run() == Result(Outcome.FAILED, f"the link of {A} is x8, expected at least x16 as at the first run")


@pytest.mark.parametrize(
    ("check", "suspended", "untouched"),
    [
        (EIGHT, True, ("config", "current_link_width", "current_link_speed")),
        (ANY, False, ("current_link_width", "current_link_speed", "max_link_width")),
        (EIGHT, False, ("current_link_speed", "max_link_speed")),
    ],
)
def test_files_that_resume_a_function_or_are_not_needed_are_not_read(
    tmp_path: Path, function: Function, check: PciCheck, *, suspended: bool, untouched: tuple[str, ...]
) -> None:
    function.set_power(suspended=suspended)
    reads: set[str] = set()
    reader = CachedFileReader(Host(tmp_path, recorder=lambda _, path: reads.add(path.rpartition("/")[2])))
    pci.run(pci.make_request(check, make_device({"pci.address": (A,)})), reader, 1)
    assert "runtime_status" in reads
    assert reads.isdisjoint(untouched)


def test_failure_of_one_function_precedes_error_of_another(tmp_path: Path, function: Function) -> None:
    other = Function(tmp_path, B)
    run = Probe(tmp_path, ANY, A, B)
    assert run() == PASSED
    (function.location / "config").unlink()
    (function.location / "config").mkdir()
    assert run().outcome is Outcome.ERROR
    other.bind_driver("vfio-pci")
    assert run() == Result(Outcome.FAILED, f"{B} has driver 'vfio-pci', expected driver 'nvidia' as at the first run")
    function.link.unlink()
    assert run() == Result(Outcome.FAILED, f"{A} is no longer on the PCI bus")


def test_each_function_has_its_own_initial_width(tmp_path: Path, function: Function) -> None:
    Function(tmp_path, B, driver="snd_hda_intel", width="1")
    run = Probe(tmp_path, AT_START, A, B)
    assert run() == run() == PASSED
    function.write("current_link_width", "1")
    assert run().outcome is Outcome.FAILED


def test_address_option_replaces_address_of_device(tmp_path: Path, function: Function) -> None:
    check = PciCheck(address=t("${sriov.pf}"))
    assert pci.make_request(check, make_device({"pci.address": ("0000:3b:02.1",), "sriov.pf": (A,)})) == ("pci", "", A)
    assert pci.make_request(check, make_device({"sriov.pf": (A,)})) == ("pci", "", A)
    function.set_config(DEAD)
    answer = pci.run(pci.make_request(check, make_device({"sriov.pf": (A,)})), CachedFileReader(Host(tmp_path)), 1)
    assert pci.evaluate(check, answer, None, 0)[0] == Result(Outcome.FAILED, DOES_NOT_ANSWER)


@pytest.mark.parametrize(("check", "lacking"), [(ANY, "pci.address"), (PciCheck(address=t("${sriov.pf}")), "sriov.pf")])
def test_device_without_address_cannot_be_bound(check: PciCheck, lacking: str) -> None:
    with pytest.raises(MissingAttributeError) as caught:
        pci.make_request(check, make_device({"name": ("x",)}))
    assert caught.value.name == lacking


def captured(name: str, root: Path) -> tuple[str, ...]:
    """Extract a machine; return the addresses of its functions."""
    extract_sysroot(name, root)
    devices = root / "sys/bus/pci/devices"
    return tuple(sorted(entry.name for entry in devices.iterdir() if (entry / "vendor").exists()))


def test_every_function_of_a_real_machine_passes(tmp_path: Path) -> None:
    addresses = captured("pmem-dax-xeon", tmp_path)
    assert len(addresses) > 100
    run = Probe(tmp_path, ANY, *addresses)
    assert run() == run() == PASSED


def test_narrowed_link_of_a_real_machine_fails(tmp_path: Path) -> None:
    captured("infiniband-amdgpu", tmp_path)
    # A bridge and the disk below it have four lanes.
    addresses = ("0000:00:02.1", "0000:01:00.0")
    run = Probe(tmp_path, AT_START, *addresses)
    assert run() == PASSED
    disk = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    (disk / "current_link_width").unlink()
    (disk / "current_link_width").write_text("1\n")
    assert run() == Result(Outcome.FAILED, "the link of 0000:01:00.0 is x1, expected at least x4 as at the first run")
    assert Probe(tmp_path, EIGHT, *addresses)() == Result(
        Outcome.FAILED, "the link of 0000:00:02.1 is x4, expected at least x8"
    )


def test_captured_function_without_configuration_space_passes(tmp_path: Path) -> None:
    captured("pci-nvidia-p100", tmp_path)
    run = Probe(tmp_path, AT_START, "0000:06:00.0")
    assert run() == PASSED
    (tmp_path / "sys/bus/pci/devices/0000:06:00.0").unlink()
    assert run() == Result(Outcome.FAILED, "0000:06:00.0 is no longer on the PCI bus")


def test_width_is_checked_without_a_configuration_space(tmp_path: Path, function: Function) -> None:
    (function.location / "config").unlink()
    run = Probe(tmp_path, AT_START)
    assert run() == PASSED
    function.write("current_link_width", "4")
    assert run() == Result(Outcome.FAILED, f"the link of {A} is x4, expected at least x16 as at the first run")


def test_suspended_width_is_neither_read_nor_remembered(tmp_path: Path, function: Function) -> None:
    run = Probe(tmp_path, AT_START)
    for suspended, width in ((True, "63"), (False, "16"), (True, "63")):
        function.set_power(suspended=suspended)
        function.write("current_link_width", width)
        assert run() == PASSED
    function.resume()
    function.write("current_link_width", "8")
    assert run() == Result(Outcome.FAILED, f"the link of {A} is x8, expected at least x16 as at the first run")
