"""``exec``: a program exits with status 0.

It runs without a shell, in its own process group, which is killed when the program ends or at its timeout.

A request is ``("exec", path, argument, ...)``.
Its answer is the exit status of the program (negative: the signal that killed it) and the last line of its output.
"""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TypeAlias

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Denial, Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.policy import Policy
from genplug.spec.privileges import NeedKind, ProbeNeed
from genplug.spec.probes import Check
from genplug.spec.template import Template

Answer: TypeAlias = tuple[int, str]
WORKER_VARIABLES = ("PYTHONPATH", "MALLOC_ARENA_MAX")
"""Environment variables of a worker that the program does not get."""
_MAX_OUTPUT_BYTES = 4096
"""Output that is kept. The end of the output is kept, because it contains the error."""
_PIPE_BYTES = 1 << 16
"""Capacity of a pipe (pipe(7))."""
_MAX_SHOWN_CHARACTERS = 200
_KILL_SECONDS = 1.0
"""Time for which a killed program is waited for."""


class ExecCheck(Check, frozen=True):
    """``command`` is the path of the program and its arguments."""

    command: tuple[Template, ...]


def decode(options: OptionsDecoder) -> ExecCheck | None:
    """Return the check that the options describe, or None if there is no program."""
    command = options.command("command")
    return ExecCheck(command) if command else None


def make_request(check: ExecCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that an argument needs.
    """
    return ("exec", *(argument.render(device.attributes) for argument in check.command))


def run(request: ProbeRequest, _reader: CachedFileReader, timeout: float) -> Answer:
    """Run the program; runs in a worker.

    Raises:
        OSError: the program cannot be started.
        TimeoutError: the program took longer than ``timeout`` seconds.
    """
    process = subprocess.Popen(  # noqa: S603 - the policy allows the program; there is no shell
        request[1:],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # In the session of the worker: what is left in it is killed when the worker ends.
        process_group=0,
        env={name: value for name, value in os.environ.items() if name not in WORKER_VARIABLES},
    )
    try:
        output, has_ended = _wait(process, time.monotonic() + timeout)
    finally:
        # Kill the whole process group. Its ID cannot be reused before the program is waited for.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
    lines = output.decode(errors="replace").strip().splitlines()
    last_line = lines[-1].strip()[-_MAX_SHOWN_CHARACTERS:] if lines else ""
    if not has_ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_SECONDS)
        raise TimeoutError(f"{request[1]} took longer than {timeout:g} s{_suffix(last_line)}")
    return process.wait(), last_line


def evaluate(check: ExecCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return the result of the exit status. Pure."""
    status, last_line = answer
    if status == 0:
        return Result(Outcome.PASSED), None
    how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    return Result(Outcome.FAILED, f"{check.command[0].text} {how}{_suffix(last_line)}"), None


def _suffix(last_line: str) -> str:
    return f": {last_line}" if last_line else ""


def _wait(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, bool]:
    """Return the last output of a program, and whether it ended before the deadline (monotonic seconds)."""
    output = bytearray()
    if process.stdout is None:
        return bytes(output), True
    pipe, end = process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(pipe, False)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(end, select.POLLIN)
    try:
        while (remaining := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(remaining * 1000)}
            if pipe in ready and not _read_output(pipe, output):
                poll.unregister(pipe)
            if end in ready:
                # Read the rest of the pipe, but do not wait for children that still write to it.
                for _ in range(_PIPE_BYTES // _MAX_OUTPUT_BYTES):
                    _read_output(pipe, output)
                return bytes(output), True
    finally:
        os.close(end)
    return bytes(output), False


def _read_output(pipe: int, output: bytearray) -> bool:
    """Move the content of a pipe to the output; return whether there was any."""
    try:
        part = os.read(pipe, _MAX_OUTPUT_BYTES)
    except BlockingIOError:
        return False
    output += part
    del output[:-_MAX_OUTPUT_BYTES]
    return bool(part)


def _denial(check: ExecCheck, policy: Policy) -> Denial | None:
    program = check.command[0].text
    reason = policy.exec_error(program)
    return Denial(f"running {program!r} is {reason}", "command") if reason else None


def _needs(check: ExecCheck) -> tuple[ProbeNeed, ...]:
    program = check.command[0].text
    return (ProbeNeed(NeedKind.PROGRAM, f"runs the program {program} in the container of the agent", program),)


KIND = ProbeKind(
    "exec", ExecCheck, decode, Polling(make_request, run, evaluate, Effect.CALL), denial=_denial, needs=_needs
)
