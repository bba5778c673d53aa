"""The states of probes that are kept when devices and configuration change."""

from collections.abc import Mapping

from attrs import evolve

from genplug.hardware.inventory import Device, Inventory
from genplug.health.device_probes import FIRST_RESULT_TIMEOUT, DeviceProbes
from genplug.health.probe_instance import ProbeInstance
from genplug.health.probes.file import FileCheck
from genplug.health.probes.open import OpenCheck
from genplug.health.thresholds import Outcome, Result, next_state
from genplug.health.verdict import DeviceRef
from genplug.spec.model import Resource
from genplug.spec.probes import HealthSpec, ProbeSpec, ProbeTiming
from genplug.spec.template import Template
from tests.support.probes import LOCATION, make_device

X = "a.example/x"
PASSED, FAILED = Result(Outcome.PASSED), Result(Outcome.FAILED, "is bad")
DEVICE = make_device({"name": ("x0",)})
REF = DeviceRef(X, DEVICE.id)


def file_probe(path: str = "/sys/${name}/state", **timing: object) -> ProbeSpec:
    return ProbeSpec(LOCATION, "state", FileCheck(Template.parse(path)), ProbeTiming(**timing))  # type: ignore[arg-type]


def inventory(*devices: Device, probes: tuple[ProbeSpec, ...] = (file_probe(),)) -> Inventory:
    resource = Resource(X, LOCATION, (), health=HealthSpec(probes=probes))
    return Inventory({X: devices}, (), (), frozenset(), resources={X: resource})


def apply(instance: ProbeInstance, result: Result, now: float = 0) -> None:
    instance.state = next_state(instance.state, result, instance.bound.timing, now)


def states(probes: DeviceProbes) -> Mapping[str, str]:
    return {instance.bound.spec.name: repr(instance.state) for instance in probes}


def test_new_device_waits_for_its_first_result() -> None:
    probes = DeviceProbes()
    update = probes.update(inventory(DEVICE), frozenset(), 100)
    assert update.started == update.new == list(probes)
    assert probes.results(100).pending == {REF: 100 + FIRST_RESULT_TIMEOUT}
    assert repr(probes) == "<DeviceProbes [1 probes: 1 pending, 0 failed | 0 devices gone]>"
    apply(update.new[0], FAILED)
    results = probes.results(100)
    assert (results.pending, [failure.reason for failure in results.failures[REF]]) == ({}, ["is bad"])
    assert probes.results(100 + FIRST_RESULT_TIMEOUT).pending == {}


def test_unchanged_device_is_not_updated() -> None:
    probes = DeviceProbes()
    found = inventory(DEVICE)
    probes.update(found, frozenset(), 0)
    update = probes.update(found, frozenset({REF}), 1)
    assert (update.started, update.ended, update.forgotten) == ([], [], [])


def test_probe_that_checks_the_same_keeps_its_state() -> None:
    probes = DeviceProbes()
    (old,) = probes.update(inventory(DEVICE), frozenset(), 0).started
    apply(old, FAILED)
    update = probes.update(inventory(evolve(DEVICE, key="other")), frozenset({REF}), 1)
    assert (update.ended, update.forgotten, update.new) == ([old], [], [])
    assert [instance.state for instance in update.started] == [old.state]


def test_probe_that_checks_something_else_starts_again() -> None:
    probes = DeviceProbes()
    (old,) = probes.update(inventory(DEVICE), frozenset(), 0).started
    apply(old, FAILED)
    update = probes.update(inventory(DEVICE, probes=(file_probe("/sys/other"),)), frozenset({REF}), 1)
    assert (update.ended, update.forgotten) == ([old], [old])
    assert states(probes) == {"state": "<ProbeState [unknown]>"}


def test_returned_device_has_to_pass_its_probes() -> None:
    probes = DeviceProbes()
    (old,) = probes.update(inventory(DEVICE), frozenset(), 0).started
    apply(old, PASSED)
    assert probes.update(inventory(), frozenset({REF}), 1).forgotten == [old]
    assert (len(probes), repr(probes)) == (0, "<DeviceProbes [0 probes: 0 pending, 0 failed | 1 devices gone]>")
    probes.update(inventory(DEVICE), frozenset({REF}), 2)
    reason = "the device returned; it needs 2 consecutive passing probe runs"
    assert states(probes) == {"state": f"<ProbeState [unhealthy: {reason}]>"}


def test_device_that_left_the_list_is_new_when_it_returns() -> None:
    probes = DeviceProbes()
    probes.update(inventory(DEVICE), frozenset(), 0)
    probes.update(inventory(), frozenset({REF}), 1)
    probes.update(inventory(), frozenset(), 2)
    assert probes.update(inventory(DEVICE), frozenset(), 3).new
    assert states(probes) == {"state": "<ProbeState [unknown]>"}


def test_sticky_failure_survives_the_absence_of_its_device() -> None:
    probes, sticky = DeviceProbes(), (file_probe(sticky=True),)
    (old,) = probes.update(inventory(DEVICE, probes=sticky), frozenset(), 0).started
    apply(old, FAILED)
    for now in (1, 2):
        probes.update(inventory(probes=sticky), frozenset(), now)
    update = probes.update(inventory(DEVICE, probes=sticky), frozenset(), 3)
    assert (update.started, update.new) == ([], [])
    assert states(probes) == {"state": "<ProbeState [unhealthy: is bad]>"}


def test_denied_probe_has_an_error_and_no_request() -> None:
    probes = DeviceProbes()
    spec = ProbeSpec(LOCATION, "open", OpenCheck())
    (instance,) = probes.update(inventory(DEVICE, probes=(spec,)), frozenset(), 0).new
    assert instance.bound.request is None
    assert instance.bound.error.startswith("opening device nodes is refused by 'openProbe'")


def test_probe_with_missing_attribute_has_an_error() -> None:
    probes = DeviceProbes()
    (instance,) = probes.update(inventory(DEVICE, probes=(file_probe("/sys/${uuid}"),)), frozenset(), 0).new
    assert instance.bound.error == "needs the attribute 'uuid', which the device does not have"
