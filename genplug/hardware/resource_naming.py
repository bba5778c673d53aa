"""Creates the resources of a templated name: one for each name that its devices render. Pure.

Characters that are not allowed in a name become ``-``; a device whose name is still invalid is left out with the
reason. The number of names is limited, because each is an endpoint at the kubelet.
"""

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from genplug.hardware.inventory import Device
from genplug.spec.limits import MAX_NAMES_PER_TEMPLATE, MAX_RESOURCES
from genplug.spec.model import Resource
from genplug.spec.names import resource_name_error, sanitize_for_resource_name
from genplug.spec.template import RenderError, Values


@frozen
class DevicesByName:
    """The devices of a configured resource by name; ``lost`` has the reason for each device that is left out."""

    devices: Mapping[str, tuple[Device, ...]]
    lost: Mapping[str, str]


def resource_name(resource: Resource, attributes: Values) -> tuple[str, str]:
    """Return the resource name for a device with these attributes, and the reason if it is invalid."""
    if resource.name_template is None:
        return resource.name, ""
    try:
        name = resource.name_template.render(attributes, sanitize_for_resource_name)
    except RenderError as error:
        return "", f"the resource name {resource.name} {error.describe('the device')}"
    reason = resource_name_error(name) or resource.policy.resource_error(name)
    return name, f"its resource name would be '{name}': {reason}" if reason else ""


def group_by_resource_name(
    resource: Resource, devices: Sequence[Device], taken: Mapping[str, Resource]
) -> DevicesByName:
    """Group the devices of a resource by resource name; ``taken`` are the names of other resources.

    A templated name keeps its first names, in the order of the devices.
    """
    if resource.name_template is None:
        return DevicesByName({resource.name: tuple(devices)}, {})
    found: dict[str, list[Device]] = {}
    lost: dict[str, str] = {}
    room = MAX_RESOURCES - len(taken)
    for device in devices:
        name = device.resource
        if name in taken:
            lost[device.id] = f"its resource name would be '{name}', which {taken[name].location} defines"
        elif name not in found and len(found) >= MAX_NAMES_PER_TEMPLATE:
            lost[device.id] = (
                f"its resource name would be '{name}', and {resource.name} already has {MAX_NAMES_PER_TEMPLATE} names, "
                "the maximum; use an attribute with fewer values in the name"
            )
        elif name not in found and len(found) >= room:
            lost[device.id] = (
                f"its resource name would be '{name}', and the node already has {MAX_RESOURCES} resource names, the "
                "maximum; use an attribute with fewer values in the name"
            )
        else:
            found.setdefault(name, []).append(device)
    return DevicesByName({name: tuple(group) for name, group in found.items()}, lost)


def instantiate_resource(configured: Resource, name: str, previous: Resource | None) -> Resource:
    """Return a configured resource under a name; the identical ``previous`` object if nothing changed."""
    if name == configured.name:
        return configured
    instance = evolve(configured, name=name)
    return previous if previous == instance else instance
