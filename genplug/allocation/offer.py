"""Offers: what each resource lists at the kubelet. Judged devices and a configuration in, grants out; pure."""

from collections.abc import Mapping

from attrs import evolve, frozen

from genplug.health.verdict import DeviceHealth
from genplug.spec.model import Preference, Resource


@frozen
class ListedDevice:
    """One line of the list that the kubelet gets (v1beta1 ``Device``); ``numa`` is empty for no topology."""

    id: str
    healthy: bool
    numa: tuple[int, ...] = ()


@frozen
class PluginOptions:
    """What the kubelet reads once, when it connects: whether to ask which devices we prefer, and before a start."""

    get_preferred_allocation_available: bool = False
    pre_start_required: bool = False


@frozen
class Grant:
    """One unit that the kubelet can give to a container.

    ``devices`` is the one device it stands for (replicas included), or every device of the pool for a token.
    ``reason`` says why it is not healthy, empty while it is. ``slice`` is its number where the device is listed in
    slices: counted through over the node where the device has a number of its own.
    """

    id: str
    devices: tuple[DeviceHealth, ...]
    healthy: bool
    reason: str = ""
    slice: int | None = None


@frozen
class ResourceOffer:
    """What one resource offers: its grants by ID, in natural order, and the list made of them."""

    resource: Resource
    grants: Mapping[str, Grant]
    listed: tuple[ListedDevice, ...]
    groups: Mapping[str, tuple[str, ...]] = {}
    """For the choice among grants: in which groups each is, the outermost first; the innermost is its device."""

    def mark_unhealthy(self, reasons: Mapping[str, str]) -> "ResourceOffer":
        """Return the offer with some of its grants unhealthy, each for a reason more."""
        if not reasons:
            return self
        grants = {
            one.id: evolve(one, healthy=False, reason="; ".join(filter(None, (one.reason, reasons[one.id]))))
            if one.id in reasons
            else one
            for one in self.grants.values()
        }
        listed = tuple(evolve(one, healthy=False) if one.id in reasons else one for one in self.listed)
        return evolve(self, grants=grants, listed=listed)

    @property
    def options(self) -> PluginOptions:
        """What the kubelet is told of the resource's endpoint."""
        preference = self.resource.preference
        is_wanted = preference.policy is not Preference.NONE
        if not preference.is_written:
            # What nobody asked for is worth the kubelet's question only where there is something to choose.
            is_wanted = len({listed.numa for listed in self.listed}) > 1
        return PluginOptions(self.resource.distinct or is_wanted, self.resource.pre_start is not None)
