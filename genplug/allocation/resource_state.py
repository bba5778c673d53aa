"""A consistent state of a resource, as its endpoint serves it: the list, Allocate and preferred allocation."""

from collections.abc import Callable, Sequence

from msgspec import Struct, field

from genplug.allocation.cdi_spec import as_cdi_reference, file_name
from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.errors import failed_precondition
from genplug.allocation.kept_edits import KeptEdits
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.preferred import choose_preferred
from genplug.allocation.prestart import program_runs
from genplug.allocation.results import ListedDevice, PluginOptions, ProgramRun
from genplug.hardware.cdi_files import read_cdi_devices
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import Host
from genplug.struct_values import compare_without, hide_in_repr


@compare_without("restore", "kept")
@hide_in_repr("kept")
class ResourceState(Struct, frozen=True):
    """An offer and the host that it refers to. A request that holds a state sees one configuration throughout."""

    offer: ResourceOffer
    host: Host
    restore: Callable[[ResourceOffer, Sequence[str]], None] | None = None
    """Ensures that a CDI file defines the devices with these IDs; raises :class:`AllocationError`."""
    kept: KeptEdits = field(default_factory=KeptEdits)
    """The edits of earlier requests."""

    @property
    def listed(self) -> tuple[ListedDevice, ...]:
        """The devices of the list for the kubelet."""
        return self.offer.listed

    @property
    def options(self) -> PluginOptions:
        """The plugin options, which the kubelet reads once, when it connects."""
        return self.offer.options

    def may_block(self, ids: Sequence[str]) -> bool:
        """Return whether :meth:`allocate` uses files that may be on a file system that does not respond.

        The file system of ``/dev`` always responds; those of mount sources, CDI files and other nodes may not.
        """
        if self.kept.depends_on_dev_only(ids):
            return False
        allocate = self.offer.resource.allocate
        if allocate.mounts or allocate.injects_by_cdi or allocate.cdi_devices:
            return True
        grants = (self.offer.grants[grant_id] for grant_id in ids if grant_id in self.offer.grants)
        devices = (health.device for grant in grants for health in grant.devices)
        return not all(node.info.is_in_dev for device in devices for node in (*device.nodes, *device.companions))

    def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        """Return the edits for a container with these devices.

        Raises:
            AllocationError: the request fails; the message names the device and the reason.
        """
        # The CDI file has what the last scan found.
        injects_by_cdi = self.offer.resource.allocate.injects_by_cdi
        edits = self.kept.allocate(self.offer, ids, self.host, is_complete=injects_by_cdi)
        foreign = edits.cdi_devices
        if ids and injects_by_cdi:
            if self.restore is not None:
                self.restore(self.offer, ids)
            edits = as_cdi_reference(edits, self.offer.resource.name, _sort_grants(self.offer, ids))
        self._check_cdi_devices(edits.cdi_devices, foreign)
        return edits

    def _check_cdi_devices(self, names: Sequence[str], foreign: Sequence[str]) -> None:
        """Check that the container runtime finds each CDI device, in the file of its owner."""
        if not names:
            return
        resource, devices = self.offer.resource.name, read_cdi_devices(self.host, Dependencies())
        for name in names:
            if name in foreign:
                reason = devices.undefined_reason(name)
            elif other := devices.other_definition(name, file_name(resource)):
                reason = f"{other} defines the CDI device {name} of genplug; remove it from the file"
            else:
                continue
            if reason:
                raise failed_precondition(f"{resource} cannot be allocated to a container: {reason}")

    def pre_start_programs(self, ids: Sequence[str]) -> tuple[ProgramRun, ...]:
        """Return the programs to run before a container with these devices starts.

        Raises:
            AllocationError: an ID is unknown, an argument has no value, or the policy forbids the program.
        """
        return program_runs(self.offer, ids)

    def choose_preferred(self, available: Sequence[str], must_include: Sequence[str], size: int) -> tuple[str, ...]:
        """Return the preferred devices among the available devices; never raises."""
        offer = self.offer
        return choose_preferred(
            available,
            must_include,
            size,
            offer.grants,
            groups=offer.groups,
            positions=offer.positions,
            policy=offer.resource.preference.policy,
            distinct=offer.resource.distinct,
        )


def _sort_grants(offer: ResourceOffer, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the IDs in the order of their devices, each once."""
    requested = frozenset(ids)
    if len(requested) == 1:
        return tuple(requested)
    return tuple(grant_id for grant_id in offer.grants if grant_id in requested)
