"""Creates the resources of a templated name: one for each name that its devices render. Pure.

Characters that are not allowed in a name become ``-``; a device whose name is still invalid is left out with the
reason. The number of names at a time and within an hour is limited, because each is an endpoint at the kubelet.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.inventory import Device
from genplug.spec.limits import MAX_NAMES_PER_TEMPLATE, MAX_NEW_NAMES_PER_HOUR, MAX_RESOURCES
from genplug.spec.model import Resource
from genplug.spec.names import resource_name_error, sanitize_for_resource_name
from genplug.spec.template import RenderError, Values

_HOUR_SECONDS = 3600.0


class NameHistory(Struct, frozen=True):
    """The names that a template has created, with the time of their last use, and the times of the new ones.

    Times are monotonic seconds.
    """

    last_used: Mapping[str, float]
    created: tuple[float, ...] = ()

    @classmethod
    def start(cls, names: Iterable[str], now: float) -> "NameHistory":
        """Return the history after the first scan, which may create :data:`MAX_NAMES_PER_TEMPLATE` names."""
        return cls(dict.fromkeys(islice(dict.fromkeys(names), MAX_NAMES_PER_TEMPLATE), now))

    def after_scan(self, names: Iterable[str], now: float) -> "NameHistory":
        """Return the history after a scan. New names are in it if they do not exceed the limits."""
        used = {name: time for name, time in self.last_used.items() if now < time + _HOUR_SECONDS}
        created = [time for time in self.created if now < time + _HOUR_SECONDS]
        current = [name for name in dict.fromkeys(names) if name in used]
        for name in dict.fromkeys(names):
            if name not in used and len(created) < MAX_NEW_NAMES_PER_HOUR and len(current) < MAX_NAMES_PER_TEMPLATE:
                current.append(name)
                created.append(now)
        return NameHistory({**used, **dict.fromkeys(current[:MAX_NAMES_PER_TEMPLATE], now)}, tuple(created))


class DevicesByName(Struct, frozen=True):
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
    resource: Resource, devices: Sequence[Device], taken: Mapping[str, Resource], history: NameHistory, now: float
) -> DevicesByName:
    """Group the devices of a resource with a templated name by the name that they render.

    ``taken`` are the names of other resources. A template has the names that its ``history`` after this scan, at the
    time ``now``, admits.
    """
    found: dict[str, list[Device]] = {}
    lost: dict[str, str] = {}
    room = MAX_RESOURCES - len(taken)
    for device in devices:
        name = device.resource
        if name in taken:
            lost[device.id] = f"its resource name would be '{name}', which {taken[name].location} defines"
        elif history.last_used.get(name) != now:
            is_full = sum(used == now for used in history.last_used.values()) >= MAX_NAMES_PER_TEMPLATE
            limit = (
                f"already has {MAX_NAMES_PER_TEMPLATE} names, the maximum; use an attribute with fewer values"
                if is_full
                else f"has created {MAX_NEW_NAMES_PER_HOUR} names within an hour, the maximum; use an attribute whose "
                "value does not change"
            )
            lost[device.id] = f"its resource name would be '{name}', and {resource.name} {limit} in the name"
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
    instance = replace(configured, name=name)
    return previous if previous == instance else instance
