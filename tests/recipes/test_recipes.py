"""Every recipe of ``examples/configs`` on its machine: resources, IDs, nodes, environment and NUMA nodes.

A tree (``trees/*.tree``) has the files of the machine that the recipe reads. ``expected/*.yaml`` has what a container
gets with each device. ``GENPLUG_UPDATE_GOLDEN=1`` writes the expectations; review the difference before a commit.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml

from genplug.allocation.offer import build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.load import load
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.health.presence import evaluate_health
from genplug.testing.kubelet import Devices
from genplug.testing.machines.catalog import TREES, build_machine
from genplug.testing.node.fake_node import FakeNode
from tests.support.hardware import rescan
from tests.support.recipes import (
    DATA,
    POLICIES,
    RECIPES,
    config_path,
    load_recipe,
    policy_path,
    read_expectation,
)

LOCATION = re.compile(r" \([^()]*:\d+:\d+\)")
HEADER = "\napiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"


@pytest.fixture
def root() -> Iterator[Path]:
    # The path of a socket in the tree has at most 107 bytes.
    directory = Path(mkdtemp(prefix="gp", dir="/tmp"))
    yield directory
    rmtree(directory)


def allocate_device(state: ResourceState, device_id: str) -> dict[str, Any]:
    """Return the non-empty parts of what a container gets with a device."""
    edits = state.allocate([device_id])
    parts = {
        "nodes": [format_path(node.host_path, node.container_path, node.permissions) for node in edits.nodes],
        "env": dict(edits.env),
        "mounts": [format_path(mount.host_path, mount.container_path) for mount in edits.mounts],
        "annotations": dict(edits.annotations),
        "cdi": list(edits.cdi_devices),
        "numa": [node for device in state.listed if device.id == device_id for node in device.numa],
    }
    return {key: value for key, value in parts.items() if value}


def format_path(host: str, container: str, permissions: str = "rw") -> str:
    path = host if host == container else f"{host} -> {container}"
    return path if permissions == "rw" else f"{path} {permissions}"


def observe_recipe(name: str, root: Path) -> dict[str, Any]:
    """Return what containers get on the recipe's machine, and the reasons of excluded paths."""
    host = Host.at(root, node_name="node-a")
    inventory = discover(load_recipe(name), host)
    assert not inventory.conflicts
    health = evaluate_health(inventory, None, {}, 0.0)
    resources: dict[str, Any] = {}
    for resource, devices in health.devices.items():
        state = ResourceState(build_offer(health.resources[resource], devices), host)
        shown: dict[str, Any] = {}
        for grant in state.offer.grants.values():
            first = grant.devices[0].device.id
            if len(state.offer.grants) > len(devices) and any(key.startswith(first) for key in shown):
                continue
            shown[grant.id] = allocate_device(state, grant.id) if grant.healthy else {"unhealthy": grant.reason}
            if health.resources[resource].tokens is not None:
                shown[grant.id]["grants"] = len(state.offer.grants)
                break
            if (count := sum(1 for other in state.offer.grants.values() if other.devices == grant.devices)) > 1:
                shown[grant.id]["grants"] = count
        resources[resource] = shown
    excluded = {
        outcome.path: LOCATION.sub("", outcome.reason) for outcome in inventory.outcomes if outcome.device is None
    }
    return {"resources": resources, "excluded": excluded}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_gives_the_expected_devices_on_its_machine(name: str, root: Path) -> None:
    build_machine(name, root)
    found = observe_recipe(name, root)
    if os.environ.get("GENPLUG_UPDATE_GOLDEN"):
        text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
        (DATA / "expected" / f"{name}.yaml").write_text(text)
    expected = read_expectation(name)
    assert found["resources"] == expected["resources"]
    for path, reason in (expected.get("excluded") or {}).items():
        assert reason in found["excluded"][path]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_offers_devices_and_starts_with_a_comment(name: str, root: Path) -> None:
    build_machine(name, root)
    found = observe_recipe(name, root)
    assert any(found["resources"].values())
    text = config_path(name).read_text()
    assert text.startswith("# ")
    # `genplug init` and users join recipes at this header.
    assert text.count(HEADER) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_repeated_scan_of_a_recipe_returns_the_same_devices(name: str, root: Path) -> None:
    build_machine(name, root)
    config, host = load_recipe(name), Host.at(root)
    first = discover(config, host)
    again = rescan(config, host, first, None)
    assert again == first
    assert all(
        new is old
        for resource in again.devices
        for new, old in zip(again.devices[resource], first.devices[resource], strict=True)
    )


def test_each_recipe_has_a_tree_and_an_expectation() -> None:
    assert {path.stem for path in TREES.iterdir()} == set(RECIPES)
    assert {path.stem for path in (DATA / "expected").iterdir()} == set(RECIPES)


def has_healthy(ids: Sequence[str]) -> Callable[[Devices], bool]:
    """Return a condition: the kubelet lists these devices as healthy."""
    return lambda devices: devices.healthy >= set(ids)


@pytest.mark.parametrize("name", RECIPES)
async def test_kubelet_gets_the_devices_of_a_recipe(name: str) -> None:
    expected = read_expectation(name)["resources"]
    async with FakeNode(stand_ins=True) as node:
        build_machine(name, node.root)
        async with node.run_agent(config_path(name).read_text(), policy=policy_path(name)):
            for resource, devices in expected.items():
                ids = sorted(device_id for device_id, parts in devices.items() if "unhealthy" not in parts)
                listed = await node.kubelet.wait_for_list(resource, has_healthy(ids))
                response = await node.kubelet.plugin(resource).allocate([[device_id] for device_id in ids])
                nodes = {
                    device_id: [
                        format_path(node.host_path, node.container_path, node.permissions) for node in container.devices
                    ]
                    for device_id, container in zip(ids, response.container_responses, strict=True)
                }
                assert nodes == {device_id: devices[device_id].get("nodes", []) for device_id in ids}
                assert {device_id: list(listed[device_id].numa) for device_id in ids} == {
                    device_id: devices[device_id].get("numa", []) for device_id in ids
                }


def test_recipe_with_a_policy_is_denied_without_it() -> None:
    for path in POLICIES.iterdir():
        with pytest.raises(ConfigInvalidError, match="GP019"):
            load((config_path(path.stem),))
