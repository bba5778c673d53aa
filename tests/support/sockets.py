"""The sockets of plugins in the kubelet's directory."""

from genplug.testing.kubelet import KubeletStandIn


def list_plugin_sockets(kubelet: KubeletStandIn) -> dict[str, int]:
    """Return the names of the plugins' sockets with their inodes."""
    sockets = (path for path in kubelet.plugins_dir.iterdir() if path.is_socket() and path != kubelet.socket)
    return {path.name: path.stat().st_ino for path in sockets}
