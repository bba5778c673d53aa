"""Files that attributes must not be read from: the path as written and its target are compared with the policy."""

import os
import re
from pathlib import Path

import pytest

from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.read_rules import parse_read_rules
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import find_diagnostics, read_policy, render_config

TREE = """
/dev/x0 char 240:0
/dev/shm/note = memory
/etc/shadow = root:hash
/etc/secret-dir/ directory
/sys/good = fine
/sys/to-shadow -> /etc/shadow
/sys/to-dir -> /etc/secret-dir
/sys/class/x/x0/device -> /etc
/sys/devices/x0/state = ok
"""
REFUSED = "is refused by 'read.allow' of the default policy, which allows /sys/**"


def find_devices(root: Path, source: str, allocate: str = "", policy: Policy | None = DEFAULT_POLICY) -> Inventory:
    build_tree(TREE, root)
    body = f"devices: [{{glob: /dev/x0, {source}}}]\n{allocate}"
    return discover(load_text(render_config(body), "c.yaml", policy), Host.at(root))


@pytest.mark.parametrize(
    "path",
    [
        "/sys/to-shadow",
        "/sys/to-dir",
        "/sys/to-s*",
        "/sys/class/x/x0/device/shadow",
        "/sys/${name|replace:x0:to-shadow}",
    ],
)
def test_attribute_behind_a_link_out_of_the_allowed_files_has_no_value(tmp_path: Path, path: str) -> None:
    source = f"attributes: {{s: {{path: '{path}'}}}}"
    [device] = find_devices(tmp_path, source, "allocate: {env: {S: '${s}'}}").devices["example.com/x"]
    assert "s" not in device.attributes
    (fault,) = device.faults
    assert fault.startswith("allocate.env S refers to 's', which the device does not have; reading /etc/")
    assert REFUSED in fault


def test_path_that_renders_to_another_file_is_refused(tmp_path: Path) -> None:
    source = "attributes: {d: {path: /sys/good, find: f}, s: {path: '/${name|replace:x0:etc}/shadow'}}"
    [device] = find_devices(tmp_path, source, "allocate: {env: {S: '${s}'}}").devices["example.com/x"]
    assert f"reading /etc/shadow {REFUSED}" in device.faults[0]


def test_condition_on_a_refused_file_names_the_rule(tmp_path: Path) -> None:
    inventory = find_devices(tmp_path, "attributes: {s: {path: /sys/to-shadow}}, where: {s: 'root*'}")
    (outcome,) = inventory.outcomes
    assert f"it has no s, expected root* (c.yaml:5:80); reading /etc/shadow {REFUSED}" in outcome.reason


def test_directory_of_sysfs_behind_a_link_is_refused(tmp_path: Path) -> None:
    source = "sysfs: '/sys/class/x/${name}/device'"
    [device] = find_devices(tmp_path, source, "allocate: {env: {S: '${attr.shadow}'}}").devices["example.com/x"]
    assert "attr.shadow" not in device.attributes
    assert f"reading /etc {REFUSED}" in device.faults[0]


def test_allowed_file_is_read(tmp_path: Path) -> None:
    source = "attributes: {s: {path: /sys/good}}"
    [device] = find_devices(tmp_path, source, "allocate: {env: {S: '${s}'}}").devices["example.com/x"]
    assert (device.attributes["s"], device.faults) == (("fine",), ())


def test_policy_can_allow_a_file(tmp_path: Path) -> None:
    source = "attributes: {s: {path: /etc/shadow}}"
    allowing = Policy("policy.yaml", read=parse_read_rules(("/etc/shadow",)))
    [device] = find_devices(tmp_path, source, "allocate: {env: {S: '${s}'}}", allowing).devices["example.com/x"]
    assert device.attributes["s"] == ("root:hash",)


@pytest.mark.parametrize("glob", ["${d}/[s]hadow", "${d}/{shadow,x}", "/{dev,etc}/shadow", "/e*/shadow", "/[e]tc/s*"])
@pytest.mark.parametrize(
    "source",
    [
        "attributes: {d: {value: /etc}}, with: [{path: 'GLOB', optional: true}]",
        "attributes: {d: {value: /etc}}, nodes: [/dev/x0, {path: 'GLOB', optional: true}]",
        "attributes: {d: {value: /etc}, s: {path: 'GLOB'}}, where: {s: {exists: true}}",
    ],
)
def test_glob_does_not_reveal_whether_a_file_exists(tmp_path: Path, source: str, glob: str) -> None:
    found: list[tuple[list[str], list[str]]] = []
    for tree in (TREE, re.sub(r"(?m)^/etc/s.*\n", "", TREE)):
        build_tree(tree, root := tmp_path / str(len(found)))
        body = f"devices: [{{glob: /dev/x0, {source.replace('GLOB', glob)}}}]"
        inventory = discover(load_text(render_config(body), "c.yaml"), Host.at(root))
        faults = [text for device in inventory.devices["example.com/x"] for text in device.faults]
        found.append((faults, [outcome.reason for outcome in inventory.outcomes]))
    assert found[0] == found[1]


def test_glob_of_device_nodes_outside_of_dev_names_the_rule(tmp_path: Path) -> None:
    source = "attributes: {d: {value: /etc}}, with: [{path: '${d}/[s]hadow', optional: true}]"
    [device] = find_devices(tmp_path, source).devices["example.com/x"]
    assert device.faults[0].startswith(f"companion /etc/[s]hadow {REFUSED}")


def test_private_file_that_a_glob_matches_names_the_rule(tmp_path: Path) -> None:
    source = "attributes: {s: {path: '/sys/class/y/*/password'}}, where: {s: {exists: true}}"
    (tmp_path / "sys/class/y/1").mkdir(parents=True)
    (tmp_path / "sys/class/y/1/password").write_text("hunter2")
    (outcome,) = find_devices(tmp_path, source).outcomes
    assert f"reading /sys/class/y/1/password {REFUSED}" in outcome.reason


def test_link_in_dev_to_another_file_is_left_out_with_the_rule(tmp_path: Path) -> None:
    build_tree("/dev/fd -> /proc/self/fd\n/proc/self/fd/7 -> /etc\n", tmp_path)
    build_tree(TREE, tmp_path)
    body = "devices: [{glob: '/dev/fd/7/*', type: any}]\nallocate: {env: {S: '${target}'}}"
    inventory = discover(load_text(render_config(body), "c.yaml"), Host.at(tmp_path))
    assert inventory.devices["example.com/x"] == ()
    assert {outcome.path for outcome in inventory.outcomes} == {"/dev/fd/7/shadow", "/dev/fd/7/secret-dir"}
    assert all(REFUSED.removeprefix("is ") in outcome.reason for outcome in inventory.outcomes)


@pytest.mark.parametrize("glob", ["/etc/sha*", "/home/*/.ssh/id_rsa", "/var/lib/kubelet/**"])
def test_glob_outside_of_dev_is_refused_at_load(glob: str) -> None:
    body = f"devices: [{{glob: '{glob}', type: file}}]\nallocate: {{env: {{S: '${{path}}'}}}}"
    (diagnostic,) = find_diagnostics(render_config(body), DEFAULT_POLICY)
    assert (diagnostic.code, diagnostic.message.partition(" is ")[0]) == (ErrorCode.NOT_ALLOWED, f"the glob '{glob}'")


@pytest.mark.parametrize("glob", ["/dev/shm/*", "/sys/class/net/*", "/dev/disk/by-id/*"])
def test_glob_that_names_devices_is_allowed(glob: str) -> None:
    body = f"devices: [{{glob: '{glob}', type: any}}]\nallocate: {{env: {{S: '${{path}}'}}}}"
    assert find_diagnostics(render_config(body), DEFAULT_POLICY) == ()


def test_glob_of_a_path_that_may_be_mounted_is_allowed() -> None:
    body = "devices: [{glob: '/run/v/*', type: socket}]\nallocate: {env: {S: '${path}'}}"
    assert find_diagnostics(render_config(body), read_policy("mounts: {allow: [/run/v]}")) == ()


@pytest.mark.parametrize("glob", ["/{etc,sys}/*", "{/dev/x0,/etc/*}", "{/sys/good,/etc/shadow}", "/etc/{a,b}"])
def test_glob_of_devices_is_refused_if_an_alternative_leads_to_other_paths(glob: str) -> None:
    body = f"devices: [{{glob: '{glob}', type: any}}]"
    (diagnostic,) = find_diagnostics(render_config(body), DEFAULT_POLICY)
    assert diagnostic.message.startswith(f"the glob '{glob}' is refused by 'read.allow' of the default policy")


@pytest.mark.parametrize("glob", ["/*/*", "/**/extra", "/[e]tc/e*", "/e*/{extra,x}"])
def test_candidate_outside_of_dev_is_ignored(tmp_path: Path, glob: str) -> None:
    found: list[object] = []
    for tree in (TREE, f"{TREE}/etc/extra = x\n"):
        build_tree(tree, root := tmp_path / str(len(found)))
        body = f"devices: [{{glob: '{glob}', type: file}}]\nallocate: {{env: {{S: '${{path}}'}}}}"
        inventory = discover(load_text(render_config(body), "c.yaml"), Host.at(root))
        assert not [outcome for outcome in inventory.outcomes if outcome.path.startswith("/etc")]
        found.append((inventory.outcomes, inventory.unmatched_globs, inventory.devices))
    assert found[0] == found[1]


def test_path_that_the_policy_does_not_allow_any_more_names_the_rule_and_not_whether_it_exists(tmp_path: Path) -> None:
    build_tree(TREE, tmp_path)
    reasons = []
    for path in ("/etc/shadow", "/etc/none"):
        body = f"devices: [{{glob: {path}, type: any}}]"
        config = load_text(render_config(body), "c.yaml", read_policy("read: {allow: ['/etc/**']}"))
        inventory = discover(config.restricted_by(DEFAULT_POLICY), Host.at(tmp_path))
        reasons += [outcome.reason for outcome in inventory.outcomes]
    assert len(reasons) == 2
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("refused by 'read.allow' of the default policy")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("attributes", "{s: {path: /etc/shadow}}"),
        ("attributes", "{s: {path: [/sys/x, /etc/shadow]}}"),
        ("attributes", "{s: {path: '/root/${name}/x'}}"),
        ("sysfs", "/etc"),
        ("sysfs", "'/etc/x/${name}'"),
    ],
)
def test_path_of_a_file_that_must_not_be_read_is_reported_at_load(key: str, text: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(f"devices: [{{glob: /dev/x, {key}: {text}}}]"), DEFAULT_POLICY)
    assert diagnostic.code is ErrorCode.NOT_ALLOWED
    assert "refused by 'read.allow' of the default policy" in diagnostic.message


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_pipe_and_endless_file_are_not_opened(tmp_path: Path, make: object) -> None:
    build_tree(TREE, tmp_path)
    (tmp_path / "sys/pipe").parent.mkdir(exist_ok=True)
    make(tmp_path / "sys/pipe")  # type: ignore[operator]
    body = "devices: [{glob: /dev/x0, attributes: {s: {path: /sys/pipe}}}]\nallocate: {env: {S: '${s}'}}"
    [device] = discover(load_text(render_config(body), "c.yaml"), Host.at(tmp_path)).devices["example.com/x"]
    assert "s" not in device.attributes


@pytest.mark.parametrize("key", ["nodes", "with"])
@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/missing", "/${name|replace:x0:etc}/shadow"])
def test_reason_does_not_reveal_whether_a_path_exists(tmp_path: Path, key: str, path: str) -> None:
    source = f"{key}: ['${{path}}', {{path: '{path}', optional: true}}]"
    [device] = find_devices(tmp_path, source).devices["example.com/x"]
    rendered = path.replace("${name|replace:x0:etc}", "etc")
    (fault,) = device.faults
    assert fault.removeprefix("companion ").startswith(f"{rendered} {REFUSED}")


@pytest.mark.parametrize("path", ["/etc", "/missing"])
def test_reason_does_not_reveal_whether_a_directory_of_sysfs_exists(tmp_path: Path, path: str) -> None:
    source = f"sysfs: '/${{name|replace:x0:{path[1:]}}}'"
    [device] = find_devices(tmp_path, source, "allocate: {env: {S: '${attr.shadow}'}}").devices["example.com/x"]
    assert f"reading {path} {REFUSED}" in device.faults[0]


def test_variable_that_the_policy_does_not_allow_any_more_has_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENPLUG_TEST_TOKEN", "pl4nted")
    build_tree(TREE, tmp_path)
    body = "devices: [{glob: /dev/x0}]\nallocate: {env: {S: '${env.GENPLUG_TEST_TOKEN}'}}"
    config = load_text(render_config(body), "c.yaml", read_policy("read: {env: ['GENPLUG_*']}"))
    [device] = discover(config, Host.at(tmp_path)).devices["example.com/x"]
    assert device.attributes["env.GENPLUG_TEST_TOKEN"] == ("pl4nted",)
    [device] = discover(config.restricted_by(DEFAULT_POLICY), Host.at(tmp_path)).devices["example.com/x"]
    (fault,) = device.faults
    assert "reading the environment variable GENPLUG_TEST_TOKEN is refused by 'read.env' of the default policy" in fault
    assert "pl4nted" not in repr(device)
