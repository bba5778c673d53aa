"""The recipes of ``examples/configs``, and the machines and expectations of ``tests/recipes``."""

from pathlib import Path
from typing import Any

import yaml

from genplug.config.load import load
from genplug.spec.model import Config
from tests.support.pages import ROOT

CONFIGS = ROOT / "examples" / "configs"
POLICIES = ROOT / "examples" / "policies"
DATA = ROOT / "tests" / "recipes"
RECIPES = sorted(path.stem for path in CONFIGS.iterdir())


def config_path(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"


def policy_path(name: str) -> Path | None:
    """Return the policy of a recipe; None if the default policy allows the recipe."""
    path = POLICIES / f"{name}.yaml"
    return path if path.exists() else None


def load_recipe(name: str) -> Config:
    return load((config_path(name),), policy=policy_path(name)).config


def read_expectation(name: str) -> dict[str, Any]:
    """Return what containers get on the recipe's machine, and the reasons of excluded paths."""
    return dict(yaml.safe_load((DATA / "expected" / f"{name}.yaml").read_text()))
