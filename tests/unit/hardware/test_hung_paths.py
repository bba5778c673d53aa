"""Hung paths: the current operation of each thread, and the operations that are refused."""

import threading
from collections.abc import Callable

import pytest

from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths
from genplug.spec.globs import Glob
from tests.support.hardware import NodeTree


def run_in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)


def test_current_operation_is_tracked_for_each_thread() -> None:
    paths = HungPaths()
    threads = [threading.get_ident()]

    def list_dev() -> None:
        paths.record(Access.LIST, "/dev")
        threads.append(threading.get_ident())

    paths.record(Access.READ, "/sys/a")
    run_in_thread(list_dev)
    operations = [paths.current(thread) for thread in threads]
    assert [operation and (operation.access, operation.path) for operation in operations] == [
        (Access.READ, "/sys/a"),
        (Access.LIST, "/dev"),
    ]


def test_hung_operation_is_refused_without_others_on_its_path() -> None:
    paths = HungPaths()
    paths.record(Access.READ, "/sys/a")
    hung = paths.current(threading.get_ident())
    assert hung is not None
    paths.add(hung)
    with pytest.raises(HangError, match=r"^read of /sys/a does not return$"):
        paths.record(Access.READ, "/sys/a")
    paths.record(Access.STAT, "/sys/a")
    paths.record(Access.READ, "/sys/b")
    paths.discard(hung)
    paths.record(Access.READ, "/sys/a")


def test_thread_without_an_access_has_no_operation() -> None:
    paths = HungPaths()
    paths.record(Access.LIST, "/dev")
    paths.record(Access.NONE, "")
    assert paths.current(threading.get_ident()) is None


def test_long_list_makes_progress(tree: NodeTree) -> None:
    accesses: list[Access] = []
    for number in range(2500):
        tree.write(f"/dev/x{number}", "")
    host = Host.at(tree.root, recorder=lambda access, path: accesses.append(access) if path in {"", "/dev"} else None)
    host.cached().glob(Glob.parse("/dev/*"))
    assert accesses[-4:] == [*[Access.LIST] * 3, Access.NONE]


def test_hang_error_has_the_start_of_the_hang() -> None:
    paths = HungPaths()
    paths.record(Access.READ, "/sys/a")
    hung = paths.current(threading.get_ident())
    assert hung is not None
    paths.add(hung)
    with pytest.raises(HangError) as error:
        paths.record(Access.READ, "/sys/a")
    assert error.value.since == hung.started


def test_time_limit_applies_to_its_thread() -> None:
    paths = HungPaths()
    paths.begin(-1)
    run_in_thread(lambda: paths.record(Access.READ, "/sys/a"))
    with pytest.raises(HangError, match="it has not finished within"):
        paths.record(Access.READ, "/sys/a")
    paths.end()
    paths.record(Access.READ, "/sys/a")


def test_host_refuses_to_read_a_hung_file(tree: NodeTree) -> None:
    paths = HungPaths()
    host = Host.at(tree.root, recorder=paths.record)
    tree.write("/sys/x0/state", "ok")
    assert host.read_text("/sys/x0/state") == "ok"
    hung = paths.current(threading.get_ident())
    assert hung is not None
    paths.add(hung)
    with pytest.raises(HangError, match="read of /sys/x0/state"):
        host.read_text("/sys/x0/state")
    tree.write("/sys/x1/state", "ok")
    assert host.read_text("/sys/x1/state") == "ok"
