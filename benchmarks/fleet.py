"""Measures ``kubectl genplug status`` over many nodes, as a process, with a stand-in for kubectl."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Samples
from benchmarks.runs import Runs
from tests.support.kubectl import (
    KubectlStandIn,
    Object,
    make_agent_pod,
    make_daemon_set,
    make_node,
    make_resource,
    make_status,
)

_ANSWER_SECONDS = 0.5
"""Time of each call of kubectl."""
_IMAGES = 50
"""Images in the status of a node, as the kubelet reports them by default (nodeStatusMaxImages)."""

_SCRIPT = """\
import sys
from pathlib import Path
from genplug.kubectl.main import main
code = main(sys.argv[1:])
print(Path("/proc/self/status").read_text(), file=sys.stderr)
sys.exit(code)
"""
"""Prints the peak memory of its own: that of wait4(2) can be the memory of the process that started the program."""


async def fleet(runs: Runs) -> Samples:
    """The status of 500 nodes with 8 devices each, where each call of kubectl takes 0.5 s; 5000 nodes without delay."""
    samples: dict[str, list[float]] = {}
    for nodes, delay, times in ((500, _ANSWER_SECONDS, runs.fleets), (5000, 0.0, runs.large_fleets)):
        with tempfile.TemporaryDirectory() as directory:
            kubectl = _stand_in(Path(directory), nodes, delay)
            for _ in range(times):
                seconds, mebibytes = await asyncio.to_thread(_run, kubectl, nodes)
                samples.setdefault(f"kubectl genplug status, {nodes} nodes", []).append(1000 * seconds)
                samples.setdefault(f"kubectl genplug status, {nodes} nodes: peak memory", []).append(mebibytes)
    return samples


def _stand_in(directory: Path, nodes: int, delay: float) -> KubectlStandIn:
    kubectl = KubectlStandIn(directory)
    names = [f"node-{number}" for number in range(nodes)]
    status = make_status("node", [make_resource("nvidia.com/gpu", healthy=8, used=5)])
    kubectl.answer("exec", json.dumps(status), delay_seconds=delay)
    kubectl.list("daemonsets", make_daemon_set(desired=nodes, ready=nodes), delay_seconds=delay)
    kubectl.list("nodes", *map(_make_large_node, names), delay_seconds=delay)
    kubectl.list("pods", *map(make_agent_pod, names), delay_seconds=delay)
    return kubectl


def _make_large_node(name: str) -> Object:
    """Return a node of the size that nodes have in clusters: about 20 KB with the indentation of kubectl."""
    node = make_node(name, capacity={"nvidia.com/gpu": 8})
    node["status"]["images"] = [
        {
            "names": [
                f"registry.example.com/team/application-{number}@sha256:{number:064x}",
                f"registry.example.com/team/application-{number}:1.{number}.0",
            ],
            "sizeBytes": 123456789,
        }
        for number in range(_IMAGES)
    ]
    return node


def _run(kubectl: KubectlStandIn, nodes: int) -> tuple[float, float]:
    """Run the command; return its duration in seconds, and the maximum of its resident memory in MiB."""
    command = [sys.executable, "-c", _SCRIPT, "status", f"--kubectl={kubectl.program}", "-o", "json"]
    started = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"the command ended with {process.returncode}: {process.stderr[-500:]}")
    devices = json.loads(process.stdout)["devices"]
    if devices != {"healthy": 8 * nodes, "unhealthy": 0, "inUse": 5 * nodes, "free": 3 * nodes}:
        raise RuntimeError(f"the status of {nodes} nodes is not complete: {devices}")
    (kibibytes,) = (line.split()[1] for line in process.stderr.splitlines() if line.startswith("VmHWM:"))
    return seconds, int(kibibytes) / 1024
