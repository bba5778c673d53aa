"""``tcpSocket``: a program listens on a TCP port of the loopback interface of the agent's network namespace.

A request is ``("tcpSocket", port, ...)``; :func:`restrict` adds the addresses that the policy allows.
Its answer has for each port an errno; it is 0 if a connection was accepted.
"""

import errno
import os
import socket
import time
from typing import TypeAlias

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Denial, Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.request_rules import RequestRules, add_rules, split_rules
from genplug.health.thresholds import Outcome, Result, worst_result
from genplug.health.value_check import shorten
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.privileges import NeedKind, ProbeNeed
from genplug.spec.probes import Check
from genplug.spec.template import Template

Answer: TypeAlias = tuple[tuple[str, int], ...]
_ADDRESSES = ("127.0.0.1", "::1")
"""The probe passes if a program listens on either address."""
_MAX_PORT = 65535
_INVALID_PORT = -1
_MAX_SHOWN_CHARACTERS = 80
_DEFAULT_RULES = RequestRules(DEFAULT_POLICY.name, DEFAULT_POLICY.http)


class TcpSocketCheck(Check, frozen=True):
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
        PermissionError: the policy does not allow a port.
        TimeoutError: a connection was not accepted in time.
    """
    deadline = time.monotonic() + timeout
    rules, ports = split_rules(request, _DEFAULT_RULES)
    return tuple((port, _connect(port, rules, deadline, timeout)) for port in ports)


def restrict(request: ProbeRequest, policy: Policy) -> ProbeRequest:
    """Return a request with the addresses to which a policy allows to connect."""
    return add_rules(request, policy.name, policy.http)


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


def _connect(port: str, rules: RequestRules, deadline: float, timeout: float) -> int:
    if not _is_port(port):
        return _INVALID_PORT
    addresses = _allowed_addresses(int(port), rules.entries)
    if not addresses:
        refusal = rules.describe_refusal("http.allow")
        raise PermissionError(f"connecting to TCP port {port} of the loopback interface is {refusal}")
    first_error = 0
    for address in addresses:
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


def _allowed_addresses(port: int, entries: tuple[str, ...]) -> list[str]:
    from genplug.spec.connect_rules import parse_address, parse_connect_rules  # noqa: PLC0415 - for a run only

    rules = parse_connect_rules(entries)
    parsed = ((text, parse_address(text)) for text in _ADDRESSES)
    return [text for text, address in parsed if address is not None and rules.allows("localhost", address, port)]


def _denial(check: TcpSocketCheck, policy: Policy) -> Denial | None:
    # A port with templates is checked when the probe runs.
    if check.port.names or not _is_port(check.port.text):
        return None
    error = policy.connect_error(_ADDRESSES[0], int(check.port.text))
    if not error or not policy.connect_error(_ADDRESSES[1], int(check.port.text)):
        return None
    return Denial(f"connecting to port {check.port.text} of the loopback interface is {error}", "port")


def _needs(check: TcpSocketCheck) -> tuple[ProbeNeed, ...]:
    port = f"port {check.port.text}"
    return (ProbeNeed(NeedKind.NETWORK, f"connects to {port} of the loopback address of the agent", port),)


KIND = ProbeKind(
    "tcpSocket",
    TcpSocketCheck,
    decode,
    Polling(make_request, run, evaluate, Effect.CALL),
    denial=_denial,
    restrict=restrict,
    needs=_needs,
)
