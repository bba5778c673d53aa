"""What probes look at, through what a worker does: paths made of values, and functions that sleep."""

from pathlib import Path

from genplug.hardware.host import Host
from genplug.health.probes import file, pci
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import Eyes
from genplug.health.workers.main import answered
from genplug.health.workers.protocol import Ask
from genplug.spec.probes import FileCheck, Missing, PciCheck, Wanted
from genplug.spec.template import Template

t = Template.parse
WELL = Result(Outcome.PASSED)
ADDRESS = "0000:3b:00.0"


def write(root: Path, path: str, text: str) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_a_value_stands_for_itself_in_a_path(tmp_path: Path) -> None:
    write(tmp_path, "/sys/a[1]/state", "ok")
    write(tmp_path, "/sys/a1/state", "bad")
    for path in ("/sys/${name}/state", "/sys/${name}/sta*"):
        check = FileCheck(t(path), wanted=Wanted(equals="ok"), missing=Missing.FAIL)
        answer, error = answered(file.ask(check, {"name": ("a[1]",)}), Eyes(Host(tmp_path)), 10)
        assert (file.judged(check, answer, None, 0)[0], error) == (WELL, "")


def test_the_width_of_a_function_that_sleeps_is_neither_read_nor_remembered(tmp_path: Path) -> None:
    check = PciCheck(keeps_width=True)
    question: Ask = pci.ask(check, {"pci.address": (ADDRESS,)})
    folder = f"/sys/bus/pci/devices/{ADDRESS}"
    memory: pci.Memory | None = None
    expected = f"the link of {ADDRESS} is x8, wanted at least x16 as at the first look"
    for status, width, result in (
        ("suspended", "63", WELL),
        ("active", "16", WELL),
        ("suspended", "63", WELL),
        ("active", "8", Result(Outcome.FAILED, expected)),
    ):
        write(tmp_path, f"{folder}/config", "head")
        write(tmp_path, f"{folder}/power/runtime_status", status)
        write(tmp_path, f"{folder}/current_link_width", width)
        answer, _ = answered(question, Eyes(Host(tmp_path)), 10)
        found, memory = pci.judged(check, answer, memory, 0)
        assert found == result
