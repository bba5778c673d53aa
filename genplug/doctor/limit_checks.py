"""Checks of the limits of the process and of inotify."""

import math
from collections.abc import Iterator

from genplug.doctor.facts import Facts, needs_of, require
from genplug.doctor.findings import Observation, Registry, error, ok, warning
from genplug.spec.limits import MAX_CALLS, MAX_HUNG_WORKERS

REGISTRY = Registry("limits")
_WARNING_SHARE = 0.9
AGENT_BYTES = 40 << 20
"""Memory of the agent that its cgroup is charged for (values.yaml of the chart)."""
WORKER_BYTES = 15 << 20
"""Memory of a probe worker (values.yaml of the chart)."""
DEVICE_BYTES = 3 << 10
"""Memory of a device (benchmarks/scale.py: 30 MiB for 10 000 devices)."""
RESOURCE_BYTES = 100 << 10
"""Memory of a resource (benchmarks/scale.py: 29 MiB for 300 resources)."""
BASE_DESCRIPTORS = 64
"""File descriptors without resources: the agent has 17, its HTTP server keeps 32 free, and scans open files."""
RESOURCE_DESCRIPTORS = 2
"""File descriptors of a resource (benchmarks/scale.py: 616 with 300 resources)."""
BASE_THREADS = 48
"""Threads of the agent (11 in the benchmarks), and the threads that may wait for file systems (32)."""
_MIB = 1 << 20


@REGISTRY.add(
    "inotify-watches",
    title="The limit of inotify watches suffices.",
    why="The kernel reports changes of /dev and of the configuration by inotify; without a watch, the agent sees them "
    "at the next scan, up to a minute later.",
)
def check_inotify_watches(facts: Facts) -> Iterator[Observation]:
    """Check the watches that the user of this process has."""
    inotify, needed = require(facts.inotify), needs_of(facts).directories
    part = "" if inotify.is_complete else "at least "
    text = f"{part}{inotify.watches} of {inotify.max_watches} watches are used by the visible processes of this user"
    action = f"raise the sysctl fs.inotify.max_user_watches, for example to {max(2 * inotify.max_watches, 65_536)}"
    if "max_user_watches" in inotify.error:
        yield error(f"{inotify.error}; {text}", action)
    elif needed > inotify.max_watches:
        yield error(f"the configuration needs about {needed} watches; {text}", action)
    elif inotify.watches >= _WARNING_SHARE * inotify.max_watches:
        yield warning(text, action)
    else:
        yield ok(f"{text}; the configuration needs about {needed}")


@REGISTRY.add(
    "inotify-instances",
    title="The limit of inotify instances suffices.",
    why="The agent needs one inotify instance; without it, the agent sees changes at the next scan.",
)
def check_inotify_instances(facts: Facts) -> Iterator[Observation]:
    """Check the instances that the user of this process has."""
    inotify = require(facts.inotify)
    text = f"{inotify.instances} of {inotify.max_instances} instances are used by the visible processes of this user"
    action = f"raise the sysctl fs.inotify.max_user_instances, for example to {max(2 * inotify.max_instances, 1024)}"
    if inotify.error and "max_user_watches" not in inotify.error:
        yield error(f"{inotify.error}; {text}", action)
    elif inotify.instances >= _WARNING_SHARE * inotify.max_instances:
        yield warning(text, action)
    else:
        yield ok(text)


@REGISTRY.add(
    "file-descriptors",
    title="The limit of open files suffices.",
    why="Each resource has a socket and a stream. Without file descriptors, the agent cannot serve new resources.",
)
def check_descriptors(facts: Facts) -> Iterator[Observation]:
    """Compare the limit with the number of resources."""
    limit = require(facts.process).open_files
    needed = BASE_DESCRIPTORS + RESOURCE_DESCRIPTORS * needs_of(facts).resource_names
    if limit is not None and limit < needed:
        yield error(
            f"the limit of open files is {limit}, and the configuration needs about {needed}",
            "raise RLIMIT_NOFILE of the agent ('ulimit -n', or LimitNOFILE of the systemd unit)",
        )
    else:
        yield ok(f"the limit of open files is {limit or 'not set'}, and the configuration needs about {needed}")


@REGISTRY.add(
    "memory-limit",
    title="The memory limit of the cgroup suffices for the agent and its probe workers.",
    why="The kernel ends a process of the container when the limit is reached.",
)
def check_memory(facts: Facts) -> Iterator[Observation]:
    """Compare the limit with the numbers of devices, resources and probes."""
    memory, needs = require(facts.memory), needs_of(facts)
    workers = bool(needs.read_probes) + bool(needs.call_probes)
    needed = AGENT_BYTES + workers * WORKER_BYTES
    needed += needs.devices * DEVICE_BYTES + needs.resource_names * RESOURCE_BYTES
    hung = min(MAX_HUNG_WORKERS, needs.read_probes) * WORKER_BYTES
    text = f"the configuration needs about {_mib(needed)} MiB"
    text += f", and {_mib(hung)} MiB more if reads of probes hang" if hung else ""
    if memory.limit is None:
        yield ok(f"the cgroup of this process has no memory limit; {text}")
        return
    text = f"the memory limit is {memory.limit // _MIB} MiB ({memory.file}); {text}"
    action = f"set the memory limit of the container to at least {_mib(needed + hung)} MiB (in the chart: "
    action += "daemonset.resources)"
    if memory.limit < needed:
        yield error(text, action)
    elif memory.limit < needed + hung:
        yield warning(text, action)
    else:
        yield ok(text)


def _mib(count: int) -> int:
    return math.ceil(count / _MIB)


@REGISTRY.add(
    "process-limit",
    title="The limit of processes and threads of the cgroup suffices.",
    why="The agent runs file operations in threads and probes in processes; without new threads, scans are late.",
)
def check_processes(facts: Facts) -> Iterator[Observation]:
    """Compare the limit with the number of threads of the agent and its workers."""
    pids, needs = require(facts.pids), needs_of(facts)
    needed = BASE_THREADS + min(MAX_CALLS, needs.call_probes) + min(MAX_HUNG_WORKERS, needs.read_probes)
    text = f"the configuration needs at most about {needed}"
    if pids.limit is None:
        yield ok(f"the cgroup of this process has no limit of processes; {text}")
    elif pids.limit < needed:
        action = "raise the limit of processes of the pod (podPidsLimit of the kubelet)"
        yield warning(f"the limit is {pids.limit} processes and threads ({pids.file}); {text}", action)
    else:
        yield ok(f"the limit is {pids.limit} processes and threads ({pids.file}); {text}")
