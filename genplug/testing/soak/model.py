"""The expected state of the node: which devices exist, which configuration is active, and which lists must result.

All values are frozen, and all functions are pure.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, Self

from msgspec import Struct, field
from msgspec.structs import replace

KEPT_SECONDS: Final = 86_400
"""Removal grace period of devices that remain in the list after their removal; longer than a soak."""
SHORT_GRACE_SECONDS: Final = 1

Probe = Literal["", "file", "exec", "fuse"]
ProgramState = Literal["pass", "fail", "hang"]


class Family(Struct, frozen=True):
    """Devices of one kind, ``/dev/NAME0`` to ``/dev/NAME(size-1)``, which are the devices of one resource.

    ``is_kept`` states that a removed device remains in the list as unhealthy. ``is_optional`` states that
    configurations without the resource exist. ``has_attribute`` states that a device is selected by an attribute that
    is read from a file. ``is_injected`` states that containers get the devices through CDI. ``claims`` is another
    family, whose devices the resource selects while the other resource is not in the configuration.
    """

    name: str
    size: int
    probe: Probe = ""
    is_kept: bool = False
    is_optional: bool = False
    has_attribute: bool = False
    is_injected: bool = False
    claims: str = ""

    @property
    def needs_root(self) -> bool:
        """Whether the family has files whose reads can hang."""
        return self.probe == "fuse" or self.has_attribute

    @property
    def resource(self) -> str:
        """The name of the resource."""
        return f"example.com/{self.name}"

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices."""
        return tuple(f"{self.name}{number}" for number in range(self.size))


ALL_FAMILIES: Final = (
    Family("plain", 8, is_optional=True),
    Family("kept", 6, is_kept=True),
    Family("filed", 6, probe="file", is_optional=True),
    Family("program", 4, probe="exec"),
    Family("remote", 4, probe="fuse"),
    Family("described", 4, has_attribute=True),
    Family("injected", 4, is_injected=True),
    Family("claim", 0, claims="plain"),
)
"""The families of the node, in the order of the configuration. ``fuse`` probes and attributes require root."""


class Configuration(Struct, frozen=True):
    """A valid configuration: its number, the families without a resource, and the replicas of others.

    A container gets ``number`` as an environment variable, which shows the configuration that is active.
    """

    number: int = 0
    without: frozenset[str] = frozenset()
    replicas: Mapping[str, int] = {}

    def has_resource(self, family: Family) -> bool:
        """Return whether the configuration has the resource of a family."""
        return family.name not in self.without and (not family.claims or family.claims in self.without)

    def replicas_of(self, family: Family) -> int:
        """Return the replicas of each device of a family."""
        return self.replicas.get(family.name, 1)


class ExpectedList(Struct, frozen=True):
    """The IDs of a resource by health, and the device of each ID."""

    healthy: frozenset[str] = frozenset()
    unhealthy: frozenset[str] = frozenset()
    devices: Mapping[str, str] = {}


class World(Struct, frozen=True):
    """The state of the node.

    ``present`` are the names of the devices that exist, ``minors`` their minor numbers, ``failing`` the devices whose
    status file has the content of a failure, ``hung`` those whose file cannot be read because a read hangs,
    ``unreadable`` those whose reads fail, ``program`` what the program of the ``exec`` probes does. ``config_error`` is
    the kind of the newest configuration if it is invalid. ``has_unread_configuration`` states that the agent may not
    have read the newest valid configuration yet.
    """

    families: tuple[Family, ...]
    present: frozenset[str]
    minors: Mapping[str, int]
    failing: frozenset[str] = frozenset()
    hung: frozenset[str] = frozenset()
    unreadable: frozenset[str] = frozenset()
    program: ProgramState = "pass"
    configuration: Configuration = field(default_factory=Configuration)
    config_error: str = ""
    has_unread_configuration: bool = False
    kubelet_runs: bool = True

    @classmethod
    def initial(cls, families: Iterable[Family]) -> Self:
        """Return the state at the start: all devices exist and are healthy."""
        families = tuple(families)
        devices = [device for family in families for device in family.devices]
        return cls(families, frozenset(devices), MappingProxyType({name: n for n, name in enumerate(devices)}))

    def family_of(self, device: str) -> Family:
        """Return the family of a device."""
        return next(family for family in self.families if device in family.devices)

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of all devices, also of those that do not exist now."""
        return tuple(device for family in self.families for device in family.devices)

    def plug(self, devices: Iterable[str]) -> "World":
        """Return the state with further devices."""
        return replace(self, present=self.present | frozenset(devices))

    def unplug(self, devices: Iterable[str]) -> "World":
        """Return the state without some devices."""
        return replace(self, present=self.present - frozenset(devices))

    def renumber(self, minors: Mapping[str, int]) -> "World":
        """Return the state with other minor numbers of some devices."""
        return replace(self, minors=MappingProxyType({**self.minors, **minors}))

    def is_healthy(self, device: str) -> bool:
        """Return whether the agent must list a device as healthy."""
        family = self.family_of(device)
        is_stopped = family.probe == "exec" and self.program != "pass"
        has_result = family.has_attribute or device not in self.hung | self.unreadable
        return self.is_selected(device) and has_result and device not in self.failing and not is_stopped

    def is_selected(self, device: str) -> bool:
        """Return whether a device exists and its attribute can be read; a read of an attribute that hangs keeps it."""
        is_unreadable = self.family_of(device).has_attribute and device in self.unreadable
        return device in self.present and not is_unreadable


def expected_lists(world: World) -> dict[str, ExpectedList]:
    """Return the device list of each resource, also of those without a configuration, which are empty."""
    return {family.resource: _expected_list(world, family) for family in world.families}


def _expected_list(world: World, family: Family) -> ExpectedList:
    if not world.configuration.has_resource(family):
        return ExpectedList()
    source = next(other for other in world.families if other.name == (family.claims or family.name))
    healthy: set[str] = set()
    unhealthy: set[str] = set()
    by_id: dict[str, str] = {}
    for device in source.devices:
        if world.is_selected(device) or family.is_kept:
            ids = device_ids(device, world.configuration.replicas_of(family))
            (healthy if world.is_healthy(device) else unhealthy).update(ids)
            by_id.update(dict.fromkeys(ids, device))
    return ExpectedList(frozenset(healthy), frozenset(unhealthy), MappingProxyType(by_id))


def device_ids(device: str, replicas: int) -> tuple[str, ...]:
    """Return the IDs of a device in the list."""
    return (device,) if replicas == 1 else tuple(f"{device}-r{number}" for number in range(replicas))
