"""The examples of JSON output fit the JSON Schemas that the page is made of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from genplug.cli.main import main
from tests.support.configs import CONFIG_HEADER
from tests.support.outputs import KINDS, SCHEMAS, check_output
from tests.support.pages import code_blocks, read_page, table_rows

EXAMPLES = [json.loads(block) for block in code_blocks(read_page("status"), "json")]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema of an object with named keys."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["kind"]))
def test_example_fits_its_schema(example: dict[str, Any]) -> None:
    check_output(example)


def test_page_has_an_example_of_each_kind() -> None:
    assert [example["kind"] for example in EXAMPLES] == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_schema_is_closed_and_describes_every_key(kind: str) -> None:
    Draft7Validator.check_schema(SCHEMAS[kind])
    for schema in objects(SCHEMAS[kind]):
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= set(schema["properties"])
        assert [
            key for key, value in schema["properties"].items() if not value.get("description", "").endswith(".")
        ] == []


def test_tables_list_every_key_of_an_example() -> None:
    tables = read_page("status").split("\n## ")[1:]
    for example, table in zip(EXAMPLES, tables, strict=True):
        listed = {row[0].strip("`") for row in table_rows(table, "Key")}
        # These objects have the same keys as others; a variable has the name that the operator chooses.
        same = {".callWorkers.": ".readWorkers.", "[].new.": "[].old.", "pools[].agents.": "agents."}
        keys = set(paths(example))
        for path, other in same.items():
            keys = {key.replace(path, other) for key in keys}
        # Configurations and policies have schemas of their own.
        keys = {path for path in keys if not path.startswith(("configuration.", "policy."))}
        assert keys - {"containers[].envs.PORTS"} <= listed


def paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")
    if isinstance(value, dict):
        for key, inner in value.items():
            dotted = f"{path}.{key}" if path else key
            yield dotted
            yield from paths(inner, dotted)


def test_validation_that_the_command_prints_fits_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.yaml").write_text(f"{CONFIG_HEADER}resources: {{}}\n")
    (tmp_path / "bad.yaml").write_text(f"{CONFIG_HEADER}resources: {{a.io/x: {{devces: []}}}}\nresources: {{}}\n")
    for name, code in {"good": 0, "bad": 78}.items():
        assert main(["validate", str(tmp_path / f"{name}.yaml"), "-o", "json"]) == code
        check_output(json.loads(capsys.readouterr().out))
