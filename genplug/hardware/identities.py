"""Decides which device has which hardware: one piece of hardware is never given under two IDs. Pure.

A *thing* is a piece of hardware that the kernel identifies: a device node by its numbers, another path by the path
without symlinks. Several paths can lead to a thing (udev creates several links to a disk), a path can lead to another
thing after a replug, and several resources can select a thing.

The :class:`Ledger` remembers which device has which things, and which things a device had: a pod may still use them.
:func:`assign_things` applies these rules to the devices of a scan:

- A device keeps its things, and with them its key and ID, as long as its key leads to them.
- A free thing is assigned to the first device that leads to it: in the order of the configuration, device nodes before
  symlinks. If pods use one of the devices, that device has the thing.
- A thing that a device had is blocked for other devices until the kubelet has reported that no pod uses the ID.
- An ID does not move to another thing while the first thing still exists and may be in use.
- A thing to which several IDs lead is not assigned before the kubelet has reported which IDs pods use.

Times are monotonic seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

from attrs import evolve, field, frozen

from genplug.hardware.device_ids import device_of_grant
from genplug.hardware.inventory import Device
from genplug.hardware.resource_naming import NameHistory
from genplug.spec.limits import MAX_FORMER_THINGS, MAX_IDS_PER_HOUR
from genplug.spec.model import Resource

Thing: TypeAlias = tuple[object, ...]
"""A device node, a path, a path of which devices have parts, or an ID."""

RELEASE_SECONDS = 0.5
"""Seconds from the loss of a thing to the earliest report of the kubelet that counts: the list has to arrive first."""
_HOUR_SECONDS = 3600.0


class Owner(NamedTuple):
    """A device: the name of its resource, and its ID."""

    resource: str
    id: str


@frozen
class Usage:
    """The IDs that pods use.

    ``time`` is when the kubelet was asked. ``ids`` has the device IDs by resource name, without the suffixes of
    replicas and slices. ``allocations`` has the time of each allocation since, which a report may not include yet;
    it counts for ``grace`` seconds.
    """

    time: float
    ids: Mapping[str, frozenset[str]] = field(factory=dict)
    allocations: Mapping[tuple[str, str], float] = field(factory=dict)
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
        return evolve(self, time=time, ids=ids, allocations=recent)

    def with_allocation(self, resource: str, grants: Iterable[str], time: float) -> "Usage":
        """Return the usage after an allocation."""
        added = {(resource, device_of_grant(grant)): time for grant in grants}
        return evolve(self, allocations={**self.allocations, **added})


NO_USAGE = Usage(float("inf"))
"""No pod uses a device: for commands that do not ask a kubelet."""


@frozen(eq=False)
class Contender:
    """A device that leads to things, with its resource; ``position`` is that of the resource in the configuration."""

    device: Device
    resource: Resource
    position: int
    things: tuple[Thing, ...]
    owner: Owner
    keys: tuple[Thing, ...]
    """Its things, and the things that these exclude."""

    @classmethod
    def of(cls, device: Device, resource: Resource, position: int) -> "Contender":
        """Return the contender for a device of a resource."""
        things = things_of(device, resource)
        keys = dict.fromkeys(key for thing in things for key in (thing, *_rivals(thing)))
        return cls(device, resource, position, things, Owner(device.resource, device.id), tuple(keys))

    @property
    def is_pool(self) -> bool:
        """Whether its resource is a pool of tokens, whose devices are given together."""
        return self.resource.tokens is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the device is offered."""
        return (self.device.resource, *self.resource.aliases)


@frozen
class Holder:
    """The things of a device, and ``former``: things that it has lost, with the time of the loss.

    ``generation`` is that of the configuration under which the things were assigned. ``may_overlap`` and ``is_pool``
    are those of its resource, which is configured under the name ``configured``. ``contender`` is the device as the
    previous scan found it.
    """

    owner: Owner
    configured: str
    names: tuple[str, ...]
    things: frozenset[Thing]
    generation: int
    may_overlap: bool = False
    is_pool: bool = False
    former: Mapping[Thing, float] = field(factory=dict)
    contender: Contender | None = field(default=None, eq=False, repr=False)


@frozen(repr=False)
class Ledger:
    """The devices that have or had things, by owner. ``usage`` exists once the kubelet has reported.

    ``generation`` counts configurations; the current one is active since ``changed_at``.
    """

    usage: Usage | None = None
    holders: Mapping[Owner, Holder] = field(factory=dict)
    generation: int = 0
    changed_at: float = float("-inf")
    waiting: frozenset[Owner] = frozenset()
    """The devices whose assignment may change when the kubelet reports."""
    past_owners: Mapping[Thing, Mapping[Owner, float]] = field(factory=dict)
    """The devices that lost a thing within an hour, with the time of the loss."""
    names: Mapping[str, NameHistory] = field(factory=dict)
    """The history of the names of each templated resource."""
    early_allocations: Mapping[tuple[str, str], float] = field(factory=dict)
    """The allocations before the first report."""
    grace: float = 30.0

    def __repr__(self) -> str:
        former = sum(len(holder.former) for holder in self.holders.values())
        usage = "unknown" if self.usage is None else f"of {self.usage.time:.1f}"
        return f"<Ledger [{len(self.holders)} devices, {former} former things | usage {usage}]>"

    @property
    def needs(self) -> frozenset[tuple[Owner, Thing | None]]:
        """The assignments that depend on the next report of the kubelet."""
        former = ((holder.owner, thing) for holder in self.holders.values() for thing in holder.former)
        return frozenset([*former, *((owner, None) for owner in self.waiting)])

    def after_reload(self, now: float) -> "Ledger":
        """Return the ledger for another configuration."""
        return evolve(self, generation=self.generation + 1, changed_at=now)

    def with_report(self, used: Mapping[str, Iterable[str]], time: float) -> "Ledger":
        """Return the ledger after a report of the kubelet that was requested at ``time``."""
        usage = self.usage or Usage(time, allocations=self.early_allocations, grace=self.grace)
        return evolve(self, usage=usage.with_report(used, time), early_allocations={})

    def with_allocation(self, resource: str, grants: Iterable[str], now: float) -> "Ledger":
        """Return the ledger after an allocation."""
        if self.usage is None:
            early = Usage(now, allocations=self.early_allocations).with_allocation(resource, grants, now).allocations
            return evolve(self, early_allocations=early)
        return evolve(self, usage=self.usage.with_allocation(resource, grants, now))


class Loss(Enum):
    """Why a device does not get its things."""

    SAME = auto()
    """Another path of the same resource leads to the same things."""
    CLAIMED = auto()
    """Another device has a thing."""
    HELD = auto()
    """Another device had a thing, and pods may use it."""
    MOVED = auto()
    """Its key leads to another thing, and its former thing still exists."""
    UNKNOWN = auto()
    """Several IDs lead to a thing, and the kubelet has not reported yet which of them pods use."""
    UNSTABLE = auto()
    """A thing has had too many IDs."""


_WAITING = frozenset({Loss.HELD, Loss.MOVED, Loss.UNKNOWN})
"""The losses that end when the kubelet reports that no pod uses an ID."""


@frozen
class Denial:
    """Why a device is left out: the ``thing``, the ``other`` owner, and that device if it is in the scan."""

    loss: Loss
    thing: Thing
    other: Owner
    device: Device | None = None
    is_in_use: bool = False
    """Whether the other owner has the thing because a pod uses it."""
    is_earlier: bool = True
    """Whether the resource of the other owner is not later in the configuration."""


def things_of(device: Device, resource: Resource) -> tuple[Thing, ...]:
    """Return the things that a device leads to.

    A device without nodes is the paths of its candidates. A device with nodes is these nodes; other devices can have
    other nodes of the same directory.
    """
    things: list[Thing] = [("node", *node.info.numbers) for node in device.nodes]
    if not device.nodes:
        things += (("path", identity) for identity in device.identities or device.candidates)
    else:
        for identity in device.identities:
            if isinstance(identity, str):
                things.append(("part", identity))
            elif ("node", *identity) not in things:
                # A link to the same candidate is not another device, even if its name gives it other nodes.
                things.append(("candidate", resource.configured_name, *identity))
    if resource.tokens is None:
        things.append(("id", device.id))
    return tuple(things)


def is_replugged(previous: Device, current: Device) -> bool:
    """Return whether all device nodes of a device have been replaced: the kernel gave the device other numbers."""
    old = {node.info.numbers for node in previous.nodes}
    return bool(old and current.nodes) and old.isdisjoint(node.info.numbers for node in current.nodes)


def build_contenders(ledger: Ledger, devices: Iterable[tuple[Device, Resource, int]]) -> list[Contender]:
    """Return the contenders for devices with their resources and positions; unchanged contenders are reused."""
    contenders = []
    for device, resource, position in devices:
        holder = ledger.holders.get(Owner(device.resource, device.id))
        known = holder.contender if holder is not None else None
        is_same = known is not None and known.device is device and known.resource is resource
        if known is None or not is_same or known.position != position:
            known = Contender.of(device, resource, position)
        contenders.append(known)
    return contenders


def assign_things(ledger: Ledger, devices: Sequence[Contender], now: float) -> tuple[Ledger, Mapping[Owner, Denial]]:
    """Return the ledger after a scan that found these devices, and the devices that are left out with the reason."""
    ledger = _forget_unused(ledger)
    present = {device.owner: device for device in devices}
    changed = [
        holder
        for owner, holder in ledger.holders.items()
        if holder.former or present.get(owner) is not holder.contender
    ]
    relevant = _find_relevant(changed, devices)
    contenders: dict[Thing, list[Contender]] = {}
    parts: dict[Thing, list[Contender]] = {}
    for device in relevant:
        for thing in device.things:
            for rival in _rivals(thing):
                contenders.setdefault(rival, []).append(device)
            if thing[0] == "part":
                parts.setdefault(thing, []).append(device)
    kept = (ledger.holders[device.owner] for device in relevant if device.owner in ledger.holders)
    holders: dict[Thing, list[Holder]] = {}
    for holder in {holder.owner: holder for holder in (*changed, *kept)}.values():
        for thing in (*holder.things, *holder.former):
            holders.setdefault(thing, []).append(holder)
    assignment = _Assignment(ledger, now, contenders, holders, parts)
    contested = [device for device in relevant if assignment.is_contested(device)]
    for device in sorted(contested, key=assignment.precedence):
        assignment.decide(device)
    if ledger.past_owners:
        assignment.deny_unstable(devices)
    return assignment.build_ledger(devices), assignment.denials


def _find_relevant(changed: Iterable[Holder], devices: Sequence[Contender]) -> list[Contender]:
    """Return the devices with a thing to which several devices lead, or that a changed device has or had.

    Most devices of most scans are unchanged; this keeps a scan of 10 000 devices fast.
    """
    first: dict[Thing, Contender] = {}
    watched: set[Thing] = set()
    for device in devices:
        for key in device.keys:
            if first.setdefault(key, device) is not device:
                watched.add(key)
    for holder in changed:
        for thing in (*holder.things, *holder.former):
            watched.update((thing, *_rivals(thing)))
    return [device for device in devices if not watched.isdisjoint(device.keys)] if watched else []


def _rivals(thing: Thing) -> tuple[Thing, ...]:
    """Return the things that exclude a thing: a path excludes its parts, but two parts of a path do not."""
    match thing:
        case ("path", path):
            return (thing, ("part", path))
        case ("part", path):
            return (("path", path),)
        case _:
            return (thing,)


def _same_things(device: Contender) -> set[Thing]:
    """Return the hardware that a device leads to, a path also as the path of parts."""
    return {same for thing in device.things if thing[0] != "id" for same in (thing, *_rivals(thing))}


@frozen
class _Assignment:
    """An assignment in progress. ``contenders`` has the devices that lead to a thing or to a rival of it."""

    ledger: Ledger
    now: float
    contenders: Mapping[Thing, Sequence[Contender]]
    holders: Mapping[Thing, Sequence[Holder]]
    part_owners: Mapping[Thing, Sequence[Contender]]
    taken: dict[Thing, list[Contender]] = field(factory=dict)
    denials: dict[Owner, Denial] = field(factory=dict)

    def is_contested(self, device: Contender) -> bool:
        """Return whether another device leads, or a pod of another device may have led, to a thing of a device."""
        owner = device.owner
        return any(
            any(other is not device for other in self.contenders.get(thing, ()))
            or any(holder.owner != owner for holder in (*self._holders_of(thing), *self.holders.get(thing, ())))
            for thing in device.things
        ) or self._has_moved(device)

    def precedence(self, device: Contender) -> tuple[object, ...]:
        """Return the sort key of a device: those in use, those that have their things, the order of the files."""
        holder = self.ledger.holders.get(device.owner)
        has_things = self._has_things(device)
        is_kept = holder is not None and has_things and not self._is_open(holder)
        is_in_use = (holder is None or has_things) and self._is_in_use(device.names, device.owner, device.is_pool)
        return (not is_in_use, not is_kept, device.position, not has_things, device.device.is_via_link)

    def decide(self, device: Contender) -> None:
        """Give a device its things, or deny them; the devices that precede it have been decided."""
        denial = self._find_denial(device)
        if denial is not None:
            self.denials[device.owner] = denial
        if denial is not None and denial.loss not in _WAITING:
            return
        for thing in device.things:
            # Others do not get a thing for which a device waits, but they keep their own.
            if denial is None or self._find_keeper(device, thing) is None:
                self.taken.setdefault(thing, []).append(device)

    def deny_unstable(self, devices: Iterable[Contender]) -> None:
        """Deny a new ID to things that have had too many."""
        for device in devices:
            if device.owner in self.ledger.holders or device.owner in self.denials:
                continue
            for thing in device.things:
                past = self.ledger.past_owners.get(thing, {})
                recent = {owner for owner, time in past.items() if self.now < time + _HOUR_SECONDS}
                if len(recent) >= MAX_IDS_PER_HOUR and device.owner not in recent:
                    self.denials[device.owner] = Denial(Loss.UNSTABLE, thing, device.owner)

    def build_ledger(self, devices: Iterable[Contender]) -> Ledger:
        """Return the ledger after all devices have been decided."""
        holders: dict[Owner, Holder] = {}
        generation, now = self.ledger.generation, self.now
        for device in devices:
            owner, previous = device.owner, self.ledger.holders.get(device.owner)
            if owner in self.denials:
                continue
            if (
                previous is not None
                and previous.contender is device
                and not previous.former
                and not self._is_stale(previous)
            ):
                holders[owner] = previous
                continue
            things = frozenset(device.things)
            former = _former_things(previous, things, now) if previous is not None else {}
            # After a reload, a device of an earlier resource may get the things when the kubelet has reported that no
            # pod uses them. If the kubelet has reported, this device keeps them.
            is_open = (
                previous is not None
                and self._is_stale(previous)
                and not self._is_open(previous)
                and self._has_predecessor(device)
            )
            kept = previous.generation if previous is not None and is_open else generation
            overlap, pool = device.resource.overlap, device.is_pool
            configured = device.resource.configured_name
            holders[owner] = Holder(owner, configured, device.names, things, kept, overlap, pool, former, device)
        for owner, previous in self.ledger.holders.items():
            if owner not in holders and (former := _former_things(previous, frozenset(), now)):
                holders[owner] = evolve(previous, things=frozenset(), former=former, contender=None)
        waiting = {owner for owner, denial in self.denials.items() if denial.loss in _WAITING}
        waiting |= {owner for owner, holder in holders.items() if holder.things and self._is_stale(holder)}
        past = _add_past_owners(self.ledger, holders, now)
        return evolve(self.ledger, holders=_bound_former(holders), waiting=frozenset(waiting), past_owners=past)

    def _find_denial(self, device: Contender) -> Denial | None:
        for thing in device.things:
            for rival in _rivals(thing):
                for other in self.taken.get(rival, ()):
                    if not _may_share(device, other):
                        return self._lose_to(device, other, thing)
        if (occupant := self._find_occupant(device)) is not None:
            return Denial(Loss.MOVED, occupant.things[0], occupant.owner, occupant.device)
        denials = (self._find_holder(device, thing) or self._find_alternative(device, thing) for thing in device.things)
        return next(filter(None, denials), None)

    def _find_holder(self, device: Contender, thing: Thing) -> Denial | None:
        """Return the denial of a thing that another device has, or had until pods are known not to use it."""
        if (keeper := self._find_keeper(device, thing)) is not None:
            return self._lose_to(device, keeper, thing)
        for holder in (*self._find_other_holders(device, thing), *self._find_former_parts(device, thing)):
            if not self._is_released(holder):
                return Denial(Loss.HELD, thing, holder.owner)
        return None

    def _find_former_parts(self, device: Contender, thing: Thing) -> list[Holder]:
        """Return the absent devices that had a part of the directory of a new device: its numbers may have moved."""
        own = self.ledger.holders.get(device.owner)
        if thing[0] != "part" or (own is not None and thing in own.things):
            return []
        present = {other.owner for other in self.part_owners.get(thing, ())}
        return [
            holder
            for holder in self.holders.get(thing, ())
            if holder.owner != device.owner and holder.owner not in present and not _may_follow(device, holder, thing)
        ]

    def _find_keeper(self, device: Contender, thing: Thing) -> Contender | None:
        """Return the other device that has a thing and keeps it."""
        for holder in self._find_other_holders(device, thing):
            wanted = self._find_contender(holder, thing)
            if wanted is not None and not self._precedes(device, wanted, holder):
                return wanted
        return None

    def _find_other_holders(self, device: Contender, thing: Thing) -> list[Holder]:
        """Return the other devices that have or had a thing and exclude a device from it."""
        return [
            holder
            for holder in self._holders_of(thing)
            if holder.owner != device.owner and not _may_follow(device, holder, thing)
        ]

    def _find_alternative(self, device: Contender, thing: Thing) -> Denial | None:
        """Return the denial of a thing that no device has, and that a pod may use under another ID."""
        if any(
            holder.owner == device.owner or not _may_follow(device, holder, thing) for holder in self._holders_of(thing)
        ):
            return None
        is_known = self.ledger.usage is not None
        is_in_use = self._is_in_use(device.names, device.owner, device.is_pool)
        if is_known and (not is_in_use or self._has_things(device)):
            return None
        for other in self.contenders.get(thing, ()):
            if _may_share(device, other) or _is_same_pool(device, other):
                continue
            if not is_known:
                return Denial(Loss.UNKNOWN, thing, other.owner, other.device)
            if self._is_in_use(other.names, other.owner, other.is_pool):
                # Pods use both IDs, and only one of them can have been given this.
                return Denial(Loss.HELD, thing, other.owner)
        return None

    def _lose_to(self, device: Contender, other: Contender, thing: Thing) -> Denial:
        if (denied := self.denials.get(other.owner)) is not None and denied.loss is Loss.UNKNOWN:
            return Denial(Loss.UNKNOWN, thing, other.owner, other.device)
        is_same = _is_same_candidate(device, other)
        is_in_use = self._is_in_use(other.names, other.owner, other.is_pool)
        is_earlier = other.position <= device.position
        return Denial(Loss.SAME if is_same else Loss.CLAIMED, thing, other.owner, other.device, is_in_use, is_earlier)

    def _holders_of(self, thing: Thing) -> Sequence[Holder]:
        rivals = _rivals(thing)
        if len(rivals) == 1:
            return self.holders.get(rivals[0], ())
        return [holder for rival in rivals for holder in self.holders.get(rival, ())]

    def _find_contender(self, holder: Holder, thing: Thing) -> Contender | None:
        """Return the device of a holder if it still leads to a thing that it has."""
        if not any(rival in holder.things for rival in _rivals(thing)):
            return None
        return next((other for other in self.contenders.get(thing, ()) if other.owner == holder.owner), None)

    def _precedes(self, device: Contender, other: Contender, holder: Holder) -> bool:
        """Return whether a device gets a thing that another device has, after the kubelet has reported again."""
        if self._is_in_use(holder.names, holder.owner, holder.is_pool):
            return False
        is_new = device.owner not in self.ledger.holders
        if is_new and self._is_in_use(device.names, device.owner, device.is_pool):
            return True
        return self._is_open(holder) and device.position < other.position

    def _is_released(self, holder: Holder) -> bool:
        """Return whether the kubelet's report counts for what a device loses now."""
        usage = self.ledger.usage
        is_late = usage is not None and usage.time >= self.now + RELEASE_SECONDS
        return is_late and not self._is_in_use(holder.names, holder.owner, holder.is_pool)

    def _has_predecessor(self, device: Contender) -> bool:
        """Return whether a device of a resource that is earlier in the configuration leads to a thing of a device."""
        return any(
            other.position < device.position and not _may_share(device, other)
            for thing in device.things
            for other in self.contenders.get(thing, ())
        )

    def _is_open(self, holder: Holder) -> bool:
        """Return whether what a holder has is assigned again: the configuration has changed, and no pod uses it."""
        usage = self.ledger.usage
        is_fresh = usage is not None and usage.time >= self.ledger.changed_at
        is_in_use = self._is_in_use(holder.names, holder.owner, holder.is_pool)
        return self._is_stale(holder) and is_fresh and not is_in_use

    def _is_stale(self, holder: Holder) -> bool:
        return holder.generation != self.ledger.generation

    def _is_in_use(self, names: Iterable[str], owner: Owner, is_pool: bool) -> bool:  # noqa: FBT001 - a fact of the owner
        return self.ledger.usage is not None and self.ledger.usage.is_in_use(names, owner.id, is_pool=is_pool)

    def _has_things(self, device: Contender) -> bool:
        """Return whether a device has a part of the hardware that it leads to."""
        holder = self.ledger.holders.get(device.owner)
        return holder is not None and not _same_things(device).isdisjoint(holder.things)

    def _has_moved(self, device: Contender) -> bool:
        """Return whether no thing of a device, apart from its ID, is what it had."""
        holder = self.ledger.holders.get(device.owner)
        if holder is None or holder.is_pool:
            return False
        had = {thing for thing in (*holder.things, *holder.former) if thing[0] != "id"}
        return bool(had) and had.isdisjoint(_same_things(device))

    def _find_occupant(self, device: Contender) -> Contender | None:
        """Return a device that leads to what another device had, if that device leads to something else now."""
        if not self._has_moved(device):
            return None
        holder = self.ledger.holders[device.owner]
        return next(
            (
                other
                for thing in (*holder.things, *holder.former)
                if thing[0] != "id"
                for other in self.contenders.get(thing, ())
                if other.owner != device.owner
            ),
            None,
        )


def _is_same_candidate(device: Contender, other: Contender) -> bool:
    """Return whether two devices of a resource are the same candidates, found by other paths."""
    identities = device.device.identities
    is_same_resource = device.resource.configured_name == other.resource.configured_name
    return is_same_resource and bool(identities) and set(identities) <= set(other.device.identities)


def _may_share(device: Contender, other: Contender) -> bool:
    """Return whether two devices of a scan can have the same thing."""
    if device.owner == other.owner:
        return True
    return device.resource.overlap and other.resource.overlap and not _is_same_candidate(device, other)


def _is_same_pool(device: Contender, other: Contender) -> bool:
    return device.is_pool and device.resource.configured_name == other.resource.configured_name


def _may_follow(device: Contender, holder: Holder, thing: Thing) -> bool:
    """Return whether a device can have what another device has or had: both overlap, or are the same pool."""
    is_same_resource = device.resource.configured_name == holder.configured
    if is_same_resource:
        return device.is_pool and holder.is_pool
    return device.resource.overlap and holder.may_overlap and thing[0] != "id"


def _former_things(previous: Holder, things: frozenset[Thing], now: float) -> Mapping[Thing, float]:
    """Return what a device had and does not have now."""
    if not previous.former and previous.things == things:
        return previous.former
    lost = dict.fromkeys(previous.things - things, now)
    return {thing: since for thing, since in {**lost, **previous.former}.items() if thing not in things}


def _add_past_owners(
    ledger: Ledger, holders: Mapping[Owner, Holder], now: float
) -> Mapping[Thing, Mapping[Owner, float]]:
    """Return the devices that lost a thing within an hour."""
    lost: list[tuple[Thing, Owner]] = []
    for owner, previous in ledger.holders.items():
        if (current := holders.get(owner)) is previous:
            continue
        things = previous.things - current.things if current is not None else previous.things
        lost += ((thing, owner) for thing in things if thing[0] in {"node", "path"})
    if not lost:
        return ledger.past_owners
    past: dict[Thing, dict[Owner, float]] = {}
    for thing, owners in ledger.past_owners.items():
        if recent := {owner: time for owner, time in owners.items() if now < time + _HOUR_SECONDS}:
            past[thing] = recent
    for thing, owner in lost:
        past.setdefault(thing, {})[owner] = now
    return dict(list(past.items())[-MAX_FORMER_THINGS:])


def _forget_unused(ledger: Ledger) -> Ledger:
    """Return the ledger without the former things of devices that no pod uses."""
    usage = ledger.usage
    if usage is None or not any(holder.former for holder in ledger.holders.values()):
        return ledger
    holders: dict[Owner, Holder] = {}
    for owner, holder in ledger.holders.items():
        if holder.former and not usage.is_in_use(holder.names, owner.id, is_pool=holder.is_pool):
            former = {thing: since for thing, since in holder.former.items() if usage.time < since + RELEASE_SECONDS}
            if holder.things or former:
                holders[owner] = evolve(holder, former=former)
        else:
            holders[owner] = holder
    return evolve(ledger, holders=holders)


def _bound_former(holders: dict[Owner, Holder]) -> dict[Owner, Holder]:
    count = sum(len(holder.former) for holder in holders.values())
    if count <= MAX_FORMER_THINGS:
        return holders
    oldest = sorted(since for holder in holders.values() for since in holder.former.values())[count - MAX_FORMER_THINGS]
    bounded: dict[Owner, Holder] = {}
    for owner, holder in holders.items():
        former = {thing: since for thing, since in holder.former.items() if since >= oldest}
        if former or holder.things:
            bounded[owner] = evolve(holder, former=former)
    return bounded
