"""The fuzzing tool: which inputs are findings, and what it keeps of them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.inputs import limit_size
from tests.fuzz.record import build_record, format_number, format_record, write_record
from tests.fuzz.state import State, Statistics
from tests.fuzz.target import Failure, Target, try_input
from tests.fuzz.test_short_runs import ROOT

_SCRIPT = """
import sys
from pathlib import Path
from tests.fuzz.runner import Limits, fuzz
from tests.fuzz.state import State
from tests.fuzz.test_tool import build_target

fuzz(build_target(), State.open(Path(sys.argv[1])), Limits(inputs=2000, seed=1))
"""


def read_number(content: bytes) -> None:
    """Raise the documented ValueError for most inputs, and fail for one kind of them."""
    if content.startswith(b"bug"):
        raise KeyError("bug")
    int(content)


def spin(_: bytes) -> None:
    """Use a tenth of a second of processor time."""
    started = time.process_time()
    while time.process_time() < started + 0.1:
        pass


def build_target() -> Target:
    return Target("number", "numbers", read_number, lambda: [b"1"], allowed=(ValueError,), words=("bug",), max_bytes=16)


def test_documented_error_is_allowed() -> None:
    assert try_input(build_target(), b"x") is None


def test_other_error_is_a_finding_with_its_place() -> None:
    failure = try_input(build_target(), b"bug")
    assert failure is not None
    assert failure.summary == "KeyError: 'bug'"
    assert "test_tool.py" in failure.signature
    assert "Traceback" in failure.trace


def test_input_that_uses_too_much_time_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.target.MAX_SECONDS", 0.05)
    failure = try_input(Target("spin", "spin", spin, lambda: [b""]), b"")
    assert failure is not None
    assert failure.signature == "hang"


def test_smallest_input_of_a_finding_is_kept_until_it_is_fixed(tmp_path: Path) -> None:
    state, target = State.open(tmp_path), build_target()
    for content in (b"bug 12", b"bug", b"bug 3"):
        failure = try_input(target, content)
        assert failure is not None
        state.add_finding(target, content, failure)
    [(path, summary)] = state.list_findings(target).items()
    assert (Path(path).read_bytes(), summary) == (b"bug", "KeyError: 'bug'")
    state.recheck_findings(target)
    assert len(state.list_findings(target)) == 1
    Path(path).write_bytes(b"fixed")
    state.recheck_findings(target)
    assert not state.list_findings(target)


def test_record_has_the_sums_of_all_runs(tmp_path: Path) -> None:
    target = build_target()
    for seconds in (30.0, 90.0):
        State.open(tmp_path).add(target, Statistics(600_000, seconds, 5, 7, "2026-11-28"))
    state = State.open(tmp_path)
    state.add_finding(target, b"x", Failure("x", "x", "x"))
    record = build_record([target], state)
    assert record["rows"][0] == ("numbers", "1 200 000", "2", "10 000", "5", "0", "1")
    assert record["rows"][-1] == ("all", "1 200 000", "2", "10 000", "", "0", "1")
    assert all(len(row) == len(record["columns"]) for row in record["rows"])
    heading, row, total = format_record(record).splitlines()
    assert heading.split() == [
        "Target",
        "Inputs",
        "Minutes",
        "Inputs/s",
        "Edges",
        "Findings",
        "fixed",
        "Findings",
        "open",
    ]
    assert row.startswith("numbers  1 200 000")
    assert len(heading) == len(row) == len(total)


def test_record_keeps_the_figures_of_targets_without_a_run(tmp_path: Path) -> None:
    number, spinner, new = build_target(), Target("spin", "spin", spin, lambda: [b""]), Target("new", "new", spin, list)
    recorded = State.open(tmp_path / "recorded")
    for target, speed in ((number, 2000), (spinner, 1)):
        recorded.add(target, Statistics(speed * 90, 90.0, 5, 7, "2026-11-28"))
    path = tmp_path / "record.json"
    write_record(path, build_record([number, spinner], recorded))
    state = State.open(tmp_path / "state")
    state.add(spinner, Statistics(600, 60.0, 6, 8, "2026-11-29"))
    record = build_record([number, spinner, new], state, path)
    assert record["rows"] == [
        ("numbers", "180 000", "2", "2 000", "5", "0", "0"),
        ("spin", "600", "1", "10", "6", "0", "0"),
        ("new", "0", "0", "0", "0", "0", "0"),
        ("all", "180 600", "2", "1 204", "", "0", "0"),
    ]
    assert build_record([new], state, tmp_path / "missing")["rows"][0] == ("new", "0", "0", "0", "0", "0", "0")


def test_numbers_have_groups_of_three_digits() -> None:
    assert [format_number(number) for number in (0, 999, 1234567)] == ["0", "999", "1 234 567"]


def test_corpus_is_limited_to_its_smallest_inputs() -> None:
    inputs = [bytes([number]) * 10 for number in range(200)]
    assert 0 < len(limit_size(inputs)) < len(inputs)


@pytest.mark.fuzzer
def test_fuzzer_finds_an_error_and_continues(tmp_path: Path) -> None:
    subprocess.run((sys.executable, "-c", _SCRIPT, str(tmp_path)), cwd=ROOT, check=True)
    state = State.open(tmp_path)
    assert list(state.list_findings(build_target()).values()) == ["KeyError: 'bug'"]
    assert state.statistics["number"].inputs >= 2000
