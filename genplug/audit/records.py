"""The records of the audit log: their types, their JSON lines, and the parser of a line.

``schemas/audit-record.schema.json`` describes the lines. Times are seconds since the epoch here, rounded to
milliseconds, and RFC 3339 in a line.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_AUDIT_TEXT_CHARACTERS

API_VERSION = "genplug.io/v1alpha1"
KIND = "AuditRecord"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last time that :func:`format_time` accepts."""
Fields: TypeAlias = Mapping[str, Any]
"""The members of a record, or of an object in it, as JSON has them."""


class RecordType(StrEnum):
    """The types of records (``type``)."""

    STARTED = "started"
    STOPPED = "stopped"
    HEARTBEAT = "heartbeat"
    GAP = "gap"
    CONFIG_LOADED = "configLoaded"
    CONFIG_REFUSED = "configRefused"
    DEVICES_ADDED = "devicesAdded"
    DEVICE_REMOVED = "deviceRemoved"
    DEVICE_HEALTHY = "deviceHealthy"
    DEVICE_UNHEALTHY = "deviceUnhealthy"
    DEVICE_WITHHELD = "deviceWithheld"
    ALLOCATED = "allocated"
    REFUSED = "refused"
    ASSIGNED = "assigned"
    RELEASED = "released"
    KUBELET_RESTARTED = "kubeletRestarted"
    REGISTERED = "registered"
    DISCONNECTED = "disconnected"


ASSIGNMENT_TYPES = frozenset({RecordType.ALLOCATED, RecordType.ASSIGNED, RecordType.RELEASED})
"""The types whose records contain an assignment."""


class EndReason(StrEnum):
    """How the agent found that an assignment had ended (``reason`` of ``released``)."""

    POD_ENDED = "podEnded"
    """The kubelet reports no longer that the container uses the devices."""
    ALLOCATED_AGAIN = "allocatedAgain"
    """The kubelet allocated the devices to another container."""
    AGENT_NOT_RUNNING = "agentNotRunning"
    """The first report of the kubelet after a start of the agent did not contain the container."""
    NEVER_ASSIGNED = "neverAssigned"
    """The kubelet reported no container with the devices of an allocation."""
    NOT_IDENTIFIED = "notIdentified"
    """The agent crashed before the kubelet reported the container. A later assignment may be that of the container."""
    RECORDS_LOST = "recordsLost"
    """The assignment ended while records were lost. Only queries have this reason."""


class RecordError(ValueError):
    """A line that is not a record; the text states what was expected and what was found."""


class Hardware(Struct, frozen=True):
    """The identity of a device: its ID without the suffix of replicas and slices, its paths, numbers and attributes."""

    device: str
    paths: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = {}

    def as_json(self) -> dict[str, Any]:
        """Return the object in a record."""
        return {
            "device": self.device,
            "paths": list(self.paths),
            "numbers": list(self.numbers),
            "attributes": {name: list(values) for name, values in self.attributes.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> "Hardware":
        """Return the hardware that an object of a record describes.

        Raises:
            RecordError: the object does not have the expected form.
        """
        fields = _expect_object(value, "hardware")
        attributes = _expect_object(fields.get("attributes", {}), "attributes")
        return cls(
            _expect_text(fields.get("device"), "device"),
            _expect_texts(fields.get("paths", []), "paths"),
            _expect_texts(fields.get("numbers", []), "numbers"),
            {name: _expect_texts(values, name) for name, values in attributes.items()},
        )


class Container(Struct, frozen=True):
    """A container as the pod-resources API names it. The API does not report the UID of the pod."""

    namespace: str
    pod: str
    name: str


class Assignment(Struct, frozen=True):
    """Devices of a resource that a container has or had.

    - ``key`` identifies the assignment in the logs of all nodes.
    - ``ids`` are the device IDs that the kubelet allocated.
    - ``container`` is unknown (None) until the kubelet has reported the container.
    - ``allocated_at`` is the time of the Allocate call, or None if the agent did not answer it while it wrote this log.
    - ``first_seen`` and ``last_seen`` are the times of the first and the last report of the kubelet with the container.
    - ``config_sha256`` is the configuration under which the devices were allocated, or None if it is not known.
    - ``is_ambiguous`` is whether the agent crashed before the kubelet reported the container: a container with the
      devices can have them by a later allocation, whose record was lost.
    - ``hardware_omitted`` is the number of devices that ``hardware`` lacks because of its limit.
    """

    key: str
    resource: str
    ids: tuple[str, ...]
    container: Container | None = None
    allocated_at: float | None = None
    first_seen: float | None = None
    last_seen: float | None = None
    config_sha256: str | None = None
    hardware: tuple[Hardware, ...] = ()
    hardware_omitted: int = 0
    is_ambiguous: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the object in a record."""
        container = self.container
        return {
            "key": self.key,
            "resource": self.resource,
            "ids": list(self.ids),
            "namespace": container.namespace if container else None,
            "pod": container.pod if container else None,
            "container": container.name if container else None,
            "allocatedAt": format_optional_time(self.allocated_at),
            "firstSeenAt": format_optional_time(self.first_seen),
            "lastSeenAt": format_optional_time(self.last_seen),
            "configSha256": self.config_sha256,
            "hardware": [hardware.as_json() for hardware in self.hardware],
            "hardwareOmitted": self.hardware_omitted,
            "isAmbiguous": self.is_ambiguous,
        }

    @classmethod
    def from_json(cls, value: object) -> "Assignment":
        """Return the assignment that an object of a record describes.

        Raises:
            RecordError: the object does not have the expected form.
        """
        fields = _expect_object(value, "assignment")
        names = [fields.get(name) for name in ("namespace", "pod", "container")]
        container = None
        if names != [None] * 3:
            container = Container(*(_expect_text(name, "the name of a container") for name in names))
        hardware, omitted = fields.get("hardware", []), fields.get("hardwareOmitted", 0)
        if not isinstance(hardware, list) or not isinstance(omitted, int):
            raise RecordError(f"expected a list as hardware and a number as hardwareOmitted, found {fields!r}"[:200])
        sha256 = fields.get("configSha256")
        return cls(
            _expect_text(fields.get("key"), "key"),
            _expect_text(fields.get("resource"), "resource"),
            _expect_texts(fields.get("ids"), "ids"),
            container,
            allocated_at=_parse_optional_time(fields.get("allocatedAt")),
            first_seen=_parse_optional_time(fields.get("firstSeenAt")),
            last_seen=_parse_optional_time(fields.get("lastSeenAt")),
            config_sha256=None if sha256 is None else _expect_text(sha256, "configSha256"),
            hardware=tuple(map(Hardware.from_json, hardware)),
            hardware_omitted=omitted,
            is_ambiguous=fields.get("isAmbiguous") is True,
        )


class Record(Struct, frozen=True):
    """A record of a log: what all records have, and its own members in ``fields``."""

    sequence: int
    time: float
    node: str | None
    type: RecordType
    fields: Fields
    assignment: Assignment | None = None
    """The assignment in the record, None if its type has none."""

    def time_of(self, name: str) -> float | None:
        """Return the time in a member of the record, None if it is absent or null.

        Raises:
            RecordError: the member is not a time.
        """
        return _parse_optional_time(self.fields.get(name))


class Origin(Struct, frozen=True):
    """The node, the version of the agent, and its configuration at the time of a record."""

    node: str | None
    version: str
    config_sha256: str | None


def encode_record(origin: Origin, time: float, type_: RecordType, fields: Fields) -> bytes:
    """Return the line of a record without its sequence number and newline; :func:`complete_line` adds both."""
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "time": format_time(time),
        "node": origin.node,
        "version": origin.version,
        "configSha256": origin.config_sha256,
        "type": type_.value,
        **fields,
    }
    # ASCII: names that are not UTF-8 and line separators are escaped.
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def complete_line(sequence: int, record: bytes) -> bytes:
    """Return the line of a record with its sequence number, the first member of the object."""
    return b'{"sequence":%d,%b\n' % (sequence, record[1:])


def parse_record(line: bytes) -> Record:
    """Return the record of a line; members that this version does not know are kept in ``fields``.

    Raises:
        RecordError: the line is not a record of this format.
    """
    try:
        document = parse_json(line)
    except ValueError as error:
        raise RecordError(f"expected a JSON object, found {line[:40]!r}") from error
    fields = _expect_object(document, "a record")
    if (fields.get("apiVersion"), fields.get("kind")) != (API_VERSION, KIND):
        found = f"{fields.get('apiVersion')!r} and {fields.get('kind')!r}"[:80]
        raise RecordError(f"expected apiVersion {API_VERSION} and kind {KIND}, found {found}")
    sequence, node = fields.get("sequence"), fields.get("node")
    if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1:
        raise RecordError(f"expected a sequence number, found {sequence!r}"[:80])
    try:
        type_ = RecordType(_expect_text(fields.get("type"), "type"))
    except ValueError as error:
        raise RecordError(f"expected a known type of record, found {fields.get('type')!r}"[:80]) from error
    time = parse_time(_expect_text(fields.get("time"), "time"))
    node = None if node is None else _expect_text(node, "node")
    assignment = Assignment.from_json(fields.get("assignment")) if type_ in ASSIGNMENT_TYPES else None
    return Record(sequence, time, node, type_, fields, assignment)


def cut_text(text: str) -> str:
    """Return a text with at most :data:`MAX_AUDIT_TEXT_CHARACTERS` characters."""
    return text if len(text) <= MAX_AUDIT_TEXT_CHARACTERS else f"{text[: MAX_AUDIT_TEXT_CHARACTERS - 3]}..."


def round_time(epoch_seconds: float) -> float:
    """Return seconds since the epoch, rounded to milliseconds: the resolution of a record."""
    return round(epoch_seconds * 1000) / 1000


def format_time(epoch_seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC with milliseconds: ``2026-11-27T17:22:17.042Z``."""
    moment = _EPOCH + timedelta(milliseconds=round(epoch_seconds * 1000))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_optional_time(epoch_seconds: float | None) -> str | None:
    """Return :func:`format_time` of a time, None for None."""
    return None if epoch_seconds is None else format_time(epoch_seconds)


def parse_time(text: str) -> float:
    """Return the seconds since the epoch of a time in RFC 3339; a time without an offset is in UTC.

    Raises:
        RecordError: the text is not a time.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        # With an offset, a time of the year 9999 can be in the year 10000 of UTC: OverflowError.
        return (min(moment.astimezone(UTC), _LAST_TIME) - _EPOCH) / timedelta(milliseconds=1) / 1000
    except (ValueError, OverflowError) as error:
        raise RecordError(f"expected a time such as 2026-11-27T17:22:17Z, found {text!r}"[:120]) from error


def _parse_optional_time(value: object) -> float | None:
    return None if value is None else parse_time(_expect_text(value, "a time"))


def _expect_object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(f"expected a JSON object as {name}, found {value!r}"[:120])
    return value


def _expect_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"expected a text as {name}, found {value!r}"[:120])
    return value


def _expect_texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(text, str) for text in value):
        raise RecordError(f"expected a list of texts as {name}, found {value!r}"[:120])
    return tuple(value)
