"""Kill the programs that a worker started, also after the worker has ended."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MAX_ROUNDS = 10
"""Searches for processes that were started during the search before."""
_ENDED = ("Z", "X")
"""The states of a process that has ended (proc_pid_stat(5))."""


_THREAD_NAME = "genplug-kill-session"


def start_kill(leader: int) -> threading.Thread | None:
    """Run :func:`kill_session` in a thread, because the list of all processes of a machine can be long.

    Return the thread, None if the function has returned. Do not wait for the leader's exit status until the thread has
    ended: afterwards, another session can get its ID.
    """
    # Not a daemon thread: the exit of a command waits for it.
    thread = threading.Thread(target=kill_session, args=(leader,), name=_THREAD_NAME)
    try:
        thread.start()
    except RuntimeError:
        # The system cannot start a thread now. The programs must end nevertheless.
        kill_session(leader)
        return None
    return thread


def wait_for_kills(seconds: float) -> None:
    """Wait until the threads of :func:`start_kill` have ended, for at most ``seconds``; ``os._exit`` does not wait."""
    deadline = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name == _THREAD_NAME:
            thread.join(max(deadline - time.monotonic(), 0))


def kill_session(leader: int) -> None:
    """Kill every process in the session of a worker, except for the worker.

    A session cannot get the ID of another process while a process is in it, also after its leader has ended. A program
    that has started a session of its own is not found.
    """
    killed: set[int] = set()
    for _ in range(_MAX_ROUNDS):
        found = set(_list_session(leader)) - killed - {leader}
        if not found:
            return
        for process in found:
            _kill_member(process, leader)
        killed |= found


def _list_session(leader: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _is_member(int(entry.name), leader):
            yield int(entry.name)


def _is_member(process: int, leader: int) -> bool:
    try:
        # The name of the program, in parentheses, can contain spaces.
        state, _, _, session, *_ = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    return int(session) == leader and state not in _ENDED


def _kill_member(process: int, leader: int) -> None:
    # The process could end meanwhile, and another process get its ID: a descriptor stays that of one process.
    with suppress(OSError):
        descriptor = os.pidfd_open(process)
        try:
            if _is_member(process, leader):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
