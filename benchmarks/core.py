"""Measures the core without a process: scans of many devices with attributes, and preferred allocation."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.figures import Samples
from benchmarks.runs import Runs
from genplug.allocation.preferred import choose_preferred
from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.spec.model import Preference
from genplug.testing.node.file_trees import build_tree
from tests.support.hardware import rescan

_DEVICES = 1000
_CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  example.com/x:
    devices: [{glob: "/sys/bus/x/devices/*", where: {attr.state: enabled}, nodes: ["/dev/${name}"]}]
    allocate: {env: {SIZES: "${attr.size}", SERIALS: "${attr.serial}"}}
"""


async def scans(runs: Runs) -> Samples:
    """A full scan of 1 000 devices with three attributes and a NUMA node each, and a scan after one device changed."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        build_tree(_tree(), root)
        config, host = load_text(_CONFIG, "benchmark"), Host.at(root)
        before = discover(config, host)
        change = {"/sys/devices/bridge5": frozenset({"x555"})}
        return {
            "scan of 1000 devices, 3 attributes each": _timed(runs, lambda: discover(config, host)),
            "scan after a change of 1 of them": _timed(runs, lambda: rescan(config, host, before, change)),
        }


async def preferences(runs: Runs) -> Samples:
    """Preferred allocation of 8 of 10 000 devices on 8 NUMA nodes."""
    order = tuple(f"x{number}" for number in range(10_000))
    groups = {grant: (str(number % 8), grant) for number, grant in enumerate(order)}
    return {
        f"preferred 8 of 10000, {policy}": _timed(
            runs, partial(choose_preferred, order, order[:2], 8, order, groups=groups, policy=policy)
        )
        for policy in (Preference.PACKED, Preference.SPREAD)
    }


def _timed(runs: Runs, act: Callable[[], object]) -> list[float]:
    """Return the durations of a function in milliseconds, after one call that warms up."""
    values = []
    for number in range(runs.changes + 1):
        started = time.perf_counter()
        act()
        values += [1000 * (time.perf_counter() - started)] if number else []
    return values


def _tree() -> str:
    entries = [f"/sys/devices/bridge{number}/numa_node = {number % 2}" for number in range(10)]
    for number in range(_DEVICES):
        at = f"devices/bridge{number // 100}/x{number}"
        entries += [
            f"/sys/bus/x/devices/x{number} -> ../../../{at}",
            f"/sys/{at}/state = enabled",
            f"/sys/{at}/size = {number}",
            f"/sys/{at}/serial = s{number}",
            f"/dev/x{number} char 240:{number}",
        ]
    return "\n".join(entries)
