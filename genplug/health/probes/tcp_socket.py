"""``tcpSocket``: a program listens on a TCP port of the loopback interface of the agent's network namespace.

A request is ``("tcpSocket", port, ...)``.
Its answer has for each port an errno; it is 0 if a connection was accepted.
"""

import errno
import os
import socket
import time
from typing import TypeAlias

from attrs import frozen

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.value_check import shorten
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import Check
from genplug.spec.template import Template

Answer: TypeAlias = tuple[tuple[str, int], ...]
_ADDRESSES = ("127.0.0.1", "::1")
"""The probe passes if a program listens on either address."""
_MAX_PORT = 65535
_INVALID_PORT = -1
_MAX_SHOWN_CHARACTERS = 80


@frozen
class TcpSocketCheck(Check):
    """The number of a port."""

    port: Template


def decode(options: OptionsDecoder) -> TcpSocketCheck | None:
    """Return the check that the options describe, or None if the port is invalid."""
    port = options.template("port")
    if port is None and options.number("port", 0):
        port = Template.parse(str(int(options.number("port", 0))))
    if port is None:
        return None
    if not port.names and not _is_port(port.text):
        message = f"{shorten(port.text, _MAX_SHOWN_CHARACTERS)!r} is not a port"
        options.reject("port", message, f"write a number from 1 to {_MAX_PORT}")
        return None
    return TcpSocketCheck(port)


def make_request(check: TcpSocketCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that the port needs.
    """
    return ("tcpSocket", *check.port.render_each(device.attributes))


def run(request: ProbeRequest, _reader: CachedFileReader, timeout: float) -> Answer:
    """Connect to each port; runs in a worker.

    Raises:
        TimeoutError: a connection was not accepted in time.
    """
    deadline = time.monotonic() + timeout
    return tuple((port, _connect(port, deadline, timeout)) for port in request[1:])


def evaluate(_check: TcpSocketCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return the first failure of any port. Pure."""
    return worst_result(_evaluate_port(port, number) for port, number in answer), None


def _evaluate_port(port: str, number: int) -> Result:
    if number == _INVALID_PORT:
        return Result(Outcome.ERROR, f"'{port}' is not a port, expected a number from 1 to {_MAX_PORT}")
    if number == errno.ECONNREFUSED:
        return Result(Outcome.FAILED, f"no program listens on TCP port {port} of the loopback interface")
    if number:
        return Result(Outcome.ERROR, f"cannot connect to TCP port {port}: {os.strerror(number)}")
    return Result(Outcome.PASSED)


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MAX_SHOWN_CHARACTERS and 1 <= int(text) <= _MAX_PORT


def _connect(port: str, deadline: float, timeout: float) -> int:
    if not _is_port(port):
        return _INVALID_PORT
    first_error = 0
    for address in _ADDRESSES:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                connection.connect((address, int(port)))
        except TimeoutError:
            raise TimeoutError(f"TCP port {port} did not accept a connection within {timeout:g} s") from None
        except OSError as error:
            first_error = first_error or error.errno or errno.EIO
        else:
            return 0
    return first_error


KIND = ProbeKind("tcpSocket", TcpSocketCheck, decode, Polling(make_request, run, evaluate, Effect.CALL))
