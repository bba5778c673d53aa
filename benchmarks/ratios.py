"""The figures of genplug beside those of another plugin: medians, ranges and ratios of alternating rounds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from benchmarks.figures import format_value
from genplug.cli.output import format_table, table_width

DEVICES: Final = 8
MAX_WAIT_SECONDS: Final = 15.0
"""Seconds after which a change counts as not reported."""

_PREFIX = f"{DEVICES} devices: "
START = f"{_PREFIX}start to list"
ALLOCATE = f"{_PREFIX}Allocate 1"
EMPTY_CALL = f"{_PREFIX}GetDevicePluginOptions"
APPEARS = f"{_PREFIX}node appears to list"
VANISHES = f"{_PREFIX}node vanishes to list"
SECOND = f"{_PREFIX}second change in 1 s to list"
KUBELET = f"{_PREFIX}kubelet started to list"

UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        START: "ms",
        f"{ALLOCATE}, p50": "ms",
        f"{ALLOCATE}, p99": "ms",
        f"{EMPTY_CALL}, p50": "ms",
        f"{EMPTY_CALL}, p99": "ms",
        APPEARS: "ms",
        VANISHES: "ms",
        SECOND: "ms",
        KUBELET: "ms",
        f"{_PREFIX}RSS": "MiB",
        f"{_PREFIX}PSS": "MiB",
        f"{_PREFIX}anonymous memory": "MiB",
    }
)
"""The unit of each figure, in the order of the table."""

EVENTS: Final = frozenset({START, APPEARS, VANISHES, SECOND, KUBELET})
"""The figures that end with a list, which the kubelet may not receive in time."""

Round = Mapping[str, float | None]
"""The values of a plugin in a round; None if the plugin did not report the list in time, or if a call failed."""


class Series(Struct, frozen=True):
    """The values of a figure of a plugin, a value for each round."""

    values: tuple[float | None, ...]

    @property
    def reported(self) -> tuple[float, ...]:
        """The values without the rounds that have no value."""
        return tuple(value for value in self.values if value is not None)

    @property
    def median(self) -> float:
        """The median, in which a missing value is longer than any other; infinite if it is a missing value."""
        return median(math.inf if value is None else value for value in self.values)


class Ratio(Struct, frozen=True):
    """The median of genplug divided by that of the peer, and the range of the quotients of the rounds."""

    of_medians: float
    least: float
    greatest: float


class Pair(Struct, frozen=True):
    """A figure of genplug and of a peer; the values of a round have the same position."""

    name: str
    unit: str
    genplug: Series
    peer: Series

    @property
    def ratio(self) -> Ratio | None:
        """How many times the peer's figure genplug's figure is; None if a median is missing or the peer's is 0."""
        quotients = [
            ours / theirs
            for ours, theirs in zip(self.genplug.values, self.peer.values, strict=True)
            if ours is not None and theirs
        ]
        ours, theirs = self.genplug.median, self.peer.median
        if not quotients or not theirs or math.isinf(ours) or math.isinf(theirs):
            return None
        return Ratio(ours / theirs, min(quotients), max(quotients))


def pair_rounds(genplug: Sequence[Round], peer: Sequence[Round]) -> list[Pair]:
    """Return all figures of rounds that alternated; a figure that a round did not reach has no value."""
    return [
        Pair(name, unit, *(Series(tuple(entry.get(name) for entry in rounds)) for rounds in (genplug, peer)))
        for name, unit in UNITS.items()
    ]


def format_pairs(pairs: Iterable[Pair]) -> str:
    """Return the table of all figures."""
    rows = []
    for pair in pairs:
        ratio = pair.ratio
        rows.append(
            (
                pair.name.removeprefix(_PREFIX),
                *_format_series(pair, pair.genplug),
                *_format_series(pair, pair.peer),
                format_value(ratio.of_medians) if ratio else "-",
                f"{format_value(ratio.least)} .. {format_value(ratio.greatest)}" if ratio else "-",
            )
        )
    headings = (f"{DEVICES} DEVICES", "GENPLUG", "MIN .. MAX", "PEER", "MIN .. MAX", "RATIO", "MIN .. MAX")
    return format_table(headings, rows, table_width())


def encode_pairs(pairs: Iterable[Pair]) -> list[dict[str, object]]:
    """Return the figures for a record: those of genplug as in any record, with the peer's beside them."""
    return [
        {
            "name": pair.name,
            "unit": pair.unit,
            **_encode_series(pair.genplug),
            "peerFigure": _encode_series(pair.peer),
            "ratio": {"median": ratio.of_medians, "min": ratio.least, "max": ratio.greatest}
            if (ratio := pair.ratio)
            else None,
        }
        for pair in pairs
    ]


def _format_series(pair: Pair, series: Series) -> tuple[str, str]:
    """Return the cells of the median and of the range."""
    missing = f"not reported within {MAX_WAIT_SECONDS:g} s" if pair.name in EVENTS else "not measured"
    middle = missing if math.isinf(series.median) else f"{format_value(series.median)} {pair.unit}"
    if not series.reported:
        return middle, "-"
    spread = f"{format_value(min(series.reported))} .. {format_value(max(series.reported))}"
    absent = len(series.values) - len(series.reported)
    return middle, f"{spread}, {absent} of {len(series.values)} {missing}" if absent else spread


def _encode_series(series: Series) -> dict[str, object]:
    """Return a series; a missing value is null."""
    return {
        "median": None if math.isinf(series.median) else series.median,
        "min": min(series.reported, default=None),
        "max": max(series.reported, default=None),
        "values": series.values,
    }
