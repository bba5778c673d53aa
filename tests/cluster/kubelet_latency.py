"""The command ``python -m tests.cluster.kubelet_latency``: times that a real kubelet measures or causes, as a record.

The kubelet has its default periods. Its histogram of Allocate contains the sum of the times, so that the mean of the
calls between two reads is exact; the buckets are too wide for percentiles. ``--peer`` also measures another plugin.
"""

import argparse
import json
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from genplug import __version__
from tests.cluster import images
from tests.cluster.cluster import Cluster, build_container, build_pod, poll_until
from tests.cluster.machine import Machine, Program
from tests.cluster.node import Node
from tests.cluster.tools import TOOLS

RESOURCE = "test.example/thing"
PODS, CONTAINERS = 10, 20
DEVICES: Final = PODS * CONTAINERS
STARTS, REMOVALS = 5, 8
_PERIOD_SECONDS = 10.0
"""The period after which the kubelet reports the status of the node."""
_MINORS = ("1.34", "1.37")
_ROOT = Path(__file__).parents[2]
_CONFIG = f"""
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  {RESOURCE}:
    devices: [{{glob: "/dev/thing*"}}]
    health: {{removalGracePeriodSeconds: 3600}}
"""

START = f"plugin started to {DEVICES} devices in the kubelet"
ALLOCATE = "Allocate of 1 device, mean of 20"
KUBELET = "device removed to the kubelet"
POD = "device removed to the status of its pod"
NODE = "device removed to the allocatable number of the node"
Samples = dict[str, list[float]]
"""Milliseconds by figure."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the record; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.kubelet_latency", description=__doc__)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the record to this file")
    parser.add_argument("minors", nargs="*", default=_MINORS, metavar="MINOR", help="version of Kubernetes, e.g. 1.34")
    parser.add_argument(
        "--peer",
        metavar="COMMAND",
        default="",
        help=f"measure another plugin too; it must list /dev/thing* as {DEVICES} healthy devices of {RESOURCE}",
    )
    parsed = parser.parse_args(arguments)
    peer = shlex.split(parsed.peer)
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    versions = []
    for minor in parsed.minors:
        [binaries] = TOOLS.glob(f"kubernetes/{minor}.*")
        print(f"measuring Kubernetes {binaries.name}", file=sys.stderr)
        genplug, other = measure(binaries, peer)
        figures = [
            {"name": name, "unit": "ms", "values": values, "peerValues": other.get(name, [])}
            for name, values in genplug.items()
        ]
        versions.append({"version": binaries.name, "figures": figures})
    record = {
        "conditions": {
            "date": datetime.now(UTC).date().isoformat(),
            "genplug": __version__,
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "load before": load,
        },
        "versions": versions,
    }
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if parsed.record:
        parsed.record.write_text(text)
    return 0


def measure(binaries: Path, peer: Sequence[str] = ()) -> tuple[Samples, Samples]:
    """Return the times of genplug and of a peer on a cluster; print the logs of the machine after an error."""
    with Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp"))) as machine:
        cluster = Cluster(machine, binaries, TOOLS, has_short_periods=False)
        try:
            cluster.start(images.build_busybox(machine.directory))
            return _measure_cluster(cluster, peer)
        except BaseException:
            print(machine.read_logs(), file=sys.stderr)
            raise


def _measure_cluster(cluster: Cluster, peer: Sequence[str]) -> tuple[Samples, Samples]:
    for number in range(DEVICES):
        cluster.machine.plug(f"/dev/thing{number}", (240 << 8) + number)
    config = cluster.machine.directory / "genplug.yaml"
    config.write_text(_CONFIG)
    genplug, other = Samples(), Samples()
    program = _measure_plugin(cluster, (sys.executable, "-m", "genplug", "run", "--config", str(config)), genplug)
    cluster.run_pods(build_pod("holder", build_container(thing=1)))
    # The kubelet lists the devices of deleted pods for a moment.
    poll_until(lambda: len(cluster.node.list_allocated_devices()[RESOURCE]) == 1)
    [held] = cluster.node.list_allocated_devices()[RESOURCE]
    for number in range(REMOVALS):
        # The kubelet reports the node at a random time after the removal.
        time.sleep(random.Random(number).uniform(0, _PERIOD_SECONDS))
        _measure_removal(cluster, held, genplug)
    cluster.delete_pods("holder")
    if peer:
        _stop(cluster, program)
        program = _measure_plugin(cluster, peer, other)
        for number in range(REMOVALS):
            time.sleep(random.Random(number).uniform(0, _PERIOD_SECONDS))
            removed = time.monotonic()
            cluster.machine.unplug("/dev/thing0")
            poll_until(lambda: len(_list_devices(cluster)) == DEVICES - 1)
            other.setdefault(KUBELET, []).append(1000 * (time.monotonic() - removed))
            cluster.machine.plug("/dev/thing0", 240 << 8)
            poll_until(lambda: len(_list_devices(cluster)) == DEVICES)
    return genplug, other


def _measure_plugin(cluster: Cluster, command: Sequence[str], samples: Samples) -> Program:
    """Measure the starts of a plugin and its Allocate calls; return the running plugin."""
    for number in range(STARTS):
        started = time.monotonic()
        program = cluster.machine.start(Path(command[0]).name, *command, environment={"PYTHONPATH": str(_ROOT)})
        poll_until(lambda: len(_list_devices(cluster)) == DEVICES)
        samples.setdefault(START, []).append(1000 * (time.monotonic() - started))
        if number < STARTS - 1:
            _stop(cluster, program)
    cluster.wait_allocatable(RESOURCE, DEVICES)
    samples[ALLOCATE] = [_measure_allocate(cluster, f"many-{number}") for number in range(PODS)]
    return program


def _stop(cluster: Cluster, program: Program) -> None:
    program.stop()
    poll_until(lambda: not _list_devices(cluster))


def _list_devices(cluster: Cluster) -> set[str]:
    """Return the healthy devices in the kubelet."""
    return cluster.node.list_allocatable_devices().get(RESOURCE, set())


def _measure_allocate(cluster: Cluster, name: str) -> float:
    """Return the mean time of the Allocate calls for a pod, which the kubelet admits and whose image does not exist."""
    before, count = _read_allocations(cluster)
    containers = [
        build_container(f"c{number}", thing=1) | {"image": "registry.example/absent:1"} for number in range(CONTAINERS)
    ]
    cluster.control.apply(build_pod(name, *containers))
    poll_until(lambda: _read_allocations(cluster)[1] == count + CONTAINERS)
    mean = 1000 * (_read_allocations(cluster)[0] - before) / CONTAINERS
    cluster.delete_pods(name)
    return mean


def _read_allocations(cluster: Cluster) -> tuple[float, int]:
    """Return the sum of the seconds of all Allocate calls, and their number."""
    page = cluster.machine.run("wget", "--quiet", "--output-document=-", "http://127.0.0.1:10255/metrics")
    return read_histogram(page, "kubelet_device_plugin_alloc_duration_seconds", RESOURCE)


def read_histogram(page: str, name: str, resource: str) -> tuple[float, int]:
    """Return the sum and the count of a histogram of a resource in the metrics of the kubelet; 0 if it is absent."""
    values = {
        part: float(value)
        for part, labels, value in re.findall(rf"^{name}_(sum|count)\{{(.*)\}} (\S+)$", page, re.MULTILINE)
        if f'resource_name="{resource}"' in labels.split(",")
    }
    return values.get("sum", 0.0), int(values.get("count", 0))


def _measure_removal(cluster: Cluster, device: str, samples: Samples) -> None:
    """Remove a device that a pod holds, add the times until it is visible to the samples, and return the device."""
    path = RESOURCE.replace(".", r"\.")
    health = "{.status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health}"
    waits = {
        POD: _start_wait(cluster, "pod/holder", f"jsonpath={health}=Unhealthy"),
        NODE: _start_wait(cluster, f"node/{Node.name}", f"jsonpath={{.status.allocatable.{path}}}={DEVICES - 1}"),
    }
    time.sleep(2)  # kubectl has started its watches
    number = cluster.machine.directory.joinpath("dev", device).stat().st_rdev
    removed = time.monotonic()
    cluster.machine.unplug(f"/dev/{device}")
    missing = {KUBELET, *waits}
    while missing:
        for name in list(missing):
            if device in _list_devices(cluster) if name == KUBELET else waits[name].poll() is None:
                continue
            if name in waits and waits[name].returncode:
                raise RuntimeError(f"{name}: kubectl wait ended: {waits[name].communicate()[1]}")
            samples.setdefault(name, []).append(1000 * (time.monotonic() - removed))
            missing.remove(name)
        time.sleep(0.002)
    cluster.machine.plug(f"/dev/{device}", number)
    cluster.wait("pod/holder", f"jsonpath={health}=Healthy")
    cluster.wait_allocatable(RESOURCE, DEVICES)


def _start_wait(cluster: Cluster, target: str, condition: str) -> subprocess.Popen[str]:
    command = cluster.control.build_command("wait", target, f"--for={condition}", "--timeout=60s")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
