"""Every recipe's health probes on its machine: with a fault, and with a change that looks like a fault.

:mod:`genplug.testing.machines.catalog` describes the cases. Files cannot cause the faults of other programs (``http``,
``tcpSocket``, ``unixSocket``) or events of the kernel (``uevent``); a test below covers the events of GPUs.
"""

import asyncio
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from genplug.agent import Agent
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.uevents import Uevent
from genplug.health.probes import uevent
from genplug.health.probes.http import HttpCheck
from genplug.health.probes.tcp_socket import TcpSocketCheck
from genplug.health.probes.uevent import UeventCheck
from genplug.health.probes.unix_socket import UnixSocketCheck
from genplug.health.thresholds import Outcome
from genplug.observe.status import DeviceStatus
from genplug.testing.kubelet import Devices
from genplug.testing.machines import catalog
from genplug.testing.machines.catalog import Case, MachineChanges, build_machine, read_faults, render_fast_config
from genplug.testing.node.fake_node import FakeNode
from tests.support.recipes import (
    RECIPES,
    config_path,
    load_recipe,
    policy_path,
    read_expectation,
)

FAULTS = sorted(path.stem for path in catalog.FAULTS.iterdir())
KEYS = {"fault", "probe", "before", "write", "remove", "log", "unhealthy", "warning", "recovery", "lasts"}
CHECKS_WITHOUT_CASES = (UeventCheck, HttpCheck, TcpSocketCheck, UnixSocketCheck)
"""Probe kinds whose faults files cannot cause."""
WEDGED = "wedged"
"""The uevent probe of GPU recipes, which has an error where the kernel does not send events to the tests."""


def read_recipe(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(config_path(name).read_text()))


def list_probes(name: str) -> list[tuple[str, str]]:
    """Return the resource and the name of every probe of a recipe whose faults files can cause."""
    return [
        (resource.name, probe.name)
        for resource in load_recipe(name).resources.values()
        for probe in resource.health.probes
        if not isinstance(probe.check, CHECKS_WITHOUT_CASES)
    ]


def list_healthy_ids(name: str) -> dict[str, set[str]]:
    """Return the IDs of the expected healthy devices by resource, with a single replica of each device."""
    return {
        resource: {device_id for device_id, parts in devices.items() if "unhealthy" not in parts}
        for resource, devices in read_expectation(name)["resources"].items()
        if devices
    }


def read_statuses(agent: Agent) -> dict[str, DeviceStatus]:
    return {device.id: device for resource in agent.status.resources for device in resource.devices}


def list_unhealthy_ids(agent: Agent) -> set[str]:
    return {device_id for device_id, device in read_statuses(agent).items() if not device.healthy}


def lists_exactly(ids: set[str], is_unhealthy: Callable[[str], bool]) -> Callable[[Devices], bool]:
    """Return a condition: the kubelet has at least these devices, and exactly these unhealthy devices."""
    return lambda devices: devices.ids >= ids and devices.unhealthy == set(filter(is_unhealthy, devices))


async def wait_for_health(node: FakeNode, agent: Agent, name: str, is_unhealthy: Callable[[str], bool]) -> None:
    """Wait until the kubelet has exactly these devices as unhealthy devices."""
    for resource, ids in list_healthy_ids(name).items():
        await node.kubelet.wait_for_list(resource, lists_exactly(ids, is_unhealthy))
    assert list_unhealthy_ids(agent) == set(filter(is_unhealthy, read_statuses(agent)))


async def wait_for_probe_runs(agent: Agent) -> None:
    """Wait until every probe has started and completed a run after the call."""
    min_runs = agent.status.health.min_runs + 2
    async with asyncio.timeout(20):
        # There is no event for a run that changes nothing.
        while agent.status.health.min_runs < min_runs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def wait_for_warnings(agent: Agent, case: Case) -> None:
    """Wait until each device of a case, and no other, has a warning of its probe with the expected reason."""

    def is_expected() -> bool:
        found = [
            (device, warning.reason)
            for warning in agent.status.health.warnings
            if warning.probe == case["probe"]
            for device in warning.devices
        ]
        expected = case["warning"].items()
        return bool(found) and all(
            any(fnmatchcase(device, pattern) and text in reason for pattern, text in expected)
            for device, reason in found
        )

    async with asyncio.timeout(20):
        # The agent has an event for a new warning, which may have been logged before.
        while not is_expected():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def wait_until_healthy(agent: Agent) -> None:
    """Wait until the agent has every device as healthy; the kubelet gets the list up to a second later."""
    async with asyncio.timeout(20):
        while list_unhealthy_ids(agent):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=f"{name}-{case['fault']}") for name in FAULTS for case in read_faults(name)],
)
async def test_probes_detect_faults_and_ignore_similar_changes(name: str, case: Case) -> None:
    reasons = case["unhealthy"]

    def is_unhealthy(device_id: str) -> bool:
        return any(fnmatchcase(device_id, pattern) for pattern in reasons)

    async with FakeNode(stand_ins=True) as node:
        build_machine(name, node.root)
        node.write_kernel_log("")
        MachineChanges(node).apply(case.get("before", {}))
        async with node.run_agent(render_fast_config(config_path(name).read_text()), policy=policy_path(name)) as agent:
            await wait_for_health(node, agent, name, lambda _: False)
            assert not [error for error in agent.status.health.errors if error.probe != WEDGED]
            machine = MachineChanges(node)
            machine.apply(case)
            if "warning" in case:
                await wait_for_warnings(agent, case)
                assert list_unhealthy_ids(agent) == set()
                return
            if not reasons:
                await wait_for_probe_runs(agent)
                assert list_unhealthy_ids(agent) == set()
                return
            await wait_for_health(node, agent, name, is_unhealthy)
            for device in filter(lambda device: is_unhealthy(device.id), read_statuses(agent).values()):
                expected = [reason for pattern, reason in reasons.items() if fnmatchcase(device.id, pattern)]
                missing = [reason for reason in expected if reason not in device.reason]
                assert not missing, f"{device.id}: expected {missing} in the reason, found {device.reason!r}"
                assert device.probe == case["probe"]
            if "lasts" not in case:
                machine.restore()
                machine.apply(case.get("recovery", {}))
                await wait_until_healthy(agent)


@pytest.mark.parametrize("name", RECIPES)
def test_each_probe_of_a_recipe_has_a_fault(name: str) -> None:
    detected = set()
    for case in read_faults(name):
        assert case.keys() <= KEYS
        assert case["fault"]
        for device_glob in {**case["unhealthy"], **case.get("warning", {})}:
            assert "lasts" in case or "recovery" in case or "log" not in case
            detected |= {(resource, case["probe"]) for resource in find_resources(name, device_glob)}
    assert [probe for probe in list_probes(name) if probe not in detected] == []


def find_resources(name: str, device_glob: str) -> list[str]:
    """Return the resources of a recipe, by configured name, that have no devices or a device that the glob matches."""
    found = []
    for configured_name in read_recipe(name)["resources"]:
        pattern = re.sub(r"\$\{.*?\}", "*", configured_name)
        ids = [
            device_id
            for resource, resource_ids in list_healthy_ids(name).items()
            if fnmatchcase(resource, pattern)
            for device_id in resource_ids
        ]
        if not ids or any(fnmatchcase(device_id, device_glob) for device_id in ids):
            found.append(configured_name)
    return found


@pytest.mark.parametrize("name", [name for name in RECIPES if not list_probes(name)])
def test_recipe_without_probes_explains_why(name: str) -> None:
    assert "no probe" in config_path(name).read_text().lower()
    assert name not in FAULTS


def test_file_of_faults_belongs_to_a_recipe() -> None:
    assert set(FAULTS) <= set(RECIPES)


@pytest.mark.parametrize(
    ("name", "card", "device_glob"),
    [
        ("amd-gpu", "/devices/pci0000:c0/0000:c0:01.1/0000:c9:00.0/drm/card1", "0000-c9-00-0-*"),
        ("amd-gpu-partitions", "/devices/pci0000:00/0000:00:01.1/0000:0a:00.0/drm/card1", "0000-0a-00-0-*"),
        ("intel-gpu", "/devices/pci0000:b2/0000:b2:01.0/0000:b3:00.0/0000:b7:00.0/drm/card3", "0000-b7-00-0-*"),
    ],
)
def test_wedged_event_of_a_driver_fails_its_gpu(name: str, card: str, device_glob: str, tmp_path: Path) -> None:
    build_machine(name, tmp_path)
    inventory = discover(load_recipe(name), Host.at(tmp_path))

    def evaluate_event(action: str, devpath: str, **values: str) -> dict[str, Outcome]:
        event = Uevent(action, devpath, "drm", {"ACTION": action, "DEVPATH": devpath, **values})
        outcomes = {}
        for resource, devices in inventory.devices.items():
            probes = inventory.resources[resource].health.probes
            (check,) = [probe.check for probe in probes if probe.name == WEDGED]
            for device in devices:
                assert isinstance(check, UeventCheck)
                if result := uevent.evaluate(uevent.bind(check, device), event):
                    outcomes[device.id] = result.outcome
        return outcomes

    ids = [device.id for devices in inventory.devices.values() for device in devices]
    gpu = {device_id for device_id in ids if fnmatchcase(device_id, device_glob)}
    assert gpu
    for method in ("rebind", "bus-reset", "rebind,bus-reset", "vendor-specific", "unknown"):
        assert evaluate_event("change", card, WEDGED=method) == dict.fromkeys(gpu, Outcome.FAILED)
    assert evaluate_event("change", card, WEDGED="none") == {}
    assert evaluate_event("change", card, HOTPLUG="1") == {}
    assert evaluate_event("bind", card.partition("/drm/")[0], DRIVER="any") == dict.fromkeys(gpu, Outcome.PASSED)
