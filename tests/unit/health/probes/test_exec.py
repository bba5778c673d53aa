"""The probe ``exec``, with real programs."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

from genplug.health.probes.exec import WORKER_VARIABLES, ExecCheck
from genplug.health.thresholds import Outcome, Result
from genplug.spec.template import MissingAttributeError, Template
from tests.support.probes import PASSED, request_of, run_once

IN_TIME = 30.0
"""Seconds that a run which takes a part of a second exceeds only if it hangs."""
t = Template.parse


def run_command(*command: str, timeout: float = 10) -> Result:
    return run_once(Path("/"), ExecCheck(tuple(t(part) for part in command)), timeout=timeout)


def run_script(script: str, timeout: float = 10) -> Result:
    return run_command("/bin/sh", "-c", script, timeout=timeout)


def test_program_gets_its_arguments_verbatim() -> None:
    check = ExecCheck((t("/bin/check"), t("--device=${path}"), t("$HOME; reboot")))
    assert request_of(check, {"path": ("/dev/a b", "/dev/c")}) == (
        "exec", "/bin/check", "--device=/dev/a b,/dev/c", "$HOME; reboot",
    )  # fmt: skip
    with pytest.raises(MissingAttributeError):
        request_of(check)
    reason = run_command("/bin/sh", "-c", 'echo "$0|$1"; exit 1', "$HOME; a  b", "*")
    assert reason == Result(Outcome.FAILED, "/bin/sh exited with status 1: $HOME; a  b|*")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "/bin/sh exited with status 1"),
        ("exit 255", "/bin/sh exited with status 255"),
        ("echo only; exit 2", "/bin/sh exited with status 2: only"),
        ("echo first; printf '  last  \\n\\n\\n'; exit 2", "/bin/sh exited with status 2: last"),
        ("printf 'no end'; exit 2", "/bin/sh exited with status 2: no end"),
        ("echo to stderr >&2; exit 2", "/bin/sh exited with status 2: to stderr"),
        ("echo dying; kill -KILL $$", f"/bin/sh was killed by signal {int(signal.SIGKILL)}: dying"),
    ],
)
def test_nonzero_exit_status_fails_with_last_line_of_output(script: str, reason: str) -> None:
    assert run_script(script) == Result(Outcome.FAILED, reason)


def test_output_does_not_matter_if_exit_status_is_zero() -> None:
    assert run_script("echo fatal error; echo broken >&2") == PASSED


def test_program_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    assert run_command("/nosuch") == Result(Outcome.ERROR, "No such file or directory: /nosuch")
    location = tmp_path / "check"
    location.write_text("#!/nosuch\n")
    assert run_command(str(location)) == Result(Outcome.ERROR, f"Permission denied: {location}")
    location.chmod(0o755)
    assert run_command(str(location)).outcome is Outcome.ERROR
    location.write_bytes(b"\x7fELF, but no more than that")
    assert run_command(str(location)) == Result(Outcome.ERROR, f"Exec format error: {location}")
    assert run_command("/bin/echo", "a\0b").outcome is Outcome.ERROR


def test_program_gets_empty_input_and_no_variables_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WORKER_VARIABLES:
        monkeypatch.setenv(name, "of the worker")
    assert run_script('read line; test -z "$line" || exit 1') == PASSED
    tests = " || ".join(f'test -n "${name}"' for name in WORKER_VARIABLES)
    assert run_script(f"if {tests}; then exit 1; fi") == PASSED
    assert run_script('test -n "$PATH"') == PASSED


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "trap '' TERM INT HUP; sleep 60 & wait",
        # A program that closes its output has not ended.
        "exec >&- 2>&-; sleep 60",
        "while :; do echo again; done",
    ],
)
def test_program_is_killed_at_its_timeout(script: str) -> None:
    began = time.monotonic()
    outcome = run_script(script, timeout=0.3)
    assert outcome.outcome is Outcome.ERROR
    assert outcome.reason.startswith("/bin/sh took longer than 0.3 s")
    assert time.monotonic() - began < IN_TIME


def has_ended(process: int) -> bool:
    """Wait until a process has ended; return whether it ended in time."""
    try:
        end = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([end], [], [], IN_TIME)[0])
    finally:
        os.close(end)


@pytest.mark.parametrize("ending", ["exit 0", "exit 1", "wait"])
def test_children_of_a_program_are_killed_with_it(tmp_path: Path, ending: str) -> None:
    outcome = run_script(f"sleep 60 & echo $! > {tmp_path}/child; {ending}", timeout=0.5)
    assert outcome.outcome is {"exit 0": Outcome.PASSED, "exit 1": Outcome.FAILED, "wait": Outcome.ERROR}[ending]
    assert has_ended(int((tmp_path / "child").read_text()))


def test_child_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    # In a process group of its own, the child is not killed.
    child = f"setsid sh -c 'echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/child; exec sleep 600'"
    script = f"{child} & until [ -e {tmp_path}/child ]; do sleep 0.01; done; echo done; exit 3"
    assert run_script(script, timeout=IN_TIME) == Result(Outcome.FAILED, "/bin/sh exited with status 3: done")
    # It fails if the child has ended.
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("yes 'a b' | head -c 3000000; echo; echo the end", "the end"),
        ("head -c 3000000 /dev/zero | tr '\\0' x", "x" * 200),
        ("head -c 60000 /dev/zero | tr '\\0' '\\377'", ""),
    ],
)
def test_end_of_long_output_is_kept(script: str, end: str) -> None:
    outcome = run_script(f"{script}; exit 1")
    assert outcome.outcome is Outcome.FAILED
    assert outcome.reason.startswith("/bin/sh exited with status 1: ")
    assert outcome.reason.endswith(end)
    assert len(outcome.reason) <= len("/bin/sh exited with status 1: ") + 200
