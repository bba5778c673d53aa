"""Make what follows from the chart's sources: the schema, the README's table, Artifact Hub's notes, the plain manifest.

``python deploy/helm/generate.py`` writes them, ``--check`` fails when a committed file differs. Needs a helm, either
major: $GENPLUG_HELM, else helm4 in $GENPLUG_TOOLS.
"""
# ruff: noqa: INP001 - a script beside what it makes, no package

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/genplug"
MANIFEST = ROOT / "deploy/manifest"
TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))
HELM = os.environ.get("GENPLUG_HELM", str(TOOLS / "helm4"))

SCHEMA_SOURCE = ROOT / "deploy/helm/values.schema.source.json"
TABLE = re.compile(r"(?<=<!-- By generate\.py from here on\. -->\n).*?(?=<!-- To here\. -->)", re.DOTALL)
NOTES = re.compile(r"(?<=# From here on by \.\./generate\.py, from values\.yaml and CHANGELOG\.md\.\n).*", re.DOTALL)
KINDS = ("changed", "deprecated", "removed", "fixed", "security")
"""Artifact Hub's kinds, by the first word of a line of CHANGELOG.md; with any other word something was added."""

MANIFEST_HEAD = """\
# genplug without Helm: kubectl apply -f genplug.yaml
#
# One resource on every node; put yours in the ConfigMap. Made by deploy/helm/generate.py from the chart and
# deploy/manifest/values.yaml: edit those, not this.
"""
FOR_HELM = re.compile(r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE)


def main() -> int:
    """Write the files, or say which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    check = parser.parse_args().check
    stale = []
    for make in (values_schema, notes, readme, manifests):
        for path, text in make().items():
            if path.exists() and path.read_text() == text:
                continue
            stale.append(path)
            if not check:
                # The manifest is rendered with what was written before it.
                path.write_text(text)
    for path in stale:
        print(path.relative_to(ROOT), "differs: run python deploy/helm/generate.py" if check else "written")
    return 1 if check and stale else 0


def values_schema() -> dict[Path, str]:
    """Put the schemas of the configuration and the policy into the values' schema."""
    return {CHART / "values.schema.json": json.dumps(Inlining().schema, indent=1) + "\n"}


class Inlining:
    """The values' schema, with what it names of other files among its definitions.

    Helm merges maps over several values files and pools, so in a map that is reached through maps only, nothing is
    required yet and null deletes; what is in a list comes whole, and stays as strict as the language.
    """

    def __init__(self) -> None:
        self._found: dict[str, Schema] = {}
        self._files: dict[str, Schema] = {}
        self.schema = self._copied(json.loads(SCHEMA_SOURCE.read_text()), self._outer)
        self.schema["definitions"] |= dict(sorted(self._found.items()))

    def _copied(self, value: Any, refer: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON
        if isinstance(value, dict):
            return {k: refer(v) if k == "$ref" else self._copied(v, refer) for k, v in value.items()}
        return [self._copied(one, refer) for one in value] if isinstance(value, list) else value

    def _outer(self, reference: str) -> str:
        file, _, pointer = reference.partition("#")
        return self._definition(file, pointer, merges=True) if file else reference

    def _definition(self, file: str, pointer: str, *, merges: bool) -> str:
        kind = "policy" if "policy" in file else "config"
        name = f"{kind}.{pointer.rpartition('/')[2]}" + (".merged" if merges else "")
        if name not in self._found:
            if file not in self._files:
                self._files[file] = json.loads((ROOT / "schemas" / file).read_text())
            part = self._files[file]
            for step in pointer.strip("/").split("/"):
                part = part[step]
            # Named before it is filled: a definition may name itself.
            self._found[name] = {}
            self._found[name] |= self._merged(part, file) if merges else self._strict(part, file)
        return f"#/definitions/{name}"

    def _strict(self, schema: Schema, file: str) -> Schema:
        copied = self._copied(schema, lambda ref: self._definition(file, ref.removeprefix("#"), merges=False))
        strict: Schema = _without_examples(copied)
        return strict

    def _merged(self, schema: Schema, file: str) -> Schema:
        result: Schema = {}
        for key, value in schema.items():
            match key:
                case "required" | "minProperties" | "examples":
                    continue
                case "$ref":
                    result[key] = self._definition(file, value.removeprefix("#"), merges=True)
                case "properties":
                    result[key] = {name: self._merged(one, file) for name, one in value.items()}
                case "additionalProperties" if isinstance(value, dict):
                    result[key] = self._merged(value, file)
                case "allOf":
                    result[key] = [self._merged(one, file) for one in value]
                case "type":
                    types = [value] if isinstance(value, str) else value
                    result[key] = [*types, *(["null"] if "null" not in types else [])]
                case "enum":
                    result[key] = [*value, None]
                case "items":
                    result[key] = self._strict(value, file)
                case _:
                    result[key] = value
        return result


def _without_examples(schema: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(schema, dict):
        # A list under this key is the keyword; a map would be a key of that name.
        kept = {k: v for k, v in schema.items() if k != "examples" or not isinstance(v, list)}
        return {key: _without_examples(value) for key, value in kept.items()}
    return [_without_examples(one) for one in schema] if isinstance(schema, list) else schema


def notes() -> dict[Path, str]:
    """Put what changed and which images are used into the chart's annotations."""
    path = CHART / "Chart.yaml"
    chart, values = yaml.safe_load(path.read_text()), yaml.safe_load((CHART / "values.yaml").read_text())
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    lines = [" ".join(entry.split()) for entry in re.findall(r"^- (.*(?:\n  .*)*)", newest, re.MULTILINE)]
    words = [line.split()[0].rstrip(":").lower() for line in lines]
    kinds = [word if word in KINDS else "added" for word in words]
    changes = [{"kind": kind, "description": line} for kind, line in zip(kinds, lines, strict=True)]
    images = [{"name": "genplug", "image": f"{values['image']['repository']}:{chart['appVersion']}"}]
    security = "security" in kinds
    text = f'  artifacthub.io/containsSecurityUpdates: "{str(security).lower()}"\n'
    for key, value in {"images": images, "changes": changes}.items():
        dumped = yaml.safe_dump(value, sort_keys=False, width=110, allow_unicode=True)
        text += f"  artifacthub.io/{key}: |\n" + "".join(f"    {line}\n" for line in dumped.splitlines())
    return {path: NOTES.sub(lambda _: text, path.read_text())}


def readme() -> dict[Path, str]:
    """Put the table of values into the chart's README."""
    path = CHART / "README.md"
    schema = json.loads(SCHEMA_SOURCE.read_text())
    rows = _rows(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "", schema["definitions"])
    table = "".join(f"| `{key}` | {default} | {text} |\n" for key, default, text in rows)
    return {path: TABLE.sub(lambda _: f"| value | default | meaning |\n|---|---|---|\n{table}", path.read_text())}


def _rows(schema: Schema, values: Schema, prefix: str, definitions: Schema) -> Iterator[tuple[str, str, str]]:
    for key, part in schema["properties"].items():
        text, inner = part["description"], _resolved(part, definitions)
        default = values.get(key, inner.get("default"))
        if isinstance(default, dict) and default and set(default) <= set(inner.get("properties", ())):
            yield from _rows(inner, default, f"{prefix}{key}.", definitions)
        elif key in values:
            written = json.dumps(default, ensure_ascii=False)
            yield f"{prefix}{key}", f"`{written}`" if default != "" else "empty", text
        if prefix + key == "pools":
            for name, one in definitions["pool"]["properties"].items():
                default = f"`{json.dumps(one['default'])}`" if "default" in one else ""
                yield f"pools.<pool>.{name}", default, one["description"]


def _resolved(part: Schema, definitions: Schema) -> Schema:
    for reference in part.get("allOf", ()):
        if reference["$ref"].startswith("#/definitions/"):
            return {**part, **definitions[reference["$ref"].rpartition("/")[2]]}
    return part


def manifests() -> dict[Path, str]:
    """Render the chart for those who have no Helm."""
    command = [HELM, "template", "genplug", str(CHART), "--namespace", "genplug", "--skip-tests"]
    rendered = subprocess.run(  # noqa: S603 - a fixed command
        [*command, "--values", str(MANIFEST / "values.yaml")], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    # The majors of helm differ in empty lines.
    documents = [text.strip() for text in FOR_HELM.sub("", rendered).split("---\n") if text.strip()]
    text = MANIFEST_HEAD + "".join(f"---\n{document}\n" for document in documents)
    return {MANIFEST / "genplug.yaml": text, ROOT / "deploy/kustomize/base/genplug.yaml": text}


if __name__ == "__main__":
    sys.exit(main())
