"""The soak: random changes and faults of the node of a real agent, and the ability of the soak to fail."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genplug.testing.soak.actions import ACTIONS
from tests.support.outputs import check_output

COMMAND = (sys.executable, "-m", "genplug.testing.soak", "-o", "json")
SEED = 20_261_128

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.timeout(600)]


@contextmanager
def start_soak(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def read_report(process: subprocess.Popen[str], seconds: float) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the report, and the messages of a soak."""
    output, messages = process.communicate(timeout=seconds)
    document: dict[str, Any] = json.loads(output)
    check_output(document)
    return process.returncode, document, messages


def test_soak_of_two_minutes_passes_every_check() -> None:
    with start_soak("--minutes", "2", "--seed", str(SEED)) as process:
        code, report, messages = read_report(process, 400)
    assert (code, report["result"], report["failure"]) == (0, "passed", None), (report["failure"], messages)
    assert report["leftOut"] == []
    assert set(report["kinds"]) == set(ACTIONS)
    changes = report["settles"]["deviceChanges"]
    assert changes["count"] > 0
    assert changes["slowest"][0]["seconds"] == changes["seconds"]["max"]
    assert report["checks"]["allocations"] > 0
    assert report["footprints"]["after the warm-up"]["descriptors"] > 0


def test_soak_fails_if_a_device_disappears_without_the_knowledge_of_the_model() -> None:
    options = ("--seed", "1", "--only", "status-file", "--only", "sighup", "--sabotage", "2", "--steps", "4")
    with start_soak(*options, "--settle-seconds", "10") as process:
        code, report, messages = read_report(process, 120)
    assert (code, report["result"]) == (1, "failed"), messages
    failure = report["failure"]
    assert failure["step"] >= 2
    assert "must be listed as healthy" in failure["message"]
    assert "--seed 1" in failure["replay"]
    assert "--only status-file" in failure["replay"]
    assert "--sabotage 2" in failure["replay"]
    assert failure["steps"][-1].startswith(f"{failure['step']} ")
    assert "left out: flap (excluded by an option)" in messages


def test_signal_ends_a_soak_with_its_report_and_record(tmp_path: Path) -> None:
    record = tmp_path / "soak.json"
    with start_soak(
        "--minutes", "10", "--seed", "1", "--only", "flap", "--verbose", "--record", str(record)
    ) as process:
        assert process.stderr is not None
        while "step 2:" not in (line := process.stderr.readline()):
            assert line
        os.kill(process.pid, signal.SIGTERM)
        code, report, _ = read_report(process, 60)
    assert (code, report["result"], report["stoppedBy"]) == (0, "stopped", "SIGTERM")
    assert report["steps"]["flap"] >= 2
    assert ["Result", "stopped"] in json.loads(record.read_text())["rows"]


def test_clock_of_the_agent_jumps(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--seed", "2", "--only", "clock-jump", "--steps", "12", "--log", str(log))
    with start_soak(*options) as process:
        code, report, messages = read_report(process, 120)
    assert (code, report["result"]) == (0, "passed"), (report["failure"], messages)
    dates = {json.loads(line)["ts"][:10] for line in log.read_text().splitlines()}
    assert len(dates) > 1
