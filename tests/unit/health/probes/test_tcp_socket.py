"""The probe ``tcpSocket``, with real sockets."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.health.probes import tcp_socket
from genplug.health.probes.tcp_socket import TcpSocketCheck
from genplug.health.thresholds import Outcome, Result
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import MissingAttributeError, Template
from tests.support.probes import PASSED, request_of, run_once

ROOT = Path("/")
IN_TIME = 30.0
"""Seconds that a run which takes a part of a second exceeds only if it hangs."""


def connect(*ports: int | str, timeout: float = 10) -> Result:
    values = {"port": tuple(map(str, ports))}
    return run_once(ROOT, TcpSocketCheck(Template.parse("${port}")), values, timeout)


@contextmanager
def listen(address: str = "127.0.0.1", backlog: int = 8) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen(backlog)
        yield listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_request_has_a_port_for_each_value() -> None:
    check = TcpSocketCheck(Template.parse("900${index}"))
    assert request_of(check, {"index": ("0", "1")}) == ("tcpSocket", "9000", "9001")
    with pytest.raises(MissingAttributeError):
        request_of(check)


def test_port_with_listener_passes_and_nothing_is_sent() -> None:
    with listen() as listener:
        assert connect(port_of(listener)) == PASSED
        caller, _ = listener.accept()
        with caller:
            assert caller.recv(1) == b""


@pytest.mark.ipv6
def test_listener_on_ipv6_passes() -> None:
    with listen("::1") as listener:
        assert connect(port_of(listener)) == PASSED


def test_every_port_needs_a_listener() -> None:
    with listen() as listener, listen() as closed:
        ports = port_of(listener), port_of(closed)
        closed.close()
        reason = f"no program listens on TCP port {ports[1]} of the loopback interface"
        assert connect(*ports) == Result(Outcome.FAILED, reason)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "²"])
def test_text_that_is_not_a_port_is_an_error(port: str) -> None:
    reason = f"'{port}' is not a port, expected a number from 1 to 65535"
    assert connect(port) == Result(Outcome.ERROR, reason)


def test_listener_that_does_not_accept_is_an_error_at_its_timeout() -> None:
    with listen(backlog=0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as waiting:
            # The backlog is full now, so that the kernel drops further requests for connections.
            waiting.settimeout(0)
            waiting.connect_ex(address)
            began = time.monotonic()
            outcome = connect(address[1], timeout=0.5)
            assert outcome == Result(Outcome.ERROR, f"TCP port {address[1]} did not accept a connection within 0.5 s")
            assert time.monotonic() - began < IN_TIME


@pytest.mark.parametrize("port", [10250, 10255, 10248, 10249, 6443, 2379])
def test_default_policy_denies_ports_of_the_cluster(port: int) -> None:
    denial = tcp_socket.KIND.denial(TcpSocketCheck(Template.parse(str(port))), DEFAULT_POLICY)
    assert denial is not None
    assert f"connecting to port {port} of the loopback interface is refused by 'http.allow'" in denial.reason
    assert "is refused by 'http.allow' of policy.yaml" in connect(port).reason
    allowing = Policy("policy.yaml", http=(f"127.0.0.1:{port}",))
    assert tcp_socket.KIND.denial(TcpSocketCheck(Template.parse(str(port))), allowing) is None
