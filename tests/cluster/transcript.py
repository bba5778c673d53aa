"""Play an operator's first minutes on a cluster, print the transcript of docs/get-started/cluster.md, and measure.

As root, after .ci/tools and tests/cluster/build: ``python -m tests.cluster.transcript [VERSION]``. The kubelet is as by
default here, so the figures are those of a node that nobody tuned.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import images
from tests.cluster.cluster import NAMESPACE, TOOLS, Cluster, container, pod
from tests.cluster.machine import Machine
from tests.cluster.node import Node

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
    """Print the transcript and the figures."""
    binaries = next(TOOLS.glob(f"kubernetes/{version}.*"))
    with Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp"))) as machine:
        for number in range(3):
            machine.plug(f"/dev/thing{number}", (240 << 8) + number)
        work = machine.directory / "work"
        work.mkdir()
        (work / "deploy").symlink_to(REPOSITORY / "deploy")
        for name, text in FILES.items():
            (work / name).write_text(text)
        archive = machine.directory / "genplug.tar"
        build = [REPOSITORY / "deploy/image/build.sh", "--tag", IMAGE, "--output", archive]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        cluster = Cluster(machine, binaries, TOOLS, is_hasty=False)
        cluster.start(images.busybox(machine.directory), archive)
        programs = machine.directory / "bin"
        programs.mkdir()
        (programs / "helm").symlink_to(TOOLS / "helm4")
        (programs / "kubectl").symlink_to(TOOLS / "kubectl")
        began = time.monotonic()
        for command in COMMANDS:
            print(f"$ {command}")
            print(shell(cluster, command))
            if "apply" in command:
                print(f"(from `helm install` to the pod with its devices: {time.monotonic() - began:.0f} s)\n")
        figures(cluster)


def shell(cluster: Cluster, command: str) -> str:
    """Run a command line in the machine as an operator types it."""
    environment = f"KUBECONFIG={cluster.control.kubeconfig('admin')} HOME={cluster.machine.directory}"
    path = f"PATH={cluster.machine.directory}/bin:$PATH"
    return cluster.machine.run(
        "sh", "-c", f"cd {cluster.machine.directory}/work; export {environment} {path}; {command} 2>&1"
    )


def figures(cluster: Cluster) -> None:
    """Measure what an operator waits for."""
    fuse, thing = "devices.example.com/fuse", "devices.example.com/thing"

    def edited(run: int, *, is_urgent: bool = False) -> float:
        tokens = (30 if is_urgent else 20) + run
        resources = {fuse: {"devices": [{"glob": "/dev/fuse"}], "tokens": tokens},
                     thing: {"devices": [{"glob": "/dev/thing*"}]}}  # fmt: skip
        text = json.dumps({"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig", "resources": resources})
        patch = json.dumps({"data": {"genplug.yaml": text}})
        began = time.monotonic()
        cluster.kubectl("patch", "configmap/genplug-config", "--namespace", NAMESPACE, "--patch", patch)
        if is_urgent:
            # A changed pod is synced at once, its ConfigMap with it.
            cluster.kubectl("annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", f"poke={run}")
        cluster.until_allocatable(fuse, tokens, 180)
        return time.monotonic() - began

    def edited_in_a_hurry(run: int) -> float:
        return edited(run, is_urgent=True)

    def restarted(_: int) -> float:
        return cluster.restart_kubelet()

    def rolled(run: int) -> float:
        text = json.dumps({"spec": {"template": {"metadata": {"annotations": {"run": str(run)}}}}})
        began = time.monotonic()
        cluster.kubectl("patch", "daemonset/genplug", "--namespace", NAMESPACE, "--patch", text)
        cluster.kubectl("rollout", "status", "daemonset/genplug", "--namespace", NAMESPACE)
        took = time.monotonic() - began
        cluster.run(pod(f"after-{run}", container()))
        return took

    def vanished(_: int) -> float:
        cluster.machine.unplug("/dev/thing2")
        took = cluster.until_allocatable(thing, 2)
        cluster.machine.plug("/dev/thing2", (240 << 8) + 2)
        cluster.until_allocatable(thing, 3)
        return took

    measures: dict[str, Callable[[int], float]] = {
        "ConfigMap edited, to the new count on the node": edited,
        "the same, with the agents' pods annotated": edited_in_a_hurry,
        "kubelet killed and started, to every resource registered": restarted,
        "roll-out of a changed DaemonSet, to the new agent ready": rolled,
        "device node removed, to the new count on the node": vanished,
    }
    for what, measure in measures.items():
        taken = sorted(measure(run) for run in range(_RUNS))
        print(f"{what}: {statistics.median(taken):.1f} s ({taken[0]:.1f} to {taken[-1]:.1f}, {_RUNS} runs)", flush=True)
    assert cluster.allocatable(thing) == "3", f"of {Node.name}"


if __name__ == "__main__":
    main(*sys.argv[1:])
