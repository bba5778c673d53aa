"""Errors of probes that are events: new and resolved errors, each once for all devices."""

from genplug.health.probe_errors import ProbeErrors
from genplug.health.status import ProbeError
from genplug.health.verdict import DeviceRef

X = "a.example/x"
DEVICES = [DeviceRef(X, f"x{number}") for number in range(3)]


def test_error_of_several_devices_is_one_event() -> None:
    errors = ProbeErrors(ProbeError)
    for device in reversed(DEVICES):
        errors.change(device, "link", "", "does not exist")
    expected = ProbeError(X, "link", "does not exist", ("x0", "x1", "x2"))
    assert errors.take_events() == (expected,)
    assert errors.current == (expected,)
    assert errors.take_events() == ()


def test_error_is_resolved_when_its_last_device_recovers() -> None:
    errors = ProbeErrors(ProbeError)
    for device in DEVICES:
        errors.change(device, "link", "", "does not exist")
    errors.take_events()
    for device in DEVICES[:2]:
        errors.change(device, "link", "does not exist", "")
    assert errors.take_events() == ()
    errors.change(DEVICES[2], "link", "does not exist", "")
    assert errors.take_events() == (ProbeError(X, "link", "does not exist", ("x2",), resolved=True),)
    assert errors.current == ()


def test_another_error_of_the_same_probe_is_not_an_event() -> None:
    errors = ProbeErrors(ProbeError)
    errors.change(DEVICES[0], "link", "", "does not exist")
    errors.take_events()
    errors.change(DEVICES[0], "link", "does not exist", "timed out after 2 s")
    assert errors.take_events() == ()
    assert errors.current == (ProbeError(X, "link", "timed out after 2 s", ("x0",)),)


def test_device_that_joins_a_known_error_is_not_an_event() -> None:
    errors = ProbeErrors(ProbeError)
    errors.change(DEVICES[0], "link", "", "does not exist")
    errors.take_events()
    errors.change(DEVICES[1], "link", "", "does not exist")
    assert errors.take_events() == ()
    assert errors.current == (ProbeError(X, "link", "does not exist", ("x0", "x1")),)


def test_forgotten_device_does_not_resolve_an_error() -> None:
    errors = ProbeErrors(ProbeError)
    errors.change(DEVICES[0], "link", "", "does not exist")
    errors.take_events()
    errors.forget(DEVICES[0], "link", "does not exist")
    assert (errors.take_events(), errors.current) == ((), ())


def test_error_that_is_over_before_it_is_reported_is_not_an_event() -> None:
    errors = ProbeErrors(ProbeError)
    errors.change(DEVICES[0], "link", "", "does not exist")
    errors.change(DEVICES[0], "link", "does not exist", "")
    assert errors.take_events() == ()
    errors.change(DEVICES[0], "link", "", "does not exist")
    assert repr(errors) == "<ProbeErrors [1 current, 1 new, 0 resolved]>"


def test_errors_that_differ_in_numbers_only_are_one_event() -> None:
    errors = ProbeErrors(ProbeError)
    for number in range(562):
        errors.change(DeviceRef("a.io/x", f"x{number}"), "state", "", f"/sys/x{number}/state does not exist")
    errors.change(DeviceRef("a.io/x", "x0"), "link", "", "/sys/x0/state does not exist")
    link, state = errors.take_events()
    assert (link.probe, link.devices) == ("link", ("x0",))
    assert (state.probe, len(state.devices), state.error) == ("state", 562, "/sys/x0/state does not exist")
    assert len(errors.current) == 563
