"""The pure part of a soak: sequences of steps, the model of the device lists, limits of growth, and the report."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.testing.soak.actions import ACTIONS
from genplug.testing.soak.checks import ListTimes
from genplug.testing.soak.footprint import MAX_GROWTH, Footprint, growth_error
from genplug.testing.soak.model import ALL_FAMILIES, Configuration, ExpectedList, World, expected_lists
from genplug.testing.soak.report import (
    Failure,
    Report,
    add_run,
    quantiles,
    record_object,
    report_object,
    summarize,
)
from genplug.testing.soak.run import select_kinds
from genplug.testing.soak.sequence import Burst, apply_step, generate_bursts
from genplug.testing.soak.settles import WITHHELD_SECONDS, Group, Moves, Settle, classify_settle
from genplug.testing.soak.steps import Step
from tests.support.outputs import check_output

WORLD = World.initial(ALL_FAMILIES)
KINDS = tuple(sorted(ACTIONS))
SEEDS = st.integers(0, 2**32)


def bursts(seed: int, number: int = 60) -> list[Burst]:
    return list(itertools.islice(generate_bursts(seed, KINDS, WORLD), number))


def list_of(world: World, family: str) -> ExpectedList:
    return expected_lists(world)[f"example.com/{family}"]


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_same_seed_gives_the_same_steps(seed: int) -> None:
    assert bursts(seed) == bursts(seed)
    assert bursts(seed) != bursts(seed + 1)


def test_steps_do_not_depend_on_the_hashes_of_the_process() -> None:
    script = "from tests.unit.testing.test_soak_model import bursts; print([str(b.steps) for b in bursts(7, 100)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_world_after_a_burst_is_the_result_of_its_steps(seed: int) -> None:
    world = WORLD
    for burst in bursts(seed):
        for step in burst.steps:
            world = apply_step(step, world)
        world = replace(world, has_unread_configuration=False)
        assert burst.world == world


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_steps_apply_to_the_state_before_them(seed: int) -> None:
    number = 1
    for burst in bursts(seed):
        assert burst.first == number
        number += len(burst.steps)
        assert burst.world.present <= set(WORLD.devices)
        assert len(set(burst.world.minors.values())) == len(WORLD.devices)
        has_new_configuration = False
        for step in burst.steps:
            for each in (*step.inner, step):
                # The agent may read only the invalid configuration if the valid one exists for too short a time.
                assert not (has_new_configuration and each.kind == "invalid-reload")
                has_new_configuration |= each.configuration is not None
            assert all(ACTIONS[inner.kind].is_change for inner in step.inner)
            assert bool(step.inner) <= bool(ACTIONS[step.kind].max_inner_steps)


def test_every_kind_of_step_occurs() -> None:
    steps = [step for burst in bursts(1, 600) for step in burst.steps]
    assert {step.kind for step in steps} == set(KINDS)


def test_sequence_ends_if_no_step_applies() -> None:
    assert list(generate_bursts(1, ("plug",), WORLD)) == []
    unplugged = list(generate_bursts(1, ("unplug",), WORLD))[-1]
    assert unplugged.world.present == set()


@pytest.mark.parametrize("kind", ["enospc", "erofs", "hang-attributes"])
def test_step_that_needs_a_settled_node_is_the_first_of_a_burst(kind: str) -> None:
    steps = [burst.steps for burst in bursts(3, 600)]
    assert any(first.kind == kind for first, *_ in steps)
    assert not any(step.kind == kind for _, *others in steps for step in others)


def test_removed_device_is_unhealthy_only_if_its_resource_keeps_it() -> None:
    world = WORLD.unplug(["plain0", "kept0"])
    assert list_of(world, "plain").healthy == {f"plain{number}" for number in range(1, 8)}
    assert list_of(world, "plain").unhealthy == set()
    assert list_of(world, "kept").unhealthy == {"kept0"}
    assert expected_lists(world.plug(["plain0", "kept0"])) == expected_lists(WORLD)


def test_replicas_have_the_health_of_their_device() -> None:
    world = replace(WORLD, configuration=Configuration(1, frozenset(), {"filed": 2}), failing=frozenset({"filed1"}))
    found = list_of(world, "filed")
    assert found.unhealthy == {"filed1-r0", "filed1-r1"}
    assert "filed0-r1" in found.healthy
    assert found.devices["filed1-r1"] == "filed1"


def test_resource_has_the_devices_of_another_only_without_it() -> None:
    assert list_of(WORLD, "claim") == ExpectedList()
    world = replace(WORLD, configuration=Configuration(1, frozenset({"plain"})))
    assert list_of(world, "claim").healthy == {f"plain{number}" for number in range(8)}
    assert list_of(world, "plain") == ExpectedList()


@pytest.mark.parametrize("state", ["fail", "hang"])
def test_devices_are_unhealthy_while_their_program_does_not_succeed(state: str) -> None:
    world = apply_step(Step("probe-program", value=state), WORLD)
    assert list_of(world, "program").healthy == set()
    assert len(list_of(world, "program").unhealthy) == 4
    assert list_of(apply_step(Step("probe-program", value="pass"), world), "program") == list_of(WORLD, "program")


def test_failed_read_makes_a_probed_device_unhealthy_and_removes_a_selected_device() -> None:
    world = apply_step(Step("eio", ("described0", "remote0"), "fail"), WORLD)
    assert list_of(world, "remote").unhealthy == {"remote0"}
    assert list_of(world, "described").healthy == {"described1", "described2", "described3"}
    assert list_of(world, "described").unhealthy == set()


def test_invalid_configuration_changes_no_list() -> None:
    world = apply_step(Step("invalid-reload", ("rename",), "yaml"), WORLD)
    assert world.config_error == "yaml"
    assert expected_lists(world) == expected_lists(WORLD)


@pytest.mark.parametrize("name", sorted(MAX_GROWTH))
def test_growth_above_the_limit_is_an_error(name: str) -> None:
    before = Footprint(1.0, 40, 16, 3, 60_000)
    largest = replace(before, **{name: getattr(before, name) + MAX_GROWTH[name]})
    assert growth_error([before], largest) == ""
    assert growth_error([before], replace(largest, **{name: getattr(largest, name) + 1})).startswith(
        f"{name}: expected"
    )


def test_kinds_that_cannot_be_executed_are_left_out_with_the_reason() -> None:
    kinds, left_out = select_kinds((), ("flap",), can_mount=False, can_change_clock=False)
    assert set(kinds) | set(left_out) == set(KINDS)
    assert left_out["flap"] == "excluded by an option"
    assert "requires root" in left_out["enospc"]
    assert "C compiler" in left_out["clock-jump"]
    assert select_kinds(("flap",), (), can_mount=True, can_change_clock=True)[0] == ("flap",)


def test_quantiles_of_times() -> None:
    assert quantiles([float(number) for number in range(1, 101)]) == {"p50": 50.5, "p95": 96.0, "max": 100.0}
    assert quantiles([]) == {"p50": 0.0, "p95": 0.0, "max": 0.0}


def test_report_and_record_have_their_forms() -> None:
    report = Report(7, 2.0, ("flap",), {"enospc": "requires root"})
    sample = Footprint(60.0, 40, 16, 3, 61_440)
    report.footprints["in the middle"] = report.maximum = sample
    report.steps["flap"] = 1200
    for seconds in (0.2, 1.0):
        report.add(settle(seconds))
    report.add(replace(settle(2.0), group=Group.OTHERS))
    report.failure = Failure(3, ("3 flap x0",), "a list differs", "python -m genplug.testing.soak --seed 7")
    check_output(json.loads(json.dumps(report_object(report))))
    record = record_object(report, "abc")
    assert set(record) == {"conditions", "columns", "rows"}
    assert ["Steps: flap", "1 200"] in record["rows"]
    assert ["Result", "failed"] in record["rows"]
    figures = dict(record["rows"])
    assert figures["Time to the true list after changes of devices without probes"].startswith("2 times: p50 0.60 s")
    assert figures["Time to the true list after all steps except moves"].startswith("3 times: p50 1.00 s")
    assert all(len(row) == len(record["columns"]) for row in record["rows"])
    assert {type(cell) for row in record["rows"] for cell in row} == {str}


def settle(seconds: float, step: int = 3) -> Settle:
    steps, previous = (f"{step} unplug plain0",), (f"{step - 1} wipe",)
    awaited = "example.com/plain: plain0 must not be listed as healthy"
    return Settle(Group.DEVICE_CHANGES, seconds, step, steps, previous, "2026-11-28T06:59:50.123Z", awaited)


def test_report_keeps_the_slowest_settles_of_each_group() -> None:
    report = Report(7, 2.0, ("unplug",), {})
    for step in range(1, 101):
        report.add(settle(float(step % 50), step))
    report.add(replace(settle(99.0), group=Group.MOVES))
    settles = report_object(report)["settles"]
    slowest = settles["deviceChanges"]["slowest"]
    assert [(kept["seconds"], kept["step"]) for kept in slowest] == [(49, 49), (49, 99), (48, 48), (48, 98), (47, 47)]
    assert settles["deviceChanges"]["count"] == 100
    assert [kept["seconds"] for kept in settles["moves"]["slowest"]] == [99]
    assert settles["others"]["slowest"] == []


def test_text_names_the_slowest_settle_its_steps_and_what_the_list_lacked() -> None:
    report = Report(7, 2.0, ("unplug",), {})
    report.add(settle(6.46, 12))
    lines = summarize(report).splitlines()
    start = lines.index("slowest after changes of devices without probes:")
    awaited = "example.com/plain: plain0 must not be listed as healthy"
    assert lines[start + 1 : start + 4] == [
        f"  6.46 s after 2026-11-28T06:59:50.123Z: {awaited}",
        "    11 wipe",
        "  > 12 unplug plain0",
    ]


def test_time_of_true_lists_is_that_of_the_last_time_at_which_they_became_true() -> None:
    times = ListTimes()
    times.record([], 1.0)
    times.record(["a differs"], 2.0)
    assert times.true_since is None
    times.record([], 3.0)
    times.record([], 4.0)
    assert (times.were_false, times.awaited) == (True, "a differs")
    assert times.true_since == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("steps", "group"),
    [
        ([Step("unplug", ("plain0", "program0")), Step("replug", ("kept0",))], Group.DEVICE_CHANGES),
        ([Step("many-devices", ("filed0", "plain0"), "unplug")], Group.DEVICE_CHANGES),
        ([Step("many-devices", ("filed0", "plain0"), "plug")], Group.PROBE_RESULTS),
        ([Step("plug", ("plain0",)), Step("flap", ("program0",))], Group.PROBE_RESULTS),
        ([Step("plug", ("plain0",)), Step("status-file", ("filed0",), "failed")], Group.PROBE_RESULTS),
        ([Step("plug", ("filed0",)), Step("wipe")], Group.OTHERS),
    ],
)
def test_group_of_a_settle_follows_from_what_its_lists_wait_for(steps: list[Step], group: Group) -> None:
    assert classify_settle(steps, WORLD, ()) is group
    assert classify_settle(steps, WORLD, {"plain0"}) is Group.MOVES


def test_present_device_may_be_withheld_after_a_move_until_it_was_listed_or_the_time_is_over() -> None:
    before = WORLD.unplug(["plain0"])
    moved = replace(before, configuration=Configuration(1, frozenset({"plain"})))
    moves = Moves()
    moves.record(WORLD, before, 10.0)
    assert moves.withheld(before, 10.0) == set()
    moves.record(before, moved, 10.0)
    assert moves.withheld(moved, 11.0) == {f"plain{number}" for number in range(1, 8)}
    moves.settle(moved)
    assert moves.withheld(moved, 41.0) == set()
    plugged = moved.plug(["plain0"])
    assert moves.withheld(plugged, 41.0) == {"plain0"}
    assert moves.withheld(plugged, 10.0 + WITHHELD_SECONDS) == set()


def test_record_gets_a_column_for_a_further_run() -> None:
    first, second = Report(7, 2.0, ("flap",), {}), Report(8, 2.0, ("plug",), {})
    first.steps["flap"], second.steps["plug"] = 1, 2
    record = add_run(record_object(first, "abc"), record_object(second, "def"))
    assert record["columns"] == ["Figure", "Run 1", "Run 2"]
    rows = {name: values for name, *values in record["rows"]}
    assert rows["Seed"] == ["7", "8"]
    assert rows["Commit"] == ["abc", "def"]
    assert (rows["Steps: flap"], rows["Steps: plug"]) == (["1", "-"], ["-", "2"])
