"""The checks of the soak on observations that break a promise."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.cluster.soak.checks import (
    compare_allocations,
    compare_node,
    find_running_pods_without_devices,
    find_shared_devices,
)
from tests.cluster.soak.model import FUSE, LIDAR, MOTOR, Pod, World
from tests.cluster.soak.observation import LiveContainer, Observation

ID, OTHER_ID = "a" * 64, "b" * 64
WORLD = World(pods={"pod-1": Pod("pod-1", {"main": {MOTOR: 1, LIDAR: 0, FUSE: 1}})})
ALLOCATED = {MOTOR: {"motor1"}, FUSE: {"token-1"}}
POD: dict[str, Any] = {
    "metadata": {"name": "pod-1", "uid": "1"},
    "spec": {"nodeName": "node-1"},
    "status": {
        "phase": "Running",
        "containerStatuses": [{"name": "main", "containerID": f"containerd://{ID}", "state": {"running": {}}}],
    },
}
GOOD = Observation(
    node={"status": {"allocatable": {MOTOR: "6", LIDAR: "3", FUSE: "10"}}},
    pods={"pod-1": POD},
    agents=[],
    live={ID: LiveContainer(1, {"motor1": 100, "fuse": 2}), OTHER_ID: LiveContainer(2, {"motor2": 101, "fuse": 2})},
    allocatable=WORLD.healthy_ids | {FUSE: {f"token-{number}" for number in range(10)}},
    allocated={("pod-1", "main"): ALLOCATED},
    checkpoint={("1", "main"): ALLOCATED},
    sockets=set(),
)


def find_differences(seen: Observation) -> list[str]:
    return [
        *find_shared_devices(seen.live),
        *find_running_pods_without_devices(WORLD, seen),
        *compare_node(WORLD, seen),
        *compare_allocations(WORLD, seen),
    ]


def test_observation_that_keeps_every_promise_has_no_difference() -> None:
    assert find_differences(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"live": {**GOOD.live, OTHER_ID: LiveContainer(2, {"motor1": 101})}}, "device motor1: expected one container"),
        ({"live": {**GOOD.live, OTHER_ID: LiveContainer(2, {"motor2": 100})}}, "device motor2: expected one container"),
        ({"live": {ID: LiveContainer(1, {"fuse": 2})}}, "pod pod-1: expected that container main has {'motor': 1"),
        ({"live": {ID: LiveContainer(1, {"motor1": 100})}}, "'fuse': 1}, found {'motor': 1, 'lidar': 0, 'fuse': 0}"),
        (
            {"live": {ID: LiveContainer(1, {"motor2": 100, "fuse": 2})}},
            "expected the devices ['motor1'] in main, found ['motor2']",
        ),
        ({"live": {}}, "expected a process of container main, found none"),
        ({"checkpoint": {}}, "expected that checkpoint and pod-resources API agree on container main"),
        ({"allocated": {**GOOD.allocated, ("pod-0", "main"): ALLOCATED}}, "expected no devices of pod pod-0"),
        (
            {"node": {"status": {"allocatable": {MOTOR: "5", LIDAR: "3", FUSE: "10"}}}},
            f"node status: expected 6 allocatable {MOTOR}, found 5",
        ),
        (
            {"allocatable": {**GOOD.allocatable, LIDAR: {"lidar0", "lidar1"}}},
            "expected the healthy devices ['lidar0', 'lidar1', 'lidar2']",
        ),
    ],
)
def test_broken_promise_is_reported(changes: dict[str, Any], difference: str) -> None:
    differences = find_differences(replace(GOOD, **changes))
    assert any(difference in text for text in differences), differences
