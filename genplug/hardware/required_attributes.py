"""Which attributes of a device are read: those that the configuration or a probe uses, and no others. Pure."""

from collections.abc import Iterator

from genplug.spec.model import Resource, Serve, Source
from genplug.spec.names import RESOURCE, SLICE
from genplug.spec.template import Template

PUBLISHED_ATTRIBUTES = frozenset({"pci.address", "pci.root"})
"""The attributes that Dynamic Resource Allocation publishes of every device, and the NUMA node."""


def required_attributes(resource: Resource, source: Source) -> frozenset[str]:
    """Return the names of all attributes that a device of a source needs, except those in ``where`` conditions."""
    templates = (*_source_templates(source), *_resource_templates(resource))
    names = frozenset[str]().union(*(template.names for template in templates)) - {SLICE, RESOURCE}
    names = names.union(*(probe.check.required_attributes for probe in resource.health.probes))
    if resource.serve is Serve.DRA:
        names |= PUBLISHED_ATTRIBUTES
    return names | {"numaNode"} if resource.has_topology else names


def needed_at_allocate(resource: Resource) -> dict[tuple[str, ...], str]:
    """Return the attributes that Allocate cannot do without, and the first part of the configuration that needs them.

    Of several names, the device must have at least one.
    """
    needed: dict[tuple[str, ...], str] = {}
    for part, template in _allocate_templates(resource):
        for reference in template.references:
            if not reference.has_default and not {SLICE, RESOURCE} & {*reference.names}:
                needed.setdefault(reference.names, part)
    return needed


def is_slice_named(resource: Resource) -> bool:
    """Return whether a container gets the numbers of its slices."""
    return any(SLICE in template.names for _, template in _allocate_templates(resource))


def _source_templates(source: Source) -> Iterator[Template]:
    for node in (*source.nodes, *source.companions):
        yield node.path
        if node.container_path is not None:
            yield node.container_path
    yield from (template for template in (source.group_by, source.id) if template is not None)


def _resource_templates(resource: Resource) -> Iterator[Template]:
    yield from (template for _, template in _allocate_templates(resource))
    optional = (resource.name_template, resource.slices, resource.preference.by)
    yield from (template for template in optional if template is not None)
    yield from (attribute.value for attribute in resource.publish.attributes)
    yield from (capacity.quantity for capacity in resource.publish.capacity)


def _allocate_templates(resource: Resource) -> Iterator[tuple[str, Template]]:
    """Yield the part of the configuration, for messages, and its template."""
    allocate = resource.allocate
    for variable in allocate.env:
        yield f"allocate.env {variable.name.text}", variable.name
        yield f"allocate.env {variable.name.text}", variable.value.template
    for mount in allocate.mounts:
        yield f"a mount ({mount.location})", mount.host_path
        yield f"a mount ({mount.location})", mount.container_path
    for name, text in allocate.annotations:
        yield f"allocate.annotations {name}", text.template
    for template in allocate.cdi_devices:
        yield "allocate.cdiDevices", template
    if resource.pre_start is not None:
        for template in resource.pre_start.command:
            yield f"preStart ({resource.pre_start.location})", template
