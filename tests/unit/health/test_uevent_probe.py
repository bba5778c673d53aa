"""``uevent`` at its edges: whose events count, and what of an event is looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.uevents import Uevent, parse_uevent
from genplug.health.probes import uevent
from genplug.health.probes.uevent import EventPatterns
from genplug.health.thresholds import Outcome, Result
from genplug.spec.probes import UeventCheck
from genplug.spec.regex import PatternError
from genplug.spec.template import MissingAttributeError, Template

BUS = "/devices/pci0000:00"
BRIDGE = f"{BUS}/0000:00:03.0"
FUNCTION = f"{BRIDGE}/0000:03:00.0"
CARD = f"{FUNCTION}/drm/card0"
t = Template.parse


def event(action: str, devpath: str, **values: str) -> Uevent:
    """An event as it comes from the kernel."""
    told = {"ACTION": action, "DEVPATH": devpath, "SUBSYSTEM": "pci", **values, "SEQNUM": "4711"}
    parts = [f"{action}@{devpath}", *(f"{key}={value}" for key, value in told.items()), ""]
    found = parse_uevent("\0".join(parts).encode())
    assert found is not None
    return found


def patterns(fail: str, clear: str | None = None, path: str | None = None, **values: tuple[str, ...]) -> EventPatterns:
    check = UeventCheck(t(fail), t(clear) if clear else None, t(path) if path else None)
    return uevent.bind_patterns(check, {"sysfs": (f"/sys{CARD}",), **values})


def outcomes(one: EventPatterns, *events: Uevent) -> list[str]:
    """What each event comes to, as a word."""
    results = (uevent.evaluate(one, told) for told in events)
    return [result.outcome.name if result is not None else "" for result in results]


@pytest.mark.parametrize(
    ("devpath", "counts"),
    [
        (CARD, True),
        (f"{CARD}/card0-DP-1", True),
        (f"{CARD}/card0-DP-1/i2c-7", True),
        (f"{FUNCTION}/drm", True),
        (FUNCTION, True),
        (BRIDGE, True),
        (BUS, True),
        (f"{FUNCTION}/drm/renderD128", False),
        (f"{FUNCTION}/drm/card", False),
        (f"{FUNCTION}/drm/card01", False),
        (f"{FUNCTION}/hwmon/hwmon3", False),
        (f"{BRIDGE}/0000:03:00.1", False),
        (f"{BRIDGE}/0000:03:00.0x", False),
        ("/devices/pci0000:0", False),
        ("/module/amdgpu", False),
        ("/bus/pci/drivers/amdgpu", False),
    ],
)
def test_an_event_is_of_a_device_of_what_is_below_it_and_of_what_it_stands_on(devpath: str, *, counts: bool) -> None:
    assert uevent.is_about_device((f"/sys{CARD}",), event("change", devpath)) is counts
    assert outcomes(patterns("."), event("change", devpath)) == ["FAILED" if counts else ""]


def test_an_event_of_any_of_several_directories_counts() -> None:
    both = uevent.bind_patterns(UeventCheck(t(".")), {"sysfs": (f"/sys{CARD}", "/sys/devices/x")})
    assert outcomes(both, event("change", CARD), event("change", "/devices/x/y"), event("change", "/devices/z")) == [
        "FAILED", "FAILED", "",
    ]  # fmt: skip


def test_another_directory_counts_instead_of_the_devices_own() -> None:
    parent = patterns(".", path="${sysfs|dirname|dirname}")
    assert (
        outcomes(
            parent, event("change", FUNCTION), event("change", f"{FUNCTION}/drm/renderD128"), event("change", CARD)
        )
        == ["FAILED"] * 3
    )
    elsewhere = patterns(".", path="/sys/devices/virtual/x/${name}", name=("a", "b"))
    assert outcomes(
        elsewhere,
        event("change", CARD),
        event("change", "/devices/virtual/x/a"),
        event("change", "/devices/virtual/x/b"),
        event("change", "/devices/virtual/x/c"),
    ) == ["", "FAILED", "FAILED", ""]


def test_a_directory_may_be_written_with_a_slash_at_its_end() -> None:
    one = patterns(".", path="/sys/devices/x/")
    assert outcomes(one, event("change", "/devices/x"), event("change", "/devices/x/y")) == ["FAILED", "FAILED"]


def test_a_device_that_stands_nowhere_needs_a_path_of_its_own() -> None:
    with pytest.raises(MissingAttributeError, match="sysfs"):
        uevent.bind_patterns(UeventCheck(t("a")), {})
    with pytest.raises(MissingAttributeError, match="bridge"):
        uevent.bind_patterns(UeventCheck(t("a"), path=t("/sys/${bridge}")), {"sysfs": ("/sys/devices/x",)})
    assert uevent.bind_patterns(UeventCheck(t("a"), path=t("/sys/x")), {}).paths == ("/sys/x",)


def test_a_pattern_is_compared_with_each_key_and_value_by_itself() -> None:
    told = event("change", CARD, HOTPLUG="1", CONNECTOR="42")
    for fail in ("^HOTPLUG=1$", "^ACTION=change$", f"^DEVPATH={CARD}$", "^SUBSYSTEM=pci$", "^CONNECTOR=4"):
        assert outcomes(patterns(fail), told) == ["FAILED"]
    # What stands beside it is of another value, and the first line is none.
    for fail in ("HOTPLUG=1.*CONNECTOR", "^1$", "^change@", "hotplug", "^CONNECTOR=4$"):
        assert outcomes(patterns(fail), told) == [""]


def test_a_value_of_an_attribute_stands_for_itself_in_a_pattern() -> None:
    one = patterns("^PCI_SLOT_NAME=${functions}$", functions=("0000:03:00.0", "0000:03:00.1"))
    assert outcomes(
        one,
        event("change", FUNCTION, PCI_SLOT_NAME="0000:03:00.0"),
        event("change", FUNCTION, PCI_SLOT_NAME="0000:03:00.1"),
        event("change", FUNCTION, PCI_SLOT_NAME="0000:03:00x0"),
    ) == ["FAILED", "FAILED", ""]


def test_a_pattern_that_cannot_be_read_with_the_values_is_told() -> None:
    with pytest.raises(PatternError):
        patterns("x{${count}}", count=("2000",))


WEDGED = patterns(
    "^WEDGED=.*(rebind|bus-reset|vendor-specific)", clear="^ACTION=bind$", path="${sysfs|dirname|dirname}"
)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("rebind", "FAILED"),
        ("bus-reset", "FAILED"),
        ("rebind,bus-reset", "FAILED"),
        ("none,vendor-specific", "FAILED"),
        # The driver has reset it already.
        ("none", ""),
        ("", ""),
    ],
)
def test_a_card_is_wedged_where_somebody_has_to_help(value: str, outcome: str) -> None:
    assert outcomes(WEDGED, event("change", CARD, WEDGED=value)) == [outcome]


def test_a_wedged_card_is_well_again_when_its_driver_is_bound() -> None:
    story = (
        event("change", CARD, WEDGED="rebind"),
        event("remove", CARD),
        event("unbind", FUNCTION),
        event("change", FUNCTION, DRIVER="amdgpu"),
        event("bind", f"{BRIDGE}/0000:03:00.1"),
        event("bind", FUNCTION, DRIVER="amdgpu"),
    )
    assert outcomes(WEDGED, *story) == ["FAILED", "", "", "", "", "PASSED"]


def test_what_clears_is_no_failure_even_if_it_matches_that_too() -> None:
    one = patterns("^WEDGED=", clear="^WEDGED=none$")
    assert outcomes(one, event("change", CARD, WEDGED="none"), event("change", CARD, WEDGED="x")) == [
        "PASSED",
        "FAILED",
    ]
    # Whichever of the event's values says so, and wherever it stands.
    other = patterns("^ACTION=change$", clear="^SEQNUM=")
    assert outcomes(other, event("change", CARD)) == ["PASSED"]


def test_what_goes_can_be_a_fault_and_what_comes_its_end() -> None:
    one = patterns("^ACTION=(remove|unbind|offline)$", clear="^ACTION=(add|bind|online)$")
    actions = ("remove", "add", "unbind", "bind", "offline", "online", "change", "move")
    assert outcomes(one, *(event(action, CARD) for action in actions)) == [
        "FAILED", "PASSED", "FAILED", "PASSED", "FAILED", "PASSED", "", "",
    ]  # fmt: skip


def test_a_reason_says_what_was_sent_of_what() -> None:
    result = uevent.evaluate(patterns("reb"), event("change", f"{CARD}/card0-DP-1", WEDGED="rebind"))
    assert result == Result(Outcome.FAILED, f"the kernel sent WEDGED=rebind (change of /sys{CARD}/card0-DP-1)")


def test_a_driver_is_bound_to_what_a_device_is_part_of() -> None:
    locations = (f"/sys{CARD}",)
    assert uevent.is_driver_rebind(locations, event("bind", FUNCTION, DRIVER="amdgpu"))
    assert uevent.is_driver_rebind(("/sys/devices/x", *locations), event("bind", FUNCTION, DRIVER="amdgpu"))
    for action in ("unbind", "add", "change", "remove"):
        assert not uevent.is_driver_rebind(locations, event(action, FUNCTION, DRIVER="amdgpu"))
    for other in (f"{CARD}/card0-DP-1", f"{BRIDGE}/0000:03:00.1", f"{FUNCTION}0"):
        assert not uevent.is_driver_rebind(locations, event("bind", other, DRIVER="amdgpu"))
    assert not uevent.is_driver_rebind((), event("bind", FUNCTION, DRIVER="amdgpu"))
    # A bridge above says nothing of what is below it.
    assert not uevent.is_driver_rebind(locations, event("bind", BRIDGE, DRIVER="pcieport"))


names = st.lists(st.sampled_from(["a", "b", "aa", "a:0"]), min_size=1, max_size=4)


@given(names, names)
def test_events_concern_those_on_one_way_down_and_no_others(own: list[str], other: list[str]) -> None:
    is_on_one_way = all(one == two for one, two in zip(own, other, strict=False))
    told = event("change", f"/devices/{'/'.join(other)}")
    assert uevent.is_about_device((f"/sys/devices/{'/'.join(own)}",), told) is is_on_one_way
