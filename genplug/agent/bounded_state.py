"""The state of a resource as its endpoint serves it, with a deadline for what Allocate reads from file systems."""

from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from genplug.agent.blocking_calls import BlockingCalls
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.resource_state import ResourceState
from genplug.allocation.results import PluginOptions, ProgramRun
from genplug.hardware.hung_paths import HangError
from genplug.kubelet.wire import DeviceList
from genplug.struct_values import compare_without, hide_in_repr

ALLOCATE_SECONDS = 2.0
"""Seconds after which an allocation fails. The kubelet sets no deadline, and admits no other pod meanwhile."""


@compare_without("calls")
@hide_in_repr("calls", "device_list")
class BoundedState(Struct, frozen=True):
    """A resource state that never blocks the event loop."""

    state: ResourceState
    calls: BlockingCalls
    device_list: DeviceList
    """The device list for the kubelet; equal if nothing changed."""

    @property
    def options(self) -> PluginOptions:
        """The plugin options, which the kubelet reads once, when it connects."""
        return self.state.options

    async def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        """Return the edits for a container with these devices.

        Device nodes in the file system of ``/dev`` are checked at once, without the latency of a thread.

        Raises:
            AllocationError: the request fails, also because a file operation does not return.
        """
        name = self.state.offer.resource.name
        try:
            if not self.state.may_block(ids):
                return self.state.allocate(ids)
            return await self.calls.run(partial(self.state.allocate, ids), ALLOCATE_SECONDS, f"allocation of {name}")
        except HangError as error:
            hint = "is the file system mounted and its server reachable?"
            text = f"{name} device {', '.join(ids)} cannot be allocated: {error}; {hint}"
            raise AllocationError(AllocationErrorCode.UNAVAILABLE, text) from None

    def pre_start_programs(self, ids: Sequence[str]) -> tuple[ProgramRun, ...]:
        """Return the programs to run before a container with these devices starts.

        Raises:
            AllocationError: an ID is unknown, an argument has no value, or the policy forbids the program.
        """
        return self.state.pre_start_programs(ids)

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> tuple[str, ...]:
        """Return the preferred devices among the available devices; never raises."""
        return self.state.choose_preferred(available, must_include, size)
