"""The process of the agent in procfs: which it is, what started it, and its rights and mounts."""

from pathlib import Path
from typing import Any

import pytest

from genplug.record.agent_process import (
    AgentProcess,
    describe_command,
    describe_method,
    describe_mounts,
    describe_security,
    find_agent,
    shares_files,
)
from genplug.record.facts import Fact, Known, Unknown
from tests.unit.record.conftest import COMMAND, AddProcess

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def read_agent(proc: Path) -> AgentProcess:
    agent = find_agent(proc)
    assert isinstance(agent, AgentProcess)
    return agent


def value_of(fact: Fact) -> Any:
    assert isinstance(fact, Known), fact
    return fact.value


@pytest.mark.parametrize(
    "command",
    [
        COMMAND,
        ("genplug", "run", *COMMAND[3:]),
        ("python3", "-m", "genplug", "run", *COMMAND[3:]),
        ("/usr/bin/python3.11", "-Isu", "/usr/bin/genplug", "run", *COMMAND[3:]),
    ],
)
def test_agent_is_found_by_its_command_line(proc: Path, add_process: AddProcess, command: tuple[str, ...]) -> None:
    add_process(1, ("/sbin/init",))
    add_process(7, ("grep", "genplug", "run"))
    add_process(8, ("genplug", "status"))
    add_process(20, command)
    agent = read_agent(proc)
    assert (agent.pid, agent.arguments) == (20, COMMAND[3:])
    assert value_of(describe_command(agent)) == "genplug run --config /etc/genplug --root /host"


def test_several_agents_are_ambiguous(proc: Path, add_process: AddProcess) -> None:
    add_process(20)
    add_process(3)
    assert find_agent(proc) == Unknown("several processes of 'genplug run' are visible: PID 3, 20")


def test_process_of_another_user_is_not_the_agent(proc: Path, add_process: AddProcess) -> None:
    status = add_process(3, ("genplug", "run", "--config", "/root/.kube/config")) / "status"
    status.write_text(status.read_text().replace("1000\t0", "0\t99999"))
    assert isinstance(find_agent(proc), Unknown)
    add_process(20)
    assert read_agent(proc).pid == 20


def test_missing_agent_is_the_reason_of_every_fact(proc: Path) -> None:
    agent = find_agent(proc)
    assert isinstance(agent, Unknown)
    assert "no process of 'genplug run'" in agent.reason
    assert describe_method(agent) == describe_mounts(agent, agent) == describe_security(agent, agent).user == agent


@pytest.mark.parametrize(
    ("cgroup", "pid", "environment", "method"),
    [
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + "a" * 64 + ".scope\n", 44, {}, "pod"),
        ("0::/\n", 1, POD, "pod"),
        ("12:pids:/docker/" + "b" * 64 + "\n", 44, {}, "container of unknown origin"),
        ("0::/\n", 1, {}, "container of unknown origin"),
        ("0::/system.slice/genplug.service\n", 44, {}, "systemd unit genplug.service"),
        ("0::/user.slice/session-2.scope\n", 44, {}, "process"),
    ],
)
def test_deployment_method_follows_from_cgroup_and_environment(  # noqa: PLR0913, PLR0917 - the columns of the table
    proc: Path, add_process: AddProcess, cgroup: str, pid: int, environment: dict[str, str], method: str
) -> None:
    add_process(pid, cgroup=cgroup, environment=environment)
    assert value_of(describe_method(read_agent(proc))) == method


def test_mounts_of_a_container_leave_out_those_of_the_runtime(proc: Path, add_process: AddProcess) -> None:
    add_process(1, environment=POD)
    agent = read_agent(proc)
    assert value_of(describe_mounts(agent, describe_method(agent))) == (
        {"path": "/host/dev", "readOnly": True, "fileSystem": "devtmpfs"},
        {"path": "/host/srv/a b", "readOnly": True, "fileSystem": "ext4"},
        {"path": "/var/lib/kubelet/device-plugins", "readOnly": False, "fileSystem": "ext4"},
    )


def test_agent_outside_of_a_container_has_no_mounts(proc: Path, add_process: AddProcess) -> None:
    add_process(44, cgroup="0::/system.slice/genplug.service\n")
    agent = read_agent(proc)
    assert value_of(describe_mounts(agent, describe_method(agent))) == ()


def test_rights_are_those_of_the_kernel(proc: Path, add_process: AddProcess) -> None:
    add_process(1, environment=POD)
    agent = read_agent(proc)
    security = describe_security(agent, describe_method(agent))
    assert value_of(security.user) == {"uid": 0, "gid": 0}
    assert value_of(security.capabilities) == {"effective": (), "bounding": ("NET_ADMIN", "NET_RAW")}
    assert value_of(security.no_new_privileges) is True
    assert value_of(security.seccomp) == "filter"
    assert value_of(security.security_module) == "cri-containerd.apparmor.d (enforce)"
    assert isinstance(security.privileged, Unknown)
    assert isinstance(security.host_namespaces, Unknown)


def test_namespaces_of_the_host_are_those_of_process_1(proc: Path, add_process: AddProcess) -> None:
    for pid, network in ((1, "net:[1]"), (44, "net:[2]")):
        directory = add_process(pid, ("init",) if pid == 1 else COMMAND, cgroup="0::/system.slice/genplug.service\n")
        (directory / "ns").mkdir()
        for name in ("ipc", "mnt", "net", "pid", "user", "uts"):
            (directory / "ns" / name).symlink_to(network if name == "net" else f"{name}:[1]")
    agent = read_agent(proc)
    security = describe_security(agent, describe_method(agent))
    assert value_of(security.host_namespaces) == ("ipc", "mnt", "pid", "user", "uts")
    assert value_of(security.privileged) is False


@pytest.mark.parametrize(("own", "is_shared"), [("mnt:[1]", True), ("mnt:[2]", False)])
def test_container_shares_files_only_in_its_mount_namespace(
    proc: Path, add_process: AddProcess, own: str, *, is_shared: bool
) -> None:
    directory = add_process(44, cgroup="0::/kubepods/pod1\n")
    for parent, target in ((directory, "mnt:[1]"), (proc / "self", own)):
        (parent / "ns").mkdir(parents=True)
        (parent / "ns/mnt").symlink_to(target)
    agent = read_agent(proc)
    assert shares_files(agent, describe_method(agent)) is is_shared


def test_unreadable_status_is_a_reason(proc: Path, add_process: AddProcess) -> None:
    (add_process(1) / "status").unlink()
    agent = read_agent(proc)
    assert describe_security(agent, describe_method(agent)).user == Unknown("/proc/PID/status cannot be read")
