"""The difference between two configurations, for the audit log."""

import subprocess
import sys

from msgspec.structs import replace

from genplug.agent.audit_config import MAX_NAMES, compare_configs, digest_policy
from genplug.config.load import load_text
from genplug.spec.policy import DEFAULT_POLICY
from tests.support.configs import CONFIG_HEADER

X = "example.com/x: {devices: [{glob: /dev/x*}]"


def load(*resources: str) -> str:
    return CONFIG_HEADER + "resources:\n" + "".join(f"  {resource}\n" for resource in resources)


def test_first_configuration_adds_every_resource() -> None:
    config = load_text(load(X + "}"), "a.yaml")
    difference = compare_configs(None, config)
    assert (difference.added, difference.removed, difference.changed) == (("example.com/x",), (), {})


def test_moved_lines_and_another_file_are_no_change() -> None:
    first = load_text(load(X + "}"), "a.yaml")
    second = load_text("# a comment\n" + load(X + "}"), "b.yaml")
    difference = compare_configs(first, second)
    assert (difference.added, difference.removed, difference.changed) == ((), (), {})


def test_changed_keys_have_the_names_of_the_configuration() -> None:
    first = load_text(load(X + "}"), "a.yaml")
    changes = "expect: {min: 1}, replicas: 2, health: {probes: [{file: {path: /sys/x}}]}, allocate: {env: {A: b}}"
    second = load_text(load(X.replace("x*", "y*") + f", {changes}" + "}"), "a.yaml")
    keys = compare_configs(first, second).changed["example.com/x"]
    assert set(keys) == {"devices", "expect", "replicas", "health", "allocate"}


def test_names_beyond_the_limit_are_counted() -> None:
    names = [f"example.com/x{number}: {{devices: [{{glob: /dev/x{number}}}]}}" for number in range(MAX_NAMES + 5)]
    difference = compare_configs(None, load_text(load(*names), "a.yaml"))
    assert (len(difference.added), difference.omitted) == (MAX_NAMES, 5)


def test_digest_of_a_policy_depends_on_its_content_only() -> None:
    assert digest_policy(replace(DEFAULT_POLICY, file="p.yaml")) == digest_policy(DEFAULT_POLICY)
    assert digest_policy(replace(DEFAULT_POLICY, block=True)) != digest_policy(DEFAULT_POLICY)


def test_agent_without_an_audit_log_does_not_load_its_modules() -> None:
    script = "import sys, genplug.agent.agent; print([name for name in sys.modules if 'audit' in name])"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "['genplug.audit', 'genplug.audit.limits']"
