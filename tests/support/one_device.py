"""A resource with one device that nothing allocates, for tests of endpoints."""

from collections.abc import Sequence

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.results import ListedDevice, PluginOptions, ProgramRun


class OneDevice:
    """A resource backend that lists the device ``device_id`` and fails every call."""

    options = PluginOptions()

    def __init__(self, device_id: str) -> None:
        self.listed = (ListedDevice(device_id, healthy=True),)

    def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        raise NotImplementedError(ids)

    def pre_start_programs(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        raise NotImplementedError(ids)

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        raise NotImplementedError(available, must_include, size)
