"""Every recipe of examples/configs on a tree of the machine it is for: resources, IDs, nodes, environment, NUMA.

A tree (``trees/*.tree``) is the part of such a machine that the recipe reads; what a container gets with each device
alone stands in ``expected/*.yaml``. ``GENPLUG_UPDATE_GOLDEN=1`` writes what is given now: read it before it is kept.
"""

import os
import re
from collections.abc import Iterator
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
from genplug.spec.model import Config
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "examples" / "configs"
POLICIES = HERE.parents[1] / "examples" / "policies"
_PLACE = re.compile(r" \([^()]*:\d+:\d+\)")
RECIPES = sorted(path.stem for path in CONFIGS.iterdir())
HEADER = "\napiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"


@pytest.fixture
def root() -> Iterator[Path]:
    # A socket's path has 107 bytes.
    made = Path(mkdtemp(prefix="gp", dir="/tmp"))
    yield made
    rmtree(made)


def loaded(name: str) -> Config:
    policy = POLICIES / f"{name}.yaml"
    return load((CONFIGS / f"{name}.yaml",), policy=policy if policy.exists() else None).config


def given(answers: ResourceState, one: str) -> dict[str, Any]:
    """Return what a container gets with one device, without what it does not get."""
    edits = answers.allocate([one])
    said = {
        "nodes": [_from_to(node.host_path, node.container_path, node.permissions) for node in edits.nodes],
        "env": dict(edits.env),
        "mounts": [_from_to(mount.host_path, mount.container_path) for mount in edits.mounts],
        "annotations": dict(edits.annotations),
        "cdi": list(edits.cdi_devices),
        "numa": [node for listed in answers.listed if listed.id == one for node in listed.numa],
    }
    return {key: value for key, value in said.items() if value}


def _from_to(host: str, container: str, permissions: str = "rw") -> str:
    path = host if host == container else f"{host} -> {container}"
    return path if permissions == "rw" else f"{path} {permissions}"


def observed(name: str, root: Path) -> dict[str, Any]:
    """Return what a recipe offers on its tree, and what it leaves out."""
    host = Host.at(root, node_name="node-a")
    inventory = discover(loaded(name), host)
    assert not inventory.conflicts
    judgement = evaluate_health(inventory, None, {}, 0.0)
    resources: dict[str, Any] = {}
    for resource, devices in judgement.devices.items():
        answers = ResourceState(build_offer(judgement.resources[resource], devices), host)
        shown: dict[str, Any] = {}
        for grant in answers.offer.grants.values():
            first = grant.devices[0].device.id
            if len(answers.offer.grants) > len(devices) and any(key.startswith(first) for key in shown):
                continue
            shown[grant.id] = given(answers, grant.id) if grant.healthy else {"unhealthy": grant.reason}
            if judgement.resources[resource].tokens is not None:
                shown[grant.id]["grants"] = len(answers.offer.grants)
                break
            if (count := sum(1 for one in answers.offer.grants.values() if one.devices == grant.devices)) > 1:
                shown[grant.id]["grants"] = count
        resources[resource] = shown
    left_out = {one.path: _PLACE.sub("", one.reason) for one in inventory.outcomes if one.device is None}
    return {"resources": resources, "left_out": left_out}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_on_its_machine_what_it_promises(name: str, root: Path) -> None:
    build_tree((HERE / "trees" / f"{name}.tree").read_text(), root)
    found, path = observed(name, root), HERE / "expected" / f"{name}.yaml"
    if os.environ.get("GENPLUG_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120))
    expected = yaml.safe_load(path.read_text())
    assert found["resources"] == expected["resources"]
    for left, reason in (expected.get("left_out") or {}).items():
        assert reason in found["left_out"][left]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_offers_something_and_explains_itself(name: str, root: Path) -> None:
    build_tree((HERE / "trees" / f"{name}.tree").read_text(), root)
    found = observed(name, root)
    assert any(found["resources"].values())
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    # So that several recipes can be put together.
    assert text.count(HEADER) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_finds_the_same_on_every_look(name: str, root: Path) -> None:
    build_tree((HERE / "trees" / f"{name}.tree").read_text(), root)
    config, host = loaded(name), Host.at(root)
    first = discover(config, host)
    again = discover(config, host, first)
    assert again == first
    assert all(
        one is other
        for name in again.devices
        for one, other in zip(again.devices[name], first.devices[name], strict=True)
    )


def test_each_tree_and_each_expectation_is_a_recipes() -> None:
    assert {path.stem for path in (HERE / "trees").iterdir()} == set(RECIPES)
    assert {path.stem for path in (HERE / "expected").iterdir()} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
async def test_a_recipe_is_served_to_the_kubelet(name: str) -> None:
    policy = POLICIES / f"{name}.yaml"
    expected = yaml.safe_load((HERE / "expected" / f"{name}.yaml").read_text())["resources"]
    async with FakeNode(stand_ins=True) as node:
        build_tree((HERE / "trees" / f"{name}.tree").read_text(), node.root)
        async with node.run_agent((CONFIGS / f"{name}.yaml").read_text(), policy=policy if policy.exists() else None):
            for resource, devices in expected.items():
                ids = {one for one, gets in devices.items() if "unhealthy" not in gets}
                listed = await node.kubelet.wait_for_list(resource, lambda now, ids=ids: now.healthy >= ids)
                answers = await node.kubelet.plugin(resource).allocate([[one] for one in sorted(ids)])
                got = {
                    one: [_from_to(node.host_path, node.container_path, node.permissions) for node in answer.devices]
                    for one, answer in zip(sorted(ids), answers.container_responses, strict=True)
                }
                assert got == {one: devices[one].get("nodes", []) for one in ids}
                assert {one: list(listed[one].numa) for one in ids} == {
                    one: devices[one].get("numa", []) for one in ids
                }


def test_every_policy_is_that_of_a_recipe_which_needs_it() -> None:
    for path in POLICIES.iterdir():
        with pytest.raises(ConfigInvalidError, match="GP019"):
            load((CONFIGS / path.name,))
