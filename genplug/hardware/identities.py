"""Decides which device has which hardware: one piece of hardware is never given under two IDs. Pure.

A *thing* is a piece of hardware that the kernel identifies: a device node by its numbers, another path by the path
without symlinks. Several paths can lead to a thing (udev creates several links to a disk), a path can lead to another
thing after a replug, and several resources can select a thing.

The ledger (:mod:`genplug.hardware.ledger`) remembers which device has which things, and which things a device had: a
pod may still use them. :func:`assign_things` applies these rules to the devices of a scan:

- A device keeps its things, and with them its key and ID, as long as its key leads to them.
- A free thing is assigned to the first device that leads to it: in the order of the configuration, device nodes before
  symlinks. If pods use one of the devices, that device has the thing.
- A thing that a device had is blocked for other devices until the kubelet has reported that no pod uses the ID.
- An ID does not move to another thing while the first thing still exists and may be in use.
- A thing to which several IDs lead is not assigned before the kubelet has reported which IDs pods use.

Times are monotonic seconds.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum, auto

from msgspec import Struct
from msgspec.structs import replace

from genplug.hardware.contenders import Assigned, ContenderChange, ContenderIndex
from genplug.hardware.inventory import Device
from genplug.hardware.ledger import (
    HOUR_SECONDS,
    NO_FORMER,
    RELEASE_SECONDS,
    Contender,
    Holder,
    Ledger,
    Owner,
    Thing,
    add_past_owners,
    bound_former,
    forget_unused,
    former_things,
    is_id,
    is_part,
    rivals_of,
)
from genplug.spec.limits import MAX_IDS_PER_HOUR


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
    UNSCANNED = auto()
    """A part of an earlier resource, which may claim it, has not been scanned."""


_WAITING = frozenset({Loss.HELD, Loss.MOVED, Loss.UNKNOWN})
"""The losses that end when the kubelet reports that no pod uses an ID."""


class Denial(Struct, frozen=True):
    """Why a device is left out: the ``thing``, the ``other`` owner, and that device if it is in the scan."""

    loss: Loss
    thing: Thing
    other: Owner
    device: Device | None = None
    is_in_use: bool = False
    """Whether the other owner has the thing because a pod uses it."""
    is_earlier: bool = True
    """Whether the resource of the other owner is not later in the configuration."""


class Scope(Struct, frozen=True, eq=False):
    """The devices that an assignment has to examine; the other devices keep what they have.

    ``devices`` are the contenders to examine, in their order, and ``owners`` the devices of the ledger that may have
    changed. ``excluded`` are contenders that get nothing. ``is_full`` is whether everything is examined.
    """

    index: ContenderIndex
    devices: Sequence[Contender]
    owners: Collection[Owner]
    excluded: Collection[Owner] = ()
    is_full: bool = True


def find_scope(
    ledger: Ledger, index: ContenderIndex, change: ContenderChange, excluded: Collection[Owner] = ()
) -> Scope:
    """Return what the assignment after a change of the contenders has to examine.

    After a reload, and while a device is ``excluded``, that is everything. Most scans change a few of many devices.
    """
    assigned = ledger.assigned
    if assigned is None or assigned.generation != ledger.generation or not assigned.is_unique or excluded:
        devices = [device for device in index.contenders if device.owner not in excluded]
        return Scope(index, devices, ledger.holders.keys(), excluded)
    removed = {id(device) for device in change.removed}
    unheld = [device for device in assigned.unheld if id(device) not in removed]
    owners = {
        *assigned.former,
        *ledger.waiting,
        *(device.owner for device in change.removed),
        *(device.owner for device in change.added),
    }
    held = {
        owner: holder.contender
        for owner in owners
        if (holder := ledger.holders.get(owner)) is not None
        if holder.contender is not None and id(holder.contender) not in removed
    }
    devices = [*held.values(), *unheld, *change.added]
    if len({device.owner for device in devices}) < len(devices):
        return Scope(index, index.contenders, ledger.holders.keys())
    return Scope(index, devices, owners, is_full=False)


def assign_things(ledger: Ledger, scope: Scope, now: float) -> tuple[Ledger, Mapping[Owner, Denial]]:
    """Return the ledger after a scan that found these devices, and the devices that are left out with the reason."""
    ledger, index = forget_unused(ledger), scope.index
    present = {device.owner: device for device in scope.devices}
    known = (ledger.holders[owner] for owner in scope.owners if owner in ledger.holders)
    changed = [holder for holder in known if holder.former or present.get(holder.owner) is not holder.contender]
    relevant = [device for device in _find_relevant(changed, index) if device.owner not in scope.excluded]
    contenders: dict[Thing, list[Contender]] = {}
    parts: dict[Thing, list[Contender]] = {}
    for device in relevant:
        for thing in device.things:
            for rival in rivals_of(thing):
                contenders.setdefault(rival, []).append(device)
            if is_part(thing):
                parts.setdefault(thing, []).append(device)
    kept = (ledger.holders[device.owner] for device in relevant if device.owner in ledger.holders)
    holders: dict[Thing, list[Holder]] = {}
    # In the order of their owners, which does not depend on what has changed.
    for _, holder in sorted({holder.owner: holder for holder in (*changed, *kept)}.items()):
        for thing in (*holder.things, *holder.former):
            holders.setdefault(thing, []).append(holder)
    assignment = _Assignment(ledger, now, contenders, holders, parts)
    contested = [device for device in relevant if assignment.is_contested(device)]
    for device in sorted(contested, key=assignment.precedence):
        assignment.decide(device)
    devices = (
        scope.devices if scope.is_full else list({id(each): each for each in (*scope.devices, *relevant)}.values())
    )
    if ledger.past_owners:
        assignment.deny_unstable(devices)
    return assignment.build_ledger(replace(scope, devices=devices)), assignment.denials


def _find_relevant(changed: Iterable[Holder], index: ContenderIndex) -> list[Contender]:
    """Return the devices with a thing to which several devices lead, or that a changed device has or had.

    Most devices of most scans are unchanged; this keeps a scan of 10 000 devices fast.
    """
    watched = set(index.contested)
    for holder in changed:
        for thing in (*holder.things, *holder.former):
            watched.update((thing, *rivals_of(thing)))
    return index.find(watched)


def _same_things(device: Contender) -> set[Thing]:
    """Return the hardware that a device leads to, a path also as the path of parts."""
    return {same for thing in device.things if not is_id(thing) for same in (thing, *rivals_of(thing))}


class _Assignment(Struct, frozen=True):
    """An assignment in progress. ``contenders`` has the devices that lead to a thing or to a rival of it."""

    ledger: Ledger
    now: float
    contenders: Mapping[Thing, Sequence[Contender]]
    holders: Mapping[Thing, Sequence[Holder]]
    part_owners: Mapping[Thing, Sequence[Contender]]
    taken: dict[Thing, list[Contender]] = {}
    denials: dict[Owner, Denial] = {}

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
                recent = {owner for owner, time in past.items() if self.now < time + HOUR_SECONDS}
                if len(recent) >= MAX_IDS_PER_HOUR and device.owner not in recent:
                    self.denials[device.owner] = Denial(Loss.UNSTABLE, thing, device.owner)

    def build_ledger(self, scope: Scope) -> Ledger:
        """Return the ledger after all devices have been decided; ``scope`` has all devices that may have changed."""
        previous, now = self.ledger.holders, self.now
        held: dict[Owner, Holder] = {}
        for device in scope.devices:
            if device.owner not in self.denials:
                held[device.owner] = self._build_holder(device, previous.get(device.owner))
        owners = dict.fromkeys((*scope.owners, *self.denials, *held))
        holders = {} if scope.is_full else dict(previous)
        holders |= held
        for owner in owners:
            if owner not in held and (lost := previous.get(owner)) is not None:
                if former := former_things(lost, (), now):
                    holders[owner] = replace(lost, things=(), former=former, contender=None)
                else:
                    holders.pop(owner, None)
        waiting = {owner for owner, denial in self.denials.items() if denial.loss in _WAITING}
        waiting |= {owner for owner, holder in held.items() if holder.things and self._is_stale(holder)}
        past = add_past_owners(self.ledger, holders, now, owners)
        holders = bound_former(holders, owners)
        return replace(
            self.ledger,
            holders=holders,
            waiting=frozenset(waiting),
            past_owners=past,
            assigned=self._build_assigned(scope, owners, holders),
        )

    def _build_holder(self, device: Contender, previous: Holder | None) -> Holder:
        if (
            previous is not None
            and previous.contender is device
            and not previous.former
            and not self._is_stale(previous)
        ):
            return previous
        things = device.things
        former = former_things(previous, things, self.now) if previous is not None else NO_FORMER
        # After a reload, a device of an earlier resource may get the things when the kubelet has reported that no pod
        # uses them. If the kubelet has reported, this device keeps them.
        is_open = (
            previous is not None
            and self._is_stale(previous)
            and not self._is_open(previous)
            and self._has_predecessor(device)
        )
        generation = previous.generation if previous is not None and is_open else self.ledger.generation
        return Holder(device.owner, device.terms, things, generation, former, device)

    def _build_assigned(self, scope: Scope, owners: Iterable[Owner], holders: Mapping[Owner, Holder]) -> Assigned:
        """Return what the next assignment has to examine in any case."""
        devices = scope.index.contenders if scope.excluded else scope.devices
        unheld = [
            device
            for device in devices
            if (holder := holders.get(device.owner)) is None or holder.contender is not device
        ]
        former = [owner for owner in owners if (holder := holders.get(owner)) is not None and holder.former]
        is_unique = not scope.is_full or len({device.owner for device in devices}) == len(devices)
        return Assigned(scope.index, self.ledger.generation, tuple(unheld), tuple(former), is_unique)

    def _find_denial(self, device: Contender) -> Denial | None:
        for thing in device.things:
            for rival in rivals_of(thing):
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
        if not is_part(thing) or (own is not None and thing in own.things):
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
        rivals = rivals_of(thing)
        if len(rivals) == 1:
            return self.holders.get(rivals[0], ())
        return [holder for rival in rivals for holder in self.holders.get(rival, ())]

    def _find_contender(self, holder: Holder, thing: Thing) -> Contender | None:
        """Return the device of a holder if it still leads to a thing that it has."""
        if not any(rival in holder.things for rival in rivals_of(thing)):
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
        had = {thing for thing in (*holder.things, *holder.former) if not is_id(thing)}
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
                if not is_id(thing)
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
    is_same_resource = device.resource.configured_name == holder.terms.configured
    if is_same_resource:
        return device.is_pool and holder.is_pool
    return device.resource.overlap and holder.terms.may_overlap and not is_id(thing)
