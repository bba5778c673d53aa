"""A worker process: its start, the messages to and from it, and its end."""

import asyncio
import errno
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from genplug.hardware.host import Host
from genplug.health.workers.protocol import HEADER, Progress, RequestResult, TimedRequest, body_length, decode, encode
from genplug.health.workers.sessions import start_kill

PROGRAM_KINDS = frozenset({"exec"})
"""The kinds of requests that run a program."""
_PROGRAM = ("-P", "-S", "-c", "from genplug.health.workers.main import run; run()")
"""The program of a worker. Without ``-m`` and the module ``site``, it needs 0.8 MiB of memory less."""
_START_HINTS = {
    errno.EAGAIN: "the limit of processes is reached; raise the pod's limit of PIDs",
    errno.EMFILE: "the limit of open files is reached; raise RLIMIT_NOFILE of the agent",
    errno.ENOMEM: "the node or the pod is out of memory; raise the memory limit of the pod",
}


class WorkerStartError(Exception):
    """A worker process could not be started; the text is the reason with a hint."""


class WorkerDiedError(Exception):
    """A worker process ended, or can no longer be reached."""


class WorkerProcess:
    """A running worker process with its socket and its progress page.

    Raises:
        WorkerStartError: the process cannot be started; its socket and page are closed.
    """

    def __init__(self, host: Host, threads: int) -> None:
        try:
            self._start(host, threads)
        except OSError as error:
            hint = _START_HINTS.get(error.errno or 0)
            reason = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            raise WorkerStartError(f"{reason} ({hint})" if hint else reason) from error
        self.is_closed = False
        self.idle_since = 0.0
        """Monotonic seconds; meaningful only while the worker is idle."""
        self._opening = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._receiving: asyncio.Task[list[RequestResult]] | None = None
        self._has_programs = False
        """Whether the worker may have started programs."""
        self._kill: threading.Thread | None = None

    def _start(self, host: Host, threads: int) -> None:
        with ExitStack() as on_failure, ExitStack() as at_end:
            self._socket, theirs = socket.socketpair()
            on_failure.enter_context(self._socket)
            at_end.enter_context(theirs)
            page = os.memfd_create("genplug-progress")
            at_end.callback(os.close, page)
            os.ftruncate(page, mmap.PAGESIZE)
            self.progress = Progress(page)
            on_failure.callback(self.progress.close)
            command = (sys.executable, *_PROGRAM, os.fspath(host.root))
            # The process is started last: no later step can fail, so it never has to be killed here.
            self.process = subprocess.Popen(  # noqa: S603 - a module of genplug itself
                (*command, str(int(host.stand_ins)), str(threads), str(page)),
                stdin=theirs.fileno(),
                pass_fds=(page,),
                # The programs that it runs are in its session, and are killed with it.
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "MALLOC_ARENA_MAX": "1",
                },
            )
            on_failure.pop_all()

    async def send(self, number: int, requests: Sequence[TimedRequest] | None, key: int = 0) -> None:
        """Send a batch of requests, which the worker keeps unless the key is 0; without requests, run it again.

        Raises:
            WorkerDiedError: the worker cannot be reached.
        """
        _, writer = await self._open_streams()
        if requests is not None and not self._has_programs:
            self._has_programs = any(request[0] in PROGRAM_KINDS for request, _ in requests)
        writer.write(encode((number, key, requests)))

    async def receive(self, timeout: float | None) -> list[RequestResult] | None:  # noqa: ASYNC109 - see below
        """Return the next results, or None if there are none within ``timeout`` seconds.

        Raises:
            WorkerDiedError: the worker ended.
        """
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._receive_message())
        # The task outlives the timeout: its cancellation would lose the part of a message that has been read.
        done, _ = await asyncio.wait({self._receiving}, timeout=timeout)
        if not done:
            return None
        receiving, self._receiving = self._receiving, None
        if receiving.cancelled():
            raise WorkerDiedError
        return receiving.result()

    async def _receive_message(self) -> list[RequestResult]:
        reader, _ = await self._open_streams()
        try:
            header = await reader.readexactly(HEADER.size)
            results: list[RequestResult] = decode(await reader.readexactly(body_length(header)))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerDiedError from None
        return results

    async def _open_streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._opening:
            if self._streams is None:
                try:
                    self._streams = await asyncio.open_unix_connection(sock=self._socket)
                except OSError as error:
                    raise WorkerDiedError from error
            return self._streams

    @property
    def is_killing(self) -> bool:
        """Whether the programs of the closed worker are being killed."""
        return self._kill is not None and self._kill.is_alive()

    def close(self) -> None:
        """Kill the worker and its programs without waiting for them.

        A process in a blocked system call ends when the call returns.
        """
        if self.is_closed:
            return
        self.is_closed = True
        if self._receiving is not None:
            self._receiving.cancel()
        if self._streams is not None:
            self._streams[1].transport.abort()
        else:
            self._socket.close()
        self.progress.close()
        with suppress(ProcessLookupError):
            self.process.kill()
        if self._has_programs:
            # After the worker, which starts no further program then.
            self._kill = start_kill(self.process.pid)


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process in seconds (proc_pid_stat(5): utime and stime), 0 if it does not exist."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
