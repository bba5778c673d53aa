"""The AppArmor profile: its syntax, and the directories that the chart mounts."""

import re
import subprocess

import pytest

from tests.support.chart import CHART, ROOT

PROFILE = ROOT / "deploy/apparmor/genplug"


def list_rules() -> list[str]:
    """Return the rules of the profile without comments."""
    lines = (line.split("#")[0].strip() for line in PROFILE.read_text().splitlines())
    return [line for line in lines if line.endswith(",")]


@pytest.mark.apparmor
def test_profile_has_no_syntax_error() -> None:
    # Without the kernel, which may have no AppArmor, and without a cache.
    command = ["/usr/sbin/apparmor_parser", "--skip-kernel-load", "--skip-read-cache", "--skip-cache", str(PROFILE)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_profile_permits_every_directory_that_the_chart_mounts() -> None:
    template = (CHART / "templates/daemonset.yaml").read_text()
    mounted = set(re.findall(r"mountPath: (/[a-z/-]+)", template))
    # The template builds these paths from the directory of the kubelet.
    mounted |= {"/var/lib/kubelet/plugins_registry", "/var/lib/kubelet/plugins/genplug.io"}
    assert {"/etc/genplug", "/var/lib/kubelet/device-plugins", "/var/log/genplug"} <= mounted
    rules = [rule.split("{,**}")[0].rstrip("/") for rule in list_rules() if rule.startswith("/")]
    missing = {path for path in mounted if not any(f"{path}/".startswith(f"{rule}/") for rule in rules if rule)}
    assert missing == set()


def test_profile_permits_no_capability_except_syslog_and_no_mount() -> None:
    rules = list_rules()
    assert [rule for rule in rules if rule.startswith("capability")] == ["capability syslog,"]
    assert not [rule for rule in rules if rule.startswith(("mount", "umount", "pivot_root", "dbus", "change_profile"))]
    assert not [rule for rule in rules if rule.startswith("/host/{,**}") and "w" in rule.split()[1]]
