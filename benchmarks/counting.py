"""``python -m benchmarks.counting SOCKET ARGUMENT ...``: run ``genplug ARGUMENT ...`` and count its calls by function.

A connection to the socket receives the counts since the start of the process as JSON: the calls of Python functions and
of C functions in all threads that Python started, each by the location or the name of the function. A step of a
generator is a call. The profiler makes the process slower, so its times mean nothing.
"""

import cProfile
import json
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType
from typing import Final

KINDS: Final = ("Python calls", "C calls")


class Counters:
    """A profiler for each thread, because a profiler counts the calls of the thread that enables it."""

    def __init__(self) -> None:
        self._profilers: list[cProfile.Profile] = []

    def install(self) -> None:
        """Count in this thread, and in the threads that start later."""
        threading.setprofile(self._enable)  # called for the first event of a thread
        self._enable()

    def _enable(self, *_event: object) -> None:
        profiler = cProfile.Profile()
        self._profilers.append(profiler)
        profiler.enable()

    def read(self) -> dict[str, dict[str, int]]:
        """Return the number of calls of each kind by function."""
        found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        for profiler in list(self._profilers):
            for entry in profiler.getstats():
                kind = KINDS[0] if isinstance(entry.code, CodeType) else KINDS[1]
                found[kind][_locate(entry.code)] += entry.callcount
        return {kind: dict(counts) for kind, counts in found.items()}


def _locate(code: CodeType | str) -> str:
    """Return the file, with at most two directories, and the name of a function, or the name of a C function."""
    return code if isinstance(code, str) else f"{'/'.join(Path(code.co_filename).parts[-3:])}:{code.co_qualname}"


def _serve(server: socket.socket, counters: Counters) -> None:
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile("w") as stream:
            json.dump(counters.read(), stream)


def main() -> int:
    """Return the exit code of genplug."""
    path, *arguments = sys.argv[1:]
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    counters = Counters()
    threading.Thread(target=_serve, args=(server, counters), daemon=True).start()
    from genplug.cli.main import main as run_genplug  # noqa: PLC0415 - after the thread, which is not counted

    counters.install()
    return run_genplug(arguments)


if __name__ == "__main__":
    sys.exit(main())
