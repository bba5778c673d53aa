"""The policies of recipes, and one policy for several recipes.

A recipe that the default policy does not allow has a policy file. The policy of any other recipe follows from the
resource names and the device nodes in the recipe.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from glob import has_magic
from typing import Any

import yaml

from genplug.config.load import load_text
from genplug.config.schema import POLICY_SCHEMA, schema_text
from genplug.recipes.catalog import Recipe, recipe_directory
from genplug.spec.globs import Glob
from genplug.spec.model import Config, Resource
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.template import Template

_HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"}
_REFERENCE = re.compile(r"\$\{[^}]*\}")
_DEV = "/dev/"


def find_policy_text(recipe: Recipe) -> str:
    """Return the text of the policy file of a recipe; empty if the default policy allows the recipe."""
    path = recipe_directory("policies") / f"{recipe.kind}.yaml"
    return path.read_text("utf-8") if path.is_file() else ""


def make_policy(recipe: Recipe) -> dict[str, Any]:
    """Return the policy of a recipe as a document: that of its policy file, or what its resources need."""
    if text := find_policy_text(recipe):
        return dict(yaml.safe_load(text))
    config = load_text(recipe.text, f"{recipe.kind}.yaml", None)
    return {
        **_HEADER,
        "resources": sorted({glob for resource in config.resources.values() for glob in _list_names(resource)}),
        "devices": {"allow": _simplify(_list_devices(config))},
    }


def merge_policies(policies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a policy that allows what at least one of several policies allows.

    A list that a policy does not have is the default list of the schema.
    """
    merged: dict[str, Any] = dict(_HEADER)
    documents = list(policies)
    for key, schema in json.loads(schema_text(POLICY_SCHEMA))["properties"].items():
        parts = [document[key] for document in documents if key in document]
        if not parts or key in _HEADER:
            continue
        if "properties" not in schema:
            merged[key] = _merge_values(schema, [document.get(key) for document in documents])
            continue
        inner = {
            name: _merge_values(option, [document.get(key, {}).get(name) for document in documents])
            for name, option in schema["properties"].items()
            if any(name in part for part in parts)
        }
        merged[key] = inner
    return merged


def _merge_values(schema: Mapping[str, Any], values: Iterable[Any]) -> Any:  # noqa: ANN401 - a value of the schema
    complete = [schema.get("default") if value is None else value for value in values]
    if schema["type"] == "boolean":
        return any(complete)
    items = [item for value in complete for item in value or ()]
    return _simplify(items) if all(isinstance(item, str) for item in items) else sorted(set(items))


def _simplify(globs: Iterable[str]) -> list[str]:
    """Return globs in natural order, without those that ``/dev/**`` or ``*`` covers and paths that another covers."""
    found = set(globs)
    if "*" in found:
        return ["*"]
    if "/dev/**" in found:
        found = {glob for glob in found if not glob.startswith(_DEV)} | {"/dev/**"}
    for path in [text for text in found if text.startswith("/") and not has_magic(text)]:
        if any(Glob.parse(other).matches(path) for other in found - {path} if other.startswith("/")):
            found.discard(path)
    return sorted(found, key=natural_sort_key)


def _list_names(resource: Resource) -> Iterator[str]:
    name = resource.name_template.text if resource.name_template is not None else resource.name
    yield from (_REFERENCE.sub("*", text) for text in (name, *resource.aliases))


def _list_devices(config: Config) -> Iterator[str]:
    """Yield globs over the paths of all device nodes; a policy is compared with resolved paths."""
    for glob in _list_node_globs(config):
        # The links of udev lead to other names: /dev/serial/by-id/* to /dev/ttyUSB*.
        yield f"{_DEV}**" if "/by-" in glob else glob


def _list_node_globs(config: Config) -> Iterator[str]:
    for resource in config.resources.values():
        for source in resource.sources:
            if not source.nodes:
                yield from (glob.text for glob in source.globs if glob.text.startswith(_DEV))
            for node in (*source.nodes, *source.companions):
                yield from _node_globs(node.path, [glob.text for glob in source.globs])


def _node_globs(path: Template, globs: Iterable[str]) -> Iterator[str]:
    """Return globs that match what the path of a node renders to; ``globs`` are those of its source."""
    if path.text == "${path}":
        yield from globs
    elif "${name}" in path.text:
        # The name of a candidate is matched by the last part of the glob.
        yield from (_REFERENCE.sub("*", path.text.replace("${name}", glob.rpartition("/")[2])) for glob in globs)
    elif path.text.startswith(f"{_DEV}${{"):
        # The value of an attribute may have several parts: bus/usb/001/004.
        yield f"{_DEV}**"
    else:
        yield _REFERENCE.sub("*", path.text)
