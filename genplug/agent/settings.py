"""What an agent is told when it starts."""

from pathlib import Path

from attrs import frozen

from genplug.kubelet.plugin_dir import KUBELET_SOCKET


@frozen
class Settings:
    """The flags of ``genplug run``. Times are seconds.

    ``config`` are files or directories; ``policy`` is the file of what they may do at most, None for the default;
    ``root`` is where the host's file system is seen; ``listen`` is an address for the pages, or None. ``rescan`` and
    ``poll`` are the nets behind the events of node and kubelet; ``drain`` is how often the pods of removed resources
    are looked for. ``cdi_dir`` is the host's directory of CDI files.
    """

    config: tuple[Path, ...]
    root: Path = Path("/")
    kubelet_dir: Path = Path("/var/lib/kubelet")
    node_name: str | None = None
    listen: tuple[str, int] | None = None
    rescan: float = 60.0
    poll: float = 5.0
    drain: float = 10.0
    policy: Path | None = None
    cdi_dir: str = "/var/run/cdi"

    @property
    def plugins_dir(self) -> Path:
        """The directory of kubelet.sock and of our sockets."""
        return self.kubelet_dir / "device-plugins"

    @property
    def pod_resources(self) -> Path:
        """The socket of the pod-resources API."""
        return self.kubelet_dir / "pod-resources" / KUBELET_SOCKET
