"""Offers: what each resource lists at the kubelet. Judged devices and a configuration in, grants out; pure."""

from collections.abc import Mapping

from attrs import frozen

from genplug.config.model import Resource
from genplug.health.verdict import Judged


@frozen
class Listed:
    """One line of the list that the kubelet gets (v1beta1 ``Device``); ``numa`` is None for no topology."""

    id: str
    healthy: bool
    numa: int | None = None


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
