"""``open``, ``exec``, ``http`` and ``unixSocket`` at their edges, each against what it really talks to."""

import errno
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from genplug.hardware.host import Host
from genplug.hardware.inventory import DeviceNode
from genplug.health.probes import exec as exec_probe
from genplug.health.probes import http, open, unix_socket  # noqa: A004 - the kinds are called so
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import ExecCheck, HttpCheck, OpenCheck, UnixSocketCheck
from genplug.spec.template import MissingAttributeError, Template

WELL = Result(Outcome.PASSED)
IN_NO_TIME = 5.0
"""Seconds in which what is to take a part of one is over on a busy machine too."""
t = Template.parse


def result(
    root: Path, question: ProbeRequest, judged: Callable[[Any], tuple[Result, None]], timeout: float = 10
) -> Result:
    """What a worker's answer means."""
    answer, error = run_request(question, CachedFileReader(Host(root)), timeout)
    return Result(Outcome.ERROR, error) if error else judged(answer)[0]


def opened(root: Path, *nodes: str, mode: str = "rw") -> Result:
    """Open nodes, each given as ``PATH KIND NUMBERS``."""
    check = OpenCheck(mode)
    told = [part for node in nodes for part in node.split(" ", 1)]
    return result(root, ("open", mode, *told), lambda answer: open.evaluate(check, answer, None, 0))


def device(root: Path, path: str) -> DeviceNode:
    look = Host(root).stat(path)
    assert look is not None
    return DeviceNode(path, path, "rw", look)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Nodes of the kernel's own drivers, and one of a driver that does not exist."""
    for name, minor in (("null", 3), ("zero", 5), ("nobody", 200)):
        os.mknod(tmp_path / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    return tmp_path


@pytest.mark.root
def test_a_question_has_each_node_with_its_numbers(nodes: Path) -> None:
    asked = open.make_request(OpenCheck("r"), (device(nodes, "/null"), device(nodes, "/zero")))
    assert asked == ("open", "r", "/null", "char 1:3", "/zero", "char 1:5")
    assert result(nodes, asked, lambda answer: open.evaluate(OpenCheck("r"), answer, None, 0)) == WELL


@pytest.mark.root
@pytest.mark.parametrize("mode", ["r", "w", "rw"])
def test_a_node_is_opened_as_is_written(nodes: Path, mode: str) -> None:
    assert opened(nodes, "/null char 1:3", "/zero char 1:5", mode=mode) == WELL
    # A directory stands for what may be opened to be read only.
    (nodes / "directory").mkdir()
    kind = str(device(nodes, "/directory").info.numbers[0])
    expected = Outcome.PASSED if mode == "r" else Outcome.FAILED
    assert opened(nodes, f"/directory {kind} 0:0", mode=mode).outcome is expected


@pytest.mark.root
def test_every_node_has_to_open(nodes: Path) -> None:
    fault = Result(Outcome.FAILED, f"/nobody cannot be opened: {os.strerror(errno.ENXIO)}")
    for told in (("/null char 1:3", "/nobody char 1:200"), ("/nobody char 1:200", "/null char 1:3")):
        assert opened(nodes, *told) == fault


@pytest.mark.root
def test_another_device_at_the_path_is_not_opened(nodes: Path) -> None:
    for numbers in ("char 1:5", "block 1:3", "char 2:3"):
        assert opened(nodes, f"/null {numbers}") == Result(Outcome.ERROR, "/null is another device now")


@pytest.mark.root
def test_a_node_is_found_behind_a_link_under_the_root(nodes: Path) -> None:
    (nodes / "dev").mkdir()
    (nodes / "dev/gpu").symlink_to("/null")
    assert opened(nodes, "/dev/gpu char 1:3") == WELL
    (nodes / "null").unlink()
    assert opened(nodes, "/dev/gpu char 1:3") == Result(
        Outcome.FAILED, f"/dev/gpu cannot be opened: {os.strerror(errno.ENOENT)}"
    )


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_what_may_not_be_opened_says_what_the_pod_lacks(number: int) -> None:
    said = f"/dev/x0 may not be opened by genplug ({os.strerror(number)}): the pod has to be privileged"
    result, _ = open.evaluate(OpenCheck(), (("/dev/x0", number),), None, 0)
    assert result == Result(Outcome.ERROR, f"probe not permitted: {said}")


def test_one_that_is_in_use_hides_no_other() -> None:
    answer = (("/dev/x0", errno.EBUSY), ("/dev/x1", errno.EIO))
    assert open.evaluate(OpenCheck(), answer, None, 0)[0] == Result(
        Outcome.FAILED, f"/dev/x1 cannot be opened: {os.strerror(errno.EIO)}"
    )


@pytest.mark.parametrize("first", [errno.EPERM, errno.EACCES, -1])
def test_a_node_that_cannot_be_looked_at_hides_no_other_that_fails(first: int) -> None:
    for answer in ((("/dev/x0", first), ("/dev/x1", errno.ENXIO)), (("/dev/x1", errno.ENXIO), ("/dev/x0", first))):
        assert open.evaluate(OpenCheck(), answer, None, 0)[0] == Result(
            Outcome.FAILED, f"/dev/x1 cannot be opened: {os.strerror(errno.ENXIO)}"
        )


def ran(*command: str, timeout: float = 10) -> Result:
    check = ExecCheck(tuple(t(part) for part in command))
    asked = exec_probe.make_request(check, {})
    return result(Path("/"), asked, lambda answer: exec_probe.evaluate(check, answer, None, 0), timeout)


def shell(script: str, timeout: float = 10) -> Result:
    return ran("/bin/sh", "-c", script, timeout=timeout)


def test_a_program_is_given_its_arguments_as_they_are() -> None:
    check = ExecCheck((t("/bin/check"), t("--device=${path}"), t("$HOME; reboot")))
    assert exec_probe.make_request(check, {"path": ("/dev/a b", "/dev/c")}) == (
        "exec", "/bin/check", "--device=/dev/a b,/dev/c", "$HOME; reboot",
    )  # fmt: skip
    with pytest.raises(MissingAttributeError):
        exec_probe.make_request(check, {})
    said = ran("/bin/sh", "-c", 'echo "$0|$1"; exit 1', "$HOME; a  b", "*")
    assert said == Result(Outcome.FAILED, "/bin/sh ended with 1: $HOME; a  b|*")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "/bin/sh ended with 1"),
        ("exit 255", "/bin/sh ended with 255"),
        ("echo only; exit 2", "/bin/sh ended with 2: only"),
        ("echo first; printf '  last  \\n\\n\\n'; exit 2", "/bin/sh ended with 2: last"),
        ("printf 'no end'; exit 2", "/bin/sh ended with 2: no end"),
        ("echo to nobody >&2; exit 2", "/bin/sh ended with 2: to nobody"),
        ("echo dying; kill -KILL $$", f"/bin/sh was killed by signal {int(signal.SIGKILL)}: dying"),
    ],
)
def test_a_program_that_does_not_end_with_0_is_a_fault_with_its_last_words(script: str, said: str) -> None:
    assert shell(script) == Result(Outcome.FAILED, said)


def test_what_a_program_says_does_not_matter_while_it_ends_with_0() -> None:
    assert shell("echo fatal error; echo broken >&2") == WELL


def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    assert ran("/nosuch") == Result(Outcome.ERROR, "No such file or directory: /nosuch")
    location = tmp_path / "check"
    location.write_text("#!/nosuch\n")
    assert ran(str(location)) == Result(Outcome.ERROR, f"Permission denied: {location}")
    location.chmod(0o755)
    assert ran(str(location)).outcome is Outcome.ERROR
    location.write_bytes(b"\x7fELF, but no more than that")
    assert ran(str(location)) == Result(Outcome.ERROR, f"Exec format error: {location}")
    assert ran("/bin/echo", "a\0b").outcome is Outcome.ERROR


def test_a_program_reads_nothing_and_hears_nothing_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in exec_probe.OF_WORKER:
        monkeypatch.setenv(name, "of the worker")
    assert shell('read line; test -z "$line" || exit 1') == WELL
    tests = " || ".join(f'test -n "${name}"' for name in exec_probe.OF_WORKER)
    assert shell(f"if {tests}; then exit 1; fi") == WELL
    assert shell('test -n "$PATH"') == WELL


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "trap '' TERM INT HUP; sleep 60 & wait",
        # Whoever closes its output is not done yet.
        "exec >&- 2>&-; sleep 60",
        "while :; do echo again; done",
    ],
)
def test_what_takes_too_long_is_ended_in_its_time(script: str) -> None:
    began = time.monotonic()
    outcome = shell(script, timeout=0.3)
    assert outcome.outcome is Outcome.ERROR
    assert outcome.reason.startswith("/bin/sh took longer than 0.3 s")
    assert time.monotonic() - began < IN_NO_TIME


def is_over(process: int) -> bool:
    """Wait until a process is gone, and say whether it went in time."""
    try:
        end = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([end], [], [], IN_NO_TIME)[0])
    finally:
        os.close(end)


@pytest.mark.parametrize("ending", ["exit 0", "exit 1", "wait"])
def test_what_a_program_started_ends_with_it(tmp_path: Path, ending: str) -> None:
    outcome = shell(f"sleep 60 & echo $! > {tmp_path}/child; {ending}", timeout=0.5)
    assert outcome.outcome is {"exit 0": Outcome.PASSED, "exit 1": Outcome.FAILED, "wait": Outcome.ERROR}[ending]
    assert is_over(int((tmp_path / "child").read_text()))


def test_a_child_that_holds_the_output_is_not_waited_for() -> None:
    began = time.monotonic()
    # In a group of its own it is out of reach; it ends by itself.
    assert shell("setsid sleep 8 & echo done; exit 3", timeout=30) == Result(
        Outcome.FAILED, "/bin/sh ended with 3: done"
    )
    assert time.monotonic() - began < IN_NO_TIME


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("yes 'a b' | head -c 3000000; echo; echo the end", "the end"),
        ("head -c 3000000 /dev/zero | tr '\\0' x", "x" * 200),
        ("head -c 60000 /dev/zero | tr '\\0' '\\377'", ""),
    ],
)
def test_of_endless_output_the_end_is_kept_and_short(script: str, end: str) -> None:
    outcome = shell(f"{script}; exit 1")
    assert outcome.outcome is Outcome.FAILED
    assert outcome.reason.startswith("/bin/sh ended with 1: ")
    assert outcome.reason.endswith(end)
    assert len(outcome.reason) <= len("/bin/sh ended with 1: ") + 200


class Pages(BaseHTTPRequestHandler):
    """``/STATUS`` answers with this status; ``/silent`` says nothing, ``/slow`` one byte after another."""

    asked: list[str]
    is_over: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        kind = self.path.strip("/").partition("?")[0]
        if kind == "silent":
            self.is_over.wait(60)
        elif kind == "slow":
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 4 + b"\r\n":
                if self.is_over.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif kind == "nonsense":
            self.wfile.write(b"this is no answer\r\n\r\n")
        elif kind == "words":
            self.wfile.write(b"HTTP/1.1 500 " + b"so many words " * 4000 + b"\r\n\r\n")
        else:
            self.send_response(int(kind))
            if kind.startswith("3"):
                self.send_header("Location", "/200")
            self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


class Server:
    """A server, and what it was asked."""

    def __init__(self, url: str, asked: list[str]) -> None:
        self.url, self.asked = url, asked

    def fetch(self, path: str, *, expect: int = 200, timeout: float = 10) -> Result:
        return fetched(f"{self.url}{path}", expect=expect, timeout=timeout)


@contextmanager
def serving() -> Iterator[Server]:
    asked: list[str] = []
    over = threading.Event()
    pages = type("ThesePages", (Pages,), {"asked": asked, "is_over": over})
    with ThreadingHTTPServer(("127.0.0.1", 0), pages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}", asked)
        finally:
            over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


def fetched(url: str, *, expect: int = 200, timeout: float = 10) -> Result:
    check = HttpCheck(t(url), expect)
    asked = http.make_request(check, {})
    return result(Path("/"), asked, lambda answer: http.evaluate(check, answer, None, 0), timeout)


@pytest.mark.parametrize(("status", "expect"), [(200, 200), (204, 204), (404, 404), (302, 302), (503, 503)])
def test_the_status_that_is_wanted_is_health_whatever_it_is(server: Server, status: int, expect: int) -> None:
    assert server.fetch(f"/{status}", expect=expect) == WELL


def test_any_other_status_is_a_failure(server: Server) -> None:
    for status, expect, words in ((204, 200, "No Content"), (503, 200, "Service Unavailable"), (200, 204, "OK")):
        said = f"{server.url}/{status} answers {status} {words}, wanted {expect}"
        assert server.fetch(f"/{status}", expect=expect) == Result(Outcome.FAILED, said)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(server: Server, status: int) -> None:
    assert server.fetch(f"/{status}").outcome is Outcome.FAILED
    assert server.asked == [f"/{status}"]


def test_a_page_is_asked_for_with_its_query_and_without_its_fragment(server: Server) -> None:
    assert server.fetch("/200?gpu=0&deep=1#part") == WELL
    assert server.asked == ["/200?gpu=0&deep=1"]


def test_no_proxy_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert server.fetch("/200") == WELL


def test_several_pages_have_to_answer_all(server: Server) -> None:
    check = HttpCheck(t(f"{server.url}/${{state}}"))
    asked = http.make_request(check, {"state": ("200", "503")})
    assert asked == ("http", f"{server.url}/200", f"{server.url}/503")
    answer, error = run_request(asked, CachedFileReader(Host()), 10)
    assert error == ""
    assert http.evaluate(check, answer, None, 0)[0].reason == (
        f"{server.url}/503 answers 503 Service Unavailable, wanted 200"
    )


def test_nobody_at_the_other_end_is_an_error() -> None:
    with serving() as server:
        url = server.url
    assert fetched(f"{url}/200") == Result(Outcome.ERROR, f"{url}/200 does not answer: Connection refused")


def test_what_is_no_http_is_an_error(server: Server) -> None:
    outcome = server.fetch("/nonsense")
    assert outcome.outcome is Outcome.ERROR
    assert outcome.reason.startswith(f"{server.url}/nonsense does not answer in HTTP: BadStatusLine(")


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://[::1/", "http://127.0.0.1:9/a b", "http://"])
def test_what_is_no_url_is_an_error(url: str) -> None:
    assert fetched(url).outcome is Outcome.ERROR


@pytest.mark.parametrize("path", ["/silent", "/slow"])
def test_a_page_that_does_not_come_is_an_error_in_its_time(server: Server, path: str) -> None:
    began = time.monotonic()
    outcome = server.fetch(path, timeout=0.5)
    assert outcome.outcome is Outcome.ERROR
    assert outcome.reason.startswith(f"{server.url}{path} does not answer")
    assert time.monotonic() - began < IN_NO_TIME


def test_what_a_page_says_of_itself_is_kept_short(server: Server) -> None:
    outcome = server.fetch("/words")
    assert outcome.outcome is Outcome.FAILED
    assert len(outcome.reason) < 500


def connected(root: Path, *paths: str, timeout: float = 10) -> Result:
    check = UnixSocketCheck(t("/unused"))
    return result(root, ("unixSocket", *paths), lambda answer: unix_socket.evaluate(check, answer, None, 0), timeout)


@contextmanager
def listening(location: Path, kind: int = socket.SOCK_STREAM, backlog: int = 8) -> Iterator[socket.socket]:
    location.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(location.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, kind) as listener:
            # The directory's own path may be too long.
            listener.bind(f"/proc/self/fd/{directory}/{location.name}")
            if kind == socket.SOCK_STREAM:
                listener.listen(backlog)
            yield listener
    finally:
        os.close(directory)


def test_a_socket_is_asked_for_with_each_value() -> None:
    check = UnixSocketCheck(t("/run/${name}.sock"))
    assert unix_socket.make_request(check, {"name": ("a", "b")}) == ("unixSocket", "/run/a.sock", "/run/b.sock")


def test_a_socket_on_which_somebody_listens_is_well_and_its_listener_hears_no_word(tmp_path: Path) -> None:
    with listening(tmp_path / "run/s") as listener:
        assert connected(tmp_path, "/run/s") == WELL
        caller, _ = listener.accept()
        with caller:
            assert caller.recv(1) == b""


def test_a_socket_is_found_behind_a_link_under_the_root(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    with listening(tmp_path / "run/s"):
        assert connected(tmp_path, "/var/run/s") == WELL


def test_a_path_of_a_socket_may_be_long(tmp_path: Path) -> None:
    path = "/run/" + "/".join(["kubelet" * 8] * 4) + "/vendor.sock"
    assert len(path) > 107
    with listening(tmp_path / path.lstrip("/")):
        assert connected(tmp_path, path) == WELL
    assert connected(tmp_path, path) == Result(Outcome.FAILED, f"{path} is there, and nobody listens on it")


def test_nobody_on_one_of_several_sockets_is_a_failure(tmp_path: Path) -> None:
    with listening(tmp_path / "run/s"):
        assert connected(tmp_path, "/run/s", "/run/t") == Result(Outcome.FAILED, "/run/t is not there")
        assert connected(tmp_path, "/nodirectory/s") == Result(Outcome.FAILED, "/nodirectory/s is not there")


def test_what_is_no_socket_is_not_listened_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = "/file is there, and nobody listens on it"
    assert connected(tmp_path, "/file") == Result(Outcome.FAILED, said)


def test_a_listener_that_takes_nobody_is_an_error_in_its_time(tmp_path: Path) -> None:
    with listening(tmp_path / "s", backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(tmp_path / "s"))
        began = time.monotonic()
        assert connected(tmp_path, "/s", timeout=0.5).outcome is Outcome.ERROR
        assert time.monotonic() - began < IN_NO_TIME


def test_a_socket_that_cannot_be_looked_at_hides_no_other_that_fails() -> None:
    for answer in ((("/a", errno.EAGAIN), ("/b", errno.ENOENT)), (("/b", errno.ENOENT), ("/a", errno.EAGAIN))):
        assert unix_socket.evaluate(UnixSocketCheck(t("/x")), answer, None, 0)[0] == Result(
            Outcome.FAILED, "/b is not there"
        )


def test_who_may_not_connect_is_told_so() -> None:
    answer = (("/s", errno.EACCES),)
    assert unix_socket.evaluate(UnixSocketCheck(t("/x")), answer, None, 0)[0] == Result(
        Outcome.ERROR, "/s cannot be connected to: Permission denied"
    )
