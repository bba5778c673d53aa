"""Counts of this process's resources, and ways to wait for the end of processes."""

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path


def count_descriptors() -> int:
    """Return the number of open file descriptors; the count's own is included."""
    return len(list(Path("/proc/self/fd").iterdir()))


def count_threads() -> int:
    """Return the number of threads, those of gRPC's C core included, which Python does not list."""
    return len(list(Path("/proc/self/task").iterdir()))


def read_resident_kib() -> int:
    """Return the resident memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def list_probe_workers() -> list[int]:
    """Return the IDs of the probe workers that agents in this process run."""
    children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [pid for pid in children if b"genplug.health.workers.main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def wait_until_at_most(count: Callable[[], int], limit: int, seconds: float = 30) -> None:
    """Wait until a count falls to the limit: the garbage collector and gRPC's C core free objects without an event.

    Raises:
        AssertionError: The count is still higher after the given time.
    """
    try:
        async with asyncio.timeout(seconds):
            while count() > limit:
                gc.collect()
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"expected at most {limit}, found {count()} after {seconds} s") from None


async def wait_for_process_end(pid: int) -> None:
    """Wait until a process has ended.

    Raises:
        TimeoutError: The process still runs after 10 s.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
