"""The states of probes that are kept when devices and configuration change."""

from collections.abc import Mapping
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.hardware.inventory import Device, DeviceNode, Inventory, Kind, PathInfo
from genplug.health.device_probes import FIRST_RESULT_TIMEOUT, DeviceProbes
from genplug.health.probe_instance import ProbeInstance
from genplug.health.probes import file
from genplug.health.probes.file import FileCheck
from genplug.health.probes.open import OpenCheck
from genplug.health.thresholds import Outcome, Result, next_state
from genplug.health.verdict import DeviceRef
from genplug.spec.limits import MAX_PROBED_DEVICES
from genplug.spec.model import Resource
from genplug.spec.policy import Policy
from genplug.spec.probes import HealthSpec, OnError, ProbeSpec, ProbeTiming
from genplug.spec.read_checks import literal_read_error
from genplug.spec.template import Template
from tests.support.probes import LOCATION, make_device
from tests.support.work import count_lines

X = "a.example/x"
PASSED, FAILED = Result(Outcome.PASSED), Result(Outcome.FAILED, "is bad")
DEVICE = make_device({"name": ("x0",)})
REF = DeviceRef(X, DEVICE.id)


def file_probe(path: str = "/sys/${name}/state", **timing: object) -> ProbeSpec:
    return ProbeSpec(LOCATION, "state", FileCheck(Template.parse(path)), ProbeTiming(**timing))  # type: ignore[arg-type]


def inventory(*devices: Device, probes: tuple[ProbeSpec, ...] = (file_probe(),)) -> Inventory:
    resource = Resource(X, LOCATION, (), health=HealthSpec(probes=probes))
    return Inventory({X: devices}, (), (), frozenset(), resources={X: resource})


def apply(probes: DeviceProbes, instance: ProbeInstance, result: Result, now: float = 0) -> None:
    probes.set_state(instance, next_state(instance.state, result, instance.bound.timing, now))


def device_node(minor: int) -> DeviceNode:
    return DeviceNode(f"/dev/x{minor}", f"/dev/x{minor}", "rw", PathInfo.of(f"/dev/x{minor}", Kind.CHAR, 240, minor))


def states(probes: DeviceProbes) -> Mapping[str, str]:
    return {instance.bound.spec.name: repr(instance.state) for instance in probes}


def test_new_device_waits_for_its_first_result() -> None:
    probes = DeviceProbes()
    update = probes.update(inventory(DEVICE), 100)
    assert update.started == update.new == list(probes)
    assert probes.results(100).pending == {REF: 100 + FIRST_RESULT_TIMEOUT}
    assert repr(probes) == "<DeviceProbes [1 probes: 1 pending, 0 failed]>"
    apply(probes, update.new[0], FAILED)
    results = probes.results(100)
    assert (results.pending, [failure.reason for failure in results.failures[REF]]) == ({}, ["is bad"])
    assert probes.results(100 + FIRST_RESULT_TIMEOUT).pending == {}


def test_policy_is_checked_once_for_all_devices_of_a_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Template] = []

    def record(template: Template, policy: Policy) -> str:
        checked.append(template)
        return literal_read_error(template, policy)

    monkeypatch.setattr(file, "literal_read_error", record)
    update = DeviceProbes().update(inventory(*(make_device({"name": (f"x{number}",)}) for number in range(10))), 0)
    assert len(checked) == 1
    assert {instance.bound.error for instance in update.new} == {""}


def test_unchanged_device_is_not_updated() -> None:
    probes = DeviceProbes()
    found = inventory(DEVICE)
    probes.update(found, 0)
    update = probes.update(found, 1)
    assert (update.started, update.ended, update.forgotten) == ([], [], [])


def test_probe_that_checks_the_same_keeps_its_state() -> None:
    probes = DeviceProbes()
    (old,) = probes.update(inventory(DEVICE), 0).started
    apply(probes, old, FAILED)
    update = probes.update(inventory(replace(DEVICE, key="other")), 1)
    assert (update.ended, update.forgotten, update.new) == ([old], [], [])
    assert [instance.state for instance in update.started] == [old.state]


def test_probe_that_checks_something_else_starts_again() -> None:
    probes = DeviceProbes()
    (old,) = probes.update(inventory(DEVICE), 0).started
    apply(probes, old, FAILED)
    update = probes.update(inventory(DEVICE, probes=(file_probe("/sys/other"),)), 1)
    assert (update.ended, update.forgotten) == ([old], [old])
    assert states(probes) == {"state": "<ProbeState [unknown]>"}


def test_returned_device_is_judged_as_a_new_device() -> None:
    for timing in ({}, {"sticky": True}, {"success_threshold": 5}, {"on_error": OnError.UNHEALTHY}):
        probes, specs = DeviceProbes(), (file_probe(**timing),)
        (old,) = probes.update(inventory(DEVICE, probes=specs), 0).started
        apply(probes, old, FAILED)
        assert probes.update(inventory(probes=specs), 1).forgotten == [old]
        assert len(probes) == 0
        update = probes.update(inventory(DEVICE, probes=specs), 2)
        assert update.new == update.started == list(probes)
        assert states(probes) == {"state": "<ProbeState [unknown]>"}


def test_device_with_new_numbers_is_judged_as_a_new_device() -> None:
    probes = DeviceProbes()
    (old,) = probes.update(inventory(replace(DEVICE, nodes=(device_node(0), device_node(1)))), 0).started
    apply(probes, old, FAILED)
    assert not probes.update(inventory(replace(DEVICE, nodes=(device_node(1), device_node(2)))), 1).new
    update = probes.update(inventory(replace(DEVICE, nodes=(device_node(3),))), 2)
    assert (len(update.new), len(update.forgotten)) == (1, 1)
    assert states(probes) == {"state": "<ProbeState [unknown]>"}


RESULTS = st.lists(st.sampled_from((PASSED, FAILED, Result(Outcome.ERROR, "does not exist"))), max_size=8)


TIMINGS = st.fixed_dictionaries(
    {
        "on_error": st.sampled_from(OnError),
        "sticky": st.booleans(),
        "success_threshold": st.integers(1, 4),
        "failure_threshold": st.integers(1, 4),
    }
)


@given(RESULTS, RESULTS, TIMINGS)
def test_verdict_does_not_depend_on_results_before_an_absence(
    before: list[Result], after: list[Result], timing: dict[str, object]
) -> None:
    specs = (replace(file_probe(), timing=ProbeTiming(**timing)),)  # type: ignore[arg-type]
    returned, new = DeviceProbes(), DeviceProbes()
    for result in before:
        returned.update(inventory(DEVICE, probes=specs), 0)
        (instance,) = list(returned)
        apply(returned, instance, result)
    returned.update(inventory(probes=specs), 0)
    for probes in (returned, new):
        probes.update(inventory(DEVICE, probes=specs), 0)
        for result in after:
            (instance,) = list(probes)
            apply(probes, instance, result)
    assert states(returned) == states(new)
    assert returned.results(1) == new.results(1)


def test_denied_probe_has_an_error_and_no_request() -> None:
    probes = DeviceProbes()
    spec = ProbeSpec(LOCATION, "open", OpenCheck())
    (instance,) = probes.update(inventory(DEVICE, probes=(spec,)), 0).new
    assert instance.bound.request is None
    assert instance.bound.error.startswith("opening device nodes is refused by 'openProbe'")


def test_probe_with_missing_attribute_has_an_error() -> None:
    probes = DeviceProbes()
    (instance,) = probes.update(inventory(DEVICE, probes=(file_probe("/sys/${uuid}"),)), 0).new
    assert instance.bound.error == "needs the attribute 'uuid', which the device does not have"


def test_probes_beyond_the_limit_of_a_node_have_an_error_with_the_limit() -> None:
    devices = [replace(DEVICE, id=f"x{number}") for number in range(MAX_PROBED_DEVICES + 1)]
    probes = DeviceProbes()
    update = probes.update(inventory(*devices), 0)
    errors = [instance.bound.error for instance in update.new if instance.bound.error]
    assert errors == [f"not run: the node has more than {MAX_PROBED_DEVICES} probes of devices, the maximum"]
    probes.update(inventory(*devices[:10]), 1)
    assert len(probes) == 10
    assert not any(instance.bound.error for instance in probes)


NAMES = ("x0", "x1", "x2")
SPECS = (file_probe(), replace(file_probe("/sys/other"), name="other", is_warning=True))
STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 2)), unique_by=lambda made: made[0]),
        st.integers(0, 2),
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from([PASSED, FAILED, Result(Outcome.ERROR, "e")]))),
        st.integers(0, 2),
    ),
    max_size=6,
)
"""The devices with the minor numbers of their nodes, the number of probes, the results of probes, and the seconds."""


@given(STEPS)
def test_results_of_changed_probes_equal_the_results_of_all_probes(
    history: list[tuple[list[tuple[str, int]], int, list[tuple[int, Result]], int]],
) -> None:
    @cache
    def keep_device(name: str, minor: int) -> Device:
        return replace(DEVICE, id=name, nodes=(device_node(minor),))

    probes, now = DeviceProbes(), 0
    running: dict[tuple[DeviceRef, str], ProbeInstance] = {}
    before: set[tuple[tuple[str, int], int]] = set()
    for devices, count, results, pause in history:
        now += pause
        found = inventory(*(keep_device(*made) for made in sorted(devices)), probes=SPECS[:count])
        update = probes.update(found, now)
        made = {(device, count) for device in devices}
        assert {each.bound.device.device for each in update.current} <= {name for (name, _), _ in made - before}
        before = made
        for instance in (*update.ended, *update.started):
            if instance in update.ended:
                assert running.pop(instance.id) is instance
            else:
                running[instance.id] = instance
        # The running probes are those of the devices, bound to the newest device.
        assert sorted(running.values(), key=repr) == sorted(probes, key=repr)
        assert {each.id for each in probes} == {(DeviceRef(X, n), s.name) for n, _ in devices for s in SPECS[:count]}
        assert len(probes) == len(list(probes))
        for index, result in results:
            if index < len(probes):
                apply(probes, list(probes)[index], result, now)
        assert probes.is_pending == any(each.state.is_pending for each in probes)
        collected = probes.results(now)
        failing = {each.id: each.is_warning for each in probes if not each.state.healthy}
        listed = {
            (r, f.probe): w
            for w, m in ((False, collected.failures), (True, collected.warnings))
            for r in m
            for f in m[r]
        }
        assert listed == failing
        waiting = [each for each in probes if each.state.is_pending and not each.is_warning]
        until = {each.bound.device: each.since + FIRST_RESULT_TIMEOUT for each in waiting}
        assert collected.pending == {ref: time for ref, time in until.items() if time > now}


def test_work_of_an_update_does_not_grow_with_unchanged_devices() -> None:
    def count(size: int) -> int:
        devices = [replace(DEVICE, id=f"x{number}", nodes=(device_node(number),)) for number in range(size)]
        probes = DeviceProbes()
        for instance in probes.update(inventory(*devices), 0).new:
            apply(probes, instance, PASSED)
        probes.results(0)
        devices[3] = replace(devices[3], nodes=(device_node(size),))
        changed = inventory(*devices[:5], *devices[6:])

        def change() -> None:
            update = probes.update(changed, 1)
            (instance,) = update.new
            # Also a device between two that have changed is kept.
            assert update.current == [instance]
            apply(probes, instance, FAILED)
            assert probes.results(1).failures.keys() == {DeviceRef(X, "x3")}

        return count_lines(change)[0]

    assert count(5_000) == count(20)
