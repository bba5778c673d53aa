"""The devices of a resource as Dynamic Resource Allocation (DRA) publishes them in ResourceSlices.

Pure: an offer in, published devices out. The limits are those of ``resource.k8s.io/v1``
(https://github.com/kubernetes/api/blob/master/resource/v1/types.go).
"""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from genplug.allocation.offer import ResourceOffer


class Version(Struct, frozen=True):
    """A value of an attribute that is a semantic version (semver.org), for example ``2.1.0``."""

    text: str


AttributeValue: TypeAlias = str | bool | int | Version
"""The value of an attribute: its type selects the key ``string``, ``bool``, ``int`` or ``version`` in a slice."""


class Taint(Struct, frozen=True):
    """A taint of a device. ``effect`` is ``None``, ``NoSchedule`` or ``NoExecute``."""

    key: str
    value: str
    effect: str


class PublishedDevice(Struct, frozen=True):
    """A device of a ResourceSlice.

    ``name`` is a DNS label, unique in the pool. ``device_id`` is the ID of the grant in the offer. ``attributes`` and
    ``capacity`` are by name, in the order of the configuration after the standard attributes.
    """

    name: str
    device_id: str
    attributes: Mapping[str, AttributeValue]
    capacity: Mapping[str, str]
    taints: tuple[Taint, ...] = ()


class LeftOut(Struct, frozen=True):
    """A grant that is not published, and the reason as a clause whose subject is the device."""

    device_id: str
    reason: str


class PublishedResource(Struct, frozen=True):
    """The published devices of a resource, in the order in which the scheduler examines them."""

    resource: str
    devices: tuple[PublishedDevice, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def publish_resource(
    offer: ResourceOffer, *, keeps_taints: bool = True, withheld: Mapping[str, str] | None = None
) -> PublishedResource:
    """Return the devices of an offer as they are published.

    Without ``keeps_taints``, the API server drops taints, and unhealthy devices are left out instead. ``withheld`` has
    the reason for each grant, by ID, that must not be published, for example because a pod uses it by the device plugin
    API.
    """
    reasons = withheld or {}
    devices: list[PublishedDevice] = []
    left_out: list[LeftOut] = []
    for grant in offer.entries:
        reason = reasons.get(grant.id, "")
        if not grant.healthy and not keeps_taints:
            reason = reason or grant.reason
        if reason:
            left_out.append(LeftOut(grant.id, reason))
        else:
            devices.append(PublishedDevice(grant.id, grant.id, {"resource": offer.resource.name}, {}))
    return PublishedResource(offer.resource.name, tuple(devices), tuple(left_out))
