"""The resources of the recipes that ship with genplug, as a start for hardware whose plugin has no selectors."""

from typing import Any, cast

from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import parse_document, to_python
from genplug.convert.conversion import Body
from genplug.recipes.catalog import shipped_recipes


def read_recipe(kind: str) -> dict[str, Body]:
    """Return the resources of a recipe by name; each call returns new values."""
    tree = parse_document(shipped_recipes()[kind].text, f"{kind}.yaml", Diagnostics())
    document = cast("dict[str, Any]", to_python(tree)) if tree is not None else {}
    resources: dict[str, Body] = document["resources"]
    for body in resources.values():
        for source in body["devices"]:
            for key in ("nodes", "with"):
                if key in source:
                    source[key] = [_simplify_node(node) for node in source[key]]
    return resources


def _simplify_node(node: Any) -> Any:  # noqa: ANN401 - a path, or a mapping with a path
    return node["path"] if isinstance(node, dict) and node.keys() == {"path"} else node
