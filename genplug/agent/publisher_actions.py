"""The actions that :mod:`genplug.agent.publisher_decision` chooses, and messages for the log. Frozen values."""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from genplug.allocation.slice_plan import Write
from genplug.allocation.slices import SliceScope
from genplug.observe.events import Event


class ReadNode(Struct, frozen=True):
    """Read the UID of the Node object."""


class ListSlices(Struct, frozen=True):
    """List the slices of the driver on the node."""


class OpenWatch(Struct, frozen=True):
    """Open a watch from a resource version."""

    resource_version: str


class CloseWatch(Struct, frozen=True):
    """Close the watch."""


class WriteSlice(Struct, frozen=True):
    """Write or delete a slice."""

    write: Write
    scope: SliceScope


class ProbeTaints(Struct, frozen=True):
    """Find out whether the API server keeps taints, without a slice that the scheduler could read without them."""

    scope: SliceScope


Action: TypeAlias = ReadNode | ListSlices | OpenWatch | CloseWatch | WriteSlice | ProbeTaints


class Notice(Struct, frozen=True):
    """An event for the log. Parts of the text are untrusted."""

    event: Event
    text: str
    facts: Mapping[str, object] = {}
