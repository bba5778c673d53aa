"""Container edits: the internal model of what a container gets, rendered to v1beta1 fields and to CDI files."""

from attrs import frozen


@frozen
class NodeEdit:
    """A device node: its resolved path on the host, its path in the container, and its permissions (``rwm``)."""

    host_path: str
    container_path: str
    permissions: str


@frozen
class MountEdit:
    """A bind mount of an existing host path."""

    host_path: str
    container_path: str
    read_only: bool


@frozen
class ContainerEdits:
    """The edits of one container. Every tuple is ordered; names and container paths are unique."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    nodes: tuple[NodeEdit, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    cdi_devices: tuple[str, ...] = ()
