"""The policy: its file, its schema, and configurations that are loaded or restricted under it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, format_diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load, load_text
from genplug.config.manifest import find_manifests
from genplug.config.policy import LoadedPolicy, decode_policy, is_policy, load_policy
from genplug.config.schema import POLICY_SCHEMA, schema_text
from genplug.config.schema_fast_path import check_keywords
from genplug.hardware.denied_node_table import EXPOSES_HOST
from genplug.spec.diagnostic import DiagnosticCode, ErrorCode, WarningCode
from genplug.spec.globs import Glob
from genplug.spec.limits import MAX_DIAGNOSTICS
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.read_rules import ReadRules
from tests.support.configs import (
    CONFIG_HEADER,
    DEVICES,
    NAME,
    POLICY_HEADER,
    collect_diagnostics,
    read_policy,
    render_config,
)
from tests.unit.config.test_schema import find_keys

SCHEMA = json.loads(schema_text(POLICY_SCHEMA))
KEYS = dict(find_keys(SCHEMA))


def describe_errors(text: str) -> str:
    """Return the errors of a policy as an operator reads them."""
    return format_diagnostics(collect_diagnostics(lambda: decode_policy(ConfigFile("policy.yaml", text))))


def locate_diagnostics(text: str) -> list[tuple[str, DiagnosticCode]]:
    """Return the lines and columns of the errors of a policy, and their codes."""
    found = collect_diagnostics(lambda: decode_policy(ConfigFile("policy.yaml", text)))
    return [(str(diagnostic.location).partition(":")[2], diagnostic.code) for diagnostic in found]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "resources: null\ndevices: null\nmounts:\nexec: null\nopenProbe: null",
        "devices: {}\nmounts: {}\nexec: {allow: null}",
        "devices: {allow: null, deny: null, block: null}",
        "cdi:",
        "cdi: {allow: null}",
    ],
)
def test_omitted_or_null_key_has_its_default(body: str) -> None:
    found = read_policy(body)
    assert found.file == "policy.yaml"
    assert found == Policy("policy.yaml")


def test_each_key_of_a_policy_is_decoded() -> None:
    found = read_policy(
        "resources: [a.io/*, b.io/*]\n"
        "devices: {allow: [/dev/a], deny: [/dev/b], block: true, unsafe: [/dev/uinput]}\n"
        "mounts: {allow: [/c], writable: [/d], targets: [/e]}\n"
        "exec: {allow: [/f]}\n"
        "read: {allow: [/g], env: [H, I_*]}\n"
        "http: {allow: ['10.0.0.0/8', 'exporter.example:9400']}\n"
        "unixSocket: {allow: [/j]}\n"
        "cdi: {allow: [k.io/l=m]}\n"
        "annotations: {allow: [n.io/*]}\n"
        "env: {allow: [O]}\n"
        "supplementalGroups: {allow: [44, 109]}\n"
        "openProbe: true\n"
    )
    assert found == Policy(
        file="policy.yaml",
        resources=("a.io/*", "b.io/*"),
        allow=(Glob.parse("/dev/a"),),
        deny=(Glob.parse("/dev/b"),),
        block=True,
        unsafe=("/dev/uinput",),
        mounts=(Glob.parse("/c"),),
        writable=(Glob.parse("/d"),),
        mount_targets=(Glob.parse("/e"),),
        programs=(Glob.parse("/f"),),
        read=ReadRules((Glob.parse("/g"),)),
        read_env=("H", "I_*"),
        http=("10.0.0.0/8", "exporter.example:9400"),
        unix_sockets=(Glob.parse("/j"),),
        cdi=("k.io/l=m",),
        annotations=("n.io/*",),
        env=("O",),
        groups=(44, 109),
        open_probe=True,
    )


def test_default_policy_applies_without_a_file() -> None:
    assert load_policy(None) == LoadedPolicy(DEFAULT_POLICY)


def test_empty_list_allows_nothing() -> None:
    found = read_policy("resources: []\ndevices: {allow: []}\nexec: {allow: []}\ncdi: {allow: []}")
    errors = (
        found.resource_error("example.com/x"),
        found.device_error("/dev/x"),
        found.exec_error("/opt/x"),
        found.cdi_error("a.io/b=x"),
    )
    assert all(error.endswith("which allows nothing") for error in errors)


def test_all_errors_of_a_policy_are_reported_at_their_locations() -> None:
    text = POLICY_HEADER + (
        "resorces: [x]\n"
        "resources: [ok/*, 'a{b']\n"
        "devices: {allow: [dev/x], deny: ['/dev/[z-a]'], block: yes}\n"
        "mounts: {allow: /opt, writable: [/a/../b]}\n"
        "exec: {allow: [check]}\n"
        "cdi: {allow: [a.io/b=*, 'a.io/[b'], deny: []}\n"
        "read: {allow: [g], env: ['{']}\n"
        "http: {allow: [127.0.0.1, 'http://x/', 'a:0', 7, {}]}\n"
        "unixSocket: {allow: [run/x]}\n"
        "supplementalGroups: {allow: [video]}\n"
    )
    found = collect_diagnostics(lambda: decode_policy(ConfigFile("policy.yaml", text)))
    assert [(error.location.line, error.location.column, error.code, error.key_path) for error in found] == [
        (3, 1, ErrorCode.UNKNOWN_KEY, ""),
        (4, 21, ErrorCode.GLOB, "resources"),
        (5, 19, ErrorCode.GLOB, "devices.allow"),
        (5, 41, ErrorCode.GLOB, "devices.deny"),
        (5, 56, ErrorCode.WRONG_TYPE, "devices.block"),
        (6, 17, ErrorCode.WRONG_TYPE, "mounts.allow"),
        (6, 37, ErrorCode.GLOB, "mounts.writable"),
        (7, 16, ErrorCode.GLOB, "exec.allow"),
        (8, 31, ErrorCode.GLOB, "cdi.allow"),
        (8, 37, ErrorCode.UNKNOWN_KEY, "cdi"),
        (9, 16, ErrorCode.GLOB, "read.allow"),
        (9, 27, ErrorCode.GLOB, "read.env"),
        (10, 28, ErrorCode.WRONG_VALUE, "http.allow"),
        (10, 41, ErrorCode.WRONG_VALUE, "http.allow"),
        (10, 47, ErrorCode.WRONG_TYPE, "http.allow[3]"),
        (10, 50, ErrorCode.WRONG_TYPE, "http.allow[4]"),
        (11, 22, ErrorCode.GLOB, "unixSocket.allow"),
        (12, 30, ErrorCode.WRONG_TYPE, "supplementalGroups.allow[0]"),
    ]
    assert {error.location.file for error in found} == {"policy.yaml"}


def test_errors_of_a_policy_are_limited() -> None:
    entries = ", ".join(f"x{number}" for number in range(2 * MAX_DIAGNOSTICS))
    assert len(locate_diagnostics(f"{POLICY_HEADER}devices: {{allow: [{entries}]}}\n")) == MAX_DIAGNOSTICS + 1


def test_warnings_about_a_policy_are_limited() -> None:
    entries = ", ".join(f"/dev/x.*/{number}" for number in range(2 * MAX_DIAGNOSTICS))
    diagnostics = Diagnostics()
    decode_policy(ConfigFile("policy.yaml", f"{POLICY_HEADER}devices: {{allow: [{entries}]}}\n"), diagnostics)
    assert len(diagnostics.warnings) == MAX_DIAGNOSTICS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("1:1", ErrorCode.WRONG_TYPE)]),
        ("# nothing\n", [("1:1", ErrorCode.WRONG_TYPE)]),
        ("[]", [("1:1", ErrorCode.WRONG_TYPE)]),
        ("a: [", [("1:4", ErrorCode.SYNTAX)]),
        ("{}", [("1:1", ErrorCode.MISSING_KEY), ("1:1", ErrorCode.MISSING_KEY)]),
        (POLICY_HEADER + "openProbe: false\nopenProbe: true\n", [("4:1", ErrorCode.DUPLICATE_KEY)]),
        (POLICY_HEADER.replace("v1alpha1", "v2"), [("1:13", ErrorCode.WRONG_VERSION)]),
        (CONFIG_HEADER + "resources: {}\n", [("2:7", ErrorCode.WRONG_VERSION)]),
    ],
)
def test_invalid_policy_file_is_rejected(text: str, expected: list[tuple[str, ErrorCode]]) -> None:
    assert locate_diagnostics(text) == expected


NOT_A_MAPPING = """\
      = expected: a mapping with apiVersion, kind and what the policy allows
      = help: for the default policy, write apiVersion and kind only"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            CONFIG_HEADER + "resources: {}\n",
            """\
policy.yaml:2:7: error[GP005]: 'DevicePluginConfig' is not supported  [kind]
    2 | kind: DevicePluginConfig
      |       ^^^^^^^^^^^^^^^^^^
      = expected: DevicePluginPolicy
      = help: this is a configuration: pass it with --config""",
        ),
        (
            "\n  - x\n",
            f"""\
policy.yaml:2:3: error[GP008]: the top level is not a mapping
    2 |   - x
      |   ^
{NOT_A_MAPPING}""",
        ),
        ("", f"policy.yaml:1:1: error[GP008]: the top level is not a mapping\n{NOT_A_MAPPING}"),
        (
            "apiVersion: v1\nkind: Pod\n",
            """\
policy.yaml:2:7: error[GP005]: expected a configuration or policy of genplug, found a Kubernetes object of kind Pod
    2 | kind: Pod
      |       ^^^
      = help: genplug reads configurations (kind DevicePluginConfig), policies, and ConfigMaps that contain them""",
        ),
        (
            "{{- if .Values.x }}\nkind: b\n{{- end }}\n",
            """\
policy.yaml:1:1: error[GP005]: expected a configuration or policy of genplug, found a template of a Helm chart
    1 | {{- if .Values.x }}
      | ^
      = help: render it: helm template RELEASE CHART | genplug validate -""",
        ),
    ],
    ids=["configuration", "list", "empty", "object", "Helm template"],
)
def test_file_that_is_not_a_policy_gets_a_hint(text: str, expected: str) -> None:
    assert describe_errors(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (POLICY_HEADER, True),
        (CONFIG_HEADER + "# a DevicePluginPolicy limits it\n", False),
        ("kind: [DevicePluginPolicy]\n", False),
        ("- DevicePluginPolicy\n", False),
        ("kind: DevicePluginPolicy\na: [\n", False),
        ("a: [\n", False),
    ],
)
def test_file_with_the_kind_of_a_policy_is_a_policy(text: str, *, expected: bool) -> None:
    assert is_policy(text) is expected


def test_directories_of_an_invalid_policy_file_are_watched(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    for make, words in ((lambda: None, "no such file"), (lambda: file.write_text("a: ["), "error[GP002]")):
        make()
        with pytest.raises(ConfigInvalidError) as caught:
            load_policy(file)
        assert words in str(caught.value)
        assert caught.value.directories == {tmp_path}
    file.write_text(POLICY_HEADER)
    assert load_policy(file).directories == {tmp_path}


def test_directory_in_place_of_the_policy_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY_HEADER)
    assert format_diagnostics(collect_diagnostics(lambda: load_policy(tmp_path))) == (
        f"{tmp_path}:1:1: error[GP001]: expected a policy file, found a directory\n      = help: name the file: {file}"
    )


def test_policy_schema_is_valid_and_supported_by_the_fast_path() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert not check_keywords(SCHEMA)


@pytest.mark.parametrize(("path", "schema"), KEYS.items(), ids=KEYS)
def test_key_of_the_policy_schema_has_a_description_and_valid_examples(path: str, schema: dict[str, Any]) -> None:
    assert schema["description"].endswith(".")
    assert schema["examples"]
    assert "default" in schema or path in {"/apiVersion", "/kind"}
    for example in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
        assert list(Draft7Validator(schema).iter_errors(example)) == []


def test_defaults_of_the_policy_schema_are_the_default_policy() -> None:
    body = {key: inner["default"] for key, inner in SCHEMA["properties"].items() if "default" in inner}
    body |= {
        key: {name: option["default"] for name, option in inner["properties"].items()}
        for key, inner in SCHEMA["properties"].items()
        if "properties" in inner
    }
    whole = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"} | body
    assert decode_policy(ConfigFile("", json.dumps(whole))) == DEFAULT_POLICY


def test_entries_that_a_policy_can_allow_are_those_of_the_table() -> None:
    assert KEYS["/devices/unsafe"]["items"]["enum"] == [entry.name for entry in EXPOSES_HOST]


def test_policy_that_allows_a_dangerous_node_has_a_warning(tmp_path: Path) -> None:
    file, policy_file = tmp_path / "c.yaml", tmp_path / "policy"
    file.write_text(render_config(DEVICES))
    policy_file.write_text(POLICY_HEADER + "devices: {unsafe: [/dev/uinput]}\n")
    config = load([file], policy=policy_file).config
    assert config.policy.unsafe == ("/dev/uinput",)
    assert format_diagnostics(config.warnings) == (
        f"{policy_file}:3:20: warning[GP120]: the policy allows /dev/uinput, with which a container can gain control "
        "of the node  [devices.unsafe]\n"
        "    3 | devices: {unsafe: [/dev/uinput]}\n"
        "      |                    ^^^^^^^^^^^\n"
        "      = help: remove the entry, unless each pod that can request the device is trusted with the node"
    )


def test_invalid_address_of_a_policy_is_reported_with_the_syntax() -> None:
    hint = "write an address, a network or a name, and optionally a port: 10.0.0.0/8, exporter.example:9400"
    assert describe_errors(POLICY_HEADER + "http: {allow: ['/', 'a:0']}\n") == (
        f"""\
policy.yaml:3:17: error[GP009]: '/' is not an address to connect to: expected an address, a network or a name  \
[http.allow]
    3 | http: {{allow: ['/', 'a:0']}}
      |                 ^
      = help: {hint}
policy.yaml:3:22: error[GP009]: 'a:0' is not an address to connect to: expected a port from 1 to 65535  [http.allow]
    3 | http: {{allow: ['/', 'a:0']}}
      |                      ^^^
      = help: {hint}"""
    )


def test_unknown_entry_of_the_table_is_rejected() -> None:
    assert locate_diagnostics(POLICY_HEADER + "devices: {unsafe: [/dev/uinptu]}\n") == [("3:20", ErrorCode.WRONG_VALUE)]


def test_errors_of_policy_and_configuration_are_reported_together(tmp_path: Path) -> None:
    file, policy_file = tmp_path / "c" / "c.yaml", tmp_path / "p" / "policy.yaml"
    for path, text in (
        (file, render_config(f"{DEVICES}\nallocate: {{mounts: [{{hostPath: /opt, containerPath: /m}}]}}\nreplcas: 2")),
        (policy_file, POLICY_HEADER + "mounts: {alow: []}\n"),
    ):
        path.parent.mkdir()
        path.write_text(text)
    with pytest.raises(ConfigInvalidError) as caught:
        load([file], policy=policy_file)
    # The mount is not reported: an invalid policy decides nothing.
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [
        ErrorCode.UNKNOWN_KEY,
        ErrorCode.UNKNOWN_KEY,
    ]
    assert {Path(diagnostic.location.file) for diagnostic in caught.value.diagnostics} == {file, policy_file}
    assert all(diagnostic.line for diagnostic in caught.value.diagnostics)
    assert caught.value.directories == {file.parent, policy_file.parent}


def test_policy_is_part_of_the_configuration_but_not_of_its_digest(tmp_path: Path) -> None:
    file, policy_file = tmp_path / "c.yaml", tmp_path / "policy"
    file.write_text(render_config(DEVICES))
    policy_file.write_text(POLICY_HEADER + "devices: {block: true}\n")
    default, restricted = load([file]).config, load([file], policy=policy_file).config
    assert restricted.sha256 == default.sha256
    assert restricted.policy.block
    assert restricted.resources[NAME].policy is restricted.policy
    assert restricted == default.restricted_by(restricted.policy) != default


def test_restricted_configuration_has_only_allowed_resources() -> None:
    config: Config = load_text(
        CONFIG_HEADER + f"resources: {{a.io/x: {{{DEVICES}}}, b.io/x: {{{DEVICES}}}}}\n", "c.yaml"
    )
    assert list(config.restricted_by(read_policy("resources: [b.io/*]")).resources) == ["b.io/x"]


def test_restricted_resource_has_only_allowed_aliases() -> None:
    text = render_config(f"{DEVICES}\naliases: [old.example/x, b.io/x]", "a.io/x")
    config = load_text(text, "c.yaml")
    assert config.restricted_by(read_policy("resources: [a.io/*, b.io/*]")).resources["a.io/x"].aliases == ("b.io/x",)
    assert not config.restricted_by(read_policy("resources: [old.example/x]")).resources


def test_restricted_configuration_keeps_templated_names() -> None:
    config = load_text(render_config(DEVICES, "'a.io/${name}'"), "c.yaml")
    (left,) = config.restricted_by(read_policy("resources: [b.io/*]")).resources.values()
    assert left.policy.resource_error("a.io/x0")


def render_config_map(name: str, key: str, text: str) -> str:
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    return f"---\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  {key}: |\n{indented}"


def test_policy_in_a_manifest_has_locations_in_the_manifest() -> None:
    text = render_config_map("c", "c.yaml", render_config(DEVICES)) + render_config_map(
        "p", "policy.yaml", POLICY_HEADER + "devices: []\n"
    )
    manifests = find_manifests(text, "all.yaml")
    (config,), (policy_manifest,) = manifests.configurations, manifests.policies
    assert config.policies == ()
    assert list(config.load(None).resources) == [NAME]
    (name,) = policy_manifest.policies
    with pytest.raises(ConfigInvalidError) as caught:
        policy_manifest.policy(name)
    (diagnostic,) = caught.value.diagnostics
    assert str(diagnostic.location) == f"all.yaml:{text.splitlines().index('    devices: []') + 1}:5"


def test_policy_in_the_config_map_of_a_configuration_is_reported() -> None:
    text = (
        render_config_map("c", "c.yaml", render_config(DEVICES))
        + "  policy.yaml: |\n    "
        + POLICY_HEADER.replace("\n", "\n    ")
    )
    (manifest,) = find_manifests(text, "all.yaml").configurations
    assert manifest.policies == ()
    with pytest.raises(ConfigInvalidError, match="pass its file with --policy"):
        manifest.load(None)


def test_policy_has_warnings_about_globs_and_invisible_characters() -> None:
    diagnostics = Diagnostics()
    text = f"{POLICY_HEADER}devices:\n  allow: [/dev/nvidia.*]\n  deny: ['/dev/sda\N{ZERO WIDTH SPACE}']\n"
    decode_policy(ConfigFile("policy.yaml", text), diagnostics)
    assert [(warning.code, str(warning.location)) for warning in diagnostics.warnings] == [
        (WarningCode.REGEX_IN_GLOB, "policy.yaml:4:22"),
        (WarningCode.INVISIBLE_CHARACTER, "policy.yaml:5:19"),
    ]


def test_refused_port_of_the_cluster_states_that_an_entry_needs_the_port() -> None:
    allowed = "refused by 'http.allow' of the default policy, which allows 127.0.0.0/8, ::1"
    port = "; only an entry with the port allows 10250, a port of the cluster"
    assert DEFAULT_POLICY.connect_error("127.0.0.1", 10250) == allowed + port
    assert DEFAULT_POLICY.connect_error("10.0.0.1", 9400) == allowed
    assert not read_policy("http: {allow: ['127.0.0.1:10250']}").connect_error("127.0.0.1", 10250)
