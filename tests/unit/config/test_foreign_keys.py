"""An unknown key that is a word of another program has a hint with genplug's word, which is valid where it is named."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from genplug.config.files import ConfigFile
from genplug.config.foreign_keys import _WORDS, Level, find_level, translate_key
from genplug.config.policy import decode_policy
from genplug.spec.globs import Glob
from tests.support.configs import CONFIG_HEADER, PERMISSIVE_POLICY, POLICY_HEADER, collect_diagnostics, find_diagnostics

POLICY = replace(PERMISSIVE_POLICY, programs=(Glob.parse("/**"),))
RESOURCE = "resources.a.example/x"
PATHS = {
    Level.FILE: "",
    Level.RESOURCE: RESOURCE,
    Level.DEVICES: f"{RESOURCE}.devices[0]",
    Level.NODE: f"{RESOURCE}.devices[0].with[1]",
    Level.ALLOCATE: f"{RESOURCE}.allocate",
    Level.MOUNT: f"{RESOURCE}.allocate.mounts[0]",
    Level.HEALTH: f"{RESOURCE}.health",
    Level.PROBE: f"{RESOURCE}.health.probes[10]",
    Level.OTHER: f"{RESOURCE}.share",
}
SNIPPET = re.compile(r"'(\w+: .+?)'(?=$|[ ,;])")


@pytest.mark.parametrize("level", PATHS)
def test_level_is_found_from_the_path_of_keys(level: Level) -> None:
    assert find_level(PATHS[level]) is level


def test_level_of_the_defaults_is_that_of_a_resource() -> None:
    assert find_level("defaults") is Level.RESOURCE
    assert find_level("defaults.health") is Level.HEALTH


@pytest.mark.parametrize(
    ("body", "key", "word"),
    [
        ("devices: [{glob: /dev/x}], count: 10", "count", "tokens: 10"),
        ("devices: [{glob: /dev/x}], capacity: 2", "capacity", "tokens: 10"),
        ("devices: [{glob: /dev/x}], nummaxdevices: 2", "nummaxdevices", "replicas: 10"),
        ("devices: [{glob: /dev/x}], num_max_devices: 2", "num_max_devices", "replicas: 10"),
        ("devices: [{glob: /dev/x}], limits: {}", "limits", "share: {maxPerContainer: 1}"),
        ("groups: [{count: 1}]", "groups", "devices: [{glob:"),
        ("usb: [{vendor: 1a86}]", "usb", "where: {usb.vendor:"),
        ("devices: [{glob: /dev/x, usb: {}}]", "usb", "where: {usb.vendor:"),
        ("devices: [{vendor: 1a86}]", "vendor", "where: {usb.vendor:"),
        ("devices: [{glob: /dev/x, selectors: {}}]", "selectors", "where:"),
        ("devices: [{path: /dev/x}]", "path", "glob: /dev/ttyUSB*"),
        ("devices: [{glob: /dev/x, count: 3}]", "count", "beside 'devices'"),
        ("devices: [{glob: /dev/x, nodes: [{path: /dev/x, mountPath: /dev/y}]}]", "mountPath", "as: /dev/name"),
        ("devices: [{glob: /dev/x, with: [{hostPath: /dev/y}]}]", "hostPath", "path: /dev/name"),
        ("devices: [{glob: /dev/x}], allocate: {envs: {}}", "envs", "env: {NAME:"),
        ("devices: [{glob: /dev/x}], volumes: []", "volumes", "allocate: {mounts:"),
        ("devices: [{glob: /dev/x}], health: {interval: 5}", "interval", "periodSeconds: 10"),
    ],
)
def test_word_of_another_program_has_a_hint_with_the_word_of_genplug(body: str, key: str, word: str) -> None:
    diagnostics = find_diagnostics(f"{CONFIG_HEADER}resources:\n  a.example/x: {{{body}}}\n")
    (hint,) = [d.hint for d in diagnostics if d.message == f"unknown key {key!r}"]
    assert word in hint


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("resource", "did you mean 'resources'?"),
        ("nodes", "valid keys: "),
        ("programs", "write globs under 'exec.allow'"),
        ("spec", "a policy is a file"),
    ],
)
def test_unknown_key_of_a_policy_has_no_hint_for_configurations(key: str, hint: str) -> None:
    (diagnostic,) = collect_diagnostics(lambda: decode_policy(ConfigFile("p.yaml", f"{POLICY_HEADER}{key}: {{}}\n")))
    assert hint in diagnostic.hint


def test_misspelt_key_has_the_hint_of_the_known_key() -> None:
    (diagnostic,) = find_diagnostics(f"{CONFIG_HEADER}resources: {{a.example/x: {{devces: []}}}}\n")
    assert diagnostic.hint == "did you mean 'devices'?"


def list_snippets() -> Iterator[tuple[Level, str]]:
    for level in (Level.RESOURCE, Level.DEVICES, Level.NODE, Level.ALLOCATE, Level.MOUNT, Level.HEALTH, Level.PROBE):
        for key in _WORDS[level]:
            hint = translate_key(key, PATHS[level])
            for snippet in SNIPPET.findall(hint):
                if "..." not in snippet:
                    yield (Level.DEVICES if f"{snippet}' in an entry of 'devices'" in hint else level), snippet


def build_config(level: Level, part: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that contains a part at a level."""
    device: dict[str, Any] = {"glob": "/dev/x"}
    probe: dict[str, Any] = {"file": {"path": "/run/x", "equals": "1"}}
    mount: dict[str, Any] = {"hostPath": "/a", "containerPath": "/b"}
    resource: dict[str, Any] = {"devices": [device]}
    match level:
        case Level.RESOURCE if set(part) <= {"glob", "where", "nodes", "exclude"}:
            device |= part
        case Level.RESOURCE:
            resource |= part
        case Level.DEVICES if "beside" in str(part) or set(part) & {"tokens", "replicas", "share", "allocate"}:
            resource |= part
        case Level.DEVICES:
            device |= part
        case Level.NODE:
            device["nodes"] = [{"path": "/dev/x", **part}]
        case Level.ALLOCATE:
            resource["allocate"] = part
        case Level.MOUNT:
            resource["allocate"] = {"mounts": [mount | part]}
        case Level.HEALTH:
            resource["health"] = part if "probes" in part else {**part, "probes": [probe]}
        case Level.PROBE:
            resource["health"] = {"probes": [part if set(part) & {"http", "exec", "file"} else probe | part]}
    return {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig", "resources": {"a.example/x": resource}}


@pytest.mark.parametrize(("level", "snippet"), sorted(set(list_snippets())))
def test_text_of_a_hint_is_valid_in_a_configuration(level: Level, snippet: str) -> None:
    part = yaml.safe_load(snippet)
    text = yaml.safe_dump(build_config(level, part), sort_keys=False)
    assert [diagnostic.message for diagnostic in find_diagnostics(text, POLICY)] == [], text
