"""The recipes of ``examples/configs`` on their machines, as if their resources were served by DRA."""

from pathlib import Path

import pytest

from genplug.allocation.slices import SliceScope
from genplug.testing.api_server.validation import validate_slice
from tests.support.slices import PUBLISHED_RECIPES, build_recipe_slices

SCOPE = SliceScope("genplug.io", "node-a", "uid")


@pytest.mark.parametrize("name", PUBLISHED_RECIPES)
def test_slices_of_a_recipe_are_valid_dra_02(name: str, tmp_path: Path) -> None:
    slices = build_recipe_slices(name, tmp_path, SCOPE)
    assert slices
    assert [(document["metadata"]["name"], errors) for document in slices if (errors := validate_slice(document))] == []
