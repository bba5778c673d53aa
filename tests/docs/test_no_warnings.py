"""Recipes, policies, values files and the examples of the documentation cause no warning."""

import re

import pytest

from genplug.config.chart_values import read_values
from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.spec.diagnostic import Diagnostic
from tests.docs.blocks import Block, all_blocks
from tests.support.chart import CI_FILES
from tests.support.pages import ROOT
from tests.support.recipes import CONFIGS, RECIPES, load_recipe, policy_path

CONFIG = re.compile(r"(#.*\n)*apiVersion: genplug.*\nkind: DevicePluginConfig\n")
BLOCKS = [
    block
    for block in all_blocks("yaml", "json")
    if not block.invalid and not block.not_checked and CONFIG.match(block.text)
]


def list_texts(warnings: tuple[Diagnostic, ...]) -> list[str]:
    return [f"{warning.location}: {warning.code}: {warning.message}" for warning in warnings]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_causes_no_warning(name: str) -> None:
    # A policy that a recipe needs can have warnings, which are about the policy.
    config = load_text((CONFIGS / f"{name}.yaml").read_text(), name, None)
    assert list_texts(config.warnings) == []
    if policy_path(name) is None:
        assert list_texts(load_recipe(name).warnings) == []


@pytest.mark.parametrize("block", BLOCKS, ids=[block.location for block in BLOCKS])
def test_example_of_the_documentation_causes_no_warning(block: Block) -> None:
    assert list_texts(load_text(block.text, block.location, None).warnings) == []


@pytest.mark.parametrize("path", [*CI_FILES, ROOT / "deploy/manifest/values.yaml"], ids=lambda path: path.name)
def test_values_file_causes_no_warning(path: object) -> None:
    text = (ROOT / str(path)).read_text()
    for pool in read_values([ConfigFile("values.yaml", text)]).pools():
        if not pool.existing_config_map:
            for node in (None, *pool.nodes):
                assert list_texts(pool.load(node, None).warnings) == []
