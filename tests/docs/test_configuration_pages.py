"""The pages about configuration and policy document every key, and their examples are valid."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy, load_policy
from genplug.config.schema import POLICY_SCHEMA, schema_text
from genplug.hardware.attributes import KNOWN_ATTRIBUTES
from genplug.health.probes import PROBES
from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.read_rules import parse_read_rules
from genplug.spec.template import FILTERS
from tests.support.configs import find_diagnostics
from tests.support.pages import code_blocks, headings, inline_code, read_page, table_rows

CONFIGURATION, HEALTH, POLICY = (read_page(name) for name in ("configuration", "health", "policy"))
VERSION = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
DEVICES = [{"glob": "/dev/x*"}]
SCHEMA: Mapping[str, Any] = json.loads(schema_text())
ALLOWING = Policy(
    mounts=(Glob.parse("/**"),),
    writable=(Glob.parse("/**"),),
    programs=(Glob.parse("/**"),),
    cdi=("*",),
    read=parse_read_rules(("/**",)),
    unix_sockets=(Glob.parse("/**"),),
    annotations=("*",),
    open_probe=True,
)


def keys_of(schema: Mapping[str, Any], root: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of every key of a schema, those of definitions that several keys share for each of them."""
    for reference in (*schema.get("allOf", ()), *([schema] if "$ref" in schema else ())):
        yield from keys_of(root["definitions"][reference["$ref"].rpartition("/")[2]], root, path)
    if "items" in schema:
        yield from keys_of(schema["items"], root, f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys_of(schema["additionalProperties"], root, f"{path}.*")
    for key, inner in schema.get("properties", {}).items():
        dotted = f"{path}.{key}" if path else key
        yield dotted
        yield from keys_of(inner, root, dotted)


def key_headings(page: str) -> list[str]:
    return [heading.strip("`") for heading in headings(page, 3) if heading.startswith("`")]


def test_pages_document_every_key_of_the_configuration_and_no_other_key() -> None:
    resource = set(keys_of(SCHEMA["definitions"]["resource"], SCHEMA))
    # Companions have the keys of device nodes; the page refers to those.
    # Annotations have the keys of environment variables in the same way.
    documented_once = {key for key in resource if not key.startswith(("devices[].with[]", "allocate.annotations.*"))}
    documented = key_headings(CONFIGURATION) + key_headings(HEALTH)
    assert sorted(documented) == sorted({*SCHEMA["properties"], *documented_once})


def test_page_documents_every_key_of_the_policy_and_no_other_key() -> None:
    schema = json.loads(schema_text(POLICY_SCHEMA))
    assert sorted(key_headings(POLICY)) == sorted(keys_of(schema, schema))


def configuration(example: str) -> str:
    """Return the configuration of an example: a whole one, some keys of a resource, or a list of probes."""
    content = yaml.safe_load(example)
    if "apiVersion" in content:
        return example
    keys = {"health": {"probes": content}} if isinstance(content, list) else content
    return json.dumps(VERSION | {"resources": {"a.io/x": {"devices": DEVICES} | keys}})


EXAMPLES = [
    example for page in (CONFIGURATION, HEALTH) for example in code_blocks(page, "yaml") if "uuid" not in example
]
"""Those that use the custom attribute of another example are read together with it."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_valid(example: str) -> None:
    load_text(configuration(example), "example.yaml", ALLOWING)


def test_example_of_allocation_is_valid_with_the_example_of_custom_attributes() -> None:
    parts = [example for example in code_blocks(CONFIGURATION, "yaml") if example not in EXAMPLES]
    assert len(parts) == 2
    load_text(configuration("".join(parts)), "example.yaml", ALLOWING)


def test_policy_that_the_page_calls_default_is_the_default_policy() -> None:
    minimal, default, *_ = (decode_policy(ConfigFile("p.yaml", text)) for text in code_blocks(POLICY, "yaml"))
    assert replace(default, file="") == DEFAULT_POLICY == load_policy(None).policy
    assert minimal.allows_mounts


def test_page_lists_every_kind_of_probe() -> None:
    (sentence,) = re.findall(r"^A probe has exactly one of the keys (.*)\.$", HEALTH, re.MULTILINE)
    assert sorted(inline_code(sentence)) == sorted(PROBES)


ATTRIBUTES = [
    name
    for table in CONFIGURATION.split("\n| Attribute |")[1:]
    for row in table_rows(f"\n| Attribute |{table}", "Attribute")
    for name in inline_code(row[0])
]


@pytest.mark.parametrize("name", [re.sub("<.*>", "x", name) for name in ATTRIBUTES])
def test_attribute_on_the_page_can_be_used_in_conditions_and_templates(name: str) -> None:
    source = {"glob": "/dev/x*", "where": {name: "x"}, "id": f"${{{name}}}"}
    assert find_diagnostics(json.dumps(VERSION | {"resources": {"a.io/x": {"devices": [source]}}})) == ()


def test_page_lists_every_attribute_once() -> None:
    assert len(set(ATTRIBUTES)) == len(ATTRIBUTES)
    assert {name for name in ATTRIBUTES if "<" not in name} == set(KNOWN_ATTRIBUTES)
    assert [name for name in ATTRIBUTES if "<" in name] == ["attr.<file>", "env.<NAME>"]


def test_page_lists_every_template_filter() -> None:
    listed = [name.partition(":")[0] for row in table_rows(CONFIGURATION, "Filter") for name in inline_code(row[0])]
    assert sorted(listed) == sorted(FILTERS)
