"""A stand-in for kubectl, for the tests of the kubectl plugin: a real program that prints prepared answers.

    kubectl = KubectlStandIn(tmp_path)
    kubectl.list("nodes", make_node("node-1"))
    kubectl.answer("exec *node-2", stderr="Error from server: connection refused", code=1)
    code = main(["status", f"--kubectl={kubectl.program}"])
    assert kubectl.calls() == [...]

An answer belongs to a pattern of the shell that the arguments, joined by spaces, have to contain. The newest answer
whose pattern matches is printed, and an unexpected call fails as kubectl does. The functions ``make_...`` return
objects as ``kubectl get -o json`` prints them.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from genplug.kubelet.reports import DeviceUse
from genplug.observe.status import ConfigStatus, DeviceStatus, ResourceStatus, Status

Object = dict[str, Any]

FORBIDDEN = (
    'Error from server (Forbidden): {what} is forbidden: User "operator" cannot {verb} resource "{resource}" '
    'in API group "" at the cluster scope'
)
PLUGINS: Object = {"name": "device-plugins", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}}
"""The volume of an agent that pods without rights cannot have."""
_START = """\
#!/bin/sh
# A stand-in for kubectl. It needs no other program than cat and sleep.
printf '%s\\n' "$*" >> {calls}
case "$*" in
"""
_END = """\
*) printf 'error: the stand-in has no answer for: %s\\n' "$*" >&2; exit 1 ;;
esac
"""


class KubectlStandIn(Struct):
    """A program in a directory, and its answers."""

    directory: Path
    _answers: list[str] = []
    _count: int = 0

    def __post_init__(self) -> None:
        self._write()

    @property
    def program(self) -> Path:
        """The program, for ``--kubectl``."""
        return self.directory / "kubectl"

    def calls(self) -> list[str]:
        """Return the arguments of each call so far, joined by spaces."""
        file = self.directory / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def answer(
        self, pattern: str, stdout: str | bytes = "", *, stderr: str = "", code: int = 0, delay_seconds: float = 0
    ) -> None:
        """Print texts and end with an exit code, after a delay."""
        self._count += 1
        file = self.directory / f"answer-{self._count}"
        file.write_bytes(stdout.encode() if isinstance(stdout, str) else stdout)
        commands = [f"sleep {delay_seconds}"] if delay_seconds else []
        commands += [f"printf '%s\\n' {shlex.quote(stderr)} >&2"] if stderr else []
        commands += [f"cat {shlex.quote(str(file))}"] if stdout else []
        self.run(pattern, "; ".join([*commands, f"exit {code}"]))

    def run(self, pattern: str, commands: str) -> None:
        """Run commands of the shell for a call."""
        # Spaces in a pattern must be quoted; the wildcards *, ? and [...] must not.
        escaped = re.sub(r"[^\w*?\[\]]", lambda match: f"\\{match[0]}", pattern)
        self._answers.insert(0, f"*{escaped}*) {commands} ;;\n")
        self._write()

    def list(self, resource: str, *items: Object, delay_seconds: float = 0) -> None:
        """Print a list for ``kubectl get RESOURCE``; the resource is `nodes`, `pods`, `daemonsets.apps` or another."""
        self.answer(f"get {resource}", make_list(*items), delay_seconds=delay_seconds)

    def status(self, pod: str, document: Object, *, delay_seconds: float = 0) -> None:
        """Print the status of the agent in a pod for ``kubectl exec``; exit with 4 if the agent is not ready."""
        code = 0 if document["ready"] else 4
        stderr = f"command terminated with exit code {code}" if code else ""
        self.answer(f"exec * {pod} ", json.dumps(document), stderr=stderr, code=code, delay_seconds=delay_seconds)

    def forbid(self, pattern: str, verb: str = "list", resource: str = "nodes") -> None:
        """Refuse a call, as RBAC does."""
        self.answer(pattern, stderr=FORBIDDEN.format(what=resource, verb=verb, resource=resource), code=1)

    def hang(self, pattern: str) -> None:
        """Print nothing, and do not end."""
        self.run(pattern, "exec sleep 3600")

    def print_endlessly(self, pattern: str, start: str = "", repeated: str = "x") -> None:
        """Print a text, and then another text again and again without an end."""
        self.run(pattern, f"printf '%s' {shlex.quote(start)}; exec yes {shlex.quote(repeated)}")

    def _write(self) -> None:
        # A new file replaces the program, because a program that is being written cannot be run.
        new = self.directory / "kubectl.new"
        new.write_text(_START.format(calls=shlex.quote(str(self.directory / "calls"))) + "".join(self._answers) + _END)
        new.chmod(0o755)
        new.replace(self.program)


def make_list(*items: Object) -> str:
    """Return a list as ``kubectl get -o json`` prints it."""
    document = {"apiVersion": "v1", "items": list(items), "kind": "List", "metadata": {"resourceVersion": ""}}
    return json.dumps(document, indent=4) + "\n"


def make_node(  # noqa: PLR0913 - the parts of the object
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
    unready: str = "",
    is_unschedulable: bool = False,
    capacity: Mapping[str, int] | None = None,
    allocatable: Mapping[str, int] | None = None,
) -> Object:
    """Return a node; `unready` is the message of a kubelet that is not ready."""
    spec: Object = {"taints": list(taints)} if taints else {}
    if is_unschedulable:
        spec["unschedulable"] = True
        spec["taints"] = [*taints, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    quantities = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    ready = {
        "type": "Ready",
        "status": "False" if unready else "True",
        "reason": "KubeletNotReady" if unready else "KubeletReady",
        "message": unready or "kubelet is posting ready status",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
        },
        "spec": spec,
        "status": {
            "allocatable": {**quantities, **_quantities(capacity if allocatable is None else allocatable)},
            "capacity": {**quantities, **_quantities(capacity)},
            "conditions": [ready],
        },
    }


def make_daemon_set(  # noqa: PLR0913 - the parts of the object
    name: str = "genplug",
    *,
    namespace: str = "genplug",
    pool: str = "default",
    pod_spec: Mapping[str, Any] | None = None,
    desired: int = 0,
    ready: int = 0,
) -> Object:
    """Return the DaemonSet of a pool; `pod_spec` has further keys of the pods' `spec`."""
    labels = {"app.kubernetes.io/name": "genplug", "app.kubernetes.io/part-of": "genplug", "genplug.io/pool": pool}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "genplug", "image": "example.com/genplug:0.1.0"}],
                    "volumes": [{"name": "config", "configMap": {"name": f"{name}-config"}}, PLUGINS],
                    **(pod_spec or {}),
                },
            },
        },
        "status": {"desiredNumberScheduled": desired, "numberReady": ready, "updatedNumberScheduled": desired},
    }


def make_agent_pod(  # noqa: PLR0913 - the parts of the object
    node: str,
    *,
    daemon_set: str = "genplug",
    namespace: str = "genplug",
    pool: str = "default",
    is_ready: bool = True,
    waiting: tuple[str, str] | None = None,
    name: str = "",
    created: str = "2026-11-27T17:00:00Z",
) -> Object:
    """Return the pod of an agent on a node; `waiting` is the reason and the message of a container that waits."""
    state: Object = {"running": {"startedAt": created}}
    if waiting is not None:
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    is_ready = is_ready and waiting is None
    return make_pod(
        name or f"{daemon_set}-{node}",
        namespace=namespace,
        node=node,
        labels={"app.kubernetes.io/name": "genplug", "genplug.io/pool": pool},
        owner=("DaemonSet", daemon_set, f"uid-{namespace}-{daemon_set}"),
        created=created,
        containers=[{"name": "genplug", "image": "example.com/genplug:0.1.0"}],
        spec={"volumes": [PLUGINS]},
        status={
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True" if is_ready else "False"},
            ],
            "containerStatuses": [
                {
                    "name": "genplug",
                    "ready": is_ready,
                    "restartCount": 5 if waiting else 0,
                    "state": state,
                    "imageID": "example.com/genplug@sha256:" + 64 * "0",
                }
            ],
        },
    )


def make_pod(  # noqa: PLR0913 - the parts of the object
    name: str,
    *,
    namespace: str = "default",
    node: str = "",
    labels: Mapping[str, str] | None = None,
    owner: tuple[str, str, str] | None = None,
    created: str = "2026-11-27T17:00:00Z",
    containers: Sequence[Object] = (),
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
) -> Object:
    """Return a pod; `owner` is the kind, name and UID of its controller, and `spec` has further keys."""
    metadata: Object = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{namespace}-{name}",
        "labels": dict(labels or {}),
        "creationTimestamp": created,
    }
    if owner is not None:
        kind, owner_name, uid = owner
        metadata["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": kind, "name": owner_name, "uid": uid, "controller": True}
        ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": list(containers), **({"nodeName": node} if node else {}), **(spec or {})},
        "status": dict(status or {"phase": "Running" if node else "Pending"}),
    }


def make_status(  # noqa: PLR0913 - the parts of the object
    node: str,
    resources: Sequence[Object] = (),
    *,
    unready: Sequence[str] = (),
    sha256: str = 64 * "a",
    version: str = "0.1.0",
    error: str = "",
    files: Sequence[str] = ("/etc/genplug/genplug.yaml",),
    loaded_at: str = "2026-11-27T17:22:17Z",
) -> Object:
    """Return a document of ``genplug status -o json``."""
    config = ConfigStatus(
        files=tuple(files),
        sha256=sha256,
        loaded_at=datetime.fromisoformat(loaded_at).timestamp(),
        error=error,
        policy="the default policy",
    )
    document = Status(version, node, config, kubelet="", resources=()).as_json()
    return document | {"resources": list(resources), "ready": not unready, "unready": list(unready)}


def make_resource(
    name: str, *, healthy: int = 1, unhealthy: int = 0, used: int | None = 0, reason: str = "/dev/x is gone"
) -> Object:
    """Return a resource of :func:`make_status`; a pod uses the first devices, or `None` if their use is not known."""
    devices = [
        DeviceStatus(
            id=f"device-{number}",
            paths=(f"/dev/device{number}",),
            healthy=number < healthy,
            reason="" if number < healthy else reason,
            probe="" if number < healthy else "presence",
            since=int(datetime(2026, 11, 27, 17, 22, 17, tzinfo=UTC).timestamp()),
        )
        for number in range(healthy + unhealthy)
    ]
    uses = [DeviceUse(name, "default", f"pod-{number}", "main", (f"device-{number}",)) for number in range(used or 0)]
    return ResourceStatus(
        name,
        phase="live",
        generation=1,
        streams=1,
        is_registered=True,
        is_removed=False,
        reason="",
        devices=tuple(devices),
        notes=(),
        healthy_devices=healthy,
        in_use=None if used is None else tuple(uses),
    ).as_json()


def _quantities(numbers: Mapping[str, int] | None) -> dict[str, str]:
    return {name: str(number) for name, number in (numbers or {}).items()}
