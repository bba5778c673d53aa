"""The probe ``open``, with nodes of real drivers."""

import errno
import os
import stat
from pathlib import Path

import pytest

from genplug.hardware.host import Host
from genplug.hardware.inventory import DeviceNode
from genplug.health.probes import open  # noqa: A004 - the name of the kind
from genplug.health.probes.open import OpenCheck
from genplug.health.thresholds import Outcome, Result
from tests.support.probes import PASSED, evaluate_request, make_device


def run_open(root: Path, *nodes: str, mode: str = "rw") -> Result:
    """Open nodes, each given as ``PATH KIND NUMBERS``."""
    parts = [part for node in nodes for part in node.split(" ", 1)]
    return evaluate_request(root, OpenCheck(mode), ("open", mode, *parts))


def evaluate(*answer: tuple[str, int]) -> Result:
    return open.evaluate(OpenCheck(), answer, None, 0)[0]


def device_node(root: Path, path: str) -> DeviceNode:
    info = Host(root).stat(path)
    assert info is not None
    return DeviceNode(path, path, "rw", info)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Nodes of drivers of the kernel, and a node without a driver."""
    for name, minor in (("null", 3), ("zero", 5), ("no_driver", 200)):
        os.mknod(tmp_path / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    return tmp_path


@pytest.mark.root
def test_request_has_each_node_with_its_numbers(nodes: Path) -> None:
    device = make_device(nodes=(device_node(nodes, "/null"), device_node(nodes, "/zero")))
    request = open.make_request(OpenCheck("r"), device)
    assert request == ("open", "r", "/null", "char 1:3", "/zero", "char 1:5")
    assert evaluate_request(nodes, OpenCheck("r"), request) == PASSED


@pytest.mark.root
@pytest.mark.parametrize("mode", ["r", "w", "rw"])
def test_mode_decides_how_nodes_are_opened(nodes: Path, mode: str) -> None:
    assert run_open(nodes, "/null char 1:3", "/zero char 1:5", mode=mode) == PASSED
    # A directory can be opened for reading only.
    (nodes / "directory").mkdir()
    kind = str(device_node(nodes, "/directory").info.numbers[0])
    expected = Outcome.PASSED if mode == "r" else Outcome.FAILED
    assert run_open(nodes, f"/directory {kind} 0:0", mode=mode).outcome is expected


@pytest.mark.root
def test_every_node_has_to_open(nodes: Path) -> None:
    failure = Result(Outcome.FAILED, f"/no_driver cannot be opened: {os.strerror(errno.ENXIO)}")
    for pair in (("/null char 1:3", "/no_driver char 1:200"), ("/no_driver char 1:200", "/null char 1:3")):
        assert run_open(nodes, *pair) == failure


@pytest.mark.root
def test_other_device_at_the_path_is_not_opened(nodes: Path) -> None:
    for numbers in ("char 1:5", "block 1:3", "char 2:3"):
        assert run_open(nodes, f"/null {numbers}") == Result(Outcome.ERROR, "another device is at /null now")


@pytest.mark.root
def test_node_is_found_through_a_link_under_the_root(nodes: Path) -> None:
    (nodes / "dev").mkdir()
    (nodes / "dev/gpu").symlink_to("/null")
    assert run_open(nodes, "/dev/gpu char 1:3") == PASSED
    (nodes / "null").unlink()
    assert run_open(nodes, "/dev/gpu char 1:3") == Result(
        Outcome.FAILED, f"/dev/gpu cannot be opened: {os.strerror(errno.ENOENT)}"
    )


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_missing_permission_is_an_error_with_a_hint(number: int) -> None:
    reason = f"genplug is not permitted to open /dev/x0 ({os.strerror(number)}): the pod has to be privileged"
    assert evaluate(("/dev/x0", number)) == Result(Outcome.ERROR, reason)


def test_busy_node_passes() -> None:
    answer = (("/dev/x0", errno.EBUSY), ("/dev/x1", errno.EIO))
    assert evaluate(*answer) == Result(Outcome.FAILED, f"/dev/x1 cannot be opened: {os.strerror(errno.EIO)}")


@pytest.mark.parametrize("first", [errno.EPERM, errno.EACCES, -1])
def test_failure_of_one_node_precedes_error_of_another(first: int) -> None:
    for answer in ((("/dev/x0", first), ("/dev/x1", errno.ENXIO)), (("/dev/x1", errno.ENXIO), ("/dev/x0", first))):
        assert evaluate(*answer) == Result(Outcome.FAILED, f"/dev/x1 cannot be opened: {os.strerror(errno.ENXIO)}")
