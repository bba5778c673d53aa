"""Every YAML block in docs/how-to is a valid file of its kind.

The first lines of a block tell its kind:

- ``apiVersion: genplug.io/...``: a configuration or a policy. A configuration is checked with the
  policy that follows it, if one does.
- ``# Merge over RECIPE.yaml``: a second file, merged over a recipe of ``examples/configs``.
- ``# values.yaml``: values of the Helm chart; ``config`` and ``policy`` are checked.
- ``# PROGRAM: FILE``: a file of another program, as the pages under ``migrate/`` show it.
- ``apiVersion: ...``: another Kubernetes object.
"""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from genplug.config.load import load

REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "examples" / "configs"
POLICIES = REPOSITORY / "examples" / "policies"
PAGES = sorted((REPOSITORY / "docs" / "how-to").rglob("*.md"))
HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
POLICY_HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"}


def yaml_blocks(page: Path) -> list[str]:
    found = re.findall(r"^( *)```yaml\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [dedent(text) for _, text in found]


BLOCKS = [
    pytest.param(page, block, id=f"{page.relative_to(REPOSITORY / 'docs')}-{number}")
    for page in PAGES
    for number, block in enumerate(yaml_blocks(page))
]


def is_policy(block: str) -> bool:
    return block.startswith("apiVersion: genplug.io/") and "kind: DevicePluginPolicy" in block


def following_policy(page: Path, block: str, directory: Path) -> Path | None:
    """Return the policy that the page shows as the next YAML block, if any."""
    blocks = yaml_blocks(page)
    following = blocks[blocks.index(block) + 1 :][:1]
    if not following or not is_policy(following[0]):
        return None
    path = directory / "policy.yaml"
    path.write_text(following[0])
    return path


def check_config(files: tuple[Path, ...], policy: Path | None) -> None:
    assert load(files, policy=policy).config.resources


def check_values(values: dict[str, Any], directory: Path) -> None:
    config, policy = directory / "genplug.yaml", None
    if values.get("policy"):
        policy = directory / "policy.yaml"
        policy.write_text(yaml.safe_dump(POLICY_HEADER | values["policy"]))
    if "config" in values:
        config.write_text(yaml.safe_dump(HEADER | values["config"]))
        check_config((config,), policy)
    elif policy:
        config.write_text(yaml.safe_dump(HEADER | {"resources": {}}))
        load((config,), policy=policy)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_yaml_block_is_valid_file_of_its_kind(page: Path, block: str, tmp_path: Path) -> None:
    first = block.partition("\n")[0]
    path = tmp_path / "block.yaml"
    path.write_text(block)
    content = yaml.safe_load(block)
    if recipe := re.fullmatch(r"# Merge over ([\w-]+)\.yaml", first):
        policy = POLICIES / f"{recipe[1]}.yaml"
        path.write_text(yaml.safe_dump(HEADER | content))
        shown = policy if policy.exists() else following_policy(page, block, tmp_path)
        check_config((CONFIGS / f"{recipe[1]}.yaml", path), shown)
    elif first == "# values.yaml":
        check_values(content, tmp_path)
    elif is_policy(block):
        check_values({"policy": content}, tmp_path)
    elif first.startswith("apiVersion: genplug.io/"):
        check_config((path,), following_policy(page, block, tmp_path))
    elif "apiVersion" in content:
        assert content["kind"]
        assert content["metadata"]["name"]
    else:
        expected = "'# Merge over RECIPE.yaml', '# values.yaml', '# PROGRAM: FILE' or 'apiVersion: ...'"
        assert re.fullmatch(r"# [\w. -]+: \S+", first), f"expected {expected} in the first line, found {first!r}"
