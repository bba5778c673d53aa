"""Runs the operator's own ``kubectl``: without a shell, each call with a time limit and a limit of its output.

The output of kubectl is input: it can be incomplete, of any size, or not JSON at all.
"""

import asyncio
import contextlib
import os
import re
import shlex
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from genplug.kubectl.item_reader import ItemReader, ListError
from genplug.kubectl.json_values import JSON
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_KUBECTL_DOCUMENT_BYTES, MAX_KUBECTL_LIST_BYTES

T = TypeVar("T")
LIST_SECONDS = 120.0
"""Time limit of a call that lists objects: lists of thousands of nodes take kubectl several seconds."""
GET_SECONDS = 30.0
"""Time limit of any other call."""
_KILL_SECONDS = 5.0
"""Time to wait for the end of a process that was killed, and of its output."""
_CHUNK_BYTES = 1 << 16
_STDERR_BYTES = 8192
"""Bytes of the end of stderr that are kept: the error is after the warnings."""
_MAX_ERROR_CHARACTERS = 400
_MAX_COMMAND_CHARACTERS = 160
_KLOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")
"""The start of a message of kubectl's own log, for example the retries before an error."""


class Cause(Enum):
    """Why a call of kubectl has no result; the value is a hint."""

    MISSING = "install kubectl, or pass its path with --kubectl PATH or the environment variable KUBECTL"
    FORBIDDEN = "ask the administrator of the cluster for this right"
    UNAUTHORIZED = "log in to the cluster again, or choose another context with --context"
    NOT_FOUND = "check the name and the namespace"
    UNREACHABLE = "check the context with 'kubectl config current-context' and the network"
    TIMEOUT = "check the connection with 'kubectl version', or pass --request-timeout"
    TOO_LARGE = "restrict the request, for example with --namespace or --selector"
    INVALID = "check that the program is kubectl"
    FAILED = "run the command yourself to see its complete output"


_CAUSES = (
    ("(Forbidden)", Cause.FORBIDDEN),
    (" is forbidden: ", Cause.FORBIDDEN),
    ("(Unauthorized)", Cause.UNAUTHORIZED),
    ("You must be logged in", Cause.UNAUTHORIZED),
    ("(NotFound)", Cause.NOT_FOUND),
    ("Unable to connect to the server", Cause.UNREACHABLE),
    ("The connection to the server", Cause.UNREACHABLE),
    ("no such host", Cause.UNREACHABLE),
    ("i/o timeout", Cause.UNREACHABLE),
)
"""The texts in the messages of kubectl for each cause (k8s.io/kubectl, pkg/cmd/util/helpers.go).

`kubectl exec` prints the message of the API server without its reason: `unable to upgrade connection: pods "x" is
forbidden: User "y" cannot create resource "pods/exec"`.
"""


class KubectlError(Exception):
    """A call of kubectl has no result; the text has the command, what happened, and a hint.

    `reason` is what happened, without the command and the hint.
    """

    def __init__(self, command: str, reason: str, cause: Cause) -> None:
        super().__init__(f"`{command}` {reason}; {cause.value}")
        self.command = command
        self.reason = reason
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a call, and its exit code."""

    code: int
    stdout: bytes
    stderr: str
    """The last lines, without kubectl's own log."""


@dataclass(frozen=True, slots=True, eq=False)
class Kubectl:
    """A kubectl program with the options that each call has, for example ``--context=test``."""

    program: str = "kubectl"
    options: tuple[str, ...] = ()
    concurrency: int = 32
    """Calls at the same time; others wait."""
    _places: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", asyncio.Semaphore(self.concurrency))

    async def run(
        self, *arguments: str, seconds: float = GET_SECONDS, max_bytes: int = MAX_KUBECTL_DOCUMENT_BYTES
    ) -> Output:
        """Return the output of a call, with any exit code.

        Raises:
            KubectlError: kubectl cannot be started, or exceeds a limit.
        """
        stdout = bytearray()

        def keep(chunk: bytes) -> None:
            stdout.extend(chunk)
            self._check_size(arguments, len(stdout), max_bytes)

        code, stderr = await self._call(arguments, keep, seconds)
        return Output(code, bytes(stdout), stderr)

    async def get_json(self, *arguments: str, seconds: float = GET_SECONDS) -> JSON:
        """Return the object that ``kubectl ARGUMENTS -o json`` prints.

        Raises:
            KubectlError: there is no such object, or kubectl has another error.
        """
        arguments = (*arguments, "-o", "json")
        output = await self.run(*arguments, seconds=seconds)
        if output.code != 0:
            raise self.error(arguments, output.code, output.stderr)
        try:
            document = parse_json(output.stdout)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._invalid_error(arguments, f"expected a JSON object, found {_sample(output.stdout)}")
        return document

    async def list_objects(
        self,
        decode: Callable[[JSON], T | None],
        *arguments: str,
        seconds: float = LIST_SECONDS,
        max_bytes: int = MAX_KUBECTL_LIST_BYTES,
    ) -> list[T]:
        """Return the decoded objects of the list that ``kubectl ARGUMENTS -o json`` prints, except those without value.

        Each object is decoded when kubectl has printed it: a list of 5000 nodes has about 100 MB, and its objects use
        a multiple of that as dictionaries.

        Raises:
            KubectlError: kubectl has an error, or does not print a list.
        """
        arguments = (*arguments, "-o", "json")
        reader, size, values = ItemReader(), 0, list[T]()

        def read(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            self._check_size(arguments, size, max_bytes)
            values.extend(value for item in reader.feed(chunk) if (value := decode(item)) is not None)

        try:
            code, stderr = await self._call(arguments, read, seconds)
            if code != 0:
                raise self.error(arguments, code, stderr)
            reader.close()
        except ListError as error:
            raise self._invalid_error(arguments, str(error)) from None
        return values

    def error(self, arguments: tuple[str, ...], code: int, stderr: str) -> KubectlError:
        """Return the error for a call that ended with an exit code other than 0."""
        cause = next((cause for mark, cause in _CAUSES if mark in stderr), Cause.FAILED)
        return KubectlError(self.show(arguments), f"failed: {stderr or f'exit code {code}'}", cause)

    def _invalid_error(self, arguments: tuple[str, ...], text: str) -> KubectlError:
        return KubectlError(self.show(arguments), f"printed invalid output: {text}", Cause.INVALID)

    def _check_size(self, arguments: tuple[str, ...], size: int, max_bytes: int) -> None:
        if size > max_bytes:
            raise KubectlError(self.show(arguments), f"printed more than {max_bytes} bytes", Cause.TOO_LARGE)

    def show(self, arguments: tuple[str, ...]) -> str:
        """Return a call as a shell would have it, shortened."""
        text = shlex.join((self.program, *self.options, *arguments))
        return text if len(text) <= _MAX_COMMAND_CHARACTERS else f"{text[:_MAX_COMMAND_CHARACTERS]}..."

    async def _call(
        self,
        arguments: tuple[str, ...],
        consume: Callable[[bytes], None],
        seconds: float,
    ) -> tuple[int, str]:
        """Run kubectl; return its exit code and the end of stderr."""
        async with self._places:
            try:
                # A process group of its own: programs that kubectl starts for credentials are killed with it.
                process = await asyncio.create_subprocess_exec(
                    self.program,
                    *self.options,
                    *arguments,
                    stdin=DEVNULL,
                    stdout=PIPE,
                    stderr=PIPE,
                    process_group=0,
                )
            except (FileNotFoundError, NotADirectoryError):
                raise KubectlError(self.show(arguments), "cannot be run: no such program", Cause.MISSING) from None
            except (OSError, ValueError) as error:
                raise KubectlError(self.show(arguments), f"cannot be run: {error}", Cause.MISSING) from None
            assert process.stdout is not None  # noqa: S101 - for mypy
            assert process.stderr is not None  # noqa: S101
            stderr = asyncio.create_task(_read_end(process.stderr))
            try:
                async with asyncio.timeout(seconds):
                    while chunk := await process.stdout.read(_CHUNK_BYTES):
                        consume(chunk)
                    return await process.wait(), await stderr
            except TimeoutError:
                raise KubectlError(self.show(arguments), f"did not end within {seconds:g} s", Cause.TIMEOUT) from None
            finally:
                stderr.cancel()
                await asyncio.gather(stderr, return_exceptions=True)
                await _end(process, process.stdout, process.stderr)


async def _end(process: Process, *streams: asyncio.StreamReader) -> None:
    """Kill a process that still runs, with the programs that it started, and read the rest of its output."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        # asyncio closes a pipe at its end.
        async with asyncio.timeout(_KILL_SECONDS):
            for stream in streams:
                while await stream.read(_CHUNK_BYTES):
                    pass
            await process.wait()


async def _read_end(stream: asyncio.StreamReader) -> str:
    """Read a stream to its end; return its last lines as a short text."""
    end = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        end = (end + chunk)[-_STDERR_BYTES:]
    return "; ".join(_message_lines(end.decode(errors="replace")))[:_MAX_ERROR_CHARACTERS]


def _message_lines(text: str) -> Iterator[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    messages = [line for line in lines if not _KLOG_LINE.match(line)]
    yield from (messages or lines)[-3:]


def _sample(output: bytes) -> str:
    return repr(output[:60].decode(errors="replace")) if output else "nothing"
