"""The devices of a resource as Dynamic Resource Allocation (DRA) publishes them in ResourceSlices.

Pure: an offer in, published devices out. The rules for names and values are those of ``resource.k8s.io/v1``
(:mod:`genplug.spec.published_values`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from genplug.allocation.offer import Grant, ResourceOffer, find_group
from genplug.hardware.host import printable
from genplug.hardware.inventory import Device
from genplug.spec.model import AttributeSpec, AttributeType, CapacitySpec, Preference, Resource
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.published_values import (
    MAX_VALUE_BYTES,
    STANDARD_DOMAIN,
    is_dns_label,
    parse_bool,
    parse_int,
    quantity_error,
    value_error,
)
from genplug.spec.quantity import canonicalize_quantity
from genplug.spec.template import MissingAttributeError, RenderError, Values, distinct_values, merge_values

UNHEALTHY_TAINT = "genplug.io/unhealthy"
"""The key of the taint of an unhealthy device; its value is the name of the probe that fails, or :data:`GONE`."""
GONE = "gone"
_NO_SCHEDULE = "NoSchedule"
_UNNAMED = "unhealthy"
_MAX_REASONS = 3
_MAX_LABEL_VALUE = 63
_NOT_IN_LABEL_VALUES = re.compile(r"[^-A-Za-z0-9_.]+")
_TOKEN_SUFFIX = re.compile(r"-t[0-9]+\Z")
_STANDARD_ATTRIBUTES = {f"{STANDARD_DOMAIN}/pciBusID": "pci.address", f"{STANDARD_DOMAIN}/pcieRoot": "pci.root"}
"""Attributes that Kubernetes defines, and where their values come from."""
_NUMA_NODE = f"{STANDARD_DOMAIN}/numaNode"


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
    ``capacity`` are by name, those of the configuration in its order after those that genplug adds. Quantities are in
    the form in which the API server returns them.
    """

    name: str
    device_id: str
    attributes: Mapping[str, AttributeValue]
    capacity: Mapping[str, str]
    taints: tuple[Taint, ...] = ()


class LeftOut(Struct, frozen=True):
    """A grant that is not published, and the reason as a clause."""

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
    """Return the devices of an offer as they are published; for the arguments see :meth:`ResourcePublisher.publish`."""
    return ResourcePublisher().publish(offer, keeps_taints=keeps_taints, withheld=withheld)


class ResourcePublisher:
    """Publishes the offers of a resource one after another: a grant that has not changed is not evaluated again."""

    def __init__(self) -> None:
        self._resource: Resource | None = None
        self._results: dict[str, tuple[Grant, PublishedDevice | LeftOut]] = {}

    def __repr__(self) -> str:
        return f"<ResourcePublisher [{len(self._results)} grants]>"

    def publish(
        self, offer: ResourceOffer, *, keeps_taints: bool = True, withheld: Mapping[str, str] | None = None
    ) -> PublishedResource:
        """Return the devices of an offer as they are published.

        Without ``keeps_taints``, the API server drops taints, and unhealthy devices are left out instead. ``withheld``
        has the reason for each grant, by ID, that must not be published, for example because a pod uses it by the
        device plugin API.
        """
        resource, reasons = offer.resource, withheld or {}
        known = self._results if self._resource == resource else {}
        # Tokens differ in nothing but their IDs.
        token = _publish_grant(resource, offer.entries[0]) if resource.tokens is not None and offer.entries else None
        self._resource, self._results = resource, {}
        devices: list[PublishedDevice] = []
        left_out: list[LeftOut] = []
        for grant in _sort_grants(offer):
            previous = known.get(grant.id)
            if previous is not None and previous[0] is grant:
                result = previous[1]
            elif token is not None:
                result = _rename(token, grant.id)
            else:
                result = _publish_grant(resource, grant)
            self._results[grant.id] = grant, result
            if isinstance(result, LeftOut):
                left_out.append(result)
            elif grant.id in reasons:
                left_out.append(LeftOut(grant.id, reasons[grant.id]))
            elif result.taints and not keeps_taints:
                left_out.append(LeftOut(grant.id, grant.reason))
            else:
                devices.append(result)
        return PublishedResource(resource.name, tuple(devices), tuple(left_out))


def _sort_grants(offer: ResourceOffer) -> Sequence[Grant]:
    """Return the grants in the order in which the scheduler should examine them: it selects the first that fit."""
    preference = offer.resource.preference
    if preference.policy is Preference.NONE or offer.resource.tokens is not None:
        return offer.entries
    groups = [find_group(preference.by, grant.devices[0].device) for grant in offer.entries]
    # There are few groups, and a key takes time.
    keys = {group: natural_sort_key(group) for group in set(groups)}
    if len(keys) <= 1:
        return offer.entries
    pairs = sorted(zip(groups, offer.entries, strict=True), key=lambda pair: keys[pair[0]])
    return [grant for _, grant in pairs]


def _publish_grant(resource: Resource, grant: Grant) -> PublishedDevice | LeftOut:
    # A device with a fault must not be allocated, whatever tolerations a claim has.
    devices = [health.device for health in grant.devices if not health.device.faults]
    if not devices:
        return LeftOut(grant.id, grant.reason)
    length = len(resource.name.encode())
    errors: list[str] = []
    if length > MAX_VALUE_BYTES:
        errors.append(
            f"its resource name has {length} bytes, and the attribute 'resource' has at most {MAX_VALUE_BYTES}"
        )
    if not is_dns_label(grant.id):
        errors.append(f"its ID '{printable(grant.id)}' is not a DNS label; remove 'verbatimId'")
    values = distinct_values(merge_values(device.attributes for device in devices))
    attributes: dict[str, AttributeValue] = {
        "resource": resource.name,
        "device": _TOKEN_SUFFIX.sub("", grant.id) if resource.tokens is not None else devices[0].id,
        **_list_standard_attributes(devices, values),
    }
    capacity: dict[str, str] = {}
    for attribute in resource.publish.attributes:
        try:
            attributes[attribute.name] = _render_attribute(attribute, values)
        except MissingAttributeError as error:
            if not attribute.optional:
                errors.append(f"publish.attributes.{attribute.name} {error.describe('the device')}")
        except (RenderError, ValueError) as error:
            errors.append(f"publish.attributes.{attribute.name} {error}")
    for spec in resource.publish.capacity:
        try:
            capacity[spec.name] = _render_capacity(spec, values)
        except RenderError as error:
            errors.append(f"publish.capacity.{spec.name} {error.describe('the device')}")
        except ValueError as error:
            errors.append(f"publish.capacity.{spec.name} {error}")
    if errors:
        more = f"; and {len(errors) - _MAX_REASONS} more reasons" if len(errors) > _MAX_REASONS else ""
        return LeftOut(grant.id, "; ".join(errors[:_MAX_REASONS]) + more)
    taints = () if grant.healthy else (Taint(UNHEALTHY_TAINT, _find_cause(grant), _NO_SCHEDULE),)
    return PublishedDevice(grant.id, grant.id, attributes, capacity, taints)


def _rename(result: PublishedDevice | LeftOut, grant: str) -> PublishedDevice | LeftOut:
    if isinstance(result, LeftOut):
        return replace(result, device_id=grant)
    return replace(result, name=grant, device_id=grant)


def _list_standard_attributes(devices: Sequence[Device], values: Values) -> dict[str, AttributeValue]:
    """Return the standard attributes that have a single value: the API has lists as an alpha feature only."""
    found: dict[str, AttributeValue] = {
        name: values[source][0]
        for name, source in _STANDARD_ATTRIBUTES.items()
        if len(values.get(source, ())) == 1 and not value_error(AttributeType.STRING, values[source][0])
    }
    nodes = {node for device in devices for node in device.numa}
    return {**found, _NUMA_NODE: nodes.pop()} if len(nodes) == 1 else found


def _render_attribute(attribute: AttributeSpec, values: Values) -> AttributeValue:
    """Return the value of an attribute.

    Raises:
        RenderError: it does not have a value, or exceeds a limit.
        ValueError: its text is not a value of its type; the message is a predicate.
    """
    text = attribute.value.render(values)
    if error := value_error(attribute.type, text):
        raise ValueError(_describe_text(text, error))
    match attribute.type:
        case AttributeType.INT:
            return parse_int(text) or 0
        case AttributeType.BOOL:
            return bool(parse_bool(text))
        case AttributeType.VERSION:
            return Version(text)
        case AttributeType.STRING:
            return text


def _render_capacity(spec: CapacitySpec, values: Values) -> str:
    """Return a capacity in canonical form; it raises the errors of :func:`_render_attribute`."""
    text = spec.quantity.render(values)
    canonical = canonicalize_quantity(text)
    if canonical is None:
        raise ValueError(_describe_text(text, quantity_error(text)))
    return canonical


def _describe_text(text: str, error: str) -> str:
    shown = text if len(text) <= MAX_VALUE_BYTES else f"{text[:MAX_VALUE_BYTES]}…"
    return f"renders to '{printable(shown)}', which {error}"


def _find_cause(grant: Grant) -> str:
    """Return why a grant is unhealthy, as the value of a label: the name of a probe, or :data:`GONE`."""
    unhealthy = [health for health in grant.devices if not health.verdict.healthy and not health.device.faults]
    if unhealthy and all(health.gone_since is not None for health in unhealthy):
        return GONE
    probe = next((health.verdict.probe for health in unhealthy if health.gone_since is None), "")
    return _NOT_IN_LABEL_VALUES.sub("-", probe)[:_MAX_LABEL_VALUE].strip("-_.") or _UNNAMED
