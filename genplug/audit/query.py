"""Answers questions about audit logs: which records and which assignments a query selects. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct, field

from genplug.audit.history import History, Interval, Loss
from genplug.audit.reader import Problem
from genplug.audit.records import Assignment, Record, RecordError, RecordType
from genplug.hardware.device_ids import device_of_grant
from genplug.spec.limits import MAX_AUDIT_ASSIGNMENTS

MAX_NOTES = 1000
"""Damaged lines, and ranges of missing records, of an answer."""
_MAX_NAMES = 10_000
_NOT_IDENTIFYING = frozenset({"driver", "driverVersion", "pci.vendor", "pci.device"})
"""Attributes that many devices share."""


class Query(Struct, frozen=True):
    """A selection: names of devices are compared without case; None and empty values select everything.

    - ``device`` is a device ID, a path, or a value of an attribute such as a serial number or a PCI address.
    - ``pod`` is the namespace and the name of a pod.
    - ``start`` and ``end`` (seconds since the epoch) limit the times.
    """

    device: str | None = None
    pod: tuple[str, str] | None = None
    resource: str | None = None
    types: frozenset[RecordType] = frozenset()
    start: float | None = None
    end: float | None = None

    def selects_assignment(self, assignment: Assignment) -> bool:
        """Return whether an assignment is about the device, the pod and the resource of the query."""
        if self.resource is not None and assignment.resource != self.resource:
            return False
        container = assignment.container
        if self.pod is not None and (container is None or (container.namespace, container.pod) != self.pod):
            return False
        return self.device is None or self.device.lower() in map(str.lower, device_names(assignment))

    def selects_interval(self, interval: Interval) -> bool:
        """Return whether an assignment is one of the query, and may have existed in its range of time."""
        return self.selects_assignment(interval.assignment) and interval.may_overlap(self.start, self.end)

    def selects_record(self, record: Record) -> bool:
        """Return whether a record is about everything that the query names, in its range of time."""
        if self.types and record.type not in self.types:
            return False
        if (self.start is not None and record.time < self.start) or (self.end is not None and record.time > self.end):
            return False
        if record.assignment is not None:
            return self.selects_assignment(record.assignment)
        if self.pod is not None:
            return False
        if self.resource is not None and self.resource not in _record_resources(record):
            return False
        return self.device is None or self.device.lower() in map(str.lower, _record_devices(record))


class Answer(Struct):
    """The result of a query, built while records are read.

    ``names`` are the names of devices or pods in the logs, and ``resources`` those of resources, for suggestions.
    """

    by_key: dict[str, Interval] = {}
    """The assignments by their keys: a log that is read twice has the same."""
    losses: list[Loss] = []
    problems: list[Problem] = []
    names: set[str] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)
    is_truncated: bool = False

    def add(self, query: Query, found: Iterable[Interval | Loss]) -> None:
        """Add what a query selects of the results of a log."""
        for item in found:
            if isinstance(item, Loss):
                self._add_loss(query, item)
                continue
            if len(self.names) < _MAX_NAMES:
                self.names.update(_names(query, item.assignment))
            if not query.selects_interval(item):
                continue
            key = item.assignment.key
            if len(self.by_key) >= MAX_AUDIT_ASSIGNMENTS and key not in self.by_key:
                self.is_truncated = True
            else:
                self.by_key[key] = item

    def add_names(self, query: Query, record: Record) -> None:
        """Add the names in a record that a query can be compared with, also of devices without an assignment."""
        if query.resource is not None and len(self.resources) < _MAX_NAMES:
            own = (record.assignment.resource,) if record.assignment is not None else _record_resources(record)
            self.resources.update(name for name in own if isinstance(name, str))
        if query.device is not None and record.assignment is None and len(self.names) < _MAX_NAMES:
            self.names.update(_record_devices(record))

    def add_problem(self, problem: Problem) -> None:
        """Add a line that is not a record."""
        if len(self.problems) < MAX_NOTES:
            self.problems.append(problem)

    @property
    def intervals(self) -> list[Interval]:
        """The assignments in the order of their begin."""
        return sorted(self.by_key.values(), key=lambda interval: interval.known_from or 0.0)

    def _add_loss(self, query: Query, loss: Loss) -> None:
        is_relevant = (query.start is None or loss.end >= query.start) and (
            query.end is None or loss.start <= query.end
        )
        if is_relevant and len(self.losses) < MAX_NOTES:
            self.losses.append(loss)


def answer_query(
    query: Query, log: Iterable[Record | Problem], answer: Answer, *, is_directory: bool
) -> Iterator[Record]:
    """Read a log, add what it contains to the answer, and yield the records that the query selects.

    The directory of an agent contains the records of one node, whose name in them can change. Another stream can
    contain the records of several nodes.
    """
    histories: dict[str | None, History] = {}
    for item in log:
        if isinstance(item, Problem):
            answer.add_problem(item)
            continue
        history = histories.setdefault(None if is_directory else item.node, History())
        try:
            answer.add(query, history.apply(item))
        except (RecordError, ValueError) as error:
            answer.add_problem(Problem(f"record {item.sequence}", 0, str(error)))
        answer.add_names(query, item)
        if query.selects_record(item):
            yield item
    for history in histories.values():
        answer.add(query, history.list_open())


def device_names(assignment: Assignment) -> Iterator[str]:
    """Yield the texts by which a query can name a device of an assignment."""
    for id_ in assignment.ids:
        yield id_
        yield device_of_grant(id_)
    for hardware in assignment.hardware:
        yield from (hardware.device, *hardware.paths, *_values(hardware.attributes))


def _values(attributes: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    return (value for name, values in attributes.items() if name not in _NOT_IDENTIFYING for value in values)


def _names(query: Query, assignment: Assignment) -> Iterator[str]:
    if query.device is not None:
        yield from device_names(assignment)
    elif query.pod is not None and assignment.container is not None:
        yield f"{assignment.container.namespace}/{assignment.container.pod}"


def _entries(record: Record) -> Iterator[Mapping[str, object]]:
    """Yield the devices of ``devicesAdded``."""
    devices = record.fields.get("devices")
    if isinstance(devices, list):
        yield from (entry for entry in devices if isinstance(entry, dict))


def _record_resources(record: Record) -> Iterator[object]:
    yield record.fields.get("resource")
    yield from (entry.get("resource") for entry in _entries(record))


def _record_devices(record: Record) -> Iterator[str]:
    """Yield the texts by which a query can name a device of a record without an assignment."""
    ids = record.fields.get("ids")
    names = [record.fields.get("device"), *(ids if isinstance(ids, list) else ())]
    yield from (name for name in names if isinstance(name, str))
    for entry in _entries(record):
        hardware = entry.get("hardware")
        if not isinstance(hardware, dict):
            continue
        attributes = hardware.get("attributes")
        lists = [[hardware.get("device")], hardware.get("paths")]
        if isinstance(attributes, dict):
            lists += [values for name, values in attributes.items() if name not in _NOT_IDENTIFYING]
        yield from (text for texts in lists if isinstance(texts, list) for text in texts if isinstance(text, str))
