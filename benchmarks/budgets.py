"""Every figure with its unit, and its budget where there is one (docs/explanation/benchmarks.md, "Budgets").

``peer`` is the figure of the best peer that has the feature, empty where no peer has it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

SOURCE = "docs/explanation/benchmarks.md, Budgets"


class Budget(Struct, frozen=True):
    """A figure: its unit and its maximum; None if the figure is reported without a budget."""

    unit: str
    maximum: float | None = None
    peer: str = ""


BUDGETS: Final[Mapping[str, Budget]] = MappingProxyType(
    {
        "yardstick: python -c 'import asyncio, grpc.aio'": Budget("ms"),
        "start to list, 10 resources, 1000 devices": Budget("ms", 250, "16"),
        "Allocate 1 of 1000 devices, p50": Budget("ms", 0.35, "0.17-0.20"),
        "Allocate 1 of 1000 devices, p99": Budget("ms", 1),
        "Allocate 8 of 1000 devices, p50": Budget("ms"),
        "Allocate 8 of 1000 devices, p99": Budget("ms"),
        "Allocate, 100 at once, p99": Budget("ms", 50),
        "an empty call (GetDevicePluginOptions), p50": Budget("ms"),
        "an empty call (GetDevicePluginOptions), p99": Budget("ms"),
        "node appears to list": Budget("ms", 20, "4300"),
        "node vanishes to list": Budget("ms", 20),
        "configuration swapped to list": Budget("ms", 100),
        "kubelet started to 10 resources listed": Budget("ms", 300, "5300"),
        "socket deleted to list": Budget("ms", 1000),
        "stream ended to list": Budget("ms", 1000),
        "RSS": Budget("MiB", 52, "14"),
        "anonymous memory": Budget("MiB", 28),
        "threads": Budget(""),
        "file descriptors": Budget(""),
        "RSS with --listen": Budget("MiB"),
        "anonymous memory with --listen": Budget("MiB"),
        "threads with --listen": Budget(""),
        "file descriptors with --listen": Budget(""),
        "idle CPU": Budget("% of a core", 0.1),
        "idle wake-ups of the main thread": Budget("/s", 0.2),
        "idle wake-ups of all threads": Budget("/s"),
        "replug, 1000 devices: Python calls": Budget(""),
        "replug, 1000 devices: C calls": Budget(""),
        "replug, 1000 devices: system calls": Budget(""),
        "replug, 10000 devices: Python calls": Budget(""),
        "replug, 10000 devices: C calls": Budget(""),
        "replug, 10000 devices: system calls": Budget(""),
        "replug, 10 resources: Python calls": Budget(""),
        "replug, 10 resources: C calls": Budget(""),
        "replug, 10 resources: system calls": Budget(""),
        "replug, 300 resources: Python calls": Budget(""),
        "replug, 300 resources: C calls": Budget(""),
        "replug, 300 resources: system calls": Budget(""),
        "replug, Python calls: 10000 devices / 1000 devices": Budget(""),
        "replug, Python calls: 300 resources / 10 resources": Budget(""),
        "scan of 1000 devices, 3 attributes each": Budget("ms"),
        "scan after a change of 1 of them": Budget("ms"),
        "preferred 8 of 10000, packed": Budget("ms", 10),
        "preferred 8 of 10000, spread": Budget("ms", 10),
        "1000 devices, 3 probes each: start to list": Budget("ms"),
        "1000 devices, 3 probes each: CPU of the agent": Budget("% of a core"),
        "1000 devices, 3 probes each: CPU of the workers": Budget("% of a core"),
        "1000 devices, 3 probes each: CPU of both": Budget("% of a core", 1),
        "a worker: RSS": Budget("MiB"),
        "a worker: anonymous memory": Budget("MiB"),
        "8 devices, 1 hangs: Allocate, p50": Budget("ms", 0.35),
        "8 devices, 1 hangs: Allocate, p99": Budget("ms", 1),
        "8 devices, 1 hangs: anonymous memory gained in 1000 periods": Budget("MiB"),
        "8 devices, 1 hangs: SIGTERM to the end": Budget("ms", 2000),
        "10000 devices: start to list": Budget("ms"),
        "10000 devices: list": Budget("bytes"),
        "10000 devices: Allocate 1, p50": Budget("ms"),
        "10000 devices: Allocate 1, p99": Budget("ms"),
        "10000 devices: node appears to list": Budget("ms"),
        "10000 devices: RSS": Budget("MiB"),
        "10000 devices: anonymous memory": Budget("MiB"),
        "10000 devices: threads": Budget(""),
        "10000 devices: file descriptors": Budget(""),
        "300 resources: start to list": Budget("ms"),
        "300 resources: RSS": Budget("MiB"),
        "300 resources: anonymous memory": Budget("MiB"),
        "300 resources: threads": Budget(""),
        "300 resources: file descriptors": Budget(""),
        "50 kubelet restarts: last one to list": Budget("ms"),
        "50 kubelet restarts: RSS gained": Budget("MiB"),
        "50 kubelet restarts: anonymous memory gained": Budget("MiB"),
        "50 kubelet restarts: threads gained": Budget("", 0),
        "50 kubelet restarts: file descriptors gained": Budget("", 0),
        "hostile files of 1 MiB: longest time to load or refuse": Budget("ms", 1000),
        "hostile files of 1 MiB: most memory": Budget("MiB", 40),
        "genplug --help": Budget("ms", 40),
        "genplug validate, 100 resources": Budget("ms", 150),
        "kubectl genplug status, 500 nodes": Budget("ms", 60_000),
        "kubectl genplug status, 500 nodes: peak memory": Budget("MiB", 64),
        "kubectl genplug status, 5000 nodes": Budget("ms"),
        "kubectl genplug status, 5000 nodes: peak memory": Budget("MiB"),
    }
)
