"""The probe ``http``, with a real server."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.host import Host
from genplug.health.probes import http
from genplug.health.probes.http import HttpCheck
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import Template
from tests.support.probes import PASSED, request_of, run_once

IN_TIME = 30.0
"""Seconds that a run which takes a part of a second exceeds only if it hangs."""
t = Template.parse


class Handler(BaseHTTPRequestHandler):
    """``/STATUS`` answers with this status, ``/silent`` not at all, ``/late`` after 0.3 s, ``/slow`` byte by byte."""

    requested: list[str]
    is_over: threading.Event

    def do_GET(self) -> None:
        self.requested.append(self.path)
        name = self.path.strip("/").partition("?")[0]
        if name == "silent":
            self.is_over.wait(60)
        elif name == "late":
            self.is_over.wait(0.3)
            self.send_error(404)
        elif name == "slow":
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 4 + b"\r\n":
                if self.is_over.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif name == "nonsense":
            self.wfile.write(b"this is not an answer\r\n\r\n")
        elif name == "phrase":
            self.wfile.write(b"HTTP/1.1 500 " + b"a long phrase " * 4000 + b"\r\n\r\n")
        else:
            self.send_response(int(name))
            if name.startswith("3"):
                self.send_header("Location", "/200")
            self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


class Server:
    """A server, and the paths that were requested."""

    def __init__(self, url: str, requested: list[str]) -> None:
        self.url, self.requested = url, requested

    def fetch(self, path: str, *, expect: int = 200, timeout: float = 10) -> Result:
        return fetch(f"{self.url}{path}", expect=expect, timeout=timeout)


@contextmanager
def serve() -> Iterator[Server]:
    requested: list[str] = []
    over = threading.Event()
    handler = type("RecordingHandler", (Handler,), {"requested": requested, "is_over": over})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}", requested)
        finally:
            over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def fetch(url: str, *, expect: int = 200, timeout: float = 10) -> Result:
    return run_once(Path("/"), HttpCheck(t(url), expect), timeout=timeout)


@pytest.mark.parametrize(("status", "expect"), [(200, 200), (204, 204), (404, 404), (302, 302), (503, 503)])
def test_expected_status_passes(server: Server, status: int, expect: int) -> None:
    assert server.fetch(f"/{status}", expect=expect) == PASSED


def test_other_status_fails(server: Server) -> None:
    for status, expect in ((204, 200), (503, 200), (200, 204)):
        reason = f"{server.url}/{status} answers {status}, expected {expect}"
        assert server.fetch(f"/{status}", expect=expect) == Result(Outcome.FAILED, reason)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(server: Server, status: int) -> None:
    assert server.fetch(f"/{status}").outcome is Outcome.FAILED
    assert server.requested == [f"/{status}"]


def test_request_has_the_query_and_not_the_fragment(server: Server) -> None:
    assert server.fetch("/200?gpu=0&deep=1#part") == PASSED
    assert server.requested == ["/200?gpu=0&deep=1"]


def test_no_proxy_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert server.fetch("/200") == PASSED


def test_every_url_has_to_answer(server: Server) -> None:
    check = HttpCheck(t(f"{server.url}/${{state}}"))
    values = {"state": ("200", "503")}
    assert request_of(check, values) == ("http", f"{server.url}/200", f"{server.url}/503")
    reason = f"{server.url}/503 answers 503, expected 200"
    assert run_once(Path("/"), check, values) == Result(Outcome.FAILED, reason)


def test_closed_port_is_an_error() -> None:
    with serve() as server:
        url = server.url
    assert fetch(f"{url}/200") == Result(Outcome.ERROR, f"{url}/200 does not answer: Connection refused")


def test_answer_that_is_not_http_is_an_error(server: Server) -> None:
    outcome = server.fetch("/nonsense")
    assert outcome.outcome is Outcome.ERROR
    assert outcome.reason.startswith(f"{server.url}/nonsense does not answer in HTTP: BadStatusLine")


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://[::1/", "http://127.0.0.1:9/a b", "http://"])
def test_invalid_url_is_an_error(url: str) -> None:
    assert fetch(url).outcome is Outcome.ERROR


@pytest.mark.parametrize("path", ["/silent", "/slow"])
def test_slow_answer_is_an_error_at_its_timeout(server: Server, path: str) -> None:
    began = time.monotonic()
    outcome = server.fetch(path, timeout=0.5)
    assert outcome.outcome is Outcome.ERROR
    assert outcome.reason.startswith(f"{server.url}{path} does not answer")
    assert time.monotonic() - began < IN_TIME


@pytest.mark.parametrize("path", ["/phrase", "/nonsense"])
def test_reason_has_nothing_of_the_response_but_the_status(server: Server, path: str) -> None:
    reason = server.fetch(path).reason
    assert "phrase" not in reason.replace(path, "")
    assert "this is not an answer" not in reason


def test_urls_of_a_probe_share_its_timeout(server: Server) -> None:
    urls = {"url": tuple(f"{server.url}/late?{number}" for number in range(4))}
    assert run_once(Path("/"), HttpCheck(t("${url}"), 404), urls, timeout=30) == PASSED
    # With a timeout of its own, each URL would answer in time.
    assert run_once(Path("/"), HttpCheck(t("${url}"), 404), urls, timeout=0.5).outcome is Outcome.ERROR


def run_restricted(url: str, policy: Policy = DEFAULT_POLICY) -> str:
    """Return the error of a run under a policy."""
    request = http.KIND.restrict(request_of(HttpCheck(t("${url}")), {"url": (url,)}), policy)
    return run_request(request, CachedFileReader(Host(Path("/"))), 5)[1]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:pw@h:80/a/b?token=x#y", "http://h:80/a/b"),
        ("http://me:p/w@h/", "http://me:p/w@h/"),
        ("https://h?token=x", "https://h"),
        ("http://a@b@[::1]:80", "http://[::1]:80"),
        ("no-url", "no-url"),
        ("", ""),
    ],
)
def test_messages_show_a_url_without_credentials_and_query(url: str, shown: str) -> None:
    assert http.describe_url(url) == shown


@given(st.text(max_size=40))
def test_every_text_can_be_described(url: str) -> None:
    assert "?" not in http.describe_url(f"http://h/{url}")


def test_results_do_not_contain_the_query(server: Server) -> None:
    result = server.fetch("/404?token=secret")
    assert "answers 404" in result.reason
    assert "secret" not in result.reason
    assert "secret" not in run_restricted("http://10.1.2.3/?token=secret")


NOT_LOOPBACK = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://10.0.0.1:10250/pods",
    "http://0.0.0.0:8080/",
    "http://[::]:8080/",
    "http://[fd00:ec2::254]/",
    "http://user@10.1.2.3/",
    "http://127.0.0.1@10.1.2.3/",
    "https://192.168.0.1/",
]
CLUSTER = [
    "http://127.0.0.1:10250/pods",
    "http://127.1:10255/pods",
    "http://0x7f.1:10248/healthz",
    "http://2130706433:10249/",
    "http://[::1]:10256/",
    "http://[::ffff:127.0.0.1]:6443/",
    "https://127.0.0.1/",
    "https://127.0.0.2:2379/",
]


@pytest.mark.parametrize("url", NOT_LOOPBACK + CLUSTER)
def test_default_policy_denies_other_addresses_and_ports_of_the_cluster(url: str) -> None:
    denial = http.KIND.denial(HttpCheck(t(url)), DEFAULT_POLICY)
    assert denial is not None
    assert denial.option == "url"
    assert denial.reason.startswith(f"connecting to {url!r} is refused by 'http.allow' of the default policy")
    assert "refused by 'http.allow' of the default policy, which allows 127.0.0.0/8, ::1" in run_restricted(url)


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://serial-42.example.invalid:8080/", "*.example.invalid"),
        ("http://localhost.example.invalid/", "*.example.invalid"),
        ("http://serial-42.localhost.:8080/", "*.localhost"),
    ],
)
def test_name_that_the_policy_cannot_allow_is_not_resolved(
    monkeypatch: pytest.MonkeyPatch, url: str, entry: str
) -> None:
    # The query for such a name would send the value of the template to a name server.
    resolved: list[object] = []

    def resolve(host: object, *_arguments: object, **_options: object) -> object:
        resolved.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    denial = http.KIND.denial(HttpCheck(t(url)), DEFAULT_POLICY)
    assert denial is not None
    assert "is refused by 'http.allow' of the default policy, which allows 127.0.0.0/8" in run_restricted(url)
    assert resolved == []
    for allowed in ("10.0.0.0/8", entry):
        assert "cannot be resolved" in run_restricted(url, Policy("p.yaml", http=(allowed,)))
    assert len(resolved) == 2


def test_name_counts_as_its_addresses(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    assert http.KIND.denial(HttpCheck(t("http://localhost:8080/")), DEFAULT_POLICY) is None
    assert run_restricted(f"http://localhost:{port}/200") == ""
    assert server.requested == ["/200"]
    # A policy that does not allow the address does not allow the name either.
    other = Policy("p.yaml", http=("10.0.0.0/8",))
    assert "port 10250 is refused" in run_restricted("http://localhost:10250/")
    assert "is refused by 'http.allow' of p.yaml, which allows 10.0.0.0/8" in run_restricted(
        f"http://localhost:{port}/", other
    )
    assert server.requested == ["/200"]


@pytest.mark.parametrize("spelling", ["127.1", "0x7f.1", "2130706433", "127.0.0.1"])
def test_spelling_of_a_loopback_address_does_not_matter(server: Server, spelling: str) -> None:
    port = server.url.rpartition(":")[2]
    assert run_restricted(f"http://{spelling}:{port}/200") == ""
    assert server.requested == ["/200"]
