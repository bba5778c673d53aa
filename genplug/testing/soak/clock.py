"""The wall clock of the agent, which jumps without a change of the clock of this machine.

Linux has no namespace for the wall clock (time_namespaces(7)), and a change of the clock of a machine disturbs all
programs on it. The agent therefore runs with a small library that replaces the functions of the C library that return
the wall clock. Python and the C core of gRPC both call them. The monotonic clock, and waits until an absolute time of
the wall clock, are those of the kernel.
"""

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = """\
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("SOAK_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec time;
    int result = clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return result;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds)
        *seconds = now.tv_sec;
    return now.tv_sec;
}
"""
_COMPILERS: Final = ("cc", "gcc", "clang")


def find_compiler() -> str | None:
    """Return the path of a C compiler, None if there is none."""
    return next((path for name in _COMPILERS if (path := shutil.which(name))), None)


class AgentClock:
    """The offset of the wall clock of the agent, in a file that the library maps into the memory of the agent."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock-offset"
        self._library = directory / "clock.so"

    def prepare(self) -> dict[str, str]:
        """Compile the library; return the variables of a process that has this clock.

        Raises:
            OSError: no compiler is installed, or it fails.
        """
        compiler = find_compiler()
        if compiler is None:
            raise OSError(f"expected a C compiler, found none of {', '.join(_COMPILERS)}")
        source = self._library.with_suffix(".c")
        source.write_text(_SOURCE)
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the path of which
        if result.returncode:
            raise OSError(f"{compiler} cannot compile the library of the clock: {result.stderr}")
        self._file.write_bytes(struct.pack("q", 0))
        return {"LD_PRELOAD": str(self._library), "SOAK_CLOCK": str(self._file)}

    def set_offset(self, seconds: int) -> None:
        """Set the difference between the clock of the agent and the clock of the machine, in seconds."""
        file = os.open(self._file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(file, struct.pack("q", seconds), 0)
        finally:
            os.close(file)
