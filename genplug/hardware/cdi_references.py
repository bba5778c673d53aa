"""The CDI devices that the containers of a device refer to (``allocate.cdiDevices``). Pure."""

from collections.abc import Iterator
from contextlib import suppress

from genplug.hardware.cdi_files import CdiDevices
from genplug.spec.model import Resource
from genplug.spec.names import SLICE, cdi_device_error
from genplug.spec.template import RenderError, Values, list_members, merge_values


def cdi_faults(resource: Resource, attributes: Values, slices: int, cdi_devices: CdiDevices) -> list[str]:
    """Return why a container with a device of a resource could not start, because of the CDI devices it refers to.

    ``attributes`` are those of the device, and ``slices`` is the number of its slices.
    """
    faults: dict[str, None] = {}
    for name in _names(resource, attributes, slices):
        reason = cdi_device_error(name) or resource.policy.cdi_error(name)
        faults[
            f"the CDI device '{name}' is not allowed: {reason}" if reason else cdi_devices.undefined_reason(name)
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
    index = attributes.get("index", ())
    first = int(index[0]) * slices if len(index) == 1 else 0
    member, *others = list_members(attributes)
    return (merge_values(({**member, SLICE: (str(first + number),)}, *others)) for number in range(slices))
