"""The descriptors, threads, worker processes and memory that the agent uses, and the limits on their growth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict

_WORKER_MODULE: Final = b"genplug.health.workers.main"
_KIB: Final = 1024


class Footprint(Struct, frozen=True):
    """The use of resources at a time, in seconds since the start of the soak."""

    seconds: float
    descriptors: int
    threads: int
    workers: int
    rss_kib: int


MAX_GROWTH: Final[Mapping[str, int]] = MappingProxyType(
    {"descriptors": 40, "threads": 16, "workers": 10, "rss_kib": 48 * _KIB}
)
"""The maximum growth of each figure over its maximum during the warm-up."""


def measure_footprint(pid: int, seconds: float) -> Footprint:
    """Return what a process uses now; the memory of its workers is not included."""
    proc = Path("/proc", str(pid))
    lines = (proc / "status").read_text().splitlines()
    rss = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return Footprint(
        round(seconds, 1), len(list_descriptors(pid)), len(_list_numbers(proc / "task")), _count_workers(pid), rss
    )


def list_descriptors(pid: int) -> list[int]:
    """Return the numbers of the open descriptors of a process."""
    return _list_numbers(Path("/proc", str(pid), "fd"))


def _list_numbers(directory: Path) -> list[int]:
    return [int(entry.name) for entry in directory.iterdir()]


def _count_workers(pid: int) -> int:
    count = 0
    pending = [pid]
    while pending:
        for child in _children(pending.pop()):
            pending.append(child)
            try:
                count += _WORKER_MODULE in Path(f"/proc/{child}/cmdline").read_bytes()
            except OSError:
                continue
    return count


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


def growth_error(warm_up: Sequence[Footprint], current: Footprint) -> str:
    """Return why the current use exceeds the limit, or an empty string."""
    for name, most in MAX_GROWTH.items():
        before = max(getattr(sample, name) for sample in warm_up)
        now = getattr(current, name)
        if now > before + most:
            return f"{name}: expected at most {before + most} ({before} during the warm-up), found {now}"
    return ""


def footprint_object(footprint: Footprint) -> dict[str, float]:
    """Return the figures as an object of the report."""
    values = asdict(footprint)
    values["rssMiB"] = round(values.pop("rss_kib") / _KIB, 1)
    return values
