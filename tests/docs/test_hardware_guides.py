"""Each recipe has a guide in docs/how-to/hardware, which includes the recipe and explains its resources and probes."""

import re
from pathlib import Path

import pytest
import yaml

from genplug.config.load import load

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "examples" / "configs"
POLICIES = REPOSITORY / "examples" / "policies"
GUIDES = REPOSITORY / "docs" / "how-to" / "hardware"
GUIDE_URL = "https://github.com/genplug/genplug/blob/main/docs/how-to/hardware/"
RECIPES = sorted(path.stem for path in CONFIGS.iterdir())


def guide_path(recipe: str) -> Path:
    """Return the guide that a recipe's comments name."""
    name = re.search(rf"^# Guide: {GUIDE_URL}(\S+\.md)$", (CONFIGS / f"{recipe}.yaml").read_text(), re.MULTILINE)
    assert name, f"examples/configs/{recipe}.yaml: expected a comment '# Guide: {GUIDE_URL}PAGE.md' after the summary"
    return GUIDES / name[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_names_guide_that_includes_it(recipe: str) -> None:
    include = f"```{{literalinclude}} ../../../examples/configs/{recipe}.yaml\n"
    assert include in guide_path(recipe).read_text(), f"expected {include!r} in {guide_path(recipe)}"
    index = (GUIDES / "index.md").read_text()
    assert f"({guide_path(recipe).name})" in index
    assert f"`{recipe}`" in index


@pytest.mark.parametrize("recipe", RECIPES)
def test_guide_explains_every_probe_of_its_recipe(recipe: str) -> None:
    policy = POLICIES / f"{recipe}.yaml"
    config = load((CONFIGS / f"{recipe}.yaml",), policy=policy if policy.exists() else None).config
    probes = {probe.name for resource in config.resources.values() for probe in resource.health.probes}
    rows = re.findall(r"^\| `([\w-]+)` \|.*\|.*\|", guide_path(recipe).read_text(), re.MULTILINE)
    assert probes <= set(rows), f"{guide_path(recipe)}: expected a row in the table of probes for {probes - set(rows)}"
    if not probes:
        assert "has no probe" in guide_path(recipe).read_text()


@pytest.mark.parametrize("recipe", RECIPES)
def test_guide_names_every_resource_of_its_recipe(recipe: str) -> None:
    text = guide_path(recipe).read_text()
    for resource in yaml.safe_load((CONFIGS / f"{recipe}.yaml").read_text())["resources"]:
        fixed = resource.partition("${")[0].removesuffix("_")
        assert fixed in text, f"{guide_path(recipe)}: expected the resource {resource}"
