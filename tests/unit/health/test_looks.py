"""What probes look at, through what a worker does: paths made of values, and functions that sleep."""

from pathlib import Path

from genplug.hardware.host import Host
from genplug.health.probes import file, pci
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import FileCheck, OnMissing, PciCheck, ValueCheck
from genplug.spec.template import Template

t = Template.parse
WELL = Result(Outcome.PASSED)
ADDRESS = "0000:3b:00.0"


def write(root: Path, path: str, text: str) -> None:
    location = root / path.lstrip("/")
    location.parent.mkdir(parents=True, exist_ok=True)
    location.write_text(text)


def test_a_value_stands_for_itself_in_a_path(tmp_path: Path) -> None:
    write(tmp_path, "/sys/a[1]/state", "ok")
    write(tmp_path, "/sys/a1/state", "bad")
    for path in ("/sys/${name}/state", "/sys/${name}/sta*"):
        check = FileCheck(t(path), expected=ValueCheck(equals="ok"), missing=OnMissing.FAIL)
        answer, error = run_request(file.make_request(check, {"name": ("a[1]",)}), CachedFileReader(Host(tmp_path)), 10)
        assert (file.evaluate(check, answer, None, 0)[0], error) == (WELL, "")


def test_the_width_of_a_function_that_sleeps_is_neither_read_nor_remembered(tmp_path: Path) -> None:
    check = PciCheck(keep_initial_width=True)
    question: ProbeRequest = pci.make_request(check, {"pci.address": (ADDRESS,)})
    directory = f"/sys/bus/pci/devices/{ADDRESS}"
    memory: pci.Memory | None = None
    expected = f"the link of {ADDRESS} is x8, wanted at least x16 as at the first look"
    for status, width, result in (
        ("suspended", "63", WELL),
        ("active", "16", WELL),
        ("suspended", "63", WELL),
        ("active", "8", Result(Outcome.FAILED, expected)),
    ):
        write(tmp_path, f"{directory}/config", "head")
        write(tmp_path, f"{directory}/power/runtime_status", status)
        write(tmp_path, f"{directory}/current_link_width", width)
        answer, _ = run_request(question, CachedFileReader(Host(tmp_path)), 10)
        found, memory = pci.evaluate(check, answer, memory, 0)
        assert found == result
