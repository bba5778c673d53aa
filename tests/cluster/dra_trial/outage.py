"""An API server that is away: the device plugin API, running claims, and the load of the agent."""

import json
import time
from typing import Any

from tests.cluster.cluster import build_container, build_pod, poll_until
from tests.cluster.dra_trial.figures import Figure, exactly
from tests.cluster.dra_trial.holders import build_holder, count_starts
from tests.cluster.dra_trial.trial import FUSE, Trial, estimate_quantile, is_complete, list_devices, read_buckets
from tests.cluster.kubelet_latency import read_histogram

_ALLOCATE = "genplug_allocate_duration_seconds"
_KUBELET_ALLOCATE = "kubelet_device_plugin_alloc_duration_seconds"
_CONTAINERS = 20
"""Containers of a static pod, each with a device."""
_POD = "kept-0"


def stop_api_server(trial: Trial, seconds: float = 300, *, hangs: bool = False, pods: int = 10) -> list[Figure]:
    """End the API server for a time, or stop its process so that requests hang.

    Meanwhile static pods use devices by the device plugin API, the container of a pod with a claim restarts, and a
    device appears and another disappears.
    """
    cluster, node = trial.cluster, trial.cluster.node
    with trial.watch_pods() as watch:
        trial.create_holders(watch, build_holder(_POD, "thing", "thing"))
        pod = watch.objects[_POD]
    before = _allocate(trial, "before", pods)
    count, starts = len(node.list_allocatable_devices()[FUSE]), count_starts(trial.machine)[_POD]
    cluster.control.suspend_server() if hangs else cluster.control.stop_server()
    stopped = time.monotonic()
    try:
        during = _allocate(trial, "during", pods)
        is_ready = trial.read_agent("/readyz").startswith("ready")
        trial.kill_container(pod)
        restarted = poll_until(lambda: count_starts(trial.machine)[_POD] > starts)
        trial.machine.unplug("/dev/disk0")
        trial.machine.plug("/dev/thing6", (240 << 8) + 60)
        # The agent has handled the changes, and is idle from now on.
        time.sleep(min(15, seconds / 4))
        cpu, lines, since = trial.read_cpu(), len(trial.read_log()), time.monotonic()
        time.sleep(max(seconds / 2, seconds - (since - stopped)))
        idle = time.monotonic() - since
        cpu_share, logged = 100 * (trial.read_cpu() - cpu) / idle, trial.read_log()[lines:]
        is_ready = is_ready and trial.read_agent("/readyz").startswith("ready")
    finally:
        cluster.control.resume_server() if hangs else cluster.control.start_server()
    returned = time.monotonic()
    for line in logged:
        trial.log(f"logged without an API server: {line['msg']}")
    with trial.watch_slices() as slices:

        def is_published(objects: Any) -> bool:
            things, disks = list_devices(objects.values(), "thing"), list_devices(objects.values(), "disk")
            return "thing6" in things and bool(disks.get("disk0", {"taints": 1}).get("taints"))

        published = slices.wait(is_published) - returned
        trial.machine.plug("/dev/disk0", (240 << 8) + 100)
        trial.machine.unplug("/dev/thing6")
        slices.wait(is_complete)
        slices.wait(lambda objects: "taints" not in list_devices(objects.values(), "disk").get("disk0", {"taints": 1}))
    with trial.watch_pods() as watch:
        watch.find(_POD, lambda _: True)
        trial.delete_pods(watch, _POD)
    return [
        Figure("Seconds without an API server", returned - stopped),
        Figure("Allocate calls", during["calls"], minimum=pods * _CONTAINERS),
        Figure("Allocate in genplug before, 99th percentile", before["quantile"], "ms"),
        Figure(
            "Allocate in genplug meanwhile, 99th percentile", during["quantile"], "ms", max(2 * before["quantile"], 5)
        ),
        Figure("Allocate in the kubelet before, mean", before["mean"], "ms"),
        Figure("Allocate in the kubelet meanwhile, mean", during["mean"], "ms", max(2 * before["mean"], 5)),
        exactly("The agent was ready", int(is_ready), 1),
        exactly(
            "Devices of the device plugin API that the kubelet lost",
            count - len(node.list_allocatable_devices()[FUSE]),
            0,
        ),
        # A kubelet waits for answers of an API server that hangs.
        Figure("Ended container with a claim to its restart", restarted, "s", 60 if hangs else 15),
        Figure("Processor time of the idle agent", cpu_share, "%", 0.2),
        Figure("Lines in the log per minute", 60 * len(logged) / idle, maximum=max(1, 60 / idle)),
        Figure("API server back to published changes", published, "s", 5),
    ]


def _allocate(trial: Trial, name: str, pods: int) -> dict[str, float]:
    """Run static pods with devices of the device plugin API; return the times of Allocate in milliseconds."""
    pages = [_read_pages(trial)]
    containers = [
        build_container(f"c{number}", fuse=1) | {"image": "registry.example/absent:1"} for number in range(_CONTAINERS)
    ]
    manifests = [trial.cluster.node.manifests / f"{name}-{number}.json" for number in range(pods)]
    expected = _count(trial) + pods * _CONTAINERS
    for manifest in manifests:
        manifest.write_text(json.dumps(build_pod(manifest.stem, *containers)))
    poll_until(lambda: _count(trial) >= expected, 120)
    pages.append(_read_pages(trial))
    for manifest in manifests:
        manifest.unlink()
    (agent, kubelet), (agent_after, kubelet_after) = pages
    buckets = [read_buckets(page, _ALLOCATE, FUSE) for page in (agent, agent_after)]
    quantile = estimate_quantile(buckets[0], buckets[1], 0.99)
    (total, calls), (total_after, calls_after) = (
        read_histogram(page, _KUBELET_ALLOCATE, FUSE) for page in (kubelet, kubelet_after)
    )
    return {
        "calls": calls_after - calls,
        "quantile": 1000 * quantile,
        "mean": 1000 * (total_after - total) / (calls_after - calls),
    }


def _count(trial: Trial) -> int:
    return read_histogram(trial.read_kubelet(), _KUBELET_ALLOCATE, FUSE)[1]


def _read_pages(trial: Trial) -> tuple[str, str]:
    return trial.read_agent("/metrics"), trial.read_kubelet()
