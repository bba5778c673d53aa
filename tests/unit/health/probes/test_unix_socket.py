"""The probe ``unixSocket``, with real sockets."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genplug.hardware.host import Host
from genplug.health.probes import unix_socket
from genplug.health.probes.unix_socket import UnixSocketCheck
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.template import Template
from tests.support.probes import PASSED, evaluate_request, request_of

IN_TIME = 30.0
"""Seconds that a run which takes a part of a second exceeds only if it hangs."""
t = Template.parse


def connect(root: Path, *paths: str, timeout: float = 10) -> Result:
    return evaluate_request(root, UnixSocketCheck(t("/unused")), ("unixSocket", *paths), timeout)


@contextmanager
def listen(location: Path, kind: int = socket.SOCK_STREAM, backlog: int = 8) -> Iterator[socket.socket]:
    location.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(location.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, kind) as listener:
            # The path of the directory may be too long.
            listener.bind(f"/proc/self/fd/{directory}/{location.name}")
            if kind == socket.SOCK_STREAM:
                listener.listen(backlog)
            yield listener
    finally:
        os.close(directory)


def test_request_has_a_path_for_each_value() -> None:
    check = UnixSocketCheck(t("/run/${name}.sock"))
    assert request_of(check, {"name": ("a", "b")}) == ("unixSocket", "/run/a.sock", "/run/b.sock")


def test_socket_with_listener_passes_and_nothing_is_sent(tmp_path: Path) -> None:
    with listen(tmp_path / "run/s") as listener:
        assert connect(tmp_path, "/run/s") == PASSED
        caller, _ = listener.accept()
        with caller:
            assert caller.recv(1) == b""


def test_socket_is_found_through_a_link_under_the_root(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    with listen(tmp_path / "run/s"):
        assert connect(tmp_path, "/var/run/s") == PASSED


def test_path_may_be_longer_than_the_address_of_a_socket(tmp_path: Path) -> None:
    path = "/run/" + "/".join(["kubelet" * 8] * 4) + "/vendor.sock"
    assert len(path) > 107
    with listen(tmp_path / path.lstrip("/")):
        assert connect(tmp_path, path) == PASSED
    assert connect(tmp_path, path) == Result(Outcome.FAILED, f"{path} exists, but no program listens on it")


def test_every_socket_needs_a_listener(tmp_path: Path) -> None:
    with listen(tmp_path / "run/s"):
        assert connect(tmp_path, "/run/s", "/run/t") == Result(Outcome.FAILED, "/run/t does not exist")
        assert connect(tmp_path, "/missing/s") == Result(Outcome.FAILED, "/missing/s does not exist")


def test_regular_file_has_no_listener(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reason = "/file exists, but no program listens on it"
    assert connect(tmp_path, "/file") == Result(Outcome.FAILED, reason)


def test_listener_that_does_not_accept_is_an_error_at_its_timeout(tmp_path: Path) -> None:
    with listen(tmp_path / "s", backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(tmp_path / "s"))
        began = time.monotonic()
        assert connect(tmp_path, "/s", timeout=0.5).outcome is Outcome.ERROR
        assert time.monotonic() - began < IN_TIME


def test_failure_of_one_socket_precedes_error_of_another() -> None:
    for answer in ((("/a", errno.EAGAIN), ("/b", errno.ENOENT)), (("/b", errno.ENOENT), ("/a", errno.EAGAIN))):
        assert unix_socket.evaluate(UnixSocketCheck(t("/x")), answer, None, 0)[0] == Result(
            Outcome.FAILED, "/b does not exist"
        )


def test_missing_permission_is_an_error() -> None:
    answer = (("/s", errno.EACCES),)
    assert unix_socket.evaluate(UnixSocketCheck(t("/x")), answer, None, 0)[0] == Result(
        Outcome.ERROR, "cannot connect to /s: Permission denied"
    )


def run_restricted(root: Path, path: str, *globs: str) -> str:
    """Return the error of a run under a policy that allows these sockets."""
    policy = Policy("p.yaml", unix_sockets=tuple(map(Glob.parse, globs)))
    request = unix_socket.KIND.restrict(("unixSocket", path), policy)
    return run_request(request, CachedFileReader(Host(root)), 5)[1]


def test_socket_is_compared_with_the_policy_before_and_after_its_links(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/s").symlink_to("/run/containerd.sock")
    with listen(tmp_path / "run/containerd.sock") as listener:
        listener.settimeout(0)
        for path, globs in (
            ("/run/containerd.sock", ()),
            ("/run/containerd.sock", ("/run/vendor/*",)),
            ("/var/s", ("/var/*",)),
            ("/var/../run/containerd.sock", ("/var/**", "/run/x")),
        ):
            error = run_restricted(tmp_path, path, *globs)
            assert "is refused by 'unixSocket.allow' of p.yaml, which allows " in error
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert run_restricted(tmp_path, "/var/s", "/var/*", "/run/*") == ""


def test_socket_outside_of_the_root_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host").mkdir()
    # The directory of the root was replaced after the socket was opened.
    with listen(tmp_path / "host/s") as listener:
        listener.settimeout(0)
        monkeypatch.setattr("genplug.health.probes.unix_socket.os.readlink", lambda _: f"{tmp_path}/hostile/s")
        reason = f"it leads out of --root: expected a path below {tmp_path}/host, found {tmp_path}/hostile/s"
        assert run_restricted(tmp_path / "host", "/s", "/**") == f"connecting to /s is refused, because {reason}"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_default_policy_allows_no_socket() -> None:
    for path in ("/run/containerd/containerd.sock", "/var/lib/kubelet/device-plugins/kubelet.sock", "/run/${name}"):
        denial = unix_socket.KIND.denial(UnixSocketCheck(t(path)), DEFAULT_POLICY)
        assert denial is not None
        assert denial.reason.endswith("refused by 'unixSocket.allow' of the default policy, which allows nothing")
