"""Print the transcript of docs/get-started/cluster.md from a real cluster, then measure the delays that it states.

Requires root, .ci/tools and tests/cluster/build: ``python -m tests.cluster.transcript [VERSION]``. The kubelet has its
default settings, so the figures apply to a node without tuning.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import images
from tests.cluster.cluster import NAMESPACE, Cluster, build_container, build_pod
from tests.cluster.machine import Machine
from tests.cluster.node import Node
from tests.cluster.tools import TOOLS

REPOSITORY = Path(__file__).parents[2]
IMAGE = "registry.example/genplug:0.1.0"
FILES = {
    "devices.yaml": """\
image: {repository: registry.example/genplug, tag: 0.1.0, pullPolicy: Never}   # loaded into the node beforehand
config:
  resources:
    devices.example.com/fuse: {devices: [{glob: /dev/fuse}], tokens: 10}
    devices.example.com/thing:
      devices: [{glob: "/dev/thing*"}]
      allocate: {env: {THINGS: "${path}"}}
""",
    "pod.yaml": """\
apiVersion: v1
kind: Pod
metadata: {name: first}
spec:
  automountServiceAccountToken: false
  containers:
  - name: main
    image: busybox:1
    command: [sleep, infinity]
    resources: {limits: {devices.example.com/fuse: 1, devices.example.com/thing: 2}}
""",
}
COMMANDS = (
    "cat devices.yaml",
    "helm install genplug deploy/helm/genplug --namespace genplug --create-namespace --values devices.yaml --wait",
    "kubectl get pods --namespace genplug",
    r"kubectl wait node/node-1 --for 'jsonpath={.status.allocatable.devices\.example\.com/thing}=3'",
    "kubectl get node node-1 --output jsonpath='{.status.allocatable}' | tr , '\\n' | grep example",
    "kubectl exec --namespace genplug daemonset/genplug -- genplug status",
    "cat pod.yaml",
    "kubectl apply --filename pod.yaml && kubectl wait pod/first --for condition=Ready",
    "kubectl exec first -- sh -c 'ls -l /dev/fuse /dev/thing*; echo $THINGS'",
    "kubectl exec --namespace genplug daemonset/genplug -- genplug status --output wide",
)
_RUNS = 5


def main(version: str = "1.34") -> None:
    """Print the transcript and the measured delays."""
    devices = {f"/dev/thing{number}": (240 << 8) + number for number in range(3)}
    with open_stage(version, devices, FILES, IMAGE) as cluster:
        start = time.monotonic()
        for command in COMMANDS:
            print(f"$ {command}")
            print(run_shell(cluster, command))
            if "apply" in command:
                print(f"(from `helm install` to the ready pod: {time.monotonic() - start:.0f} s)\n")
        print_figures(cluster)


@contextmanager
def open_stage(
    version: str, devices: Mapping[str, int], files: Mapping[str, str], tag: str, archive: Path | None = None
) -> Iterator[Cluster]:
    """Start a cluster whose kubelet has its default settings, and a directory for :func:`run_shell`.

    Args:
        version: The minor version of Kubernetes.
        devices: Path of a character device -> its number.
        files: Name of a file in the directory -> its text.
        tag: The name of the image of genplug, which is built without an ``archive``.
        archive: The archive of an image with that name.
    """
    binaries = next(TOOLS.glob(f"kubernetes/{version}.*"))
    with Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp"))) as machine:
        for path, number in devices.items():
            machine.plug(path, number)
        work, programs = machine.directory / "work", machine.directory / "bin"
        work.mkdir()
        programs.mkdir()
        (work / "deploy").symlink_to(REPOSITORY / "deploy")
        for name, text in files.items():
            (work / name).write_text(text)
        (programs / "helm").symlink_to(TOOLS / "helm4")
        (programs / "kubectl").symlink_to(TOOLS / "kubectl")
        image = archive or build_image(machine.directory, tag)
        cluster = Cluster(machine, binaries, TOOLS, has_short_periods=False)
        cluster.start(images.build_busybox(machine.directory), image)
        yield cluster


def build_image(directory: Path, tag: str) -> Path:
    """Build the image of genplug as for a release, and return its archive."""
    archive = directory / "genplug.tar"
    build: list[str | Path] = [REPOSITORY / "deploy/image/build.sh", "--tag", tag, "--output", archive]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return archive


def run_shell(cluster: Cluster, command: str) -> str:
    """Run a command line of the transcript in the machine and return its output."""
    environment = f"KUBECONFIG={cluster.control.get_kubeconfig('admin')} HOME={cluster.machine.directory}"
    path = f"PATH={cluster.machine.directory}/bin:$PATH"
    return cluster.machine.run(
        "sh", "-c", f"cd {cluster.machine.directory}/work; export {environment} {path}; {command} 2>&1"
    )


def print_figures(cluster: Cluster) -> None:
    """Measure and print the delays that an operator observes."""
    fuse, thing = "devices.example.com/fuse", "devices.example.com/thing"

    def measure_edit(run: int, *, is_urgent: bool = False) -> float:
        tokens = (30 if is_urgent else 20) + run
        resources = {fuse: {"devices": [{"glob": "/dev/fuse"}], "tokens": tokens},
                     thing: {"devices": [{"glob": "/dev/thing*"}]}}  # fmt: skip
        text = json.dumps({"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig", "resources": resources})
        patch = json.dumps({"data": {"genplug.yaml": text}})
        start = time.monotonic()
        cluster.kubectl("patch", "configmap/genplug-config", "--namespace", NAMESPACE, "--patch", patch)
        if is_urgent:
            # The kubelet synchronizes a changed pod immediately, including its ConfigMap.
            cluster.kubectl("annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", f"poke={run}")
        cluster.wait_allocatable(fuse, tokens, 180)
        return time.monotonic() - start

    def measure_urgent_edit(run: int) -> float:
        return measure_edit(run, is_urgent=True)

    def measure_kubelet_restart(_: int) -> float:
        return cluster.restart_kubelet()

    def measure_rollout(run: int) -> float:
        text = json.dumps({"spec": {"template": {"metadata": {"annotations": {"run": str(run)}}}}})
        start = time.monotonic()
        cluster.kubectl("patch", "daemonset/genplug", "--namespace", NAMESPACE, "--patch", text)
        cluster.kubectl("rollout", "status", "daemonset/genplug", "--namespace", NAMESPACE)
        seconds = time.monotonic() - start
        cluster.run_pods(build_pod(f"after-{run}", build_container()))
        return seconds

    def measure_removal(_: int) -> float:
        cluster.machine.unplug("/dev/thing2")
        seconds = cluster.wait_allocatable(thing, 2)
        cluster.machine.plug("/dev/thing2", (240 << 8) + 2)
        cluster.wait_allocatable(thing, 3)
        return seconds

    measures: dict[str, Callable[[int], float]] = {
        "edited ConfigMap to the new allocatable count": measure_edit,
        "the same, with annotated agent pods": measure_urgent_edit,
        "started kubelet to all registrations": measure_kubelet_restart,
        "changed DaemonSet to the ready new agent": measure_rollout,
        "removed device node to the new allocatable count": measure_removal,
    }
    for name, measure in measures.items():
        delays = sorted(measure(run) for run in range(_RUNS))
        print(
            f"{name}: {statistics.median(delays):.1f} s ({delays[0]:.1f} to {delays[-1]:.1f}, {_RUNS} runs)", flush=True
        )
    assert cluster.get_allocatable(thing) == "3", f"{Node.name} does not have 3 allocatable devices of {thing}"


if __name__ == "__main__":
    main(*sys.argv[1:])
