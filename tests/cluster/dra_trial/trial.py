"""A cluster with genplug for the trials, and what they read of it."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.claims import DRIVER, build_request, build_template
from tests.cluster.cluster import NAMESPACE, Cluster, poll_until
from tests.cluster.dra_trial.figures import Figure, exactly
from tests.cluster.dra_trial.holders import count_starts, read_violations
from tests.cluster.dra_trial.watch import Watch, is_ready
from tests.cluster.soak.observation import find_agent_process, list_live_containers

THING, DISK, TOKEN, MOTOR, FUSE = (f"test.example/{name}" for name in ("thing", "disk", "token", "motor", "fuse"))
COUNTS = {"thing": 6, "disk": 5, "motor": 6}
"""The device nodes of the machine: ``/dev/thing0`` and so on."""
TOKENS = 1000
FUSES = 400
_MAJOR = 240
_SLICE_DEVICES = 64
"""The maximum number of devices in a slice of genplug."""
_TICKS = os.sysconf("SC_CLK_TCK")


def build_values(**serve: str) -> dict[str, Any]:
    """Return the values of the chart; ``motor="dra"`` changes the API of a resource."""
    apis = {"thing": "dra", "disk": "dra", "token": "dra", "motor": "devicePlugin", "fuse": "devicePlugin"} | serve
    specs: dict[str, dict[str, Any]] = {name: {"devices": [{"glob": f"/dev/{name}*"}]} for name in COUNTS}
    specs["token"] = {"devices": [{"glob": "/dev/zero"}], "tokens": TOKENS}
    specs["fuse"] = {"devices": [{"glob": "/dev/fuse"}], "tokens": FUSES}
    resources = {f"test.example/{name}": spec | {"serve": apis[name]} for name, spec in specs.items()}
    return {
        "image": {"repository": "registry.example/genplug", "tag": "test", "pullPolicy": "Never"},
        "dra": {"enabled": "always"},
        "rolloutOnConfigChange": False,
        "config": {"resources": resources},
    }


class Trial:
    """A cluster with the chart and the devices of the trials."""

    def __init__(self, cluster: Cluster, log: Callable[[str], None] = print) -> None:
        self.cluster = cluster
        self.machine = cluster.machine
        self.log = log
        self.agent = 0
        """The process of the agent."""
        self.url = ""
        """The address of its HTTP server."""

    def prepare(self) -> None:
        """Create the devices, install the chart, and wait until the devices are published."""
        for position, (name, count) in enumerate(COUNTS.items()):
            for number in range(count):
                self.machine.plug(f"/dev/{name}{number}", os.makedev(_MAJOR, 100 * position + number))
        self.cluster.install(build_values())
        templates = [build_template(name, build_request(f"test.example/{name}")) for name in ("thing", "disk", "token")]
        self.cluster.control.apply(*templates)
        self.find_agent()
        with self.watch_slices() as slices:
            slices.wait(is_complete)
        self.cluster.wait_allocatable(MOTOR, COUNTS["motor"])

    def find_agent(self) -> None:
        """Find the process and the address of the agent."""
        self.agent = find_agent_process(self.cluster)
        [agent] = self.cluster.get_agents()
        self.url = f"http://{agent['status']['podIP']}:9808"

    def watch_slices(self) -> Watch:
        """Return a watch of the slices of the driver."""
        return Watch(self.cluster, "/apis/resource.k8s.io/v1/resourceslices", f"spec.driver={DRIVER}")

    def watch_pods(self) -> Watch:
        """Return a watch of the pods of the trials."""
        return Watch(self.cluster, "/api/v1/namespaces/default/pods")

    def read_agent(self, path: str) -> str:
        """Return the response of the agent's HTTP server; this works without an API server."""
        return self.machine.run("wget", "--quiet", "--output-document=-", self.url + path)

    def read_kubelet(self) -> str:
        """Return the metrics of the kubelet."""
        return self.machine.run("wget", "--quiet", "--output-document=-", "http://127.0.0.1:10255/metrics")

    def read_memory(self) -> int:
        """Return the resident memory of the agent in KiB.

        Raises:
            FileNotFoundError: The process has ended.
        """
        text = Path(f"/proc/{self.agent}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])

    def read_cpu(self) -> float:
        """Return the seconds of processor time that the agent has used."""
        fields = Path(f"/proc/{self.agent}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def read_log(self) -> list[dict[str, Any]]:
        """Return the events in the log of the agent."""
        paths = sorted((self.machine.directory / "log/pods").glob(f"{NAMESPACE}_*/genplug/*.log"))
        lines = [line for path in paths for line in path.read_text(errors="replace").splitlines()]
        # The runtime writes the time, the stream and a tag before each line.
        return [json.loads(line.split(" ", 3)[3]) for line in lines]

    def apply_values(self, **serve: str) -> None:
        """Change the API of resources, and make the kubelet update the ConfigMap immediately."""
        self.cluster.install(build_values(**serve))
        annotation = f"edited={time.time_ns()}"
        self.cluster.kubectl("annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", annotation)

    def create_pods(self, pods: Watch, *built: dict[str, Any], seconds: float = 60) -> list[float]:
        """Create pods and wait until they are ready; return the seconds between both for each pod."""
        self.cluster.control.apply(*built)
        names = [pod["metadata"]["name"] for pod in built]
        ready = [pods.find(name, is_ready, seconds) for name in names]
        return [at - pods.find(name, lambda _: True) for name, at in zip(names, ready, strict=True)]

    def create_holders(self, pods: Watch, *built: dict[str, Any]) -> None:
        """Create pods of :mod:`tests.cluster.dra_trial.holders`, and wait until their programs have started."""
        starts = count_starts(self.machine)
        self.create_pods(pods, *built)
        names = [pod["metadata"]["name"] for pod in built]
        poll_until(lambda: all(count_starts(self.machine).get(name, 0) > starts.get(name, 0) for name in names))

    def delete_pods(self, pods: Watch, *names: str, seconds: float = 60) -> None:
        """Delete pods and wait until they have ended."""
        self.cluster.kubectl("delete", "pod", "--wait=false", *names)
        pods.wait(lambda objects: not objects.keys() & set(names), seconds, since=len(pods.changes))

    def churn(self, pods: Watch, build: Callable[[int], dict[str, Any]], count: int, batch: int) -> list[float]:
        """Create and delete pods in batches; return the seconds until each was ready."""
        seconds = []
        for first in range(0, count, batch):
            built = [build(number) for number in range(first, min(first + batch, count))]
            seconds += self.create_pods(pods, *built)
            self.delete_pods(pods, *(pod["metadata"]["name"] for pod in built))
        return seconds

    def kill_container(self, pod: Mapping[str, Any]) -> None:
        """End the processes of the container of a pod."""
        [status] = pod["status"]["containerStatuses"]
        container = list_live_containers(self.cluster)[status["containerID"].rpartition("/")[2]]
        os.kill(container.process, 9)

    @contextmanager
    def check_holders(self, *kept: str, ended: int = 0) -> Iterator[list[Figure]]:
        """Yield a list, and add how often a device was held twice, and how often kept pods and the agent restarted.

        The trial itself ends a number of the containers of the kept pods, which then start again.
        """
        figures: list[Figure] = []
        violations, starts = len(read_violations(self.machine)), count_starts(self.machine)
        yield figures
        found = read_violations(self.machine)[violations:]
        for text in found:
            self.log(f"violation: {text}")
        figures.append(exactly("Devices that two containers held", len(found), 0))
        if kept:
            restarts = sum(count_starts(self.machine)[name] - starts[name] for name in kept)
            figures.append(exactly("Restarts of the running pods", restarts - ended, 0))
        figures.append(exactly("Ends of the agent", int(not Path(f"/proc/{self.agent}").exists()), 0))

    def wait_unprepared(self, count: int = 0, seconds: float = 60) -> float:
        """Wait until only a number of claims is prepared; return the seconds that it took."""
        return poll_until(
            lambda: read_sample(self.read_agent("/metrics"), "genplug_dra_prepared_claims") <= count, seconds
        )


def is_complete(slices: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether the slices of all resources with a fixed API are published."""
    pools: dict[str, int] = {}
    for entry in slices.values():
        resource = entry["spec"]["pool"]["name"].rpartition("/")[2]
        pools[resource] = pools.get(resource, 0) + len(entry["spec"]["devices"])
    expected = {"thing": COUNTS["thing"], "disk": COUNTS["disk"], "token": TOKENS}
    # Devices that the trials have unplugged can still be published, with a taint.
    return all(pools.get(name, 0) >= count for name, count in expected.items())


def list_devices(slices: Iterable[Mapping[str, Any]], kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the published devices of a resource by name."""
    return {
        device["name"]: device
        for entry in slices
        if entry["spec"]["pool"]["name"].endswith(f"/{kind}")
        for device in entry["spec"]["devices"]
    }


def read_sample(page: str, name: str) -> float:
    """Return the sum of the samples of a metric; 0 if it is absent."""
    lines = (line.rpartition(" ") for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(value) for _, _, value in lines)


def read_buckets(page: str, name: str, *labels: str) -> dict[float, float]:
    """Return the cumulative counts of a histogram by bound, of the series with all these labels."""
    buckets: dict[float, float] = {}
    for line in page.splitlines():
        if line.startswith(f"{name}_bucket{{") and all(label in line for label in labels):
            bound = float(line.partition('le="')[2].partition('"')[0])
            buckets[bound] = buckets.get(bound, 0) + float(line.rpartition(" ")[2])
    return buckets


def estimate_quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float:
    """Return a quantile of the observations between two reads of a histogram, interpolated in its bucket.

    Raises:
        ValueError: There is no observation.
    """
    counts = {bound: after[bound] - before.get(bound, 0) for bound in sorted(after)}
    total = max(counts.values(), default=0)
    if not total:
        raise ValueError("expected observations in the histogram, found none")
    lower, below = 0.0, 0.0
    for bound, count in counts.items():
        if count >= share * total:
            return (
                lower if bound == float("inf") else lower + (bound - lower) * (share * total - below) / (count - below)
            )
        lower, below = bound, count
    return lower
