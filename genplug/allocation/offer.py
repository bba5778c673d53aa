"""Offers: what each resource lists at the kubelet. Judged devices and a configuration in, grants out; pure."""

from collections.abc import Mapping

from attrs import frozen

from genplug.config.model import Preference, Resource
from genplug.health.verdict import Judged


@frozen
class Listed:
    """One line of the list that the kubelet gets (v1beta1 ``Device``); ``numa`` is None for no topology."""

    id: str
    healthy: bool
    numa: int | None = None


@frozen
class Options:
    """What the kubelet reads once, when it connects: whether it is to ask which devices we prefer."""

    prefers: bool = False


@frozen
class Grant:
    """One unit that the kubelet can give to a container.

    ``devices`` is the one device it stands for (replicas included), or every device of the pool for a token.
    ``reason`` says why it is not healthy, empty while it is.
    """

    id: str
    devices: tuple[Judged, ...]
    healthy: bool
    reason: str = ""


@frozen
class ResourceOffer:
    """What one resource offers: its grants by ID, in natural order, and the list made of them."""

    resource: Resource
    grants: Mapping[str, Grant]
    listed: tuple[Listed, ...]
    groups: Mapping[str, tuple[str, ...]] = {}
    """For the choice among grants: in which groups each is, the outermost first; the innermost is its device."""

    @property
    def options(self) -> Options:
        """What the kubelet is told of the resource's endpoint."""
        resource = self.resource
        return Options(prefers=resource.distinct or resource.preference.policy is not Preference.NONE)
