"""Configurations in docs/how-to are valid under the policy that their page shows, and over the recipe that they name.

- A configuration that the default policy does not allow is followed by a policy that allows it.
- A block that begins with ``# Merge over RECIPE.yaml`` is a second file, merged over a recipe of ``examples/configs``.
"""

import json
import re
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml

from genplug.config.load import load
from tests.docs.blocks import ROOT, Block, blocks

CONFIGS = ROOT / "examples" / "configs"
POLICIES = ROOT / "examples" / "policies"
HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
YAML = [
    [block for block in blocks(page) if block.language == "yaml"]
    for page in sorted((ROOT / "docs" / "how-to").rglob("*.md"))
]
PAIRS = [(block, following) for page in YAML for block, following in zip_longest(page, page[1:])]
CONFIGURATIONS = [
    pytest.param(block, following, id=block.location)
    for block, following in PAIRS
    if "kind: DevicePluginConfig" in block.text
]
OVERLAYS = [
    pytest.param(recipe[1], block, following, id=block.location)
    for block, following in PAIRS
    if (recipe := re.match(r"# Merge over ([\w-]+)\.yaml\n", block.text))
]


def policy_file(block: Block | None, directory: Path) -> Path | None:
    """Return a file with the policy in a block; None if the block is not a policy."""
    if block is None or "kind: DevicePluginPolicy" not in block.text:
        return None
    path = directory / "policy.yaml"
    path.write_text(block.text)
    return path


@pytest.mark.parametrize(("block", "following"), CONFIGURATIONS)
def test_configuration_is_valid_under_policy_that_follows_it(
    block: Block, following: Block | None, tmp_path: Path
) -> None:
    path = tmp_path / "genplug.yaml"
    path.write_text(block.text)
    assert load((path,), policy=policy_file(following, tmp_path)).config.resources


@pytest.mark.parametrize(("recipe", "block", "following"), OVERLAYS)
def test_overlay_is_valid_over_its_recipe(recipe: str, block: Block, following: Block | None, tmp_path: Path) -> None:
    path, policy = tmp_path / "overlay.yaml", POLICIES / f"{recipe}.yaml"
    path.write_text(json.dumps(HEADER | yaml.safe_load(block.text)))
    allowed = policy if policy.exists() else policy_file(following, tmp_path)
    assert load((CONFIGS / f"{recipe}.yaml", path), policy=allowed).config.resources
