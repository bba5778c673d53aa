"""Which attributes a device needs: those that the configuration speaks of, and no others. Pure."""

from collections.abc import Iterator

from genplug.spec.model import Resource, Source
from genplug.spec.names import SLICE
from genplug.spec.probes import PciCheck, UeventCheck, check_templates
from genplug.spec.template import Template

_BY_ITSELF = {PciCheck: frozenset({"pci.address"}), UeventCheck: frozenset({"sysfs"})}
"""What a probe needs where the configuration does not say whom it is about."""


def required_attributes(resource: Resource, source: Source) -> frozenset[str]:
    """Return the names of all attributes that a device of a source needs, beside those that ``where`` asks for."""
    spoken_of = (*_templates_of(source), *_templates_of_resource(resource))
    names = frozenset[str]().union(*(template.names for template in spoken_of)) - {SLICE}
    for probe in resource.health.probes:
        names |= _BY_ITSELF.get(type(probe.check), frozenset())
    return names | {"numaNode"} if resource.has_topology else names


def needed_at_allocate(resource: Resource) -> dict[str, str]:
    """Return each attribute that Allocate cannot do without, and the first place that needs it."""
    needed: dict[str, str] = {}
    for location, template in _allocate_templates(resource):
        for reference in template.references:
            if not reference.has_default and reference.name != SLICE:
                needed.setdefault(reference.name, location)
    return needed


def is_slice_named(resource: Resource) -> bool:
    """Say whether a container is told the numbers of its slices."""
    return any(SLICE in template.names for _, template in _allocate_templates(resource))


def _templates_of(source: Source) -> Iterator[Template]:
    for spec in (*source.nodes, *source.companions):
        yield spec.path
        if spec.container_path is not None:
            yield spec.container_path
    yield from (one for one in (source.group_by, source.id) if one is not None)


def _templates_of_resource(resource: Resource) -> Iterator[Template]:
    yield from (template for _, template in _allocate_templates(resource))
    optional = (resource.name_template, resource.slices, resource.preference.by)
    yield from (one for one in optional if one is not None)
    for probe in resource.health.probes:
        yield from check_templates(probe.check)


def _allocate_templates(resource: Resource) -> Iterator[tuple[str, Template]]:
    allocate = resource.allocate
    for name, template in allocate.env:
        yield f"allocate.env {name}", template
    for mount in allocate.mounts:
        yield f"a mount ({mount.location})", mount.host_path
        yield f"a mount ({mount.location})", mount.container_path
    for name, template in allocate.annotations:
        yield f"allocate.annotations {name}", template
    for template in allocate.cdi_devices:
        yield "allocate.cdiDevices", template
    if resource.pre_start is not None:
        for template in resource.pre_start.command:
            yield f"preStart ({resource.pre_start.location})", template
