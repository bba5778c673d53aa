"""``unixSocket``: a program listens on a Unix socket of the host.

A request is ``("unixSocket", path, ...)``; :func:`restrict` adds the sockets that the policy allows.
Its answer has for each path an errno; it is 0 if a connection was accepted.
"""

import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Denial, Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.request_rules import RequestRules, add_rules, split_rules
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.privileges import NeedKind, ProbeNeed, find_hidden_path
from genplug.spec.probes import Check
from genplug.spec.root_paths import OutsideRootError, strip_root
from genplug.spec.template import Template

Answer: TypeAlias = tuple[tuple[str, int], ...]
_DEFAULT_RULES = RequestRules(DEFAULT_POLICY.name, ())
_DELETED = " (deleted)"
"""The end of the target of a link in ``/proc/self/fd`` to a file that does not exist any more (proc(5))."""
_FAILURES = {errno.ENOENT: "does not exist", errno.ECONNREFUSED: "exists, but no program listens on it"}


class UnixSocketCheck(Check, frozen=True):
    """The path of a socket."""

    path: Template


def decode(options: OptionsDecoder) -> UnixSocketCheck | None:
    """Return the check that the options describe, or None if the path is invalid."""
    path = options.path("path")
    return UnixSocketCheck(path) if path is not None else None


def make_request(check: UnixSocketCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that the path needs.
    """
    return ("unixSocket", *check.path.render_each(device.attributes))


def run(request: ProbeRequest, reader: CachedFileReader, timeout: float) -> Answer:
    """Connect to each socket; runs in a worker.

    Raises:
        PermissionError: the policy does not allow a socket.
        TimeoutError: the connections were not accepted within ``timeout`` seconds together.
    """
    deadline = time.monotonic() + timeout
    rules, paths = split_rules(request, _DEFAULT_RULES)
    globs = tuple(map(Glob.parse, rules.entries))
    for path in paths:
        is_absolute = path.startswith("/") and ".." not in path.split("/")
        if not is_absolute or not any(glob.matches(path) for glob in globs):
            raise PermissionError(f"connecting to {path} is {rules.describe_refusal('unixSocket.allow')}")
    return tuple((path, _open_and_connect(path, globs, rules, reader, deadline, timeout)) for path in paths)


def restrict(request: ProbeRequest, policy: Policy) -> ProbeRequest:
    """Return a request with the sockets to which a policy allows to connect."""
    return add_rules(request, policy.name, (glob.text for glob in policy.unix_sockets))


def evaluate(_check: UnixSocketCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return the first failure of any socket. Pure."""
    return worst_result(_evaluate_socket(path, number) for path, number in answer), None


def _evaluate_socket(path: str, number: int) -> Result:
    if number in _FAILURES:
        return Result(Outcome.FAILED, f"{path} {_FAILURES[number]}")
    if number:
        return Result(Outcome.ERROR, f"cannot connect to {path}: {os.strerror(number)}")
    return Result(Outcome.PASSED)


def _open_and_connect(  # noqa: PLR0913, PLR0917 - a socket, the rules, and the times
    path: str, globs: Sequence[Glob], rules: RequestRules, reader: CachedFileReader, deadline: float, timeout: float
) -> int:
    """Connect to a socket that the rules allow; return 0 or an errno.

    The descriptor keeps the file that was checked: a link that changes meanwhile cannot replace it.
    """
    try:
        file = os.open(reader.host.process_path(path), os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        actual = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115 - Path() would normalize the target
        if actual.endswith(_DELETED):
            return errno.ENOENT
        try:
            resolved = strip_root(actual, os.path.realpath(reader.host.root))
        except OutsideRootError as error:
            raise PermissionError(f"connecting to {path} is refused, because it leads out of --root: {error}") from None
        if not any(glob.matches(resolved) for glob in globs):
            refusal = rules.describe_refusal("unixSocket.allow")
            raise PermissionError(f"connecting to {path}, which leads to {resolved}, is {refusal}")
        return _connect(file, path, deadline, timeout)
    finally:
        os.close(file)


def _connect(file: int, path: str, deadline: float, timeout: float) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        # The address of a socket has at most 107 bytes, and a path can be longer.
        try:
            connection.connect(f"/proc/self/fd/{file}")
        except TimeoutError:
            raise TimeoutError(f"{path} did not accept a connection within {timeout:g} s") from None
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def _denial(check: UnixSocketCheck, policy: Policy) -> Denial | None:
    # A path with templates is checked when the probe runs, unless the policy allows no socket.
    if check.path.names and policy.unix_sockets:
        return None
    error = policy.unix_socket_error(check.path.text)
    return Denial(f"connecting to {check.path.text!r} is {error}", "path") if error else None


def _needs(check: UnixSocketCheck) -> Iterator[ProbeNeed]:
    path = check.path.text
    if hidden := find_hidden_path(path):
        yield ProbeNeed(NeedKind.HOST_PATH, f"connects to the socket {path}", hidden)


KIND = ProbeKind(
    "unixSocket",
    UnixSocketCheck,
    decode,
    Polling(make_request, run, evaluate, Effect.CALL),
    denial=_denial,
    restrict=restrict,
    needs=_needs,
)
