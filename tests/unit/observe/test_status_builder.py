"""The status of resources from their offers: the numbers are counted without the status of each device."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.allocation.offer import build_offer
from genplug.hardware.inventory import Device, Inventory
from genplug.health.presence import evaluate_health
from genplug.health.verdict import DeviceHealth, Verdict
from genplug.kubelet.reports import DeviceUse
from genplug.observe.status import DeviceStatus, ResourceStatus
from genplug.observe.status_builder import build_resource_status, collect_notes
from genplug.observe.text import to_epoch_seconds
from genplug.spec.model import Resource
from tests.support.hardware import LOCATION, NAME
from tests.support.work import count_lines

RESOURCE = Resource(NAME, LOCATION, ())


def make_device(number: int) -> Device:
    return Device(f"x{number}", f"x{number}", NAME, LOCATION, (f"/dev/x{number}",), (), (), {}, numa=(number % 2,))


def build_status(healthy: list[bool], used: tuple[str, ...] | None = None) -> ResourceStatus:
    devices = [
        DeviceHealth(
            make_device(number), Verdict(is_healthy, "" if is_healthy else "gone", 7.0, "" if is_healthy else "p")
        )
        for number, is_healthy in enumerate(healthy)
    ]
    status = build_resource_status(build_offer(RESOURCE, devices), None, is_removed=False, notes=())
    return replace(status, in_use=None if used is None else (DeviceUse(NAME, "default", "pod", "main", used),))


def test_devices_have_the_facts_of_their_grants() -> None:
    status = build_status([True, False])
    # The clock of the host may be read at the end of a second.
    since = status.devices[0].since
    assert since in range(to_epoch_seconds(7.0) - 1, to_epoch_seconds(7.0) + 1)
    assert list(status.devices) == [
        DeviceStatus("x0", ("/dev/x0",), healthy=True, reason="", since=since, numa_nodes=(0,)),
        DeviceStatus("x1", ("/dev/x1",), healthy=False, reason="gone", probe="p", since=since, numa_nodes=(1,)),
    ]
    assert status.devices[-1] is list(status.devices)[1]
    assert list(status.devices[:1]) == [status.devices[0]]


@given(st.lists(st.booleans(), max_size=5), st.none() | st.sets(st.sampled_from([f"x{n}" for n in range(7)])))
def test_numbers_are_those_of_the_devices(healthy: list[bool], used: set[str] | None) -> None:
    status = build_status(healthy, None if used is None else tuple(used))
    assert (status.healthy, status.unhealthy) == (sum(healthy), len(healthy) - sum(healthy))
    if used is None:
        assert (status.used_ids, status.free) == (None, None)
    else:
        assert status.used_ids == frozenset(device.id for device in status.devices if device.id in used)
        assert status.free == sum(device.healthy and device.id not in used for device in status.devices)


def test_work_of_the_numbers_does_not_grow_with_the_devices() -> None:
    def count(size: int) -> int:
        verdict = Verdict(healthy=True, reason="", since=7.0)
        offer = build_offer(RESOURCE, [DeviceHealth(make_device(number), verdict) for number in range(size)])

        def read() -> None:
            status = build_resource_status(offer, None, is_removed=False, notes=())
            assert (status.healthy, status.unhealthy, status.shortage) == (size, 0, "")

        return count_lines(read)[0]

    assert count(5_000) == count(10)


def test_work_of_the_notes_does_not_grow_with_listed_devices() -> None:
    def count(size: int) -> int:
        found = Inventory({NAME: tuple(map(make_device, range(size)))}, (), (), frozenset(), resources={NAME: RESOURCE})
        health = evaluate_health(found, None, {}, 1.0)
        lines, notes = count_lines(lambda: collect_notes(found, health))
        assert notes == {}
        return lines

    assert count(5_000) == count(10)
