"""The record of the growth benchmark, docs/explanation/growth.json: quantities, sizes and results."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from genplug.spec.limits import MAX_CANDIDATES, MAX_PROBED_DEVICES, MAX_RESOURCES

UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "start to list": "ms",
        "change to list": "ms",
        "status request": "ms",
        "processor time of a start": "ms",
        "processor time of a change": "ms",
        "RSS": "MiB",
        "anonymous memory": "MiB",
        "anonymous memory of the workers": "MiB",
        "CPU of the agent": "% of a core",
        "CPU of the workers": "% of a core",
    }
)
"""The quantities that can be measured at a size, with their units."""


class Subject(Struct, frozen=True):
    """A number that grows, and the sizes at which the agent is measured. ``limit`` is the limit of genplug, if any."""

    name: str
    sizes: tuple[int, ...]
    maximum: int | None = None
    limit: str = ""

    def sizes_to_measure(self, highest: int | None = None) -> tuple[tuple[int, int], ...]:
        """Return each size to measure, which is at most the limit, after the largest size that it was requested for.

        Sizes above ``highest`` are left out.
        """
        sizes = (size for size in self.sizes if highest is None or size <= highest)
        requested = {size if self.maximum is None else min(size, self.maximum): size for size in sizes}
        return tuple((size, measured) for measured, size in requested.items())


_THOUSANDS = (100, 1000, 3000, 10_000, 30_000)

SUBJECTS: Final = (
    Subject("devices", (10, *_THOUSANDS), MAX_CANDIDATES, "MAX_CANDIDATES"),
    Subject("resources", (1, 10, 100, 300, 1000), MAX_RESOURCES, "MAX_RESOURCES"),
    Subject("probes", (0, *_THOUSANDS), MAX_PROBED_DEVICES, "MAX_PROBED_DEVICES"),
    Subject("pods", (0, 10, 100, 500)),
)


class Point(Struct, frozen=True):
    """The values of each quantity at a size; ``measured`` is smaller than ``requested`` if a limit is smaller."""

    requested: int
    measured: int
    values: Mapping[str, tuple[float, ...]]

    def smallest(self, quantity: str) -> float | None:
        """Return the smallest value of a quantity, or None if it was not measured: load makes a run slower."""
        return min(self.values.get(quantity, ()), default=None)


class Series(Struct, frozen=True):
    """The points of a subject, in the order of their sizes, and the conditions under which they were measured."""

    name: str
    conditions: Mapping[str, str | int]
    points: tuple[Point, ...]

    @property
    def quantities(self) -> tuple[str, ...]:
        """The quantities that were measured at any size."""
        return tuple(name for name in UNITS if any(name in point.values for point in self.points))


Record = Mapping[str, Series]
"""The series by the name of their subject."""


def encode_record(record: Record) -> dict[str, Any]:
    """Return the JSON document of a record."""
    return {
        "series": [
            {
                "name": subject.name,
                "conditions": dict(series.conditions),
                "points": [
                    {
                        "requested": point.requested,
                        "measured": point.measured,
                        "values": {name: list(values) for name, values in point.values.items()},
                    }
                    for point in series.points
                ],
            }
            for subject in SUBJECTS
            if (series := record.get(subject.name)) is not None
        ]
    }


def decode_record(document: Mapping[str, Any]) -> Record:
    """Return the record in a JSON document.

    Raises:
        ValueError: the document is not a record.
    """
    record = {}
    for entry in document["series"]:
        series = Series(entry["name"], entry["conditions"], tuple(_decode_point(point) for point in entry["points"]))
        names = [subject.name for subject in SUBJECTS]
        if series.name not in names:
            raise ValueError(f"expected a series of {', '.join(names)}, found {series.name}")
        sizes = [point.measured for point in series.points]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"{series.name}: expected each size once, in ascending order, found {sizes}")
        record[series.name] = series
    return record


def _decode_point(entry: Mapping[str, Any]) -> Point:
    values = {name: _decode_values(name, found) for name, found in entry["values"].items()}
    return Point(entry["requested"], entry["measured"], values)


def _decode_values(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if name not in UNITS:
        raise ValueError(f"expected a quantity of {', '.join(UNITS)}, found {name}")
    if not values:
        raise ValueError(f"{name}: expected a value, found an empty list")
    return tuple(values)
