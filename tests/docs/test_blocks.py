"""Every block of the documentation is checked by its language, or a marker in the source names the reason."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from genplug.cli.main import COMMANDS
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy
from genplug.config.schema import schema_text
from genplug.config.yaml_tree import parse_document, to_python
from genplug.hardware.attributes import KNOWN_ATTRIBUTES
from genplug.spec.globs import Glob
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules
from tests.docs.blocks import ROOT, Block, all_blocks

CHECKED = {"yaml", "json", "python", "sh", "console", "toml"}
UNCHECKED = {"text", "promql", "ini"}
"""Languages without examples that could be wrong: output, queries, units."""

HEADER = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
EVERYTHING = Policy(
    allow=(Glob.parse("/**"),),
    block=True,
    writable=(Glob.parse("/**"),),
    programs=(Glob.parse("/**"),),
    cdi=("*",),
    read=parse_read_rules(("/**",)),
    unix_sockets=(Glob.parse("/**"),),
    annotations=("*",),
    open_probe=True,
)
"""A policy under which the examples of the configuration are valid; the pages say which of them need a policy."""

SCHEMA: Mapping[str, Any] = json.loads(schema_text())
CHART = ROOT / "deploy/helm/genplug"
CHART_DEFAULTS: Mapping[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
CHART_SCHEMA: Mapping[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def keys_of(definition: str) -> set[str]:
    """Return the keys of a definition in the schema of the configuration."""
    schema = SCHEMA["definitions"][definition]
    parts = schema.get("allOf", [schema])
    return {key for part in parts for key in part.get("properties", {})}


def cases(*languages: str) -> list[Any]:
    return [pytest.param(block, id=block.location) for block in all_blocks(*languages)]


def is_directive(block: Block) -> bool:
    return block.language.startswith("{")


def test_every_block_has_a_known_language() -> None:
    unknown = [
        f"{block.location}: {block.language or 'no language'}"
        for block in all_blocks()
        if block.language not in CHECKED | UNCHECKED and not is_directive(block)
    ]
    assert unknown == []


@pytest.mark.parametrize("block", cases("json", "python", "toml", "yaml"))
def test_block_is_valid(block: Block) -> None:
    if block.not_checked:
        return
    match block.language:
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "python":
            compile(block.text, block.location, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case _ if block.invalid:
            with pytest.raises(ConfigInvalidError) as found:
                check_yaml(block.text, block.location)
            assert [diagnostic.code.value for diagnostic in found.value.diagnostics] == block.invalid.split(", ")
        case _:
            check_yaml(block.text, block.location)


def check_yaml(text: str, location: str) -> None:
    """Check a configuration, a policy, values of the chart, Kubernetes manifests, or a part of a configuration.

    Raises:
        ConfigInvalidError: the configuration or the policy is invalid.
    """
    for content in yaml.load_all(text, Loader=yaml.BaseLoader):
        if isinstance(content, list):
            check_configuration(resource_with({"health": {"probes": parsed(text)}}), location)
        elif content.get("kind") == "DevicePluginConfig":
            load_text(text, location, EVERYTHING)
        elif content.get("kind") == "DevicePluginPolicy":
            decode_policy(ConfigFile(location, text))
        elif "apiVersion" in content:
            assert {"apiVersion", "kind"} <= content.keys(), location
            assert content.get("metadata", {}).get("name"), location
        elif content.keys() <= {"defaults", "resources"}:
            check_configuration(parsed(text), location)
        elif content.keys() <= CHART_DEFAULTS.keys():
            check_chart_values(yaml.safe_load(text), location)
        elif content.keys() <= keys_of("resource"):
            check_configuration(resource_with(parsed(text)), location)
        elif content.keys() <= keys_of("source"):
            check_configuration(resource_with({"devices": [{"glob": "/dev/x*"} | parsed(text)]}), location)
        else:
            pytest.fail(
                f"{location}: expected a configuration, a policy, values of the chart, a manifest or a part of a "
                f"configuration, found the keys {', '.join(content)}; if it is none of these, put "
                "'<!-- not-checked: REASON -->' above it"
            )


def resource_with(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose only resource has these keys."""
    return {"resources": {"example.com/x": {"devices": [{"glob": "/dev/x*"}], **keys}}}


def check_configuration(content: Mapping[str, Any], location: str) -> None:
    """Load a part of a configuration: devices and attributes that the part does not define are defined for it."""
    text = json.dumps(content)
    used = {name.partition("|")[0] for name in re.findall(r"(?<!\$)\$\{([\w.|:-]+)", text)}
    for resource in filter(None, content.get("resources", {}).values()):
        for source in resource.setdefault("devices", [{"glob": "/dev/x*"}]):
            defined = source.setdefault("attributes", {})
            for name in used - set(KNOWN_ATTRIBUTES) - {"slice"}:
                if "." not in name:
                    defined.setdefault(name, {"path": f"/sys/{name}"})
    load_text(json.dumps({**HEADER, "resources": {}, **content}), location, EVERYTHING)


def parsed(text: str) -> Any:
    """Return the values of a YAML text by the rules of the configuration, where ``0403`` is a string."""
    diagnostics = Diagnostics()
    tree = parse_document(text, "block", diagnostics)
    assert tree is not None, diagnostics.found
    return to_python(tree)


def check_chart_values(values: Mapping[str, Any], location: str) -> None:
    """Check values of the chart against its schema, and their configurations with the loader."""
    jsonschema.validate(merge_values(CHART_DEFAULTS, values), CHART_SCHEMA)
    for pool in ({}, *values.get("pools", {}).values()):
        content = merge_values(values.get("config", {}), (pool or {}).get("config", {}))
        resources = {name: keys for name, keys in content.get("resources", {}).items() if keys is not None}
        text = json.dumps(HEADER | {"defaults": content.get("defaults", {}), "resources": resources})
        load_text(text, location, EVERYTHING)


def merge_values(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values as helm does: maps by key, other values replaced, null removes a key of the base."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge_values(merged[key], value)
        elif value is None and key in merged:
            del merged[key]
        else:
            merged[key] = value
    return merged


@pytest.mark.parametrize("block", cases("sh", "console"))
def test_shell_block_is_valid(block: Block) -> None:
    text = block.text if block.language == "sh" else "".join(re.findall(r"^\$ (.*\n)", block.text, re.MULTILINE))
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    for command, *arguments in genplug_commands(text):
        assert command in {*COMMANDS, "--help", "--version"}, f"{block.location}: genplug {command}"
        if command in COMMANDS:
            parser = ArgumentParser(prog=f"{block.location}: genplug {command}")
            importlib.import_module(f"genplug.cli.{command}").configure(parser)
            parser.parse_args(arguments)


def genplug_commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each genplug command in a shell script."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        for at, word in enumerate(words):
            is_command = at == 0 or words[at - 1] in {"&&", "||", "|", ";", "sudo", "--", "time"}
            if is_command and Path(word).name == "genplug":
                arguments = words[at + 1 :]
                end = next((n for n, part in enumerate(arguments) if re.fullmatch(r"[|&;<>()]+", part)), len(arguments))
                yield arguments[:end]
