"""Container edits: the one model of what a container gets, rendered to v1beta1 fields, later to CDI files and DRA."""

from attrs import frozen


@frozen
class NodeEdit:
    """A device node: where the host has it (symlinks resolved), where the container sees it, ``rwm`` permissions."""

    host_path: str
    container_path: str
    permissions: str


@frozen
class MountEdit:
    """A bind mount of a host path that was seen to exist."""

    host_path: str
    container_path: str
    read_only: bool


@frozen
class ContainerEdits:
    """What one container gets. Every tuple is ordered and without duplicates; names and container paths are unique."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    nodes: tuple[NodeEdit, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    cdi_devices: tuple[str, ...] = ()
