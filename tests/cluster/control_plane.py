"""etcd and the Kubernetes control plane on the machine of a test, and kubectl to access it."""

import json
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.machine import ADDRESS, SERVICE_NETWORK, Machine, Program
from tests.cluster.node import select_features

_PORT = 443
"""Port of the API server; that of its service too, because no kube-proxy translates it."""
_USERS = (
    # name, groups
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:node:node-1", "system:nodes"),
    ("editor", ""),
)


class ControlPlane:
    """etcd, kube-apiserver, kube-scheduler and kube-controller-manager.

    ``binaries`` is the directory with the programs of a Kubernetes version; kubectl may have another version.
    """

    def __init__(self, machine: Machine, binaries: Path, kubectl: Path) -> None:
        self.machine = machine
        self._binaries = binaries
        self._kubectl = kubectl
        self._directory = machine.directory / "control-plane"
        self._key = self._directory / "service-accounts.key"
        self._server: Program | None = None

    def start(self) -> None:
        """Start all programs and wait until the API server is ready."""
        machine, directory = self.machine, self._directory
        directory.mkdir()
        machine.start(
            "etcd", "etcd", "--data-dir", directory / "etcd", "--unsafe-no-fsync", "--log-level", "error",
        )  # fmt: skip
        tokens = {name: secrets.token_hex(16) for name, _ in _USERS}
        (directory / "tokens.csv").write_text(
            "".join(f'{tokens[name]},{name},{name},"{groups}"\n' for name, groups in _USERS)
        )
        for name, token in tokens.items():
            self.get_kubeconfig(name).write_text(json.dumps(_build_kubeconfig(token)))
        gates = self._build_gates()
        key = self._key
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        self.start_server()
        machine.start(
            "kube-controller-manager",
            self._binaries / "kube-controller-manager",
            f"--kubeconfig={self.get_kubeconfig('system:kube-controller-manager')}",
            f"--service-account-private-key-file={key}",
            # The API server has made this certificate; the file has that of its authority too. Pods get it.
            f"--root-ca-file={directory}/certificates/apiserver.crt",
            "--use-service-account-credentials=true",
            # Nodes without a kubelet, which tests create, are kept ready.
            "--node-monitor-grace-period=1h",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--cert-dir={directory}/certificates",
            *gates,
        )
        machine.start(
            "kube-scheduler",
            self._binaries / "kube-scheduler",
            f"--kubeconfig={self.get_kubeconfig('system:kube-scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--cert-dir={directory}/certificates",
            *gates,
        )

    def start_server(self) -> None:
        """Start the API server, for the first time or again, and wait until it is ready."""
        self._server = self.machine.start(
            "kube-apiserver",
            self._binaries / "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--cert-dir={self._directory}/certificates",
            f"--secure-port={_PORT}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={ADDRESS}",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            f"--token-auth-file={self._directory}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--allow-privileged=true",
            *self._build_gates(),
        )
        ready = self.build_command("get", "--raw", "/readyz")
        self._server.wait_until(
            lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, "readiness"
        )

    def stop_server(self) -> None:
        """Kill the API server; its objects remain in etcd."""
        assert self._server
        self._server.stop(signal.SIGKILL)

    def suspend_server(self) -> None:
        """Stop the process of the API server without its end, so that requests hang."""
        assert self._server
        self._server.suspend()

    def resume_server(self) -> None:
        """Continue the process of the API server."""
        assert self._server
        self._server.resume()

    def _build_gates(self) -> list[str]:
        features = select_features(self._binaries)
        return [f"--feature-gates={name}={str(value).lower()}" for name, value in features.items()]

    def get_kubeconfig(self, user: str) -> Path:
        """Return the path of the kubeconfig of a user."""
        return self._directory / f"{user.replace(':', '-')}.json"

    def kubectl(
        self, *arguments: str | Path, text: str | None = None, user: str = "admin", seconds: float = 120
    ) -> str:
        """Run kubectl and return its output.

        Raises:
            subprocess.CalledProcessError: kubectl failed; the notes contain its output.
        """
        return self.machine.run(
            self._kubectl, "--kubeconfig", self.get_kubeconfig(user), *arguments, text=text, seconds=seconds
        )

    def build_command(self, *arguments: str) -> list[str]:
        """Return the command line that runs kubectl as an administrator."""
        return self.machine.build_command([self._kubectl, "--kubeconfig", self.get_kubeconfig("admin"), *arguments])

    def get(self, *arguments: str) -> Any:
        """Return an object or a list."""
        return json.loads(self.kubectl("get", "-o", "json", *arguments))

    def apply(self, *objects: object) -> None:
        """Create or update objects."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def wait(self, target: str, condition: str, *arguments: str, seconds: float = 60) -> None:
        """Wait until a condition of ``kubectl wait --for`` holds.

        Raises:
            subprocess.CalledProcessError: The condition did not hold in time; the notes contain the output of kubectl.
        """
        self.kubectl("wait", target, f"--for={condition}", f"--timeout={seconds}s", *arguments, seconds=seconds + 20)


def _build_kubeconfig(token: str) -> dict[str, object]:
    """Return a kubeconfig for the API server of the machine, whose certificate is self-signed."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": f"https://127.0.0.1:{_PORT}", "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
