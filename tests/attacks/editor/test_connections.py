"""A configuration editor cannot use probes to reach services that the policy does not allow."""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.health.probes import http, unix_socket
from genplug.health.probes.unix_socket import UnixSocketCheck
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import Template

OTHER = Policy("p.yaml", http=("127.0.0.2",))
"""Allows a loopback address at which no server listens."""
SPELLINGS = (
    *("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1"),
    *("0177.0.0.1", "0177.1", "0.0.0.0", "0", "[::]", "[::1]", "[::1%25lo]", "[::ffff:127.0.0.1]", "[::127.0.0.1]"),
    *("[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "127.0.0.2@127.0.0.1", "127.0.0.2:80@127.0.0.1"),
    *("user:pw@localhost", "127.0.0.2\\@127.0.0.1", "127.0.0.2%00@127.0.0.1", "127\u30020\u30020\u30021"),
    *(
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
        "127.0.0.1%20",
        "127.0.0.1\t",
        "%31%32%37.0.0.1",
        "127.0.0.2,127.0.0.1",
    ),
)


@pytest.fixture
def traps() -> Iterator[list[socket.socket]]:
    """Give sockets on one port of all addresses of the loopback interface, which no probe may reach."""
    with socket.create_server(("127.0.0.1", 0)) as first:
        first.settimeout(0)
        found = [first]
        if socket.has_ipv6:
            # IPv6 can be off, or another program can use the port: then the address cannot be reached.
            with suppress(OSError):
                found.append(socket.create_server(("::1", first.getsockname()[1]), family=socket.AF_INET6))
        try:
            for trap in found:
                trap.settimeout(0)
            yield found
        finally:
            for trap in found:
                trap.close()


def check_not_reached(traps: list[socket.socket]) -> None:
    """Assert that nothing has connected to a trap."""
    for trap in traps:
        with pytest.raises(BlockingIOError):
            trap.accept()


def run_http(url: str, policy: Policy) -> str:
    """Return the error of a request for a rendered URL."""
    request = http.KIND.restrict(("http", url), policy)
    return run_request(request, CachedFileReader(Host(Path("/"))), 5)[1]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_an_address_reaches_a_service_that_is_not_allowed(
    traps: list[socket.socket], spelling: str
) -> None:
    port = traps[0].getsockname()[1]
    assert run_http(f"http://{spelling}:{port}/", OTHER)
    check_not_reached(traps)


def test_service_would_be_reached_with_another_policy(traps: list[socket.socket]) -> None:
    run_http(f"http://127.1:{traps[0].getsockname()[1]}/", Policy("p.yaml", http=("127.0.0.1",)))
    caller, _ = traps[0].accept()
    caller.close()


def test_name_that_resolves_differently_after_the_check_is_not_followed(
    traps: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, resolve = traps[0].getsockname()[1], socket.getaddrinfo
    answers = iter(["127.0.0.2", "127.0.0.1", "127.0.0.1", "127.0.0.1"])

    def rebind(host: str, *arguments: object, **options: object) -> object:
        return resolve(next(answers) if host == "localhost" else host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    assert "does not answer" in run_http(f"http://localhost:{port}/", OTHER)
    check_not_reached(traps)


SOCKETS = (
    *("/run/containerd/containerd.sock", "/var/run/docker.sock", "/run/crio/crio.sock", "/run/systemd/private"),
    *("/var/lib/kubelet/pod-resources/kubelet.sock", "/var/lib/kubelet/device-plugins/kubelet.sock"),
    *(
        "/run/dbus/system_bus_socket",
        "/proc/1/root/run/containerd/containerd.sock",
        "//run//containerd/containerd.sock",
    ),
)


@pytest.mark.parametrize("path", SOCKETS)
def test_socket_of_the_node_is_refused_by_default(path: str) -> None:
    assert unix_socket.KIND.denial is not None
    assert unix_socket.KIND.denial(UnixSocketCheck(Template.parse(path)), DEFAULT_POLICY) is not None
    for policy in (DEFAULT_POLICY, Policy("p.yaml", unix_sockets=(Glob.parse("/run/vendor/**"),))):
        request = unix_socket.KIND.restrict(("unixSocket", path), policy)
        answer, error = run_request(request, CachedFileReader(Host(Path("/"))), 5)
        assert (answer, "is refused by 'unixSocket.allow'" in error) == (None, True)


@pytest.mark.parametrize("path", ["\0run/vendor/x", "@run/vendor/x", "run/vendor/x", "/run/vendor/../x"])
def test_abstract_or_relative_socket_is_refused(path: str) -> None:
    request = unix_socket.KIND.restrict(("unixSocket", path), Policy(unix_sockets=(Glob.parse("/run/vendor/**"),)))
    assert run_request(request, CachedFileReader(Host(Path("/"))), 5)[0] is None


@pytest.mark.parametrize("number", range(1, 9))
def test_socket_that_becomes_a_link_during_the_check_is_not_followed(tmp_path: Path, number: int) -> None:
    for directory in ("run/vendor", "run/containerd"):
        (tmp_path / directory).mkdir(parents=True)
    own, foreign = tmp_path / "run/vendor/x", tmp_path / "run/containerd/s"
    accesses = 0

    def swap(_access: Access, path: str) -> None:
        nonlocal accesses
        accesses += path == "/run/vendor/x"
        if path == "/run/vendor/x" and accesses == number:
            own.unlink()
            own.symlink_to(foreign)

    with socket.socket(socket.AF_UNIX) as allowed, socket.socket(socket.AF_UNIX) as trap:
        for listener, location in ((allowed, own), (trap, foreign)):
            listener.bind(str(location))
            listener.listen()
            listener.settimeout(0)
        policy = Policy("p.yaml", unix_sockets=(Glob.parse("/run/vendor/*"),))
        request = unix_socket.KIND.restrict(("unixSocket", "/run/vendor/x"), policy)
        answer, error = run_request(request, CachedFileReader(Host(tmp_path, recorder=swap)), 5)
        assert "is refused by 'unixSocket.allow'" in error or answer in {
            (("/run/vendor/x", 0),),
            (("/run/vendor/x", errno.ENOENT),),
        }
        with pytest.raises(BlockingIOError):
            trap.accept()
