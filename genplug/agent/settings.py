"""The settings of an agent."""

from pathlib import Path

from msgspec import Struct

from genplug.audit.limits import DEFAULT_LIMITS, Limits
from genplug.hardware.host import DEFAULT_CDI_DIRS
from genplug.kubelet.plugin_dir import KUBELET_SOCKET
from genplug.spec.names import DRIVER_DOMAIN

ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The directory into which the kubelet mounts the service account of a pod."""


class Settings(Struct, frozen=True):
    """The settings of an agent.

    - ``config``: files or directories; ``policy``: the policy file, or None for the default policy.
    - ``root``: the root of the host file system in this process.
    - ``kubelet_dir``: the directory of the kubelet, from which the next two derive by default.
    - ``device_plugins_dir``: the directory of kubelet.sock and of the sockets of this agent. It is compiled into the
      kubelet, and ``pod_resources_dir``, the directory of the socket of the pod-resources API, follows its
      ``--root-dir`` (docs/internals/kubelet-contract.md §1).
    - ``listen``: the address of the HTTP endpoints, or None.
    - ``rescan_seconds`` and ``poll_seconds``: the intervals of the polls that cover lost events of the node and of the
      kubelet.
    - ``drain_seconds``: the interval at which the pods that use removed resources or aliases are polled.
    - ``cdi_dir``: the host directory for the CDI files of this agent.
    - ``cdi_search_dirs``: the host directories from which the container runtime reads CDI files, by increasing
      priority.
    - ``audit_dir``: the directory of the audit log in this process, or None for no audit log; ``audit_limits`` are the
      limits of its files. With ``audit_required``, the agent is not ready while the log cannot be written.
    - ``dra_driver``: the name of the driver of Dynamic Resource Allocation.
    - ``account_dir``: the directory of the token and the certificates of the service account in this process.
    """

    config: tuple[Path, ...]
    root: Path = Path("/")
    kubelet_dir: Path = Path("/var/lib/kubelet")
    node_name: str | None = None
    listen: tuple[str, int] | None = None
    rescan_seconds: float = 60.0
    poll_seconds: float = 5.0
    drain_seconds: float = 10.0
    policy: Path | None = None
    cdi_dir: str = "/var/run/cdi"
    cdi_search_dirs: tuple[str, ...] = DEFAULT_CDI_DIRS
    device_plugins_dir: Path | None = None
    pod_resources_dir: Path | None = None
    audit_dir: Path | None = None
    audit_limits: Limits = DEFAULT_LIMITS
    audit_required: bool = False
    dra_driver: str = DRIVER_DOMAIN
    account_dir: Path = ACCOUNT_DIR

    @property
    def plugins_dir(self) -> Path:
        """The directory of kubelet.sock and of the sockets of this agent, as configured or derived."""
        return self.device_plugins_dir or self.kubelet_dir / "device-plugins"

    @property
    def pod_resources(self) -> Path:
        """The socket of the pod-resources API."""
        return (self.pod_resources_dir or self.kubelet_dir / "pod-resources") / KUBELET_SOCKET
