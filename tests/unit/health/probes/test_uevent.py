"""The probe ``uevent``: which events are about a device, and which parts of an event are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.uevents import Uevent, parse_uevent
from genplug.health.probes import uevent
from genplug.health.probes.uevent import EventPatterns, UeventCheck
from genplug.health.thresholds import Outcome, Result
from genplug.spec.regex import PatternError
from genplug.spec.template import MissingAttributeError, Template
from tests.support.probes import make_device

BUS = "/devices/pci0000:00"
BRIDGE = f"{BUS}/0000:00:03.0"
FUNCTION = f"{BRIDGE}/0000:03:00.0"
CARD = f"{FUNCTION}/drm/card0"
t = Template.parse


def event(action: str, devpath: str, **values: str) -> Uevent:
    """An event as it comes from the kernel."""
    pairs = {"ACTION": action, "DEVPATH": devpath, "SUBSYSTEM": "pci", **values, "SEQNUM": "4711"}
    parts = [f"{action}@{devpath}", *(f"{key}={value}" for key, value in pairs.items()), ""]
    found = parse_uevent("\0".join(parts).encode())
    assert found is not None
    return found


def patterns(fail: str, clear: str | None = None, path: str | None = None, **values: tuple[str, ...]) -> EventPatterns:
    check = UeventCheck((t(fail),), (t(clear),) if clear else (), t(path) if path else None)
    return uevent.bind(check, make_device({"sysfs": (f"/sys{CARD}",), **values}))


def outcomes(bound: EventPatterns, *events: Uevent) -> list[str]:
    """The outcome of each event, empty where it has no meaning."""
    results = (uevent.evaluate(bound, event_) for event_ in events)
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
def test_event_is_about_device_its_children_and_its_parents(devpath: str, *, counts: bool) -> None:
    assert uevent.is_about((f"/sys{CARD}",), event("change", devpath)) is counts
    assert outcomes(patterns("."), event("change", devpath)) == ["FAILED" if counts else ""]


def test_event_of_any_directory_counts() -> None:
    both = uevent.bind(UeventCheck((t("."),)), make_device({"sysfs": (f"/sys{CARD}", "/sys/devices/x")}))
    assert outcomes(both, event("change", CARD), event("change", "/devices/x/y"), event("change", "/devices/z")) == [
        "FAILED", "FAILED", "",
    ]  # fmt: skip


def test_path_option_replaces_directory_of_device() -> None:
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


def test_path_may_end_with_a_slash() -> None:
    bound = patterns(".", path="/sys/devices/x/")
    assert outcomes(bound, event("change", "/devices/x"), event("change", "/devices/x/y")) == ["FAILED", "FAILED"]


def test_device_without_sysfs_directory_needs_a_path() -> None:
    with pytest.raises(MissingAttributeError, match="sysfs"):
        uevent.bind(UeventCheck((t("a"),)), make_device({}))
    with pytest.raises(MissingAttributeError, match="bridge"):
        uevent.bind(UeventCheck((t("a"),), path=t("/sys/${bridge}")), make_device({"sysfs": ("/sys/devices/x",)}))
    assert uevent.bind(UeventCheck((t("a"),), path=t("/sys/x")), make_device({})).paths == ("/sys/x",)


def test_pattern_is_compared_with_each_pair_separately() -> None:
    told = event("change", CARD, HOTPLUG="1", CONNECTOR="42")
    for fail in ("^HOTPLUG=1$", "^ACTION=change$", f"^DEVPATH={CARD}$", "^SUBSYSTEM=pci$", "^CONNECTOR=4"):
        assert outcomes(patterns(fail), told) == ["FAILED"]
    # A pattern does not span pairs, and the first line of the message is not a pair.
    for fail in ("HOTPLUG=1.*CONNECTOR", "^1$", "^change@", "hotplug", "^CONNECTOR=4$"):
        assert outcomes(patterns(fail), told) == [""]


def test_value_is_literal_in_a_pattern() -> None:
    bound = patterns("^PCI_SLOT_NAME=${functions}$", functions=("0000:03:00.0", "0000:03:00.1"))
    assert outcomes(
        bound,
        event("change", FUNCTION, PCI_SLOT_NAME="0000:03:00.0"),
        event("change", FUNCTION, PCI_SLOT_NAME="0000:03:00.1"),
        event("change", FUNCTION, PCI_SLOT_NAME="0000:03:00x0"),
    ) == ["FAILED", "FAILED", ""]


def test_pattern_that_is_invalid_with_values_is_an_error() -> None:
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
        # The driver has reset the card already.
        ("none", ""),
        ("", ""),
    ],
)
def test_wedged_event_fails_unless_driver_recovered_by_itself(value: str, outcome: str) -> None:
    assert outcomes(WEDGED, event("change", CARD, WEDGED=value)) == [outcome]


def test_bound_driver_clears_wedged_card() -> None:
    story = (
        event("change", CARD, WEDGED="rebind"),
        event("remove", CARD),
        event("unbind", FUNCTION),
        event("change", FUNCTION, DRIVER="amdgpu"),
        event("bind", f"{BRIDGE}/0000:03:00.1"),
        event("bind", FUNCTION, DRIVER="amdgpu"),
    )
    assert outcomes(WEDGED, *story) == ["FAILED", "", "", "", "", "PASSED"]


def test_clear_precedes_fail() -> None:
    bound = patterns("^WEDGED=", clear="^WEDGED=none$")
    assert outcomes(bound, event("change", CARD, WEDGED="none"), event("change", CARD, WEDGED="x")) == [
        "PASSED",
        "FAILED",
    ]
    # The order of the pairs does not matter.
    other = patterns("^ACTION=change$", clear="^SEQNUM=")
    assert outcomes(other, event("change", CARD)) == ["PASSED"]


def test_action_can_fail_and_clear() -> None:
    bound = patterns("^ACTION=(remove|unbind|offline)$", clear="^ACTION=(add|bind|online)$")
    actions = ("remove", "add", "unbind", "bind", "offline", "online", "change", "move")
    assert outcomes(bound, *(event(action, CARD) for action in actions)) == [
        "FAILED", "PASSED", "FAILED", "PASSED", "FAILED", "PASSED", "", "",
    ]  # fmt: skip


def test_reason_names_pair_action_and_directory() -> None:
    result = uevent.evaluate(patterns("reb"), event("change", f"{CARD}/card0-DP-1", WEDGED="rebind"))
    assert result == Result(Outcome.FAILED, f"the kernel sent WEDGED=rebind (change of /sys{CARD}/card0-DP-1)")


names = st.lists(st.sampled_from(["a", "b", "aa", "a:0"]), min_size=1, max_size=4)


@given(names, names)
def test_event_is_about_directories_on_one_path_only(own: list[str], other: list[str]) -> None:
    is_on_one_path = all(first == second for first, second in zip(own, other, strict=False))
    told = event("change", f"/devices/{'/'.join(other)}")
    assert uevent.is_about((f"/sys/devices/{'/'.join(own)}",), told) is is_on_one_path


def test_all_expressions_of_a_list_have_to_match_the_same_event() -> None:
    check = UeventCheck((t("^ACTION=change$"), t("^WEDGED=.*rebind")), path=t("/sys/devices/x"))
    bound = uevent.bind(check, make_device({}))
    result = uevent.evaluate(bound, event("change", "/devices/x", WEDGED="rebind"))
    assert result == Result(
        Outcome.FAILED, "the kernel sent ACTION=change and WEDGED=rebind (change of /sys/devices/x)"
    )
    assert uevent.evaluate(bound, event("add", "/devices/x", WEDGED="rebind")) is None
    assert uevent.evaluate(bound, event("change", "/devices/x", WEDGED="none")) is None
