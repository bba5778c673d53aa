"""The CDI devices that the containers of a device refer to (``allocate.cdiDevices``). Pure."""

from collections.abc import Iterator
from contextlib import suppress

from genplug.hardware.cdi_files import CdiDevices
from genplug.hardware.rendered_values import with_resource
from genplug.spec.model import Resource
from genplug.spec.names import SLICE, cdi_device_error
from genplug.spec.template import LayeredValues, RenderError, Values, distinct_values, list_members, merge_values


def cdi_faults(resource: Resource, name: str, attributes: Values, slices: int, cdi_devices: CdiDevices) -> list[str]:
    """Return why a container with a device of a resource could not start, because of the CDI devices it refers to.

    ``name`` is the name of the resource, ``attributes`` are those of the device, and ``slices`` is the number of its
    slices.
    """
    faults: dict[str, None] = {}
    for device in _names(resource, with_resource(attributes, name), slices):
        reason = cdi_device_error(device) or resource.policy.cdi_error(device)
        faults[
            f"the CDI device '{device}' is not allowed: {reason}" if reason else cdi_devices.undefined_reason(device)
        ] = None
    faults.pop("", None)
    return list(faults)


def _names(resource: Resource, attributes: Values, slices: int) -> Iterator[str]:
    for template in resource.allocate.cdi_devices:
        for values in _values_of_slices(attributes, slices) if SLICE in template.names else (attributes,):
            # An attribute without a value is a fault already.
            with suppress(RenderError):
                yield from template.render_each(values)


def _values_of_slices(attributes: Values, slices: int) -> Iterator[Values]:
    """Yield the attributes of a container with each slice of a device; slices are numbered over the node."""
    index = distinct_values(attributes).get("index", ())
    first = int(index[0]) * slices if len(index) == 1 else 0
    member, *others = list_members(attributes)
    return (merge_values((LayeredValues(member, {SLICE: (str(first + number),)}), *others)) for number in range(slices))
