"""Faults of a device in what a container would get with it: the rules for rendered templates. Pure.

A container with several devices is checked again when it is allocated.
"""

import posixpath
from collections.abc import Iterable, Iterator

from genplug.hardware.host import printable
from genplug.spec.container_rules import (
    annotation_error,
    cdi_name_error,
    collect_environment,
    environment_error,
    mount_target_error,
    path_error,
    text_error,
    variable_error,
)
from genplug.spec.container_text import duplicate_name_error, render_variables
from genplug.spec.denied_variables import is_value_checked
from genplug.spec.limits import MAX_VARIABLE_BYTES
from genplug.spec.model import AllocateSpec, MountSpec, Resource
from genplug.spec.names import RESOURCE, SLICE
from genplug.spec.policy import Policy
from genplug.spec.template import (
    LayeredValues,
    MergedValues,
    MissingAttributeError,
    RenderError,
    Template,
    Values,
    combine_values,
    list_members,
)

_NOTHING = AllocateSpec()
_MAX_PLAIN_CHARACTERS = 256


def rendered_value_faults(resource: Resource, name: str, attributes: Values) -> list[str]:
    """Return why a container must not get the values of a device with these attributes, from the resource ``name``."""
    if resource.allocate == _NOTHING and resource.pre_start is None:
        return []
    values = with_resource(_with_slice(attributes) if resource.slices is not None else attributes, name)
    try:
        return [printable(fault) for fault in _find_faults(resource, values)]
    except MissingAttributeError:
        # The device has a fault for it already.
        return []
    except RenderError as error:
        return [f"'allocate' {error.describe('the device')}"]


def find_plain_references(resource: Resource) -> frozenset[str] | None:
    """Return the attributes that a container gets unchanged, None if it gets anything else.

    If the values of these attributes are plain (:func:`has_plain_values`), :func:`rendered_value_faults` has no fault:
    most resources have only environment variables with the path of a device, and many devices.
    """
    allocate = resource.allocate
    if allocate != AllocateSpec(env=allocate.env) or resource.pre_start is not None:
        return None
    references = [reference for variable in allocate.env for reference in variable.value.template.references]
    if any(variable.name.references for variable in allocate.env) or any(each.filters for each in references):
        return None
    values = {reference.name: ("x",) for reference in references}
    is_small = len(references) * _MAX_PLAIN_CHARACTERS < MAX_VARIABLE_BYTES // 2
    has_rules = any(is_value_checked(variable.name.text) for variable in allocate.env)
    if not is_small or has_rules or rendered_value_faults(resource, resource.name, values):
        return None
    return frozenset(values)


def has_plain_values(attributes: Values, names: Iterable[str]) -> bool:
    """Return whether each of these attributes has one short value of printable ASCII characters."""
    for name in names:
        values = attributes.get(name, ())
        if len(values) != 1 or len(values[0]) > _MAX_PLAIN_CHARACTERS:
            return False
        if not values[0].isascii() or not values[0].isprintable():
            return False
    return True


def with_resource(values: Values, name: str) -> Values:
    """Return the values of a device, and the name of the resource that a container requests."""
    members = tuple(LayeredValues(member, {RESOURCE: (name,)}) for member in list_members(values))
    return members[0] if len(members) == 1 else MergedValues(members)


def _with_slice(attributes: Values) -> Values:
    first, *others = list_members(attributes)
    members = (LayeredValues({SLICE: ("0",)}, first), *others)
    return members[0] if len(members) == 1 else MergedValues(members)


def _find_faults(resource: Resource, values: Values) -> Iterator[str]:
    allocate, policy = resource.allocate, resource.policy
    env = collect_environment(render_variables(allocate.env, (values,)))
    if error := duplicate_name_error(name for name, _ in env):
        yield error
    for name, value in env:
        if error := variable_error(name, value, policy):
            yield f"the environment variable {name} {error}"
    if error := environment_error(env):
        yield f"the environment {error}"
    for key, text in allocate.annotations:
        if error := annotation_error(key, text.render((values,)), policy):
            yield f"the annotation {key} {error}"
    for template in allocate.cdi_devices:
        for name in template.render_each(values):
            if error := cdi_name_error(name, policy):
                yield f"the CDI device '{name}' {error}"
    for mount in allocate.mounts:
        for selected in combine_values((mount.host_path, mount.container_path), values):
            yield from _mount_faults(mount, selected, policy)
    yield from _literal_faults(resource)
    yield from _argument_faults(resource.pre_start.command if resource.pre_start is not None else (), values)


def _literal_faults(resource: Resource) -> Iterator[str]:
    """Yield faults in values without templates, which were valid when they were loaded: the policy may have changed."""
    for group in resource.allocate.supplemental_groups:
        if error := resource.policy.group_error(group):
            yield f"the group {group} is {error}"
    program = resource.pre_start.command[0].text if resource.pre_start is not None else ""
    if program and (error := resource.policy.exec_error(program)):
        yield f"running '{program}' before a container starts is {error}"


def _mount_faults(mount: MountSpec, selected: Values, policy: Policy) -> Iterator[str]:
    source, target = mount.host_path.render(selected), mount.container_path.render(selected)
    if error := path_error(source):
        yield f"the mount source '{source}' {error}"
    elif error := policy.mount_error(posixpath.normpath(source), read_only=mount.read_only):
        yield f"the mount of {source} is {error}"
    if error := mount_target_error(target, policy):
        yield f"a mount at '{target}' {error}"


def _argument_faults(command: tuple[Template, ...], values: Values) -> Iterator[str]:
    for argument in command:
        if error := text_error(argument.render(values)):
            yield f"the argument '{argument.text}' of preStart {error}"
