"""The contenders of a scan by what they lead to, updated in proportion to the devices that changed. Pure."""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import TypeAlias

from msgspec import Struct

from genplug.hardware.inventory import Device, ResourceScan
from genplug.hardware.ledger import Contender, Owner, RankedResource, Thing
from genplug.spec.replacement import find_replacements

Entry: TypeAlias = Contender | tuple[Contender, ...]
"""The contenders with a key: usually one of them, which needs less memory than a tuple."""


class ResourceContenders(Struct, frozen=True, eq=False):
    """The contenders of a resource, in the order of its devices."""

    devices: tuple[Device, ...]
    ranked: RankedResource
    contenders: tuple[Contender, ...] = ()


class ContenderChange(Struct, frozen=True, eq=False):
    """The contenders that were removed since the previous scan, and those that were added."""

    removed: tuple[Contender, ...]
    added: tuple[Contender, ...]


class ContenderIndex(Struct, frozen=True, eq=False):
    """The contenders of all resources. ``contested`` has the keys to which several of them lead."""

    by_resource: Mapping[str, ResourceContenders] = {}
    by_key: Mapping[Thing, Entry] = {}
    contested: frozenset[Thing] = frozenset()

    def update(self, scans: Mapping[str, ResourceScan]) -> tuple["ContenderIndex", ContenderChange]:
        """Return the contenders of these scans; those of unchanged devices are the identical objects."""
        by_resource: dict[str, ResourceContenders] = {}
        removed: list[Contender] = []
        added: list[Contender] = []
        for position, (name, scan) in enumerate(scans.items()):
            known = self.by_resource.get(name)
            if known is None or known.ranked.resource is not scan.resource or known.ranked.position != position:
                removed += known.contenders if known is not None else ()
                ranked = RankedResource(scan.resource, position)
                new = tuple([Contender.of(device, ranked) for device in scan.devices])
                added += new
                by_resource[name] = ResourceContenders(scan.devices, ranked, new)
            elif known.devices is scan.devices:
                by_resource[name] = known
            else:
                by_resource[name] = _update_resource(known, scan.devices, removed, added)
        for name, known in self.by_resource.items():
            if name not in scans:
                removed += known.contenders
        change = ContenderChange(tuple(removed), tuple(added))
        if not removed and not added:
            return ContenderIndex(by_resource, self.by_key, self.contested), change
        return ContenderIndex(by_resource, *self._replace(change)), change

    @property
    def contenders(self) -> list[Contender]:
        """All contenders, in the order of the resources and their devices."""
        return [contender for resource in self.by_resource.values() for contender in resource.contenders]

    def find(self, keys: Iterable[Thing]) -> list[Contender]:
        """Return the contenders that lead to one of these keys, in the order of the resources and their devices."""
        found: dict[int, Contender] = {}
        for key in keys:
            entry = self.by_key.get(key)
            if isinstance(entry, Contender):
                found[id(entry)] = entry
            elif entry is not None:
                found.update((id(contender), contender) for contender in entry)
        return self.sort(found.values())

    def sort(self, contenders: Iterable[Contender]) -> list[Contender]:
        """Return contenders in the order of the resources and their devices."""
        by_resource: dict[str, list[Contender]] = {}
        for contender in contenders:
            by_resource.setdefault(contender.resource.configured_name, []).append(contender)
        ordered: list[Contender] = []
        for own in sorted(by_resource.values(), key=lambda own: own[0].position):
            if len(own) > 1:
                all_ = self.by_resource[own[0].resource.configured_name].contenders
                places = dict(zip(map(id, all_), count(), strict=False))
                own.sort(key=lambda contender: places[id(contender)])
            ordered += own
        return ordered

    def _replace(self, change: ContenderChange) -> tuple[Mapping[Thing, Entry], frozenset[Thing]]:
        by_key, contested = dict(self.by_key), set(self.contested)
        for contender in change.removed:
            for key in contender.keys:
                entry = by_key.pop(key)
                if not isinstance(entry, Contender):
                    first, *others = (other for other in entry if other is not contender)
                    by_key[key] = (first, *others) if others else first
                    if not others:
                        contested.discard(key)
        for contender in change.added:
            for key in contender.keys:
                known = by_key.setdefault(key, contender)
                if known is not contender:
                    by_key[key] = (known, contender) if isinstance(known, Contender) else (*known, contender)
                    contested.add(key)
        return by_key, frozenset(contested)


class Assigned(Struct, frozen=True, eq=False):
    """The contenders of the previous assignment, and those that the next assignment has to examine in any case.

    ``generation`` is that of the configuration. ``unheld`` are contenders that have not got their things. ``former``
    are the owners of former things. Without ``is_unique``, several devices have the same owner.
    """

    index: ContenderIndex
    generation: int
    unheld: tuple[Contender, ...]
    former: tuple[Owner, ...]
    is_unique: bool


def _update_resource(
    known: ResourceContenders, devices: tuple[Device, ...], removed: list[Contender], added: list[Contender]
) -> ResourceContenders:
    """Return the contenders for changed devices; add those that change to ``removed`` and ``added``."""
    replaced = find_replacements(known.devices, devices)
    old = {id(each.device): each for start, stop, _ in replaced for each in known.contenders[start:stop]}
    contenders = list(known.contenders)
    # Several ranges have the same length in both versions, so that none moves the places of the next.
    for start, old_stop, new_stop in replaced:
        new: list[Contender] = []
        for device in devices[start:new_stop]:
            contender = old.pop(id(device), None)
            if contender is None:
                contender = Contender.of(device, known.ranked)
                added.append(contender)
            new.append(contender)
        contenders[start:old_stop] = new
    removed += old.values()
    return ResourceContenders(devices, known.ranked, tuple(contenders))
