"""Print the transcript of a migration to DRA with running pods, for docs/how-to/migrate/device-plugin-to-dra.txt.

Requires root, .ci/tools and tests/cluster/build: ``python -m tests.cluster.migration_transcript [VERSION]``. The
kubelet has its default settings.
"""

import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.transcript import open_stage, run_shell

_IMAGE = "registry.example/genplug:0.1.0"
_VALUES = """\
image: {repository: registry.example/genplug, tag: 0.1.0, pullPolicy: Never}   # loaded into the node beforehand
dra: {enabled: always}
rolloutOnConfigChange: false
config:
  resources:
    devices.example.com/serial:
      devices: [{glob: /dev/ttyUSB*}]
"""
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, "trap exit TERM; sleep infinity & wait"]
    resources: {limits: {devices.example.com/serial: 1}}
"""
_COLUMNS = {
    "NAME": ".metadata.name",
    "STATUS": ".status.phase",
    "RESTARTS": ".status.containerStatuses[*].restartCount",
    "CLAIM": ".status.extendedResourceClaimStatus.resourceClaimName",
}
_PODS = f"kubectl get pods --output custom-columns={','.join(':'.join(column) for column in _COLUMNS.items())}"
_RELEASE = "genplug deploy/helm/genplug --namespace genplug --values values.yaml --wait --hide-notes"
_STATUS = "kubectl exec --namespace genplug daemonset/genplug -- genplug status"
_UNSCHEDULABLE = """'jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable'"""
_RESTART = "systemctl restart kubelet"
"""A command that the program carries out itself, because the machine of the test has no systemd."""
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        "# Four devices are served by the device plugin API, and two pods use a device each.",
        "cat values.yaml",
        f"helm install {_RELEASE} --create-namespace",
        r"kubectl wait node/node-1 --for 'jsonpath={.status.allocatable.devices\.example\.com/serial}=4'",
        "cat pod.yaml",
        "sed 's/NAME/old-1/' pod.yaml | kubectl apply --filename -",
        "sed 's/NAME/old-2/' pod.yaml | kubectl apply --filename -",
        "kubectl wait pod/old-1 pod/old-2 --for condition=Ready",
    ),
    (
        "# The resource changes to DRA.",
        "sed --in-place 's/serial:/&\\n      serve: dra/' values.yaml",
        "tail -4 values.yaml",
        f"helm upgrade {_RELEASE}",
        "kubectl annotate pods --all --namespace genplug edited=now   # the kubelet updates the file at once",
        r"kubectl wait node/node-1 --for 'jsonpath={.status.allocatable.devices\.example\.com/serial}=0'",
        _STATUS,
        "kubectl get resourceslices --output custom-columns=POOL:.spec.pool.name,DEVICES:.spec.devices[*].name",
    ),
    (
        "# A pod with the same manifest gets a free device by DRA; the old pods continue.",
        "sed 's/NAME/new-1/' pod.yaml | kubectl apply --filename -",
        "kubectl wait pod/new-1 --for condition=Ready",
        _PODS,
        "for pod in old-1 old-2 new-1; do kubectl exec $pod -- ls /dev | grep ttyUSB; done",
    ),
    (
        "# The kubelet restarts.",
        _RESTART,
        "sed 's/NAME/new-2/' pod.yaml | kubectl apply --filename -",
        "kubectl wait pod/new-2 --for condition=Ready",
        _PODS,
    ),
    (
        "# All devices are in use: a further pod waits. It gets the device of an old pod that ends.",
        "sed 's/NAME/new-3/' pod.yaml | kubectl apply --filename -",
        f"kubectl wait pod/new-3 --for {_UNSCHEDULABLE}",
        "kubectl get pod new-3 --output jsonpath='{.status.conditions[0].message}{\"\\n\"}'",
        "kubectl delete pod old-1",
        "kubectl wait pod/new-3 --for condition=Ready --timeout 60s",
        _PODS,
    ),
    (
        "# The last old pod ends, and with it the endpoint of the device plugin API.",
        "kubectl delete pod old-2",
        f"while {_STATUS} | grep --quiet 'is kept'; do sleep 1; done",
        _STATUS,
    ),
)


def main(version: str = "1.37", image: str = "") -> None:
    """Print the transcript."""
    devices = {f"/dev/ttyUSB{number}": (188 << 8) + number for number in range(4)}
    files = {"values.yaml": _VALUES, "pod.yaml": _POD}
    with open_stage(version, devices, files, _IMAGE, Path(image) if image else None) as cluster:
        for number, (comment, *commands) in enumerate(_STEPS):
            print(f"{chr(10) if number else ''}{comment}")
            for command in commands:
                print(f"$ {command}", flush=True)
                if command == _RESTART:
                    assert cluster.node.kubelet
                    cluster.node.kubelet.stop(signal.SIGKILL)
                    cluster.node.start_kubelet()
                    continue
                try:
                    print(run_shell(cluster, command), end="", flush=True)
                except subprocess.CalledProcessError:
                    print(cluster.machine.read_logs(), file=sys.stderr)
                    raise


if __name__ == "__main__":
    main(*sys.argv[1:])
