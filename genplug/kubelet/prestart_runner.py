"""Programs that run before a container starts: without a shell, in a process group of their own that ends with them."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Iterable
from contextlib import suppress

from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.results import ProgramRun

_MAX_OUTPUT = 4096
"""Bytes of output that are kept, the last ones: the end says what went wrong."""
_MAX_SAID = 300


async def run_programs(programs: Iterable[ProgramRun]) -> None:
    """Run programs side by side to their ends; when one fails, the others are ended too.

    Raises:
        Refusal: one of them failed.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in programs:
                tasks.create_task(run_program(one))
    except* AllocationError as refused:
        error = refused.exceptions[0]
        raise error from None


async def run_program(program: ProgramRun) -> None:
    """Run a program to its end.

    Raises:
        Refusal: it cannot be started, fails, or takes too long; the text names resource, device and program.
    """
    path = program.arguments[0]
    what = f"{program.resource} device {program.device} is not ready for a container: preStart ran {path}"
    try:
        process = await asyncio.create_subprocess_exec(
            *program.arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise _failed(f"{what}, which cannot be started: {error}") from None
    output = bytearray()
    try:
        async with asyncio.timeout(program.timeout):
            await _read(process, output)
            status = await process.wait()
    except TimeoutError:
        raise _failed(f"{what}, which took longer than {program.timeout:g} s{_said(output)}") from None
    finally:
        # What it started is not left behind, however it ended, and if nobody waits any more.
        _kill_group(process)
    if status:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        raise _failed(f"{what}, which {how}{_said(output)}")


async def _read(process: Process, output: bytearray) -> None:
    if process.stdout is None:
        return
    while part := await process.stdout.read(_MAX_OUTPUT):
        output += part
        del output[:-_MAX_OUTPUT]


def _kill_group(process: Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _said(output: bytes | bytearray) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[-_MAX_SAID:]}" if lines else ""


def _failed(text: str) -> AllocationError:
    return AllocationError(AllocationErrorCode.FAILED_PRECONDITION, text)
