r"""Every recipe's health probes on the tree of its machine, with the fault present, and with what only looks like one.

``faults/<recipe>.yaml`` is a list of cases:

- fault: what happens, in a line of English
  probe: the name of the probe that sees it; what is no fault need not say one
  before: {log: [...]}                       # how the machine is when the agent starts; default: as the tree has it
  write: {/sys/...: text}                    # and then: files that get another text, or appear,
  remove: [/sys/...]                         # that go,
  log: [...]                                 # and messages of the kernel
  unhealthy: {device: words of its reason}   # a glob over IDs; exactly these are Unhealthy. {}: none, it is no fault
  healed: {log: [...]}                       # what ends it; default: the files are put back as they were
  lasts: an hour                             # instead of ``healed``: longer than a test can wait for

Text is one byte a character, so that ``"\xff\xff\xff\xff"`` can stand in a configuration space. What other programs say
(``http``, ``unixSocket``) cannot be brought about by files and has no cases, nor have the kernel's events (``uevent``):
those of GPUs are tried below.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from genplug.agent import Agent
from genplug.config.load import load
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.uevents import Uevent
from genplug.health.probes import uevent
from genplug.health.probes.http import HttpCheck
from genplug.health.probes.uevent import UeventCheck
from genplug.health.probes.unix_socket import UnixSocketCheck
from genplug.health.thresholds import Outcome
from genplug.observe.status import DeviceStatus
from genplug.spec.model import Config
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "examples" / "configs"
POLICIES = HERE.parents[1] / "examples" / "policies"
RECIPES = sorted(path.stem for path in CONFIGS.iterdir())
FAULTS = sorted(path.stem for path in (HERE / "faults").iterdir())
KEYS = {"fault", "probe", "before", "write", "remove", "log", "unhealthy", "healed", "lasts"}
OTHERS_SAY = (UeventCheck, HttpCheck, UnixSocketCheck)
"""Probes whose faults no tree can have."""
NUMBERS = {"periodSeconds": 0.05, "timeoutSeconds": 5, "failureThreshold": 1, "successThreshold": 1}
WEDGED = "wedged"
"""The probe of GPU recipes that listens to events; who may not hear them has that as its error."""
Case: TypeAlias = Mapping[str, Any]


def recipe(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


def policy(name: str) -> Path | None:
    path = POLICIES / f"{name}.yaml"
    return path if path.exists() else None


def loaded(name: str) -> Config:
    return load((CONFIGS / f"{name}.yaml",), policy=policy(name)).config


def cases(name: str) -> list[Case]:
    return list(yaml.safe_load((HERE / "faults" / f"{name}.yaml").read_text()))


def hasty(config: dict[str, Any]) -> str:
    """Return a configuration whose probes look often, and once is enough."""
    for resource in config["resources"].values():
        health = resource.get("health", {})
        health.update(NUMBERS)
        for probe in health.get("probes", ()):
            for key in NUMBERS:
                probe.pop(key, None)
        resource["health"] = health
    return json.dumps(config)


def probes(name: str) -> Iterator[tuple[str, str]]:
    """Yield resource and name of every probe of a recipe that a tree can have a fault for."""
    for resource in loaded(name).resources.values():
        for spec in resource.health.probes:
            if not isinstance(spec.check, OTHERS_SAY):
                yield resource.name, spec.name


class Machine:
    """The files of a node, and how they were before they were changed."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self._before: dict[Path, bytes | str | None] = {}

    def change(self, what: Mapping[str, Any]) -> None:
        for path, text in what.get("write", {}).items():
            location = self.node.locate(path)
            location.parent.mkdir(parents=True, exist_ok=True)
            self._keep(location)
            self._write(location, text.encode("latin-1"))
        for path in what.get("remove", ()):
            location = self.node.locate(path)
            self._keep(location)
            location.unlink()
        if lines := what.get("log"):
            self.node.write_kernel_log(*lines)

    def put_back(self) -> None:
        for location, before in self._before.items():
            if isinstance(before, bytes):
                self._write(location, before)
            elif before is None:
                location.unlink()
            else:
                location.symlink_to(before)
        self._before.clear()

    def _write(self, location: Path, text: bytes) -> None:
        # At once, as the kernel's texts change: half of a text is another fault.
        whole = self.node.directory / "writing"
        whole.write_bytes(text)
        whole.replace(location.resolve())

    def _keep(self, location: Path) -> None:
        now: bytes | str | None = None
        if location.is_symlink():
            now = str(location.readlink())
        elif location.exists():
            now = location.read_bytes()
        self._before.setdefault(location, now)


def offered(name: str) -> dict[str, set[str]]:
    """Return the IDs of a recipe's tree that are known to be well, by resource; of replicas one stands for all."""
    expected = yaml.safe_load((HERE / "expected" / f"{name}.yaml").read_text())["resources"]
    return {
        resource: {one for one, gets in devices.items() if "unhealthy" not in gets}
        for resource, devices in expected.items()
        if devices
    }


def grants(agent: Agent) -> dict[str, DeviceStatus]:
    return {one.id: one for resource in agent.status.resources for one in resource.devices}


async def settled(node: FakeNode, agent: Agent, name: str, is_sick: Callable[[str], bool]) -> None:
    """Wait until the kubelet has been told that exactly these are Unhealthy."""
    for resource, ids in offered(name).items():
        await node.kubelet.wait_for_list(
            resource,
            lambda now, ids=ids: now.ids >= ids and all(is_sick(one) != device.healthy for one, device in now.items()),
        )
    assert {one.id for one in grants(agent).values() if not one.healthy} == set(filter(is_sick, grants(agent)))


async def looked_again(agent: Agent) -> None:
    """Wait until every probe has begun and ended a look after now."""
    until = agent.status.health.min_runs + 2
    async with asyncio.timeout(20):
        # No event tells of a look that changes nothing.
        while agent.status.health.min_runs < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def well_again(agent: Agent) -> None:
    """Wait until every device is Healthy. The kubelet, to which news has just gone, hears it a second later."""
    async with asyncio.timeout(20):
        while not all(one.healthy for one in grants(agent).values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=f"{name}-{case['fault']}") for name in FAULTS for case in cases(name)],
)
async def test_a_fault_is_seen_on_its_machine_and_what_looks_like_one_is_let_be(name: str, case: Case) -> None:
    sick = case["unhealthy"]

    def is_sick(device: str) -> bool:
        return any(fnmatchcase(device, pattern) for pattern in sick)

    async with FakeNode(stand_ins=True) as node:
        build_tree((HERE / "trees" / f"{name}.tree").read_text(), node.root)
        node.write_kernel_log("")
        Machine(node).change(case.get("before", {}))
        async with node.run_agent(hasty(recipe(name)), policy=policy(name)) as agent:
            await settled(node, agent, name, lambda _: False)
            assert not [one for one in agent.status.health.errors if one.probe != WEDGED]
            machine = Machine(node)
            machine.change(case)
            if not sick:
                await looked_again(agent)
                assert not [one for one in grants(agent).values() if not one.healthy]
                return
            await settled(node, agent, name, is_sick)
            for one in grants(agent).values():
                words = [words for pattern, words in sick.items() if fnmatchcase(one.id, pattern)]
                assert all(text in one.reason for text in words)
                assert not words or "probe" not in case or one.probe == case["probe"]
            if "lasts" not in case:
                machine.put_back()
                machine.change(case.get("healed", {}))
                await well_again(agent)


@pytest.mark.parametrize("name", RECIPES)
def test_each_probe_of_a_recipe_has_a_fault_that_it_sees(name: str) -> None:
    seen = set()
    for case in cases(name) if name in FAULTS else ():
        assert case.keys() <= KEYS
        assert case["fault"]
        for device in case["unhealthy"]:
            assert "lasts" in case or "healed" in case or "log" not in case
            seen |= {(resource, case["probe"]) for resource in resources(name, device)}
    assert not [one for one in probes(name) if one not in seen]


def resources(name: str, device: str) -> list[str]:
    """Return the resources of a recipe, as written, that have such a device on the recipe's tree, or none at all."""
    known = offered(name)
    found = []
    for written in recipe(name)["resources"]:
        pattern = re.sub(r"\$\{.*?\}", "*", written)
        ids = [one for resource, all_ids in known.items() if fnmatchcase(resource, pattern) for one in all_ids]
        if not ids or any(fnmatchcase(one, device) for one in ids):
            found.append(written)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_without_probes_says_why(name: str) -> None:
    if not list(probes(name)):
        assert "no probe" in (CONFIGS / f"{name}.yaml").read_text().lower()
        assert name not in FAULTS


def test_each_list_of_faults_is_a_recipes() -> None:
    assert set(FAULTS) <= set(RECIPES)


@pytest.mark.parametrize(
    ("name", "card", "sick"),
    [
        ("amd-gpu", "/devices/pci0000:c0/0000:c0:01.1/0000:c9:00.0/drm/card1", "0000-c9-00-0-*"),
        ("amd-gpu-partitions", "/devices/pci0000:00/0000:00:01.1/0000:0a:00.0/drm/card1", "0000-0a-00-0-*"),
        ("intel-gpu", "/devices/pci0000:b2/0000:b2:01.0/0000:b3:00.0/0000:b7:00.0/drm/card3", "0000-b7-00-0-*"),
    ],
)
def test_a_gpu_that_its_driver_gave_up_is_known_by_an_event(name: str, card: str, sick: str, tmp_path: Path) -> None:
    build_tree((HERE / "trees" / f"{name}.tree").read_text(), tmp_path)
    inventory = discover(loaded(name), Host.at(tmp_path))

    def said(action: str, devpath: str, **values: str) -> dict[str, Outcome]:
        event = Uevent(action, devpath, "drm", {"ACTION": action, "DEVPATH": devpath, **values})
        found = {}
        for resource, devices in inventory.devices.items():
            (check,) = [one.check for one in inventory.resources[resource].health.probes if one.name == WEDGED]
            for device in devices:
                assert isinstance(check, UeventCheck)
                if result := uevent.evaluate(uevent.bind(check, device), event):
                    found[device.id] = result.outcome
        return found

    devices = {device.id for all_devices in inventory.devices.values() for device in all_devices}
    its_own = {one for one in devices if fnmatchcase(one, sick)}
    assert its_own
    for method in ("rebind", "bus-reset", "rebind,bus-reset", "vendor-specific", "unknown"):
        assert said("change", card, WEDGED=method) == dict.fromkeys(its_own, Outcome.FAILED)
    assert said("change", card, WEDGED="none") == {}
    assert said("change", card, HOTPLUG="1") == {}
    assert said("bind", card.partition("/drm/")[0], DRIVER="any") == dict.fromkeys(its_own, Outcome.PASSED)
