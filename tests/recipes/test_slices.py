"""The recipes of ``examples/configs`` on their machines, as if their resources were served by DRA."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.allocation.offer import build_offer
from genplug.allocation.published import publish_resource
from genplug.allocation.slices import SliceScope, build_pool, slice_document
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.health.presence import evaluate_health
from genplug.spec.model import Serve
from genplug.testing.api_server.validation import validate_slice
from genplug.testing.machines.catalog import build_machine
from tests.support.recipes import RECIPES, load_recipe

SCOPE = SliceScope("genplug.io", "node-a", "uid")
VERBATIM = {"sriov-netdev"}
"""Recipes with `verbatimId`, which is refused with `serve: dra`: their IDs are not DNS labels."""


@pytest.mark.parametrize("name", sorted({*RECIPES} - VERBATIM))
def test_slices_of_a_recipe_are_valid_dra_02(name: str, tmp_path: Path) -> None:
    build_machine(name, tmp_path)
    inventory = discover(load_recipe(name), Host.at(tmp_path, node_name="node-a"))
    health = evaluate_health(inventory, None, {}, 0.0)
    slices = []
    for resource, devices in health.devices.items():
        served = replace(health.resources[resource], serve=Serve.DRA)
        pool = build_pool(publish_resource(build_offer(served, devices)), SCOPE)
        slices += [slice_document(SCOPE, pool, part, 1) for part in pool.slices]
    assert slices
    assert [(document["metadata"]["name"], errors) for document in slices if (errors := validate_slice(document))] == []
