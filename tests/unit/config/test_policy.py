"""A policy's file, and what a configuration may do under it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from genplug.config.diagnostics import ConfigInvalidError, ErrorCode, format_diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load, load_text
from genplug.config.manifest import find_manifests
from genplug.config.policy import decode_policy, load_policy
from genplug.config.schema import POLICY_SCHEMA, schema_text
from genplug.config.schema_fast_path import check_keywords
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.support.configs import DEVICES, HEAD, render_config
from tests.unit.config.test_schema import described

POLICY_HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n"
SCHEMA = json.loads(schema_text(POLICY_SCHEMA))
KEYS = dict(described(SCHEMA))


def policy(body: str) -> Policy:
    """Return the policy that a valid body makes."""
    return decode_policy(ConfigFile("policy.yaml", POLICY_HEAD + body))


def mistakes(text: str) -> list[tuple[str, ErrorCode]]:
    """Return the lines and columns of what is wrong with a policy, and the codes."""
    with pytest.raises(ConfigInvalidError) as caught:
        decode_policy(ConfigFile("policy.yaml", text))
    return [(str(one.location).partition(":")[2], one.code) for one in caught.value.problems]


def refused(body: str, under: Policy, name: str = "example.com/x") -> list[str]:
    """Return what is said to a resource that a policy does not allow."""
    try:
        load_text(render_config(body, name), "c.yaml", under)
    except ConfigInvalidError as error:
        return [one.message for one in error.problems if one.code is ErrorCode.NOT_ALLOWED]
    return []


def mount(host_path: str, *, writable: bool = False) -> str:
    read_only = ", readOnly: false" if writable else ""
    return f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '{host_path}', containerPath: /m{read_only}}}]}}"


# The file


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
def test_what_is_left_out_or_null_is_as_by_default(body: str) -> None:
    found = policy(body)
    assert found.file == "policy.yaml"
    assert found == Policy("policy.yaml")


def test_an_empty_list_allows_nothing() -> None:
    found = policy("resources: []\ndevices: {allow: []}\nexec: {allow: []}\ncdi: {allow: []}")
    faults = (
        found.resource_error("example.com/x"),
        found.device_error("/dev/x"),
        found.exec_error("/opt/x"),
        found.cdi_error("a.io/b=x"),
    )
    assert all(fault.endswith("which allows nothing") for fault in faults)


def test_every_mistake_of_a_policy_is_told_at_once_at_its_place() -> None:
    text = POLICY_HEAD + (
        "resorces: [x]\n"
        "resources: [ok/*, 'a{b']\n"
        "devices: {allow: [dev/x], deny: ['/dev/[z-a]'], block: yes}\n"
        "mounts: {allow: /opt, writable: [/a/../b]}\n"
        "exec: {allow: [check]}\n"
        "cdi: {allow: [a.io/b=*, 'a.io/[b'], deny: []}\n"
    )
    assert mistakes(text) == [
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
        (POLICY_HEAD + "openProbe: false\nopenProbe: true\n", [("4:1", ErrorCode.DUPLICATE_KEY)]),
        (POLICY_HEAD.replace("v1alpha1", "v2"), [("1:13", ErrorCode.WRONG_VERSION)]),
        (HEAD + "resources: {}\n", [("2:7", ErrorCode.WRONG_VERSION)]),
    ],
)
def test_what_is_no_policy_is_refused(text: str, expected: list[tuple[str, ErrorCode]]) -> None:
    assert mistakes(text) == expected


def test_a_mistake_in_a_policy_is_told_in_the_form_of_one_in_a_configuration() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        decode_policy(ConfigFile("policy.yaml", HEAD + "resources: {}\n"))
    assert format_diagnostics(caught.value.problems) == (
        "policy.yaml:2:7: error[GP005]: 'DevicePluginConfig' is not supported  [kind]\n"
        "    2 | kind: DevicePluginConfig\n"
        "      |       ^^^^^^^^^^^^^^^^^^\n"
        "      = expected: DevicePluginPolicy\n"
        "      = help: this is a configuration: pass it with --config"
    )


def test_a_policy_is_one_file_and_its_directories_are_watched_for_a_better_one(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    for make, words in ((lambda: None, "no such file"), (lambda: file.write_text("a: ["), "error[GP002]")):
        make()
        with pytest.raises(ConfigInvalidError) as caught:
            load_policy(file)
        assert words in str(caught.value)
        assert caught.value.directories == {tmp_path}
    file.write_text(POLICY_HEAD)
    assert load_policy(file).directories == {tmp_path}
    with pytest.raises(
        ConfigInvalidError, match=f"expected a policy file, found a directory[^$]*name the file: {file}"
    ):
        load_policy(tmp_path)


# Its schema


def test_the_schema_is_one_of_draft_07_and_of_keywords_that_are_checked() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert not check_keywords(SCHEMA)


@pytest.mark.parametrize(("path", "schema"), KEYS.items(), ids=KEYS)
def test_every_key_of_the_schema_has_a_description_and_examples_that_it_allows(
    path: str, schema: dict[str, Any]
) -> None:
    assert schema["description"].endswith(".")
    assert schema["examples"]
    assert "default" in schema or path in {"/apiVersion", "/kind"}
    for example in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
        assert list(Draft7Validator(schema).iter_errors(example)) == []


def test_the_defaults_of_the_schema_are_those_of_the_program() -> None:
    body = {key: inner["default"] for key, inner in SCHEMA["properties"].items() if "default" in inner}
    body |= {
        key: {name: one["default"] for name, one in inner["properties"].items()}
        for key, inner in SCHEMA["properties"].items()
        if "properties" in inner
    }
    whole = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginPolicy"} | body
    assert decode_policy(ConfigFile("", json.dumps(whole))) == DEFAULT_POLICY


# Names


@pytest.mark.parametrize(
    ("globs", "name", "is_allowed"),
    [
        ("['*']", "rdma/hca", True),
        ("[nvidia.com/*]", "nvidia.com/gpu", True),
        ("[nvidia.com/*]", "nvidia.com.evil.example/gpu", False),
        ("[nvidia.com/gpu]", "nvidia.com/gpu2", False),
        ("['{amd,nvidia}.com/gpu']", "amd.com/gpu", True),
        ("['nvidia.com/gpu.[!x]*']", "nvidia.com/gpu.x", False),
        ("[rdma/HCA]", "rdma/hca", False),
        ("[]", "rdma/hca", False),
    ],
)
def test_a_resource_is_offered_only_under_a_name_that_is_allowed(globs: str, name: str, *, is_allowed: bool) -> None:
    said = refused(DEVICES, policy(f"resources: {globs}"), name)
    assert (not said) is is_allowed
    for one in said:
        assert one.startswith(f"the resource '{name}' is refused by 'resources' of policy.yaml, which allows ")


def test_an_alias_is_a_name_that_the_policy_is_asked_about() -> None:
    said = refused(
        f"{DEVICES}\naliases: [nvidia.com/gpu, old.example/gpu]", policy("resources: [nvidia.com/*]"), "nvidia.com/x"
    )
    assert said == [
        "the resource 'old.example/gpu' is refused by 'resources' of policy.yaml, which allows nvidia.com/*"
    ]


def test_a_name_that_is_none_is_not_refused_a_second_time() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(render_config(DEVICES, "wrong"), "c.yaml", policy("resources: [nvidia.com/*]"))
    assert [one.code for one in caught.value.problems] == [ErrorCode.RESOURCE_NAME]


# Mounts


@pytest.mark.parametrize("path", ["/opt", "/opt/lib", "/${name}", "${path}"])
def test_without_a_policy_nothing_is_mounted(path: str) -> None:
    (said,) = refused(mount(path), DEFAULT_POLICY)
    assert said == f"the mount of {path!r} is refused by 'mounts.allow' of the default policy, which allows nothing"


@pytest.mark.parametrize(
    ("globs", "path", "is_allowed"),
    [
        ("[/opt]", "/opt", True),
        ("[/opt]", "/opt/", True),
        ("[/opt]", "/opt/a/b", True),
        ("[/opt]", "/option", False),
        ("[/opt]", "/", False),
        ("[/opt/*]", "/opt", False),
        ("[/opt/*/lib]", "/opt/a/lib/x", True),
        ("[/opt/*/lib]", "/opt/a/bin", False),
        ("['/opt/**']", "/opt/a/.hidden", True),
        ("['/**']", "/etc/shadow", True),
        ("[/srv, '/{usr,opt}/lib']", "/usr/lib", True),
    ],
)
def test_a_path_is_mounted_if_a_glob_matches_it_or_a_directory_around_it(
    globs: str, path: str, *, is_allowed: bool
) -> None:
    for rule, writable in (("allow", False), ("writable", False), ("writable", True)):
        said = refused(mount(path, writable=writable), policy(f"mounts: {{{rule}: {globs}}}"))
        assert (not said) is is_allowed


def test_what_may_be_mounted_may_not_be_written_unless_that_is_said() -> None:
    (said,) = refused(mount("/opt/a", writable=True), policy("mounts: {allow: [/opt], writable: [/opt/b]}"))
    assert said == "the mount of '/opt/a' is refused by 'mounts.writable' of policy.yaml, which allows /opt/b"


def test_a_template_is_asked_about_when_a_container_is_to_get_it() -> None:
    assert refused(mount("/state/${name}"), policy("mounts: {allow: [/opt]}")) == []


def test_a_mount_of_the_defaults_is_refused_once_and_where_it_stands() -> None:
    text = HEAD + (
        "defaults: {allocate: {mounts: [{hostPath: /etc, containerPath: /e}]}}\n"
        f"resources: {{a.io/x: {{{DEVICES}}}, a.io/y: {{{DEVICES}}}}}\n"
    )
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(text, "c.yaml")
    (problem,) = caught.value.problems
    assert (str(problem.location), problem.key_path) == ("c.yaml:3:43", "defaults.allocate.mounts[0]")


# Programs


def pre_start(*command: str) -> str:
    return f"{DEVICES}\npreStart: {{exec: {{command: {json.dumps(command)}}}, timeoutSeconds: 5}}"


def test_without_a_policy_nothing_is_run() -> None:
    (said,) = refused(pre_start("/opt/reset"), DEFAULT_POLICY)
    assert said == "running '/opt/reset' is refused by 'exec.allow' of the default policy, which allows nothing"


@pytest.mark.parametrize(
    ("globs", "program", "is_allowed"),
    [
        ("[/opt/reset]", "/opt/reset", True),
        ("[/opt/reset]", "/opt/reset2", False),
        ("[/opt]", "/opt/reset", False),
        ("[/opt/*]", "/opt/reset", True),
        ("[/opt/*]", "/opt/a/reset", False),
        ("['/opt/**']", "/opt/a/reset", True),
        ("['/opt/**']", "/opt", True),
        ("['/usr/{bin,sbin}/x']", "/usr/sbin/x", True),
        ("[/a, /b]", "/b", True),
    ],
)
def test_a_program_is_run_if_a_glob_matches_its_whole_path(globs: str, program: str, *, is_allowed: bool) -> None:
    said = refused(pre_start(program), policy(f"exec: {{allow: {globs}}}"))
    assert (not said) is is_allowed


def test_what_a_program_is_told_may_hold_templates_and_is_nobodys_to_refuse() -> None:
    under = policy("exec: {allow: [/opt/reset]}")
    spec = load_text(render_config(pre_start("/opt/reset", "/etc/shadow", "${path}", "")), "c.yaml", under)
    found = spec.resources["example.com/x"].pre_start
    assert found is not None
    assert [part.text for part in found.command] == ["/opt/reset", "/etc/shadow", "${path}", ""]
    assert found.timeout_seconds == 5


@pytest.mark.parametrize(
    "program", ["reset", "./reset", "", "~/reset", "/opt/${name}", "${path}", "/opt/../bin/sh", "/opt/.."]
)
def test_a_program_is_named_by_its_path_whatever_a_policy_allows(program: str) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(render_config(pre_start(program)), "c.yaml", policy("exec: {allow: ['/**']}"))
    (problem,) = caught.value.problems
    assert (problem.code, problem.message) == (ErrorCode.PATH, f"{program!r} is not the absolute path of a program")


@pytest.mark.parametrize(
    "body",
    [
        "preStart: {}",
        "preStart: {exec: {}}",
        "preStart: {exec: {command: []}}",
        "preStart: {exec: {command: /opt/x}}",
        "preStart: {exec: {command: [/opt/x], shell: true}}",
        "preStart: {exec: {command: [/opt/x]}, timeoutSeconds: 0}",
        # The kubelet gives 30 s.
        "preStart: {exec: {command: [/opt/x]}, timeoutSeconds: 30}",
    ],
)
def test_a_program_needs_a_command_and_an_end(body: str) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(render_config(f"{DEVICES}\n{body}"), "c.yaml", policy("exec: {allow: ['/**']}"))
    assert len(caught.value.problems) == 1


def test_a_program_of_the_defaults_is_refused_once_and_where_it_stands() -> None:
    text = HEAD + (
        "defaults: {preStart: {exec: {command: [/bin/sh]}}}\n"
        f"resources: {{a.io/x: {{{DEVICES}}}, a.io/y: {{{DEVICES}}}}}\n"
    )
    with pytest.raises(ConfigInvalidError) as caught:
        load_text(text, "c.yaml")
    (problem,) = caught.value.problems
    assert (str(problem.location), problem.key_path) == ("c.yaml:3:40", "defaults.preStart.exec.command")


# CDI devices


def cdi(name: str) -> str:
    return f"{DEVICES}\nallocate: {{cdiDevices: ['{name}']}}"


@pytest.mark.parametrize(
    ("globs", "name", "is_allowed"),
    [
        ("['*']", "a.io/b=x", True),
        ("[nvidia.com/gpu=*]", "nvidia.com/gpu=0", True),
        ("[nvidia.com/gpu=*]", "nvidia.com/gpu=0:1", True),
        ("[nvidia.com/gpu=*]", "nvidia.com/gpu2=0", False),
        ("[nvidia.com/gpu=*]", "evil.io/gpu=nvidia.com", False),
        ("['{nvidia,amd}.com/gpu=0']", "amd.com/gpu=0", True),
        ("[]", "a.io/b=x", False),
    ],
)
def test_a_cdi_device_of_others_is_handed_out_only_if_its_name_is_allowed(
    globs: str, name: str, *, is_allowed: bool
) -> None:
    said = refused(cdi(name), policy(f"cdi: {{allow: {globs}}}"))
    assert (not said) is is_allowed
    for one in said:
        assert one.startswith(f"the CDI device '{name}' is refused by 'cdi.allow' of policy.yaml, which allows ")


def test_the_default_policy_allows_every_cdi_device() -> None:
    assert refused(cdi("a.io/b=x"), DEFAULT_POLICY) == []


@pytest.mark.parametrize("name", ["nvidia.com/gpu=${index}", "evil.io/${name}=x"])
def test_a_cdi_device_of_templates_is_asked_about_when_a_container_is_to_get_it(name: str) -> None:
    assert refused(cdi(name), policy("cdi: {allow: []}")) == []


# Both together


def test_mistakes_of_a_policy_and_of_the_configuration_are_told_together(tmp_path: Path) -> None:
    file, bounds = tmp_path / "c" / "c.yaml", tmp_path / "p" / "policy.yaml"
    for path, text in (
        (file, render_config(f"{mount('/opt')}\nreplcas: 2")),
        (bounds, POLICY_HEAD + "mounts: {alow: []}\n"),
    ):
        path.parent.mkdir()
        path.write_text(text)
    with pytest.raises(ConfigInvalidError) as caught:
        load([file], policy=bounds)
    # What a wrong policy would have allowed nobody knows.
    assert [one.code for one in caught.value.problems] == [ErrorCode.UNKNOWN_KEY, ErrorCode.UNKNOWN_KEY]
    assert {Path(one.location.file) for one in caught.value.problems} == {file, bounds}
    assert all(one.line for one in caught.value.problems)
    assert caught.value.directories == {file.parent, bounds.parent}


def test_a_configuration_carries_its_policy_and_keeps_its_sum(tmp_path: Path) -> None:
    file, bounds = tmp_path / "c.yaml", tmp_path / "policy"
    file.write_text(render_config(DEVICES))
    bounds.write_text(POLICY_HEAD + "devices: {block: true}\n")
    plain, bounded = load([file]).config, load([file], policy=bounds).config
    assert bounded.sha256 == plain.sha256
    assert bounded.policy.block
    assert bounded.resources["example.com/x"].policy is bounded.policy
    assert bounded == plain.restricted_by(bounded.policy) != plain


def test_under_a_narrower_policy_the_resources_are_left_that_it_allows() -> None:
    config: Config = load_text(HEAD + f"resources: {{a.io/x: {{{DEVICES}}}, b.io/x: {{{DEVICES}}}}}\n", "c.yaml")
    assert list(config.restricted_by(policy("resources: [b.io/*]")).resources) == ["b.io/x"]


def test_under_a_narrower_policy_a_resource_keeps_the_aliases_that_it_allows() -> None:
    text = render_config(f"{DEVICES}\naliases: [old.example/x, b.io/x]", "a.io/x")
    config = load_text(text, "c.yaml")
    assert config.restricted_by(policy("resources: [a.io/*, b.io/*]")).resources["a.io/x"].aliases == ("b.io/x",)
    assert not config.restricted_by(policy("resources: [old.example/x]")).resources


def test_under_a_narrower_policy_names_that_devices_make_are_asked_about_when_they_are_made() -> None:
    config = load_text(render_config(DEVICES, "'a.io/${name}'"), "c.yaml")
    (left,) = config.restricted_by(policy("resources: [b.io/*]")).resources.values()
    assert left.policy.resource_error("a.io/x0")


# In a manifest


def config_map(name: str, key: str, text: str) -> str:
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    return f"---\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  {key}: |\n{indented}"


def test_a_policy_in_a_manifest_is_one_and_its_mistakes_stand_in_the_manifest() -> None:
    text = config_map("c", "c.yaml", render_config(DEVICES)) + config_map(
        "p", "policy.yaml", POLICY_HEAD + "devices: []\n"
    )
    config, bounds = find_manifests(text, "all.yaml")
    assert config.policies == ()
    assert list(config.load(None).resources) == ["example.com/x"]
    (name,) = bounds.policies
    with pytest.raises(ConfigInvalidError) as caught:
        bounds.policy(name)
    (problem,) = caught.value.problems
    assert str(problem.location) == f"all.yaml:{text.splitlines().index('    devices: []') + 1}:5"


def test_a_policy_among_the_files_of_a_configuration_is_a_mistake() -> None:
    text = (
        config_map("c", "c.yaml", render_config(DEVICES))
        + "  policy.yaml: |\n    "
        + POLICY_HEAD.replace("\n", "\n    ")
    )
    (manifest,) = find_manifests(text, "all.yaml")
    assert manifest.policies == ()
    with pytest.raises(ConfigInvalidError, match="pass its file with --policy"):
        manifest.load(None)
