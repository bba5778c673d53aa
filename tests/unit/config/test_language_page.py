"""docs/reference/configuration.md says at its top what works; that is true, and leaves no key out."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from genplug.config.diagnostics import Diagnostics
from genplug.config.schema import schema_text
from genplug.config.yaml_tree import MapNode, parse_document, to_python
from genplug.spec.names import KNOWN_ATTRIBUTES
from tests.support.configs import problems

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"
TEXT = PAGE.read_text()
VERSION = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
SCHEMA: Mapping[str, Any] = json.loads(schema_text())


def rows(first_heading: str) -> list[list[str]]:
    """Return the rows of the table whose first column is called so."""
    lines = TEXT.partition(f"\n| {first_heading} |")[2].split("\n")[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def configuration(example: str) -> str:
    """Return a whole configuration of a table's example: some keys of it, or some of a resource with devices."""
    keys = parse_document(example, "example", Diagnostics())
    assert isinstance(keys, MapNode), example
    content: Any = to_python(keys)
    if not content.keys() <= {"defaults", "resources"}:
        content = {"resources": {"a.io/x": {"devices": [{"glob": "/dev/x*"}]} | content}}
    return json.dumps(VERSION | {"resources": {}} | content)


def keys_of(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the keys of a resource as the page writes them, down to what the tables speak of."""
    if "allOf" in schema:
        schema = schema["allOf"][0]
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if "items" in schema:
        yield from keys_of(schema["items"], f"{path}[]")
        return
    for key, inner in schema.get("properties", {}).items():
        dotted = f"{path}.{key}" if path else key
        yield dotted
        if dotted in {"devices", "share", "allocate", "preferredAllocation", "health"}:
            yield from keys_of(inner, dotted)


WORKS = rows("works")


@pytest.mark.parametrize("row", WORKS, ids=[row[0] for row in WORKS])
def test_what_is_said_to_work_is_taken(row: list[str]) -> None:
    (example,) = quoted(row[1])
    assert problems(configuration(example)) == ()


def test_every_key_of_a_resource_stands_in_the_table() -> None:
    told = {word for row in WORKS for word in quoted(row[0])}
    parts = {key.partition(".")[0].removesuffix("[]") for key in told}
    assert [key for key in keys_of(SCHEMA["definitions"]["resource"]) if key not in told | parts] == []


ATTRIBUTES = [name for row in rows("attribute") for name in quoted(row[0])]


@pytest.mark.parametrize("name", [re.sub("<.*>", "x", one) for one in ATTRIBUTES])
def test_an_attribute_of_the_page_selects_and_names(name: str) -> None:
    assert problems(configuration(f"devices: [{{glob: /dev/x*, where: {{{name}: x}}, id: '${{{name}}}'}}]")) == ()


def test_every_attribute_of_the_language_stands_on_the_page() -> None:
    assert set(KNOWN_ATTRIBUTES) < set(ATTRIBUTES)


def test_the_links_lead_somewhere() -> None:
    links = [one for one in re.findall(r"]\(([^)]+)\)", TEXT) if "://" not in one]
    assert links
    for link in links:
        file, _, heading = link.partition("#")
        target = (PAGE.parent / file).resolve() if file else PAGE
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]


def test_the_examples_of_the_page_that_are_whole_are_read_without_a_mistake() -> None:
    (whole,) = (one for one in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "kind: DevicePluginConfig" in one)
    assert problems(whole) == ()
