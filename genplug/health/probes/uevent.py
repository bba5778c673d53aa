"""``uevent``: events of the kernel for a device, for devices below it in /sys, and for devices above it. Pure.

A pattern is compared with each ``KEY=VALUE`` of an event, ``ACTION`` and ``DEVPATH`` included.
The last event with a result for the device decides.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import EventStream, Listening, OptionsDecoder, ProbeKind
from genplug.health.thresholds import Outcome, Result
from genplug.spec.privileges import NeedKind, ProbeNeed
from genplug.spec.probes import Check
from genplug.spec.regex import Conditions, render_conditions
from genplug.spec.template import MissingAttributeError, Template

if TYPE_CHECKING:
    # Workers import this module, and the module that receives events imports asyncio.
    from genplug.hardware.uevents import Uevent


class UeventCheck(Check, frozen=True):
    """The ``KEY=VALUE`` of an event that is a failure, and of an event that ends it; ``path`` selects the events.

    All patterns of an option have to match the same event.
    """

    fail: tuple[Template, ...]
    clear: tuple[Template, ...] = ()
    path: Template | None = None

    @property
    def implied_attributes(self) -> frozenset[str]:
        """The attributes that it needs besides those in its templates."""
        return frozenset({"sysfs"})


class EventPatterns(Struct, frozen=True, eq=False):
    """The directories in /sys whose events count, and the patterns of failures and of their end."""

    paths: tuple[str, ...]
    fail: Conditions
    clear: Conditions = ()


def decode(options: OptionsDecoder) -> UeventCheck | None:
    """Return the check that the options describe, or None if ``fail`` is invalid."""
    fail, clear = (options.regex_templates(option) for option in ("fail", "clear"))
    path = options.path("path")
    return UeventCheck(fail, clear, path) if fail else None


def bind(check: UeventCheck, device: Device) -> EventPatterns:
    """Return the patterns for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that a pattern needs, or a directory in /sys.
        PatternError: with its attributes, a pattern is not a regular expression.
    """
    values = device.attributes
    if check.path is None and "sysfs" not in values:
        raise MissingAttributeError("sysfs")
    paths = check.path.render_each(values) if check.path is not None else values["sysfs"]
    return EventPatterns(
        tuple(dict.fromkeys(path.rstrip("/") for path in paths)),
        render_conditions(check.fail, values),
        render_conditions(check.clear, values),
    )


def evaluate(patterns: EventPatterns, event: "Uevent") -> Result | None:
    """Return the result of an event for a device, or None if the event does not concern it."""
    if not is_about(patterns.paths, event):
        return None
    pairs = [f"{key}={value}" for key, value in event.values.items()]
    if _find_pairs(patterns.clear, pairs):
        return Result(Outcome.PASSED)
    failing = _find_pairs(patterns.fail, pairs)
    if not failing:
        return None
    return Result(Outcome.FAILED, f"the kernel sent {' and '.join(failing)} ({event.action} of /sys{event.devpath})")


def _find_pairs(conditions: Conditions, pairs: Sequence[str]) -> list[str]:
    """Return for each condition the first pair that meets it; empty if a condition is not met."""
    found = [
        next((pair for pattern in patterns for pair in pairs if pattern.search(pair)), None) for patterns in conditions
    ]
    return [] if None in found else [pair for pair in found if pair is not None]


def is_about(paths: tuple[str, ...], event: "Uevent") -> bool:
    """Return whether the device of an event has one of these directories, or a directory below or above one."""
    directory = f"/sys{event.devpath}/"
    return any(directory.startswith(f"{path}/") or f"{path}/".startswith(directory) for path in paths)


def _needs(_check: UeventCheck) -> tuple[ProbeNeed, ...]:
    return (ProbeNeed(NeedKind.UEVENTS, "receives events of the kernel's devices from a netlink socket"),)


KIND = ProbeKind(
    "uevent",
    UeventCheck,
    decode,
    listening=Listening(EventStream.UEVENTS, bind, evaluate),
    needs=_needs,
)
