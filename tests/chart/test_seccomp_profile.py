"""The seccomp profile: its format, the system calls that it must not allow, and its sources."""

import json
import re
from typing import Any

import pytest

from tests.support.chart import ROOT

SECCOMP = ROOT / "deploy/seccomp"
PROFILE: dict[str, Any] = json.loads((SECCOMP / "genplug.json").read_text())
MARGIN: dict[str, Any] = json.loads((SECCOMP / "margin.json").read_text())
RECORDED: dict[str, Any] = json.loads((SECCOMP / "recorded.json").read_text())
MUST_BE_DENIED = """
acct add_key bpf chroot clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen
fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl
mbind migrate_pages mknod mknodat mount mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at
open_tree perf_event_open pidfd_getfd pivot_root process_vm_readv process_vm_writev ptrace quotactl reboot request_key
seccomp setdomainname sethostname setns settimeofday swapoff swapon umount2 unshare userfaultfd vhangup
"""
"""Calls that change the kernel, the node, other processes or namespaces, or with which programs left containers."""


def list_rules(action: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rules with an action by the name of the system call."""
    rules: dict[str, list[dict[str, Any]]] = {}
    for rule in PROFILE["syscalls"]:
        for name in rule["names"]:
            if rule["action"] == action:
                rules.setdefault(name, []).append(rule)
    return rules


ALLOWED = list_rules("SCMP_ACT_ALLOW")
DENIED = list_rules("SCMP_ACT_ERRNO")


@pytest.mark.parametrize("name", MUST_BE_DENIED.split())
def test_dangerous_call_is_denied_with_eperm(name: str) -> None:
    assert name not in ALLOWED
    assert [rule["errnoRet"] for rule in DENIED[name]] == [1]


def test_other_calls_fail_as_on_a_kernel_without_them() -> None:
    assert (PROFILE["defaultAction"], PROFILE["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert [rule["errnoRet"] for rule in DENIED["clone3"]] == [38]


def test_every_recorded_call_is_allowed() -> None:
    recorded = {name for names in RECORDED["scenarios"].values() for name in names}
    # The C library falls back to clone.
    assert recorded - ALLOWED.keys() == {"clone3"}
    assert set(RECORDED["scenarios"]) >= {"agent", "status", "doctor", "capture", "bundle", "reload", "audit", "demo"}


def test_no_call_is_allowed_and_denied() -> None:
    assert ALLOWED.keys() & DENIED.keys() == set()


def test_calls_that_reach_other_parts_of_the_kernel_have_conditions() -> None:
    conditions = {
        name: [argument["value"] for rule in rules for argument in rule.get("args", [])]
        for name, rules in ALLOWED.items()
        if name in ("socket", "socketpair", "syslog", "clone")
    }
    assert conditions == {"socket": [1, 2, 10, 16], "socketpair": [1], "syslog": [3, 10], "clone": [0x7E020000]}
    assert all(len(ALLOWED[name]) == len(values) for name, values in conditions.items())


def test_every_group_of_the_margin_has_a_reason() -> None:
    for rule in (*MARGIN["groups"], *MARGIN["conditional"]):
        assert rule["reason"].endswith(".")
        assert rule["names"]


def test_unit_has_the_calls_of_the_profile() -> None:
    unit = (ROOT / "deploy/systemd/genplug.service").read_text()
    names = " ".join(re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE)).split()
    assert names == sorted({*ALLOWED, "clone3"})
