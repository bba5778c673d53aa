"""Hung paths: which operation a thread is in, and what is refused to other threads."""

import threading
from collections.abc import Callable

import pytest

from genplug.hardware.file_tree import Access
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HangError, HungPaths
from tests.support.hardware import NodeTree


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)


def test_the_operation_of_each_thread_is_known() -> None:
    paths, other = HungPaths(), []
    paths.record(Access.READ, "/sys/a")
    in_thread(lambda: (paths.record(Access.LIST, "/dev"), other.append(threading.get_ident())))
    mine, theirs = paths.current(threading.get_ident()), paths.current(other[0])
    assert mine is not None
    assert theirs is not None
    assert (mine.access, mine.path) == (Access.READ, "/sys/a")
    assert (theirs.access, theirs.path) == (Access.LIST, "/dev")


def test_a_hung_operation_is_refused_and_others_on_the_path_are_not() -> None:
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


def test_the_error_of_a_hang_says_since_when() -> None:
    paths = HungPaths()
    paths.record(Access.READ, "/sys/a")
    hung = paths.current(threading.get_ident())
    assert hung is not None
    paths.add(hung)
    with pytest.raises(HangError) as error:
        paths.record(Access.READ, "/sys/a")
    assert error.value.since == hung.started


def test_a_time_limit_counts_for_its_thread_only() -> None:
    paths = HungPaths()
    paths.begin(-1)
    in_thread(lambda: paths.record(Access.READ, "/sys/a"))
    with pytest.raises(HangError, match="it has not finished within"):
        paths.record(Access.READ, "/sys/a")
    paths.end()
    paths.record(Access.READ, "/sys/a")


def test_a_host_refuses_to_read_a_file_that_hangs(tree: NodeTree) -> None:
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
