"""``exec``: a program ends with 0. It runs without a shell, in a process group of its own that ends with it.

A question is ``("exec", path, argument, ...)``; its answer is how the program ended (below 0: by which signal) and its
last words.
"""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TypeAlias

from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import ExecCheck
from genplug.spec.template import Values

Answer: TypeAlias = tuple[int, str]
OF_WORKER = ("PYTHONPATH", "MALLOC_ARENA_MAX")
"""Variables that a worker is started with."""
_MAX_OUTPUT = 4096
"""Bytes of output that are kept, the last ones: the end says what went wrong."""
_PIPE = 1 << 16
"""Bytes that lie in a pipe at most (pipe(7))."""
_MAX_SAID = 200
_GONE = 1.0
"""Seconds that a killed program may take to be gone."""


def make_request(check: ExecCheck, values: Values) -> ProbeRequest:
    """Return the question for a device with these attributes.

    Raises:
        MissingAttributeError: an argument needs one that it does not have.
    """
    return ("exec", *(part.render(values) for part in check.command))


def run(question: ProbeRequest, _eyes: CachedFileReader, timeout: float) -> Answer:
    """Run the program; runs in a worker.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it took longer than ``timeout`` seconds.
    """
    process = subprocess.Popen(  # noqa: S603 - what the policy allows, without a shell
        question[1:],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # What was set for the worker is not for what it runs.
        env={name: value for name, value in os.environ.items() if name not in OF_WORKER},
    )
    try:
        output, has_ended = _followed(process, time.monotonic() + timeout)
    finally:
        # What it started goes with it. Until it is waited for, its group's number is nobody else's.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
    lines = output.decode(errors="replace").strip().splitlines()
    said = lines[-1].strip()[-_MAX_SAID:] if lines else ""
    if not has_ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GONE)
        raise TimeoutError(f"{question[1]} took longer than {timeout:g} s{f': {said}' if said else ''}")
    return process.wait(), said


def evaluate(check: ExecCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return what the program's end means. Pure."""
    status, said = answer
    if status == 0:
        return Result(Outcome.PASSED), None
    how = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
    return Result(Outcome.FAILED, f"{check.command[0].text} {how}{f': {said}' if said else ''}"), None


def _followed(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, bool]:
    """Return a program's last output, and whether it ended before the deadline (monotonic seconds)."""
    output = bytearray()
    if process.stdout is None:
        return bytes(output), True
    pipe, end = process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(pipe, False)
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    waiting.register(end, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {file for file, _ in waiting.poll(left * 1000)}
            if pipe in ready and not _read(pipe, output):
                waiting.unregister(pipe)
            if end in ready:
                # What it wrote last may still lie in the pipe; whoever else writes into it is not waited for.
                for _ in range(_PIPE // _MAX_OUTPUT):
                    _read(pipe, output)
                return bytes(output), True
    finally:
        os.close(end)
    return bytes(output), False


def _read(pipe: int, output: bytearray) -> bool:
    """Take what is in a pipe, and say whether there was anything."""
    try:
        part = os.read(pipe, _MAX_OUTPUT)
    except BlockingIOError:
        return False
    output += part
    del output[:-_MAX_OUTPUT]
    return bool(part)
