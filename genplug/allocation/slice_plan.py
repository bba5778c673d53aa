"""The writes that change the actual slices of a node to the wanted slices. Pure.

The scheduler only reads the slices of a pool that have its newest generation, and only if there are as many of them as
each of them states (k8s.io/dynamic-resource-allocation, structured/internal). A plan therefore writes slices of a
generation only if all other slices of this generation have the wanted devices: the scheduler sees either the devices of
before or the wanted devices, whichever writes fail, and in which order they arrive.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from genplug.allocation.published import PublishedDevice
from genplug.allocation.slices import ActualSlice, SliceScope, WantedPool, WantedSlice

FIRST_GENERATION = 1
MAX_GENERATION = (1 << 63) - 1
"""The largest generation (int64). Only another client can have written it; the slices are then created again."""


class DeleteSlice(Struct, frozen=True):
    """Delete a slice, if it still has this UID and resource version."""

    name: str
    pool: str
    uid: str
    resource_version: str


class UpdateSlice(Struct, frozen=True):
    """Replace a slice, if it still has this UID and resource version."""

    pool: WantedPool
    part: WantedSlice
    generation: int
    uid: str
    resource_version: str

    @property
    def name(self) -> str:
        """The name of the slice."""
        return self.part.name


class CreateSlice(Struct, frozen=True):
    """Create a slice, if no slice has its name."""

    pool: WantedPool
    part: WantedSlice
    generation: int

    @property
    def name(self) -> str:
        """The name of the slice."""
        return self.part.name


Write: TypeAlias = DeleteSlice | UpdateSlice | CreateSlice


class SliceContent(Struct, frozen=True):
    """The compared parts of a slice: the digest of devices, the number of slices of the pool, the UIDs of owners."""

    devices: str
    count: int
    owners: tuple[str, ...]


class Answered(Struct, frozen=True):
    """The answer to a write: the content that was sent, and that of the slice in the answer."""

    sent: SliceContent
    answered: SliceContent


def wanted_content(pool: WantedPool, part: WantedSlice, scope: SliceScope) -> SliceContent:
    """Return the content of a slice that is wanted."""
    return SliceContent(part.content, len(pool.slices), (scope.node_uid,))


def actual_content(found: ActualSlice) -> SliceContent:
    """Return the content of a slice of the API server."""
    return SliceContent(found.content, found.count, found.owners)


def plan_writes(
    wanted: Iterable[WantedPool],
    actual: Iterable[ActualSlice],
    scope: SliceScope,
    answers: Mapping[str, Answered] | None = None,
) -> tuple[Write, ...]:
    """Return the writes that lead from the actual slices of the driver on the node to the wanted slices.

    Deletions come first, then updates, then creations. ``answers`` has the answers to the last writes by the names of
    the slices: a slice that the API server itself or a webhook has changed is not written again with the same content.
    """
    pools = {pool.name: pool for pool in wanted}
    by_pool: dict[str, list[ActualSlice]] = defaultdict(list)
    for found in sorted(actual, key=lambda part: part.name):
        by_pool[found.pool].append(found)
    writes: list[Write] = []
    for name in sorted(pools.keys() | by_pool.keys()):
        if name in pools:
            writes += _plan_pool(pools[name], by_pool[name], scope, answers or {})
        else:
            writes += _delete_slices(by_pool[name], by_pool[name])
    order = (DeleteSlice, UpdateSlice, CreateSlice)
    return tuple(sorted(writes, key=lambda write: order.index(type(write))))


def find_dropped_fields(sent: Iterable[PublishedDevice], answered: Mapping[str, Any]) -> Collection[str]:
    """Return the fields of devices that the API server has dropped from a slice, because their feature is off.

    ``answered`` is the JSON of the slice in the answer to a write.

    Raises:
        ValueError: the answer is not a slice.
    """
    try:
        devices = (answered.get("spec") or {}).get("devices") or ()
        by_name = {str(device.get("name")): device for device in devices}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"expected a ResourceSlice, found an object with another type of field: {error}") from error
    dropped: dict[str, None] = {}
    for device in sent:
        document = by_name.get(device.name, {})
        fields = {"attributes": device.attributes, "capacity": device.capacity, "taints": device.taints}
        dropped |= dict.fromkeys(name for name, value in fields.items() if value and not document.get(name))
    return tuple(dropped)


def _plan_pool(
    pool: WantedPool, actual: list[ActualSlice], scope: SliceScope, answers: Mapping[str, Answered]
) -> list[Write]:
    """Return the writes for a pool.

    The generation remains if the pool is then complete with the last write of the plan and not before: all slices that
    are not written have the newest generation and the wanted devices, and the slices that are written are either a
    single slice, or have no slice of the newest generation yet.
    """
    newest = max((found.generation for found in actual), default=FIRST_GENERATION)
    by_name = {found.name: found for found in actual}
    kept = {
        part.name
        for part in pool.slices
        if (found := by_name.get(part.name)) is not None
        and found.generation == newest
        and _is_settled(found, part, pool, scope, answers.get(part.name))
    }
    written = [part for part in pool.slices if part.name not in kept]
    surplus = [found for found in actual if found.name not in {part.name for part in pool.slices}]
    if not written:
        return _delete_slices(surplus, actual)
    is_visible = any(found.generation == newest and found.name not in kept for found in actual)
    is_single = len(written) == 1 and written[0].name in by_name
    is_surplus_visible = any(found.generation == newest for found in surplus)
    generation = newest if actual and (not is_visible or (is_single and not is_surplus_visible)) else newest + 1
    if not actual:
        generation = FIRST_GENERATION
    if generation > MAX_GENERATION:
        # The slices that remain are created again in the next plans, after the deletions.
        return _delete_slices(actual, actual)
    deletions = _delete_slices(surplus, actual)
    if generation > newest:
        # The slices that were kept get the new generation too.
        written = list(pool.slices)
    return [*deletions, *(_write(pool, part, generation, by_name.get(part.name)) for part in written)]


def _is_settled(
    found: ActualSlice, part: WantedSlice, pool: WantedPool, scope: SliceScope, answer: Answered | None
) -> bool:
    """Return whether a slice needs no write, apart from its generation."""
    wanted, actual = wanted_content(pool, part, scope), actual_content(found)
    is_equal = (actual.devices, actual.count) == (wanted.devices, wanted.count) and scope.node_uid in actual.owners
    return is_equal or answer == Answered(wanted, actual)


def _write(pool: WantedPool, part: WantedSlice, generation: int, found: ActualSlice | None) -> Write:
    if found is None:
        return CreateSlice(pool, part, generation)
    return UpdateSlice(pool, part, generation, found.uid, found.resource_version)


def _delete_slices(unwanted: list[ActualSlice], actual: list[ActualSlice]) -> list[Write]:
    """Return the deletions of unwanted slices of a pool.

    Slices of the newest generation hide older slices, so that they are deleted in a later plan, after the older slices.
    """
    generations = {found.generation for found in actual}
    hidden = unwanted if len(generations) == 1 else [found for found in unwanted if found.generation < max(generations)]
    return list(map(_delete, hidden))


def _delete(found: ActualSlice) -> DeleteSlice:
    return DeleteSlice(found.name, found.pool, found.uid, found.resource_version)
