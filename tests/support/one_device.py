"""A resource with one device, for tests of endpoints."""

from collections.abc import Sequence

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.results import ListedDevice, PluginOptions, ProgramRun
from genplug.kubelet.wire import encode_list


class OneDevice:
    """A resource backend that lists the healthy device ``device_id``; every call of it is an internal error."""

    def __init__(self, device_id: str, options: PluginOptions = PluginOptions()) -> None:  # noqa: B008 - frozen
        self.device_list = encode_list([ListedDevice(device_id, healthy=True)])
        self._options = options

    @property
    def options(self) -> PluginOptions:
        return self._options

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        raise NotImplementedError(ids)

    def pre_start_programs(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        raise NotImplementedError(ids)

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        raise NotImplementedError(available, must_include, size)
