"""The settings of glibc's memory allocator, in a new process, because they last until its end."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, threading
from genplug.cli.malloc import limit_malloc_arenas

{call}
barrier = threading.Barrier(6)

def allocate():
    barrier.wait()
    blocks = [bytearray(4096) for _ in range(100)]
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.parametrize(
    ("call", "variable", "arenas"),
    [
        ("limit_malloc_arenas()", None, {1}),
        ("limit_malloc_arenas()", "3", {2, 3}),
        ("", None, {2, 3, 4, 5, 6, 7}),
    ],
    ids=["limited", "variable has precedence", "default of glibc"],
)
def test_threads_share_one_arena(call: str, variable: str | None, arenas: set[int]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    if variable is not None:
        environment["MALLOC_ARENA_MAX"] = variable
    command = (sys.executable, "-c", _PROGRAM.format(call=call))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count("<heap nr=") in arenas
