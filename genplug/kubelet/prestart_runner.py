"""Run the programs of a resource before a container starts.

Each program runs without a shell and in a process group of its own, which is killed when the program ends.

The ``exec`` probe (:mod:`genplug.health.probes.exec`) runs programs too, but shares no code with this module: it blocks
a thread of a worker process, while this module runs on the event loop of the agent, and the layers of the two packages
do not import each other.
"""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

from genplug.allocation.errors import AllocationError, failed_precondition
from genplug.allocation.results import ProgramRun
from genplug.error_groups import unwrap_error_group

_MAX_OUTPUT_BYTES = 4096
"""Bytes of the output that are kept, the last ones, because a program prints the cause of its failure last."""
_MAX_LINE_CHARACTERS = 300
"""Characters of the last line of the output that an error contains."""


async def run_programs(programs: Iterable[ProgramRun]) -> None:
    """Run programs at the same time and wait until all have ended; when one fails, kill the others.

    Raises:
        AllocationError: a program failed.
    """
    with unwrap_error_group(AllocationError):
        async with asyncio.TaskGroup() as tasks:
            for program in programs:
                tasks.create_task(run_program(program))


async def run_program(program: ProgramRun) -> None:
    """Run a program and wait until it has ended.

    Raises:
        AllocationError: the program cannot be started, fails, or exceeds its timeout. The message names the resource,
            the device and the program, and quotes the last line of the output.
    """
    path = program.arguments[0]
    subject = f"{program.resource}: device {program.device} is not ready for a container: the preStart program {path}"
    try:
        process = await asyncio.create_subprocess_exec(
            *program.arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        # RuntimeError: asyncio waits for the program in a thread, and the system cannot start a thread.
        raise failed_precondition(f"{subject} cannot be started: {error}") from None
    output = bytearray()
    try:
        async with asyncio.timeout(program.timeout):
            # The stream exists, because stdout is a pipe.
            await _read_output(cast("asyncio.StreamReader", process.stdout), output)
            status = await process.wait()
    except TimeoutError:
        raise failed_precondition(
            f"{subject} took longer than {program.timeout:g} s{_quote_last_line(output)}"
        ) from None
    finally:
        # The processes that the program started end too, also when the program failed or this task was canceled.
        _kill_group(process)
    if status:
        end = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        raise failed_precondition(f"{subject} {end}{_quote_last_line(output)}")


async def _read_output(stream: asyncio.StreamReader, output: bytearray) -> None:
    while chunk := await stream.read(_MAX_OUTPUT_BYTES):
        output += chunk
        del output[:-_MAX_OUTPUT_BYTES]


def _kill_group(process: Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _quote_last_line(output: bytes | bytearray) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[-_MAX_LINE_CHARACTERS:]}" if lines else ""
