"""ResourceSlices of the recipes of ``examples/configs`` and of random configurations."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from msgspec.structs import replace

from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.allocation.published import publish_resource
from genplug.allocation.slices import SliceScope, build_pool, slice_document
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.health.presence import evaluate_health
from genplug.spec.model import Serve
from genplug.testing.machines.catalog import build_machine
from tests.support.recipes import RECIPES, load_recipe
from tests.unit.allocation.test_published import OFFERS

PUBLISHED_RECIPES = sorted({*RECIPES} - {"sriov-netdev"})
"""The recipes that can be served by DRA: those without `verbatimId`, whose IDs are not DNS labels."""


def build_recipe_slices(name: str, root: Path, scope: SliceScope) -> list[dict[str, Any]]:
    """Build the machine of a recipe in a directory and return the slices of its devices."""
    build_machine(name, root)
    inventory = discover(load_recipe(name), Host.at(root, node_name="node-a"))
    health = evaluate_health(inventory, None, {}, 0.0)
    return [
        document
        for resource, devices in health.devices.items()
        for document in _build_slices(build_offer(replace(health.resources[resource], serve=Serve.DRA), devices), scope)
    ]


def build_random_slices(scope: SliceScope, configurations: int) -> list[dict[str, Any]]:
    """Return the slices of random configurations and devices."""
    found: list[dict[str, Any]] = []

    @settings(max_examples=configurations, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(OFFERS)
    def collect(offer: ResourceOffer) -> None:
        found.extend(_build_slices(offer, scope))

    collect()
    return found


def _build_slices(offer: ResourceOffer, scope: SliceScope) -> list[dict[str, Any]]:
    pool = build_pool(publish_resource(offer), scope)
    return [slice_document(scope, pool, part, 1) for part in pool.slices]
