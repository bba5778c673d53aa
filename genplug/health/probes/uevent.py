"""``uevent``: events that the kernel sends of a device, of what is below it and of what it stands on. Pure.

A pattern is compared with each ``KEY=VALUE`` of an event, ``ACTION`` and ``DEVPATH`` among them. The last event that
says something decides.
"""

from attrs import frozen

from genplug.hardware.uevents import Uevent
from genplug.health.thresholds import Outcome, Result
from genplug.spec.probes import UeventCheck
from genplug.spec.regex import Pattern, render_regexes
from genplug.spec.template import MissingAttributeError, Values


@frozen(eq=False)
class EventPatterns:
    """Whose events count (directories in /sys), and what they say of the device."""

    paths: tuple[str, ...]
    fail: tuple[Pattern, ...]
    clear: tuple[Pattern, ...] = ()


def bind_patterns(check: UeventCheck, values: Values) -> EventPatterns:
    """Return the patterns for a device with these attributes.

    Raises:
        MissingAttributeError: one needs an attribute that it does not have, or it has no place in /sys.
        PatternError: with its attributes one cannot be read.
    """
    if check.path is None and "sysfs" not in values:
        raise MissingAttributeError("sysfs")
    paths = check.path.render_each(values) if check.path is not None else values["sysfs"]
    clear = tuple(render_regexes(check.clear, values)) if check.clear is not None else ()
    return EventPatterns(tuple(path.rstrip("/") for path in paths), tuple(render_regexes(check.fail, values)), clear)


def evaluate(patterns: EventPatterns, event: Uevent) -> Result | None:
    """Return what an event means for a device; None where it means nothing."""
    if not is_about_device(patterns.paths, event):
        return None
    told = [f"{key}={value}" for key, value in event.values.items()]
    if any(one.search(text) for one in patterns.clear for text in told):
        return Result(Outcome.PASSED)
    said = next((text for one in patterns.fail for text in told if one.search(text)), None)
    if said is None:
        return None
    return Result(Outcome.FAILED, f"the kernel sent {said} ({event.action} of /sys{event.devpath})")


def is_driver_rebind(locations: tuple[str, ...], event: Uevent) -> bool:
    """Say whether a driver was bound to the device that stands at one of these locations, or to what that is a part of.

    What is below it has drivers of its own, and so have the bridges above.
    """
    of = f"/sys{event.devpath}/"
    is_own = any(f"{location}/".startswith(of) for location in locations)
    return event.action == "bind" and is_own and event.values.get("DRIVER") != "pcieport"


def is_about_device(paths: tuple[str, ...], event: Uevent) -> bool:
    """Say whether an event is of one of these directories, of what is below it, or of what it is below."""
    of = f"/sys{event.devpath}/"
    return any(of.startswith(f"{path}/") or f"{path}/".startswith(of) for path in paths)
