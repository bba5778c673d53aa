"""``uevent``: events of the kernel for a device, for devices below it in /sys, and for devices above it. Pure.

A pattern is compared with each ``KEY=VALUE`` of an event, ``ACTION`` and ``DEVPATH`` included.
The last event with a result for the device decides.
"""

from typing import TYPE_CHECKING

from attrs import frozen

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import EventStream, Listening, OptionsDecoder, ProbeKind
from genplug.health.thresholds import Outcome, Result
from genplug.spec.probes import Check
from genplug.spec.regex import Pattern, render_regexes
from genplug.spec.template import MissingAttributeError, Template

if TYPE_CHECKING:
    # Workers import this module, and the module that receives events imports asyncio.
    from genplug.hardware.uevents import Uevent


@frozen
class UeventCheck(Check):
    """The ``KEY=VALUE`` of an event that is a failure, and of an event that ends it; ``path`` selects the events."""

    fail: Template
    clear: Template | None = None
    path: Template | None = None

    @property
    def implied_attributes(self) -> frozenset[str]:
        """The attributes that it needs besides those in its templates."""
        return frozenset({"sysfs"})


@frozen(eq=False)
class EventPatterns:
    """The directories in /sys whose events count, and the patterns of failures and of their end."""

    paths: tuple[str, ...]
    fail: tuple[Pattern, ...]
    clear: tuple[Pattern, ...] = ()


def decode(options: OptionsDecoder) -> UeventCheck | None:
    """Return the check that the options describe, or None if ``fail`` is invalid."""
    fail, clear = (options.regex_template(option) for option in ("fail", "clear"))
    path = options.path("path")
    return UeventCheck(fail, clear, path) if fail is not None else None


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
    clear = tuple(render_regexes(check.clear, values)) if check.clear is not None else ()
    return EventPatterns(
        tuple(dict.fromkeys(path.rstrip("/") for path in paths)), tuple(render_regexes(check.fail, values)), clear
    )


def evaluate(patterns: EventPatterns, event: "Uevent") -> Result | None:
    """Return the result of an event for a device, or None if the event does not concern it."""
    if not is_about(patterns.paths, event):
        return None
    pairs = [f"{key}={value}" for key, value in event.values.items()]
    if any(pattern.search(pair) for pattern in patterns.clear for pair in pairs):
        return Result(Outcome.PASSED)
    failing = next((pair for pattern in patterns.fail for pair in pairs if pattern.search(pair)), None)
    if failing is None:
        return None
    return Result(Outcome.FAILED, f"the kernel sent {failing} ({event.action} of /sys{event.devpath})")


def is_about(paths: tuple[str, ...], event: "Uevent") -> bool:
    """Return whether the device of an event has one of these directories, or a directory below or above one."""
    directory = f"/sys{event.devpath}/"
    return any(directory.startswith(f"{path}/") or f"{path}/".startswith(directory) for path in paths)


KIND = ProbeKind(
    "uevent",
    UeventCheck,
    decode,
    listening=Listening(EventStream.UEVENTS, bind, evaluate),
)
