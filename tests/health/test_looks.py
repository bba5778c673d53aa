"""What each kind of probe sees on a real file system, of real nodes, programs and sockets, and what it makes of it."""

import asyncio
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from genplug.config.place import Place
from genplug.config.probes import (
    Check,
    Counter,
    ExecCheck,
    FileCheck,
    HttpCheck,
    Missing,
    OpenCheck,
    PciCheck,
    ProbeSpec,
    UnixSocketCheck,
    Wanted,
)
from genplug.config.template import Template
from genplug.hardware.host import Host
from genplug.health.asks import Reply
from genplug.health.bound import Bound
from genplug.health.eyes import Eyes
from genplug.health.probes import exec as exec_probe
from genplug.health.probes import file, http, open, pci, unix_socket  # noqa: A004 - the kinds are called so
from genplug.health.standing import Outcome, Result
from genplug.health.verdict import Key
from genplug.health.worker import answered

WELL = Result(Outcome.PASSED)
t = Template.parse


class Looking:
    """A probe that looks again and again, as in a worker, and remembers as the monitor does."""

    def __init__(self, root: Path, check: Check, question: tuple[str, ...]) -> None:
        self.eyes = Eyes(Host(root))
        self.bound = Bound(Key("a.io/x", "x0"), _spec(check), ask=question)
        self.memory: Any = None
        self.now = 0.0

    def __call__(self, after: float = 10, timeout: float = 10) -> Result:
        self.now += after
        self.eyes.begin()
        answer, error = answered(self.bound.ask or (), self.eyes, timeout)
        result, self.memory = self.bound.judged(Reply(answer, error), self.memory, self.now)
        return result


def _spec(check: Check) -> ProbeSpec:
    return ProbeSpec(Place("c.yaml", 1, 1), "probe", check)


def write(root: Path, path: str, text: str) -> Path:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def reading(root: Path, check: FileCheck, **values: tuple[str, ...]) -> Looking:
    return Looking(root, check, file.ask(check, values))


@pytest.mark.parametrize(
    ("text", "wanted", "said"),
    [
        ("operating\n", Wanted(equals="operating"), ""),
        ("write error\n", Wanted(equals="operating"), "is 'write error', wanted 'operating'"),
        ("0x10\n", Wanted(equals="16"), ""),
        ("Yes\n", Wanted(not_equals="Yes"), "is 'Yes', which it must not be"),
        ("1: DOWN\n", Wanted(matches="ACTIVE"), "is '1: DOWN', wanted what matches 'ACTIVE'"),
        ("4: ACTIVE\n", Wanted(matches="ACTIVE"), ""),
        # The kernel says so when notification is on (hardware.md 1.9).
        ("smart_notify\n", Wanted(not_matches=r"\b(save_fail|not_armed)\b"), ""),
        (
            "not_armed smart_notify\n",
            Wanted(not_matches=r"\b(save_fail|not_armed)\b"),
            r"is 'not_armed smart_notify', wanted nothing that matches '\b(save_fail|not_armed)\b'",
        ),
        ("94000\n", Wanted(minimum=(0, "0"), maximum=(95000, "95000")), ""),
        ("96000\n", Wanted(maximum=(95000, "95000")), "is '96000', wanted at most 95000"),
        ("63\n", Wanted(minimum=(64, "64")), "is '63', wanted at least 64"),
        ("0x6\n", Wanted(bits_clear=0x9), ""),
        ("0x6\n", Wanted(bits_clear=0x4), "is '0x6', wanted the bits 0x4 in it clear"),
        ("", Wanted(equals=""), ""),
    ],
)
def test_a_files_text_is_compared(tmp_path: Path, text: str, wanted: Wanted, said: str) -> None:
    write(tmp_path, "/sys/x", text)
    result = reading(tmp_path, FileCheck(t("/sys/x"), wanted=wanted))()
    assert result == (Result(Outcome.FAILED, f"/sys/x {said}") if said else WELL)


def test_what_is_found_in_a_text_is_judged_and_what_is_not_found_is_an_error(tmp_path: Path) -> None:
    place = write(tmp_path, "/sys/ras", "ue: 0\nce: 7\n")
    look = reading(tmp_path, FileCheck(t("/sys/ras"), r"ue: (?P<value>\d+)", Wanted(equals="0")))
    assert look() == WELL
    place.write_text("ue: 1\nce: 7\n")
    assert look() == Result(Outcome.FAILED, "/sys/ras is '1', wanted '0'")
    place.write_text("Query currently inaccessible\n")
    assert look() == Result(Outcome.ERROR, r"/sys/ras: nothing in it matches 'ue: (?P<value>\d+)'")
    place.write_text("ue: 0\n")
    assert look() == WELL


def test_what_is_no_number_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "/sys/x", "N/A")
    look = reading(tmp_path, FileCheck(t("/sys/x"), wanted=Wanted(maximum=(1, "1"))))
    assert look() == Result(Outcome.ERROR, "/sys/x is 'N/A', which is no number")


@pytest.mark.parametrize(
    ("missing", "outcome"),
    [(Missing.ERROR, Outcome.ERROR), (Missing.FAIL, Outcome.FAILED), (Missing.OK, Outcome.PASSED)],
)
def test_a_file_that_is_not_there_means_what_is_written(tmp_path: Path, missing: Missing, outcome: Outcome) -> None:
    for path in ("/sys/none", "/sys/none*/x"):
        result = reading(tmp_path, FileCheck(t(path), missing=missing))()
        assert result == Result(outcome, "" if outcome is Outcome.PASSED else f"{path} is not there")


@pytest.mark.parametrize(("needs_all", "outcome"), [(True, Outcome.FAILED), (False, Outcome.PASSED)])
def test_of_several_files_all_have_to_be_well_or_any(tmp_path: Path, *, needs_all: bool, outcome: Outcome) -> None:
    write(tmp_path, "/sys/ports/1/state", "4: ACTIVE")
    second = write(tmp_path, "/sys/ports/2/state", "1: DOWN")
    check = FileCheck(t("/sys/ports/*/state"), wanted=Wanted(matches="ACTIVE"), needs_all=needs_all)
    look = reading(tmp_path, check)
    assert look().outcome is outcome
    second.write_text("4: ACTIVE")
    assert look() == WELL
    for port in (1, 2):
        write(tmp_path, f"/sys/ports/{port}/state", "1: DOWN")
    assert look() == Result(Outcome.FAILED, "/sys/ports/1/state is '1: DOWN', wanted what matches 'ACTIVE'")


def test_every_value_of_an_attribute_is_looked_at(tmp_path: Path) -> None:
    for number, flags in enumerate(("", "save_fail")):
        write(tmp_path, f"/sys/nmem{number}/flags", flags)
    look = reading(tmp_path, FileCheck(t("/sys/${dimm}/flags"), wanted=Wanted(equals="")), dimm=("nmem0", "nmem1"))
    assert look() == Result(Outcome.FAILED, "/sys/nmem1/flags is 'save_fail', wanted ''")


def test_a_value_stands_for_itself_in_a_path(tmp_path: Path) -> None:
    write(tmp_path, "/sys/a[1]/state", "ok")
    write(tmp_path, "/sys/a1/state", "bad")
    for path in ("/sys/${name}/state", "/sys/${name}/sta*"):
        look = reading(tmp_path, FileCheck(t(path), wanted=Wanted(equals="ok"), missing=Missing.FAIL), name=("a[1]",))
        assert look() == WELL


@pytest.mark.root
def test_devices_and_folders_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mknod(tmp_path / "node", 0o020600, os.makedev(1, 3))
    for path, number in (("/folder", errno.EISDIR), ("/node", errno.ENXIO)):
        said = f"{path} cannot be read: {os.strerror(number)}"
        assert reading(tmp_path, FileCheck(t(path)))() == Result(Outcome.ERROR, said)


def test_a_file_that_is_behind_another_link_by_now_is_found(tmp_path: Path) -> None:
    write(tmp_path, "/sys/devices/a/state", "ok")
    link = tmp_path / "sys" / "x"
    link.symlink_to("devices/a")
    look = reading(tmp_path, FileCheck(t("/sys/x/state"), wanted=Wanted(equals="ok")))
    assert look() == WELL
    (tmp_path / "sys/devices/a").rename(tmp_path / "sys/devices/b")
    write(tmp_path, "/sys/devices/b/state", "bad")
    link.unlink()
    link.symlink_to("devices/b")
    assert look().outcome is Outcome.FAILED


def test_a_link_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    write(tmp_path, "/outside", "secret")
    (tmp_path / "root/sys").mkdir(parents=True)
    (tmp_path / "root/sys/x").symlink_to("../../outside")
    assert reading(tmp_path / "root", FileCheck(t("/sys/x")))().outcome is Outcome.ERROR


@pytest.mark.root
def test_an_interface_that_is_down_has_no_carrier() -> None:
    name = f"gp{os.getpid() % 100000}"
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tap"], check=True)
    try:
        carrier = f"/sys/class/net/{name}/carrier"
        with pytest.raises(OSError, match="Invalid argument"):
            Path(carrier).read_text()
        look = reading(Path("/"), FileCheck(t(carrier), wanted=Wanted(equals="1")))
        assert look() == Result(Outcome.FAILED, f"{carrier} is '0', wanted '1'")
    finally:
        subprocess.run(["ip", "tuntap", "del", name, "mode", "tap"], check=True)


FATAL = FileCheck(t("/sys/aer"), r"TOTAL_ERR_FATAL (?P<value>\d+)", counter=Counter(0, 3600))


def test_errors_are_judged_by_what_came_and_not_by_what_was_there(tmp_path: Path) -> None:
    place = write(tmp_path, "/sys/aer", "TLP 0\nTOTAL_ERR_FATAL 5\n")
    look = reading(tmp_path, FATAL)
    assert look() == look() == WELL
    place.write_text("TLP 1\nTOTAL_ERR_FATAL 6\n")
    fault = Result(Outcome.FAILED, "/sys/aer is 6, 1 more within 3600 s, wanted at most 0 more")
    assert look() == look(3000) == fault
    assert look(601) == WELL


def test_a_counter_that_begins_anew_has_not_fallen_and_counts_on(tmp_path: Path) -> None:
    place = write(tmp_path, "/sys/aer", "TOTAL_ERR_FATAL 5\n")
    look = reading(tmp_path, FATAL)
    assert look() == WELL
    place.write_text("TOTAL_ERR_FATAL 0\n")
    assert look() == WELL
    place.write_text("TOTAL_ERR_FATAL 2\n")
    assert look() == Result(Outcome.FAILED, "/sys/aer is 2, 2 more within 3600 s, wanted at most 0 more")


def test_counters_are_remembered_while_they_cannot_be_read(tmp_path: Path) -> None:
    place = write(tmp_path, "/sys/aer", "TOTAL_ERR_FATAL 5\n")
    look = reading(tmp_path, FATAL)
    assert look() == WELL
    place.unlink()
    assert look().outcome is Outcome.ERROR
    write(tmp_path, "/sys/aer", "TOTAL_ERR_FATAL 6\n")
    assert look().outcome is Outcome.FAILED


def test_a_few_may_come_and_each_file_counts_for_itself(tmp_path: Path) -> None:
    places = [write(tmp_path, f"/sys/{port}/downed", "9") for port in (1, 2)]
    look = reading(tmp_path, FileCheck(t("/sys/*/downed"), counter=Counter(2, 100)))
    assert look() == WELL
    for place in places:
        place.write_text("11")
    assert look() == WELL
    places[1].write_text("12")
    assert look() == Result(Outcome.FAILED, "/sys/2/downed is 12, 3 more within 100 s, wanted at most 2 more")


ADDRESS = "0000:3b:00.0"


@pytest.fixture
def function(tmp_path: Path) -> Path:
    """A PCI function as the kernel shows it."""
    place = tmp_path / "sys/devices/pci0000:3a" / ADDRESS
    for name, content in (("config", b"\xde\x10\x82\x20" * 16), ("current_link_width", b"16\n")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    for driver in ("nvidia", "vfio-pci"):
        (tmp_path / "sys/bus/pci/drivers" / driver).mkdir(parents=True)
    (place / "driver").symlink_to("../../../bus/pci/drivers/nvidia")
    (tmp_path / "sys/bus/pci/devices").mkdir()
    (tmp_path / "sys/bus/pci/devices" / ADDRESS).symlink_to(f"../../../devices/pci0000:3a/{ADDRESS}")
    return place


def function_look(root: Path, check: PciCheck) -> Looking:
    return Looking(root, check, pci.ask(check, {"pci.address": (ADDRESS,)}))


def test_a_function_that_leaves_the_bus_or_does_not_answer(tmp_path: Path, function: Path) -> None:
    look = function_look(tmp_path, PciCheck())
    assert look() == WELL
    (function / "config").write_bytes(b"\xff" * 256)
    assert look() == Result(
        Outcome.FAILED,
        f"{ADDRESS} does not answer: its configuration space reads as ones only, it has fallen off the bus",
    )
    # One that sleeps is not woken to be asked.
    write(function, "power/runtime_status", "suspended\n")
    assert look() == WELL
    write(function, "current_link_width", "63\n")
    assert function_look(tmp_path, PciCheck(keeps_width=True))() == WELL
    write(function, "power/runtime_status", "active\n")
    # A virtual function has ones for its vendor and device, and not for the rest.
    (function / "config").write_bytes(b"\xff" * 4 + b"\x06\x04\x10\x00" * 15)
    assert look() == WELL
    (tmp_path / "sys/bus/pci/devices" / ADDRESS).unlink()
    assert look() == Result(Outcome.FAILED, f"{ADDRESS} is not on the PCI bus any more")


def test_a_function_keeps_the_driver_that_it_had(tmp_path: Path, function: Path) -> None:
    look = function_look(tmp_path, PciCheck())
    assert look() == WELL
    (function / "driver").unlink()
    assert look() == Result(Outcome.FAILED, f"{ADDRESS} has no driver, wanted driver 'nvidia' as at the first look")
    (function / "driver").symlink_to("../../../bus/pci/drivers/vfio-pci")
    said = f"{ADDRESS} has driver 'vfio-pci', wanted driver 'nvidia' as at the first look"
    assert look() == Result(Outcome.FAILED, said)
    (function / "driver").unlink()
    (function / "driver").symlink_to("../../../bus/pci/drivers/nvidia")
    assert look() == WELL


@pytest.mark.parametrize(
    ("check", "width", "said"),
    [
        (PciCheck(), "1", ""),
        (PciCheck(min_width=8), "8", ""),
        (PciCheck(min_width=8), "4", f"the link of {ADDRESS} is x4, wanted at least x8"),
        (PciCheck(keeps_width=True), "8", f"the link of {ADDRESS} is x8, wanted at least x16 as at the first look"),
        (PciCheck(min_width=8), "63", f"{ADDRESS} does not answer: its link reads as ones only"),
    ],
)
def test_a_link_keeps_its_lanes(tmp_path: Path, function: Path, check: PciCheck, width: str, said: str) -> None:
    look = function_look(tmp_path, check)
    assert look() == WELL
    write(function, "current_link_width", width)
    # To save power it is slower while nothing is to be done.
    write(function, "current_link_speed", "2.5 GT/s PCIe")
    assert look() == (Result(Outcome.FAILED, said) if said else WELL)
    (function / "current_link_width").unlink()
    assert look().outcome is (Outcome.ERROR if check != PciCheck() else Outcome.PASSED)


@pytest.mark.root
def test_a_node_is_opened_if_it_still_is_that_device(tmp_path: Path) -> None:
    for name, minor in (("null", 3), ("nobody", 200)):
        os.mknod(tmp_path / name, 0o020666, os.makedev(1, minor))

    def look(path: str, numbers: str) -> Result:
        return Looking(tmp_path, OpenCheck(), ("open", "rw", path, numbers))()

    assert look("/null", "char 1:3") == WELL
    assert look("/nobody", "char 1:200") == Result(
        Outcome.FAILED, f"/nobody cannot be opened: {os.strerror(errno.ENXIO)}"
    )
    assert look("/null", "char 1:5") == Result(Outcome.ERROR, "/null is another device now")
    assert look("/gone", "char 1:5").outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (0, Outcome.PASSED),
        (errno.EBUSY, Outcome.PASSED),
        (errno.EPERM, Outcome.ERROR),
        (errno.EACCES, Outcome.ERROR),
        (errno.EIO, Outcome.FAILED),
        (errno.ENODEV, Outcome.FAILED),
    ],
)
def test_78_what_comes_of_opening_a_node(number: int, outcome: Outcome) -> None:
    result, _ = open.judged(OpenCheck(), (("/dev/x0", 0), ("/dev/x1", number)), None, 0)
    assert result.outcome is outcome
    assert ("probe not permitted" in result.reason) is (number in {errno.EPERM, errno.EACCES})


def run(tmp_path: Path, *command: str, timeout: float = 10) -> Result:
    check = ExecCheck(tuple(map(t, command)))
    return Looking(tmp_path, check, exec_probe.ask(check, {}))(timeout=timeout)


def test_a_program_ends_with_0_or_is_a_fault_with_its_last_words(tmp_path: Path) -> None:
    assert run(tmp_path, "/bin/true") == WELL
    said = run(tmp_path, "/bin/sh", "-c", "echo first; echo 'ECC: 3' >&2; exit 4")
    assert said == Result(Outcome.FAILED, "/bin/sh ended with 4: ECC: 3")
    assert run(tmp_path, "/bin/sh", "-c", "kill -SEGV $$") == Result(Outcome.FAILED, "/bin/sh was killed by signal 11")
    assert run(tmp_path, "/nosuch") == Result(Outcome.ERROR, "No such file or directory: /nosuch")


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    script = f'(exec 3>"{tmp_path}/pipe"; echo here >&3; sleep 60) & echo working; sleep 60'
    result = run(tmp_path, "/bin/sh", "-c", script, timeout=0.5)
    assert result == Result(Outcome.ERROR, "/bin/sh took longer than 0.5 s: working")
    # Who could still write holds the end back: this returns when they all are gone.
    os.set_blocking(reader, True)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "here\n"


def test_a_program_that_talks_without_end_is_kept_short(tmp_path: Path) -> None:
    result = run(tmp_path, "/bin/sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x; exit 1")
    assert result.outcome is Outcome.FAILED
    assert len(result.reason) < 300


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = int(self.path.strip("/"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def served() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def fetch(tmp_path: Path, url: str, timeout: float = 10) -> Result:
    check = HttpCheck(t(url))
    return Looking(tmp_path, check, http.ask(check, {}))(timeout=timeout)


def test_a_page_answers_with_the_status_that_is_wanted(tmp_path: Path) -> None:
    with served() as port:
        at = f"http://127.0.0.1:{port}"
        assert fetch(tmp_path, f"{at}/200") == WELL
        assert fetch(tmp_path, f"{at}/503") == Result(
            Outcome.FAILED, f"{at}/503 answers 503 Service Unavailable, wanted 200"
        )
        assert fetch(tmp_path, f"{at}/302").outcome is Outcome.FAILED
    assert fetch(tmp_path, f"{at}/200") == Result(Outcome.ERROR, f"{at}/200 does not answer: Connection refused")


def test_a_page_that_never_comes_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = fetch(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)
    assert result.outcome is Outcome.ERROR
    assert "does not answer: timed out" in result.reason


def test_somebody_listens_on_a_socket(tmp_path: Path) -> None:
    deep = "/run/" + "/".join(["long" * 10] * 4)

    def look(path: str) -> Result:
        check = UnixSocketCheck(t(path))
        return Looking(tmp_path, check, unix_socket.ask(check, {}))()

    async def listening() -> None:
        (tmp_path / deep.lstrip("/")).mkdir(parents=True)
        folder = os.open(tmp_path / deep.lstrip("/"), os.O_PATH)
        server = await asyncio.start_unix_server(lambda *_: None, f"/proc/self/fd/{folder}/s")
        async with server:
            assert await asyncio.to_thread(look, f"{deep}/s") == WELL
        os.close(folder)

    asyncio.run(listening())
    assert look("/run/none") == Result(Outcome.FAILED, "/run/none is not there")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "run/left"))
    assert look("/run/left") == Result(Outcome.FAILED, "/run/left is there, and nobody listens on it")
