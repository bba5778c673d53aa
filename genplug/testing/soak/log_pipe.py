"""The reader of the agent's log: it can stop reading, close the pipe and open it again."""

import asyncio
import fcntl
import os
from collections import deque
from pathlib import Path
from typing import Final

_MAX_LINES: Final = 500
_PIPE_BYTES: Final = 4096
"""Capacity of the pipe: the smallest, so that the log fills it soon."""


class LogPipe(asyncio.Protocol):
    """Reads the log into ``lines``, of which the last are kept, and into a file."""

    def __init__(self, file: Path) -> None:
        self.lines: deque[str] = deque(maxlen=_MAX_LINES)
        self.defects: list[str] = []
        self._file = file
        self._rest = b""
        self._transport: asyncio.ReadTransport | None = None

    async def create(self) -> int:
        """Create the pipe; return the descriptor of the end that the agent writes, which the caller closes."""
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        await self._connect(reading)
        return writing

    async def open(self, pid: int) -> None:
        """Open the reading end again, through the descriptor of the agent (proc_pid_fd(5))."""
        await self._connect(os.open(f"/proc/{pid}/fd/2", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def close(self) -> None:
        """Close the reading end: writes to the pipe fail with EPIPE."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def pause(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Continue to read."""
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Add the complete lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._file.open("ab") as file:
            file.writelines(line + b"\n" for line in lines)
        for line in lines:
            text = line.decode(errors="replace")
            self.lines.append(text)
            if '"event": "internal_error"' in text:
                self.defects.append(text)

    async def _connect(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        file = os.fdopen(descriptor, "rb", buffering=0)
        self._transport, _ = await loop.connect_read_pipe(lambda: self, file)
