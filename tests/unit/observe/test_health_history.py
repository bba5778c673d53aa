"""The health of devices over the last hour."""

import tracemalloc
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.allocation.offer import ResourceOffer, compare_offers
from genplug.hardware.inventory import Device
from genplug.health.verdict import DeviceHealth, Verdict
from genplug.observe.health_history import MAX_ENTRIES, HealthHistory, read_minutes
from tests.support.allocation import build_resource, offer_devices
from tests.support.hardware import LOCATION, NAME

RESOURCE = build_resource()
START = 6000.0
"""A time at the start of a minute (monotonic seconds)."""
CODES = {"h": "healthy", "u": "unhealthy", "b": "both", "-": "unknown"}


def offer(devices: Mapping[str, bool], since: float = START) -> ResourceOffer:
    """Return an offer of devices by ID that have their health since a time."""
    healths = [
        DeviceHealth(
            Device(key, key, NAME, LOCATION, (f"/dev/{key}",), (), (), {}),
            Verdict(healthy, "" if healthy else "gone", since),
        )
        for key, healthy in devices.items()
    ]
    return offer_devices(RESOURCE, *healths)


def read(history: HealthHistory, device: str, now: float, *, is_healthy: bool, since: float = START) -> str:
    """Return the last minutes of a device as the first letters of their health, without the unknown minutes before."""
    entry = history.entries().get((NAME, device))
    minutes = read_minutes(entry, is_healthy=is_healthy, age=now - since, now=now)
    assert len(minutes) == 60
    letters = {name: letter for letter, name in CODES.items()}
    return "".join(letters[minute] for minute in minutes).lstrip("-")


def test_device_that_never_changed_needs_no_entry() -> None:
    history = HealthHistory()
    history.record(compare_offers(None, offer({"x0": True})), START)
    history.record(compare_offers(offer({"x0": True}), offer({"x0": True, "x1": True})), START + 60)
    assert not history.entries()
    assert read(history, "x0", START + 150, is_healthy=True) == "hhh"
    assert read(history, "x0", START + 3 * 3600, is_healthy=True) == 60 * "h"


def test_minutes_have_the_health_before_and_after_a_change() -> None:
    history = HealthHistory()
    healthy, unhealthy = offer({"x0": True}), offer({"x0": False})
    history.record(compare_offers(healthy, unhealthy), START + 130)
    history.record(compare_offers(unhealthy, healthy), START + 250)
    assert read(history, "x0", START + 310, is_healthy=True) == "hhbubh"
    assert read(history, "x0", START + 310 + 56 * 60, is_healthy=True) == "bub" + 57 * "h"
    assert read(history, "x0", START + 310 + 60 * 60, is_healthy=True) == 60 * "h"


def test_device_is_unknown_while_it_is_not_in_the_list() -> None:
    history = HealthHistory()
    present, absent = offer({"x0": True, "x1": True}), offer({"x1": True})
    history.record(compare_offers(present, absent), START + 70)
    history.record(compare_offers(absent, present), START + 310)
    assert read(history, "x0", START + 370, is_healthy=True) == "hh---hh"
    assert read(history, "x1", START + 370, is_healthy=True) == "hhhhhhh"


def test_device_that_changed_earlier_than_an_hour_ago_has_no_entry() -> None:
    history = HealthHistory()
    history.record(compare_offers(offer({"x0": True}), offer({"x0": False})), START)
    history.record(compare_offers(offer({"x1": True}), offer({"x1": False})), START + 3700)
    assert history.entries().keys() == {(NAME, "x1")}


def test_entries_and_their_memory_are_bounded() -> None:
    history = HealthHistory()
    names = [f"x{number}" for number in range(10_000)]
    healthy, unhealthy = offer(dict.fromkeys(names, True)), offer(dict.fromkeys(names, False))
    tracemalloc.start()
    try:
        for second in range(0, 180, 60):
            history.record(compare_offers(healthy, unhealthy), START + second)
            history.record(compare_offers(unhealthy, healthy), START + second + 30)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    entries = history.entries()
    assert len(entries) == MAX_ENTRIES
    # The last devices of the list changed last.
    assert (NAME, "x9999") in entries
    assert size < 1_000_000


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.sampled_from([True, False, None])), min_size=1, max_size=30))
def test_minutes_agree_with_the_health_of_each_second(steps: Sequence[tuple[int, bool | None]]) -> None:
    """Each step is the number of seconds until the health of the device, None without it, changes."""
    history = HealthHistory()
    health: bool | None = True
    now, seconds = int(START), dict[int, set[bool]]()
    for duration, following in [*steps, (1, True)]:
        for second in range(now, now + duration + 1):
            seconds.setdefault(second // 60, set()).update(() if health is None else (health,))
        now += duration
        lists = [offer({} if present is None else {"x0": present}) for present in (health, following)]
        history.record(compare_offers(lists[0], lists[1]), float(now))
        health = following
    seconds.setdefault(now // 60, set()).update({True})
    expected = {frozenset({True}): "h", frozenset({False}): "u", frozenset({True, False}): "b", frozenset(): "-"}
    letters = "".join(expected[frozenset(seconds.get(minute, ()))] for minute in range(now // 60 - 59, now // 60 + 1))
    assert read(history, "x0", float(now), is_healthy=True) == letters.lstrip("-")
