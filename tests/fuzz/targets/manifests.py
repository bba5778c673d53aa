"""ConfigMap manifests, values files of the chart, and files of other device plugins."""

import json
from pathlib import Path

from genplug.cli.convert import build_document
from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.inputs import InputRequest, find_inputs
from genplug.config.load import load_text
from genplug.config.schema import POLICY_SCHEMA, SCHEMA, VALUES_SCHEMA
from genplug.convert.formats import FORMATS, convert_text
from genplug.convert.yaml_writer import format_conversion, format_document
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.fuzz.documents import document_mutator, parse_text
from tests.fuzz.parts import join_parts, parts_mutator, split_parts
from tests.fuzz.scratch import scratch_directory
from tests.fuzz.target import Target
from tests.fuzz.targets.configuration import check_diagnostics, decode_policy_text, list_configurations, read_text
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER
from tests.support.pages import ROOT

_CONVERT_FIXTURES = ROOT / "tests" / "unit" / "convert" / "fixtures"
_CHART = ROOT / "deploy" / "helm" / "genplug"
_CONFIG = f"{CONFIG_HEADER}resources:\n  example.com/x: {{devices: [{{glob: /dev/x*}}]}}\n"


def _write(content: bytes, name: str) -> str:
    path: Path = scratch_directory("manifests") / name
    path.write_bytes(content)
    return str(path)


def _check(request: InputRequest) -> None:
    """Load everything that the arguments of a command name."""
    inputs = find_inputs(request)
    check_diagnostics(inputs.diagnostics)
    for policy in inputs.policies[:20]:
        try:
            check_diagnostics(policy.load().warnings)
        except ConfigInvalidError as error:
            check_diagnostics(error.diagnostics)
    for configuration in inputs.configurations[:20]:
        try:
            check_diagnostics(configuration.load().warnings)
        except ConfigInvalidError as error:
            check_diagnostics(error.diagnostics)


def run_manifest(content: bytes) -> None:
    _check(InputRequest((_write(content, "m.yaml"),), has_all_nodes=True))


def run_values(content: bytes) -> None:
    """Read one or two values files."""
    first, second = split_parts(content, 2)
    files = [_write(first, "values.yaml"), *([_write(second, "more.yaml")] if second else [])]
    _check(InputRequest(values=files, has_all_nodes=True))


def run_conversion(content: bytes) -> None:
    """Convert a file; the first byte can name its format. The result must be a valid configuration."""
    names = (None, *FORMATS)
    number = content[0] - ord("0") if content[:1].isdigit() else 0
    text = read_text(content[1:] if content[:1].isdigit() else content, "other.yaml")
    if text is None:
        return
    try:
        conversion = convert_text(text.text, text.name, names[number % len(names)])
    except ConfigInvalidError as error:
        assert error.diagnostics
        check_diagnostics(error.diagnostics)
        return
    json.dumps(build_document(conversion))
    policy: Policy | None = DEFAULT_POLICY
    if conversion.policy is not None:
        policy = decode_policy_text(format_document(conversion.policy).encode())
        assert policy is not None
    if conversion.resources:
        load_text(format_conversion(conversion), "converted.yaml", policy)


def _config_map(name: str, key: str, text: str) -> str:
    block = "".join(f"    {line}\n" for line in text.split("\n"))
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  {key}: |\n{block}"


def list_manifests() -> list[bytes]:
    policy = f"{POLICY_HEADER}devices: {{allow: [/dev/x*]}}\n"
    single = _config_map("genplug-config", "genplug.yaml", _CONFIG)
    pair = f"{single}---\n{_config_map('genplug-policy', 'policy.yaml', policy)}"
    node = _config_map("c", "node.a.yaml", "resources: {example.com/x: {share: {replicas: 2}}}")
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"genplug.yaml": _CONFIG}}]
    listed = json.dumps({"apiVersion": "v1", "kind": "ConfigMapList", "items": items})
    daemon = "---\nkind: DaemonSet\nspec: {template: {spec: {volumes: [{configMap: {name: genplug-config}}]}}}\n"
    return [
        text.encode() for text in (single, pair, f"{pair}{daemon}", f"{single}---\n{node}", listed, policy, _CONFIG)
    ]


def list_values() -> list[bytes]:
    files = [path.read_bytes() for path in sorted((_CHART / "ci").iterdir())]
    numbers = b"config: {resources: {e.io/x: {devices: [{glob: /dev/x*}], tokens: 0x10, replicas: 0b1}}}"
    return [*files, numbers, join_parts(files[0], files[-1]), b"{}"]


def list_sources() -> list[bytes]:
    return [*(path.read_bytes() for path in sorted(_CONVERT_FIXTURES.iterdir())), *list_configurations()[:2]]


_WORDS = (
    *(
        "apiVersion: v1\n",
        "kind: ConfigMap\n",
        "kind: List\n",
        "items:\n- ",
        "data:\n  ",
        "genplug.yaml: |\n    ",
        "---\n",
    ),
    *("config:\n  ", "pools:\n  ", "resources: ", "<<: *a", "&a ", "!!binary ", "existingConfigMap: ", "nodes:\n"),
)
_MANIFESTS = [document for content in list_manifests() for document in parse_text(content.decode())]
_SOURCES = [document for content in list_sources() for document in parse_text(content.decode())]

TARGETS = (
    Target(
        "manifest",
        "ConfigMap manifests",
        run_manifest,
        list_manifests,
        words=_WORDS,
        max_bytes=8192,
        mutate=document_mutator((SCHEMA, POLICY_SCHEMA), values=_MANIFESTS),
        share=2,
        short_runs=300,
    ),
    Target(
        "chart-values",
        "values files of the chart",
        run_values,
        list_values,
        words=_WORDS,
        max_bytes=16384,
        mutate=parts_mutator(document_mutator((VALUES_SCHEMA,)), document_mutator((VALUES_SCHEMA,))),
        share=2,
        short_runs=200,
    ),
    Target(
        "conversion",
        "files of other device plugins",
        run_conversion,
        list_sources,
        words=_WORDS,
        max_bytes=8192,
        mutate=document_mutator(values=_SOURCES),
        share=2,
        short_runs=300,
    ),
)
