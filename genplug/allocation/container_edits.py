"""Container edits: the internal model of what a container gets, rendered to v1beta1 fields and to CDI files."""

from msgspec import Struct

from genplug.struct_values import compare_without


@compare_without("numbers")
class NodeEdit(Struct, frozen=True):
    """A device node: its resolved path on the host, its path in the container, and its permissions (``rwm``).

    The other fields are used by CDI files only, because the device plugin API has no fields for them: ``owner`` (user
    ID), ``group`` (group ID) and ``mode`` (permission bits) in the container, where None leaves the value to the
    container runtime, and ``numbers``, the kind (``char`` or ``block``), major and minor number.
    """

    host_path: str
    container_path: str
    permissions: str
    owner: int | None = None
    group: int | None = None
    mode: int | None = None
    numbers: tuple[str, int, int] | None = None


class MountEdit(Struct, frozen=True):
    """A bind mount of an existing host path."""

    host_path: str
    container_path: str
    read_only: bool


class ContainerEdits(Struct, frozen=True):
    """The edits of one container. Every tuple is ordered; names and container paths are unique."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    nodes: tuple[NodeEdit, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    cdi_devices: tuple[str, ...] = ()
    supplemental_groups: tuple[int, ...] = ()
    """Group IDs, which only CDI files have a field for."""
