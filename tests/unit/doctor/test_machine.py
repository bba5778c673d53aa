"""Facts of the kernel: from the files of other machines, and from this kernel in namespaces of its own."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from genplug.agent import Settings
from genplug.doctor.facts import CgroupLimit, Machine, SecurityModules, UnknownFactError
from genplug.doctor.machine import (
    count_watches,
    read_clock,
    read_inotify,
    read_kernel_log_error,
    read_memory_limit,
    read_mounts,
    read_process,
    read_process_limit,
    read_security,
    read_uevents_error,
)
from genplug.doctor.texts import find_mount

HERE = Machine(Settings(()))


def write_tree(directory: Path, files: dict[str, str]) -> Machine:
    """Write files, and return a machine whose /proc and /sys are in a directory."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(Settings((), root=directory), proc=directory / "proc", sys=directory / "sys")


def run_doctor(
    *prefix: str, script: str = "", checks: tuple[str, ...], arguments: tuple[str, ...] = ()
) -> dict[str, dict[str, Any]]:
    """Run checks by the command in namespaces, after a shell script; return the finding of each check."""
    selected = [word for check in checks for word in ("--check", check)]
    doctor = [sys.executable, "-m", "genplug", "doctor", "-o", "json", *selected, *arguments]
    command = [*prefix, "sh", "-ec", f'{script}\nexec "$@"', "sh", *doctor]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode in {0, 4}, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert (done.returncode == 4) == any(finding["severity"] == "error" for finding in findings)
    return {finding["check"]: finding for finding in findings}


def test_limit_of_cgroups_of_version_2_is_the_lowest_on_the_way_to_the_root(tmp_path: Path) -> None:
    machine = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods/pod1/container\n",
            "sys/fs/cgroup/kubepods/memory.max": "1073741824\n",
            "sys/fs/cgroup/kubepods/pod1/memory.max": "268435456\n",
            "sys/fs/cgroup/kubepods/pod1/memory.current": "1000\n",
            "sys/fs/cgroup/kubepods/pod1/container/memory.max": "max\n",
            "sys/fs/cgroup/kubepods/pod1/container/pids.max": "100\n",
            "sys/fs/cgroup/kubepods/pod1/container/pids.current": "7\n",
        },
    )
    file = str(tmp_path / "sys/fs/cgroup/kubepods/pod1/memory.max")
    assert read_memory_limit(machine) == CgroupLimit(268435456, 1000, file)
    assert read_process_limit(machine).limit == 100
    assert read_process_limit(machine).used == 7


def test_limit_of_cgroups_of_version_1_is_that_of_the_controller(tmp_path: Path) -> None:
    machine = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:memory:/docker/1\n8:pids:/docker/1\n",
            # In a container, the directory is that of the container itself.
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
            "sys/fs/cgroup/pids/pids.max": "max\n",
        },
    )
    assert read_memory_limit(machine).limit == 134217728
    assert read_process_limit(machine).limit is None
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert read_memory_limit(machine).limit is None


def test_limit_is_unknown_without_cgroups(tmp_path: Path) -> None:
    machine = write_tree(tmp_path, {"proc/self/cgroup": "0::/\n"})
    with pytest.raises(UnknownFactError, match="does not exist"):
        read_memory_limit(machine)


def test_security_modules_are_those_of_the_kernel(tmp_path: Path) -> None:
    assert read_security(write_tree(tmp_path / "a", {})) == SecurityModules()
    files = {"sys/fs/selinux/enforce": "1", "sys/module/apparmor/parameters/enabled": "Y\n"}
    assert read_security(write_tree(tmp_path / "b", files)) == SecurityModules("enforcing", has_apparmor=True)
    assert read_security(write_tree(tmp_path / "c", {"sys/fs/selinux/enforce": "0"})).selinux == "permissive"


def test_security_modules_are_found_below_the_root_of_the_host(tmp_path: Path) -> None:
    # A container has no selinuxfs in its own /sys.
    machine = replace(write_tree(tmp_path, {"sys/fs/selinux/enforce": "1"}), sys=tmp_path / "none")
    assert read_security(machine).selinux == "enforcing"


def test_process_has_its_user_and_its_limit_of_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        process = read_process(HERE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert process.open_files == soft - 1
    assert process.user == os.geteuid()


def test_mounts_of_this_process_contain_proc() -> None:
    found = find_mount(read_mounts(HERE), "/proc/self")
    assert found is not None
    assert found.type == "proc"


def test_watches_of_a_process_are_counted(tmp_path: Path) -> None:
    script = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nfd = libc.inotify_init1(0)\n"
        "for name in sys.argv[1:]:\n    assert libc.inotify_add_watch(fd, name.encode(), 0x100) >= 0\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    directories = [tmp_path / name for name in "abc"]
    for directory in directories:
        directory.mkdir()
    command = [sys.executable, "-c", script, *map(str, directories)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert list(count_watches(Path(f"/proc/{process.pid}"))) == [3]
        found = read_inotify(HERE)
        process.communicate()
    assert found.watches >= 3
    assert found.instances >= 1
    assert found.error == ""


@pytest.mark.root
@pytest.mark.parametrize(
    ("check", "limit"),
    [("inotify-watches", "max_inotify_watches"), ("inotify-instances", "max_inotify_instances")],
)
def test_exhausted_inotify_is_an_error(check: str, limit: str) -> None:
    # The limit is that of a user namespace made for this test.
    unshare = ("unshare", "--user", "--map-root-user")
    checks = ("inotify-watches", "inotify-instances", "user-namespace")
    findings = run_doctor(*unshare, script=f"echo 0 > /proc/sys/user/{limit}", checks=checks)
    assert findings[check]["severity"] == "error"
    assert "cannot be created" in findings[check]["found"]
    assert f"fs.inotify.{limit.replace('inotify', 'user')}" in findings[check]["action"]
    (other,) = {"inotify-watches", "inotify-instances"} - {check}
    assert findings[other]["severity"] == "ok"
    assert findings["user-namespace"]["severity"] == "warning"
    assert "0 0 1" in findings["user-namespace"]["found"]


@pytest.mark.root
def test_user_without_root_is_a_warning() -> None:
    finding = run_doctor("unshare", "--user", "--map-user", "1000", checks=("user",))["user"]
    assert finding["severity"] == "warning"
    assert "user ID 1000" in finding["found"]


@pytest.mark.root
def test_mounts_of_a_container_are_compared_with_those_of_the_host(tmp_path: Path) -> None:
    for name in ("dev", "sys", "opt"):
        (tmp_path / name).mkdir()

    def severities(script: str) -> list[str]:
        found = run_doctor(
            *("unshare", "--mount", "--propagation", "private"),
            script=f"cd {tmp_path}\n{script}",
            checks=("dev", "sysfs", "mount-propagation"),
            arguments=("--root", str(tmp_path)),
        )
        return [finding["severity"] for finding in found.values()]

    mounts = "mount --rbind /dev dev; mount --bind /sys sys; mount -t tmpfs none opt"
    assert severities("") == ["warning", "warning", "ok"]
    assert severities(mounts) == ["ok", "ok", "warning"]
    assert severities(f"{mounts}; mount --make-shared opt; mount -t tmpfs none dev") == ["warning", "ok", "ok"]


def test_kernel_log_is_that_of_the_root(tmp_path: Path) -> None:
    machine = write_tree(tmp_path, {"dev/kmsg": ""})
    assert read_kernel_log_error(machine) == ""
    (tmp_path / "dev/kmsg").unlink()
    assert read_kernel_log_error(machine) == "No such file or directory"


@pytest.mark.root
def test_socket_for_uevents_can_be_opened() -> None:
    assert read_uevents_error(HERE) == ""


def test_clock_is_compared_with_the_newest_file(tmp_path: Path) -> None:
    for name, seconds in (("old", 1000), ("new", 5_000_000_000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    clock = read_clock((tmp_path / "old", tmp_path / "new", tmp_path / "missing"))
    assert clock.newest_file == (str(tmp_path / "new"), 5_000_000_000)
    assert 1_700_000_000 < clock.built_at <= clock.now
