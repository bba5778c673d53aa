"""``genplug run`` as a process of its own, for tests of signals, exit codes and a second process."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from genplug.observe.events import Event
from genplug.testing.node.fake_node import FakeNode

HANG_SECONDS = 30.0
"""Seconds that only a process which hangs exceeds, also on a busy machine."""


@contextlib.asynccontextmanager
async def start_agent(
    node: FakeNode,
    *options: str,
    stderr: int = asyncio.subprocess.PIPE,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
) -> AsyncIterator[Process]:
    """Run ``genplug run`` with a JSON log on a node; kill the process at the end of the context if it still runs.

    ``prefix`` is a program with its arguments that runs the command, for example ``prlimit`` or ``setpriv``.
    ``cwd`` is a directory with another copy of genplug.
    """
    command: list[str | Path] = [*prefix, sys.executable, "-m", "genplug", "run", "--log-format", "json", *options]
    command += ["--config", node.config_dir, "--root", node.root, "--kubelet-dir", node.kubelet_dir]
    process = await asyncio.create_subprocess_exec(*command, stderr=stderr, cwd=cwd)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def read_log_entry(process: Process, event: Event) -> dict[str, str]:
    """Return the next log entry of an event.

    Raises:
        TimeoutError: The process does not log the event within 30 s.
    """
    assert process.stderr is not None
    async with asyncio.timeout(HANG_SECONDS):
        while (entry := json.loads(await process.stderr.readline()))["event"] != event.code:
            pass
    return dict(entry)


async def wait_for_exit(process: Process) -> int:
    """Return the exit code of a process, which is about to end.

    Raises:
        TimeoutError: The process still runs after 30 s: it hangs.
    """
    await asyncio.wait_for(process.communicate(), HANG_SECONDS)
    assert process.returncode is not None
    return process.returncode
