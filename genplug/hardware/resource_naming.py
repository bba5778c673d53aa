"""Resource names that devices fill in (config-language: One file): one resource for each name found. Pure.

A value's characters that no name may have become ``-``; what still is no name is left out with the reason. A storm of
names is capped, because each is an endpoint at the kubelet.
"""

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from genplug.hardware.inventory import Device
from genplug.spec.model import Resource
from genplug.spec.names import resource_name_error, sanitize_for_resource_name
from genplug.spec.template import MissingAttributeError, Values

MAX_NAMES = 100
"""How many resources one template may make."""


@frozen
class DevicesByName:
    """The devices of one written resource under the names they have; ``lost`` holds the reason for each left out."""

    devices: Mapping[str, tuple[Device, ...]]
    lost: Mapping[str, str]


def resource_name(resource: Resource, attributes: Values) -> tuple[str, str]:
    """Return the name of the resource that a device with these attributes is of, and why there is none."""
    if resource.name_template is None:
        return resource.name, ""
    try:
        name = resource.name_template.render(attributes, sanitize_for_resource_name)
    except MissingAttributeError as error:
        return "", f"the name {resource.name} needs '{error.name}', which it does not have"
    fault = resource_name_error(name) or resource.policy.resource_error(name)
    return name, f"its resource would be '{name}': {fault}" if fault else ""


def group_by_resource_name(
    resource: Resource, devices: Sequence[Device], taken: Mapping[str, Resource]
) -> DevicesByName:
    """Sort the devices of a resource by their names; ``taken`` are the names of other resources.

    A resource of templates keeps the first :data:`MAX_NAMES` names, in the order of its devices.
    """
    if resource.name_template is None:
        return DevicesByName({resource.name: tuple(devices)}, {})
    found: dict[str, list[Device]] = {}
    lost: dict[str, str] = {}
    for device in devices:
        name = device.resource
        if name in taken:
            lost[device.id] = f"its resource would be '{name}', which {taken[name].location} has written"
        elif name not in found and len(found) >= MAX_NAMES:
            lost[device.id] = (
                f"its resource would be '{name}', and {resource.name} has made {MAX_NAMES} names, which is the most; "
                "name by an attribute of which there are fewer values"
            )
        else:
            found.setdefault(name, []).append(device)
    return DevicesByName({name: tuple(ones) for name, ones in found.items()}, lost)


def instantiate_resource(written: Resource, name: str, known: Resource | None) -> Resource:
    """Return a written resource under a name; the ``known`` one where it is that already."""
    if name == written.name:
        return written
    made = evolve(written, name=name)
    return known if known == made else made
