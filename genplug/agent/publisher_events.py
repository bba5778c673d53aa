"""The events that :mod:`genplug.agent.publisher_transitions` applies to the state of the publisher. Frozen values."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from genplug.agent.publisher_actions import Action
from genplug.agent.publisher_state import Registration
from genplug.allocation.slice_plan import Write
from genplug.allocation.slices import ActualSlice, SliceScope, WantedPool


class WantedChanged(Struct, frozen=True):
    """The wanted pools have changed; None if no resource is served by Dynamic Resource Allocation."""

    pools: tuple[WantedPool, ...] | None


class RegistrationChanged(Struct, frozen=True):
    """The kubelet has registered the driver, has lost it, or does not support such drivers."""

    registration: Registration


class NodeRead(Struct, frozen=True):
    """The UID of the Node object is known."""

    scope: SliceScope


class SlicesListed(Struct, frozen=True):
    """All slices of the driver on the node are known."""

    slices: Mapping[str, ActualSlice]
    resource_version: str


class WatchOpened(Struct, frozen=True):
    """The API server sends changes from now on."""


class WatchEnded(Struct, frozen=True):
    """The watch has ended, with an error or as the API server ends each watch."""

    error: Exception | None = None


class SliceSeen(Struct, frozen=True):
    """A slice has changed; a deleted slice has no ``found``. A bookmark has an empty name."""

    name: str
    found: ActualSlice | None
    resource_version: str


class SliceWritten(Struct, frozen=True):
    """A write has succeeded. ``answer`` is the JSON of the slice, None after a deletion."""

    write: Write
    answer: Mapping[str, Any] | None


class TaintsProbed(Struct, frozen=True):
    """The API server keeps taints, or drops them."""

    keeps_taints: bool


class ActionFailed(Struct, frozen=True):
    """An action has failed."""

    action: Action
    error: Exception


PublisherEvent: TypeAlias = (
    WantedChanged
    | RegistrationChanged
    | NodeRead
    | SlicesListed
    | WatchOpened
    | WatchEnded
    | SliceSeen
    | SliceWritten
    | TaintsProbed
    | ActionFailed
)
