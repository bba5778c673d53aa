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
from genplug.config.policy import decode_policy, load_policy
from genplug.config.schema import POLICY_SCHEMA, schema_text
from genplug.config.schema_fast_path import check_keywords
from genplug.hardware.denied_node_table import EXPOSES_HOST
from genplug.spec.diagnostic import DiagnosticCode, ErrorCode, WarningCode
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY, Policy
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
    )
    assert locate_diagnostics(text) == [
        ("3:1", ErrorCode.UNKNOWN_KEY),
        ("4:21", ErrorCode.GLOB),
        ("5:19", ErrorCode.GLOB),
        ("5:41", ErrorCode.GLOB),
        ("5:56", ErrorCode.WRONG_TYPE),
        ("6:17", ErrorCode.WRONG_TYPE),
        ("6:37", ErrorCode.GLOB),
        ("7:16", ErrorCode.GLOB),
        ("8:31", ErrorCode.GLOB),
        ("8:37", ErrorCode.UNKNOWN_KEY),
    ]


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


def test_configuration_in_place_of_the_policy_gets_a_hint() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        decode_policy(ConfigFile("policy.yaml", CONFIG_HEADER + "resources: {}\n"))
    assert format_diagnostics(caught.value.diagnostics) == (
        "policy.yaml:2:7: error[GP005]: 'DevicePluginConfig' is not supported  [kind]\n"
        "    2 | kind: DevicePluginConfig\n"
        "      |       ^^^^^^^^^^^^^^^^^^\n"
        "      = expected: DevicePluginPolicy\n"
        "      = help: this is a configuration: pass it with --config"
    )


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
    with pytest.raises(
        ConfigInvalidError, match=f"expected a policy file, found a directory[^$]*name the file: {file}"
    ):
        load_policy(tmp_path)


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
    (warning,) = config.warnings
    assert warning.code is WarningCode.UNSAFE_POLICY
    assert warning.message.startswith("the policy allows /dev/uinput")
    assert warning.line == "devices: {unsafe: [/dev/uinput]}"


def test_invalid_address_of_a_policy_is_reported_at_its_location() -> None:
    text = POLICY_HEADER + "http: {allow: [127.0.0.1, 'http://x/', 'a:0']}\nunixSocket: {allow: [run/x]}\n"
    assert locate_diagnostics(text) == [
        ("3:28", ErrorCode.WRONG_VALUE),
        ("3:41", ErrorCode.WRONG_VALUE),
        ("4:22", ErrorCode.GLOB),
    ]


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
