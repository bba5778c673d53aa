"""Measures the time and the memory to load or refuse configuration files that are as expensive as a file can be."""

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.figures import Samples
from benchmarks.runs import Runs
from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.load import load_text
from tests.support.large_files import FILES

_AT_LIMITS = {
    "small_resources": 300,
    "globs": 9_990,
    "alternatives": 10,
    "sources": 6_500,
    "environment": 19_900,
    "attributes": 60,
    "probes": 64,
    "wrong_keys": 19_900,
    "wrong_values": 6_500,
    "nodes": 9_900,
    "tokens": 5,
}
"""Files with a number of parts at which most of them are just valid."""


async def files(runs: Runs) -> Samples:
    """Load files of 1 MiB, and the largest files that are valid, each in a process of its own."""
    seconds: list[float] = []
    mebibytes: list[float] = []
    cases = [*((name, 0) for name in FILES), *_AT_LIMITS.items()]
    for _ in range(runs.footprints):
        measured = [await _measure(name, parts) for name, parts in cases]
        seconds.append(max(seconds for seconds, _ in measured))
        mebibytes.append(max(mebibytes for _, mebibytes in measured))
    return {
        "hostile files of 1 MiB: longest time to load or refuse": [1000 * longest for longest in seconds],
        "hostile files of 1 MiB: most memory": mebibytes,
    }


async def _measure(name: str, parts: int) -> tuple[float, float]:
    """Return the processor time in seconds and the additional memory in MiB for a file; 0 parts mean 1 MiB."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.files", name, str(parts), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    seconds, mebibytes = map(float, output.split())
    return seconds, mebibytes


def _load(name: str, parts: int) -> None:
    """Print the processor time and the additional memory for a file."""
    # The modules that only some files need are loaded first.
    for small in ("wrong_values", "regexes", "alternatives"):
        _read(FILES[small]().fill(max_parts=1))
    text = FILES[name]().fill(max_parts=parts) if parts else FILES[name]().fill()
    before, started = _peak_mebibytes(), time.process_time()
    _read(text)
    print(time.process_time() - started, _peak_mebibytes() - before)


def _read(text: str) -> None:
    with suppress(ConfigInvalidError):
        load_text(text, "genplug.yaml", None)


def _peak_mebibytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    _load(sys.argv[1], int(sys.argv[2]))
