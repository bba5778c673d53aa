"""The memory of a node: which hardware each device has or had, and which IDs pods use. Pure.

:mod:`genplug.hardware.identities` decides with it which device has which hardware. Times are monotonic seconds.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.device_ids import device_of_grant
from genplug.hardware.inventory import Device, Kind
from genplug.hardware.resource_naming import NameHistory
from genplug.spec.limits import MAX_FORMER_THINGS, MAX_RESOURCES
from genplug.spec.model import Resource
from genplug.struct_values import compare_without, hide_in_repr

if TYPE_CHECKING:
    from genplug.hardware.contenders import Assigned

Thing: TypeAlias = tuple[object, ...] | str
"""A device node (its numbers), a path, a path of which devices have parts, or an ID (a string).

Each device keeps its things, and shares the numbers with the stat of its node, and the ID with the device.
"""

RELEASE_SECONDS = 0.5
"""Seconds from the loss of a thing to the earliest report of the kubelet that counts: the list has to arrive first."""
HOUR_SECONDS = 3600.0


class Owner(Struct, frozen=True, order=True, gc=False):
    """A device: the name of its resource, and its ID."""

    resource: str
    id: str


class AllocatedGrants(NamedTuple):
    """An allocation: the name of the resource, the device IDs of the kubelet, and the time."""

    resource: str
    grants: Iterable[str]
    time: float


class Usage(Struct, frozen=True):
    """The IDs that pods use.

    ``time`` is when the kubelet was asked. ``ids`` has the device IDs by resource name, without the suffixes of
    replicas and slices. ``allocations`` has the time of each allocation since, which a report may not include yet;
    it counts for ``grace`` seconds.
    """

    time: float
    ids: Mapping[str, frozenset[str]] = {}
    allocations: Mapping[tuple[str, str], float] = {}
    grace: float = 30.0

    def is_in_use(self, names: Iterable[str], device_id: str, *, is_pool: bool) -> bool:
        """Return whether pods may use a device under any of these resource names; a pool is used as a whole."""
        for name in names:
            ids = self.ids.get(name, ())
            if ids if is_pool else device_id in ids:
                return True
            for (resource, id_), allocated in self.allocations.items():
                if resource == name and (is_pool or id_ == device_id) and self.time < allocated + self.grace:
                    return True
        return False

    def with_report(self, used: Mapping[str, Iterable[str]], time: float) -> "Usage":
        """Return the usage after a report of the kubelet that was requested at ``time``."""
        ids = {name: frozenset(map(device_of_grant, grants)) for name, grants in used.items()}
        recent = {key: allocated for key, allocated in self.allocations.items() if time < allocated + self.grace}
        return replace(self, time=time, ids=ids, allocations=recent)

    def with_allocations(self, allocations: Iterable[AllocatedGrants]) -> "Usage":
        """Return the usage after allocations, given in their order."""
        return replace(self, allocations=_add_allocations(self.allocations, allocations))


NO_USAGE = Usage(float("inf"))
"""No pod uses a device: for commands that do not ask a kubelet."""


class Terms(Struct, frozen=True, gc=False):
    """The facts of a resource on which the assignment of its hardware depends.

    ``configured`` is the name under which the resource is configured, and ``names`` are those under which the device is
    offered. ``is_pool`` is whether the resource is a pool of tokens, whose devices are given together.
    """

    configured: str
    names: tuple[str, ...]
    may_overlap: bool = False
    is_pool: bool = False


_intern_terms = lru_cache(maxsize=2 * MAX_RESOURCES)(Terms)
"""Returns the terms that all devices of a resource share."""


class RankedResource(Struct, frozen=True, eq=False, gc=False):
    """A resource and its position in the configuration, which all contenders of the resource share."""

    resource: Resource
    position: int


class Contender(Struct, frozen=True, eq=False, gc=False):
    """A device that leads to things, with its resource."""

    device: Device
    ranked: RankedResource
    things: tuple[Thing, ...]
    owner: Owner

    @classmethod
    def of(cls, device: Device, ranked: RankedResource) -> "Contender":
        """Return the contender for a device of a resource."""
        return cls(device, ranked, things_of(device, ranked.resource), Owner(device.resource, device.id))

    @property
    def keys(self) -> tuple[Thing, ...]:
        """Its things, and the things that these exclude."""
        return tuple(dict.fromkeys([key for thing in self.things for key in (thing, *rivals_of(thing))]))

    @property
    def resource(self) -> Resource:
        """The resource that selects the device."""
        return self.ranked.resource

    @property
    def position(self) -> int:
        """The position of the resource in the configuration."""
        return self.ranked.position

    @property
    def is_pool(self) -> bool:
        """Whether its resource is a pool of tokens, whose devices are given together."""
        return self.resource.tokens is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the device is offered."""
        return (self.device.resource, *self.resource.aliases)

    @property
    def terms(self) -> Terms:
        """The terms that all devices of the resource share."""
        resource = self.resource
        return _intern_terms(resource.configured_name, self.names, resource.overlap, self.is_pool)


NO_FORMER: Mapping[Thing, float] = MappingProxyType({})
"""The former things of most devices, which share it."""


@compare_without("contender")
@hide_in_repr("contender")
class Holder(Struct, frozen=True, gc=False):
    """The things of a device, and ``former``: things that it has lost, with the time of the loss.

    ``generation`` is that of the configuration under which the things were assigned. ``contender`` is the device as the
    previous scan found it.
    """

    owner: Owner
    terms: Terms
    things: tuple[Thing, ...]
    generation: int
    former: Mapping[Thing, float] = NO_FORMER
    contender: Contender | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the device is or was offered."""
        return self.terms.names

    @property
    def is_pool(self) -> bool:
        """Whether its resource is a pool of tokens."""
        return self.terms.is_pool


@compare_without("assigned")
class Ledger(Struct, frozen=True):
    """The devices that have or had things, by owner. ``usage`` exists once the kubelet has reported.

    ``generation`` counts configurations; the current one is active since ``changed_at``.
    """

    usage: Usage | None = None
    holders: Mapping[Owner, Holder] = {}
    generation: int = 0
    changed_at: float = float("-inf")
    waiting: frozenset[Owner] = frozenset()
    """The devices whose assignment may change when the kubelet reports."""
    past_owners: Mapping[Thing, Mapping[Owner, float]] = {}
    """The devices that lost a thing within an hour, with the time of the loss."""
    names: Mapping[str, NameHistory] = {}
    """The history of the names of each templated resource."""
    early_allocations: Mapping[tuple[str, str], float] = {}
    """The allocations before the first report."""
    grace: float = 30.0
    assigned: "Assigned | None" = None
    """The contenders of the previous assignment."""

    def __repr__(self) -> str:
        former = sum(len(holder.former) for holder in self.holders.values())
        usage = "unknown" if self.usage is None else f"of {self.usage.time:.1f}"
        return f"<Ledger [{len(self.holders)} devices, {former} former things | usage {usage}]>"

    @property
    def needs(self) -> frozenset[tuple[Owner, Thing | None]]:
        """The assignments that depend on the next report of the kubelet."""
        former = ((holder.owner, thing) for holder in self.list_former() for thing in holder.former)
        return frozenset([*former, *((owner, None) for owner in self.waiting)])

    def list_former(self) -> list[Holder]:
        """Return the devices with former things."""
        owners = self.assigned.former if self.assigned is not None else self.holders
        found = (self.holders.get(owner) for owner in owners)
        return [holder for holder in found if holder is not None and holder.former]

    def after_reload(self, now: float) -> "Ledger":
        """Return the ledger for another configuration."""
        return replace(self, generation=self.generation + 1, changed_at=now)

    def with_report(self, used: Mapping[str, Iterable[str]], time: float) -> "Ledger":
        """Return the ledger after a report of the kubelet that was requested at ``time``."""
        usage = self.usage or replace(NO_USAGE, allocations=self.early_allocations, grace=self.grace)
        return replace(self, usage=usage.with_report(used, time), early_allocations={})

    def with_allocations(self, allocations: Iterable[AllocatedGrants]) -> "Ledger":
        """Return the ledger after allocations, given in their order."""
        if self.usage is None:
            return replace(self, early_allocations=_add_allocations(self.early_allocations, allocations))
        return replace(self, usage=self.usage.with_allocations(allocations))


def _add_allocations(
    known: Mapping[tuple[str, str], float], allocations: Iterable[AllocatedGrants]
) -> Mapping[tuple[str, str], float]:
    times = {(made.resource, device_of_grant(grant)): made.time for made in allocations for grant in made.grants}
    return {**known, **times}


def things_of(device: Device, resource: Resource) -> tuple[Thing, ...]:
    """Return the things that a device leads to.

    A device without nodes is the paths of its candidates. A device with nodes is these nodes; other devices can have
    other nodes of the same directory.
    """
    things: list[Thing] = [node.info.numbers for node in device.nodes]
    if not device.nodes:
        things += (("path", identity) for identity in device.identities or device.candidates)
    else:
        for identity in device.identities:
            if isinstance(identity, str):
                things.append(("part", identity))
            elif identity not in things:
                # A link to the same candidate is not another device, even if its name gives it other nodes.
                things.append(("candidate", resource.configured_name, *identity))
    if resource.tokens is None:
        things.append(device.id)
    return tuple(things)


def is_replugged(previous: Device, current: Device) -> bool:
    """Return whether all device nodes of a device have been replaced: the kernel gave the device other numbers."""
    old = {node.info.numbers for node in previous.nodes}
    return bool(old and current.nodes) and old.isdisjoint(node.info.numbers for node in current.nodes)


def is_id(thing: Thing) -> bool:
    """Return whether a thing is an ID."""
    return isinstance(thing, str)


def is_part(thing: Thing) -> bool:
    """Return whether a thing is a path of which devices have parts."""
    return not isinstance(thing, str) and thing[0] == "part"


def is_node_or_path(thing: Thing) -> bool:
    """Return whether a thing is a device node, or a path that a device has as a whole."""
    return not isinstance(thing, str) and (isinstance(thing[0], Kind) or thing[0] == "path")


def rivals_of(thing: Thing) -> tuple[Thing, ...]:
    """Return the things that exclude a thing: a path excludes its parts, but two parts of a path do not."""
    if not isinstance(thing, str):
        if thing[0] == "path":
            return (thing, ("part", thing[1]))
        if thing[0] == "part":
            return (("path", thing[1]),)
    return (thing,)


def former_things(previous: Holder, things: tuple[Thing, ...], now: float) -> Mapping[Thing, float]:
    """Return what a device had and does not have now."""
    if not previous.former and previous.things == things:
        return previous.former
    lost = {**dict.fromkeys(previous.things, now), **previous.former}
    for thing in things:
        lost.pop(thing, None)
    return lost or NO_FORMER


def add_past_owners(
    ledger: Ledger, holders: Mapping[Owner, Holder], now: float, owners: Iterable[Owner]
) -> Mapping[Thing, Mapping[Owner, float]]:
    """Return the devices that lost a thing within an hour, for the :data:`MAX_FORMER_THINGS` things lost last.

    ``owners`` are the devices that may have lost a thing now.
    """
    lost: list[tuple[Thing, Owner]] = []
    for owner in owners:
        previous, current = ledger.holders.get(owner), holders.get(owner)
        if previous is None or current is previous:
            continue
        kept = set(current.things) if current is not None else set[Thing]()
        things = dict.fromkeys(thing for thing in previous.things if thing not in kept)
        lost += ((thing, owner) for thing in things if is_node_or_path(thing))
    if not lost:
        return ledger.past_owners
    past: dict[Thing, dict[Owner, float]] = {}
    for thing, times in ledger.past_owners.items():
        if recent := {owner: time for owner, time in times.items() if now < time + HOUR_SECONDS}:
            past[thing] = recent
    for thing, owner in lost:
        # At the end: the things that were lost last are kept.
        past[thing] = {**past.pop(thing, {}), owner: now}
    return dict(list(past.items())[-MAX_FORMER_THINGS:])


def forget_unused(ledger: Ledger) -> Ledger:
    """Return the ledger without the former things of devices that no pod uses."""
    usage = ledger.usage
    if usage is None or not (found := ledger.list_former()):
        return ledger
    holders = dict(ledger.holders)
    for holder in found:
        if usage.is_in_use(holder.names, holder.owner.id, is_pool=holder.is_pool):
            continue
        former = {thing: since for thing, since in holder.former.items() if usage.time < since + RELEASE_SECONDS}
        if holder.things or former:
            holders[holder.owner] = replace(holder, former=former)
        else:
            del holders[holder.owner]
    return replace(ledger, holders=holders)


def bound_former(holders: dict[Owner, Holder], owners: Iterable[Owner]) -> dict[Owner, Holder]:
    """Return the holders with the :data:`MAX_FORMER_THINGS` former things that were lost last.

    Things that were lost at the same time are kept or dropped together. ``owners`` include those of former things.
    """
    times = [since for owner in owners if owner in holders for since in holders[owner].former.values()]
    if len(times) <= MAX_FORMER_THINGS:
        return holders
    oldest = sorted(times)[len(times) - MAX_FORMER_THINGS]
    bounded: dict[Owner, Holder] = {}
    for owner, holder in holders.items():
        former = {thing: since for thing, since in holder.former.items() if since >= oldest}
        if former or holder.things:
            bounded[owner] = replace(holder, former=former)
    return bounded
