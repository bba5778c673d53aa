"""The image with the privileges that the documentation states: the seccomp profile, capabilities, the device cgroup."""

import asyncio
import contextlib
import errno
import json
import os
import platform
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.fake_node import FakeNode
from tests.image.test_image import build_mounts
from tests.support.agent_functions import use_every_function
from tests.support.agent_process import read_log_entry
from tests.support.image import Image, Sandbox
from tests.support.kernel_log import crash, make_name, needs_crash_log
from tests.support.mounts import bind_mount
from tests.support.recipes import CONFIGS, POLICIES, RECIPES, read_expectation

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

PROFILE = Path(__file__).parents[2] / "deploy/seccomp/genplug.json"
PYTHON = ("/usr/bin/python3.11", "-I", "-c")


class ContainerRunner:
    """Runs the agent in a container of the image, with the privileges of the chart and the profile."""

    program = "/usr/bin/genplug"
    port = 9808
    # `bundle` does the work of the other commands.
    commands: tuple[str, ...] = ("status", "bundle", "audit", "reload")

    def __init__(self, image: Image) -> None:
        self._image, self._name = image, make_name()

    @contextlib.asynccontextmanager
    async def start_agent(
        self, arguments: tuple[str, ...], directories: Mapping[str, tuple[Path, str]]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start the agent in the container."""
        sandbox = Sandbox(seccomp=PROFILE, capabilities=("SYSLOG",), has_device_cgroup=True)
        start = self._image.start(*arguments, mounts=directories, sandbox=sandbox, name=self._name)
        async with start as process:
            yield process

    async def run_command(self, *arguments: str) -> tuple[int, str]:
        """Run a command in the container of the agent."""
        return await self._image.execute(self._name, "genplug", *arguments)


def make_kernel_log(node: FakeNode) -> None:
    """Give the node the device of the kernel's log, as a mount of /dev of the host does."""
    os.mknod(node.locate("/dev/kmsg"), stat.S_IFCHR | 0o600, os.makedev(1, 11))


async def test_every_function_works_with_the_profile_and_one_capability(
    image: Image, node: FakeNode, kubelet: KubeletStandIn
) -> None:
    make_kernel_log(node)
    await use_every_function(node, kubelet, ContainerRunner(image))


@needs_crash_log
async def test_kernel_log_is_read_without_the_right_to_open_its_device(
    image: Image, node: FakeNode, kubelet: KubeletStandIn
) -> None:
    name = make_name()
    make_kernel_log(node)
    node.plug("/dev/x0")
    node.write_config(f"""
        apiVersion: genplug.io/v1alpha1
        kind: DevicePluginConfig
        resources:
          example.com/x:
            devices: [{{glob: "/dev/x*"}}]
            health: {{probes: [{{kernelLog: {{fail: "^{name}\\\\["}}}}]}}
    """)
    sandbox = Sandbox(seccomp=PROFILE, capabilities=("SYSLOG",), has_device_cgroup=True)
    flags = ("run", "--config", "/etc/genplug", "--root", "/host")
    async with image.start(*flags, mounts=build_mounts(node, kubelet), sandbox=sandbox):
        await kubelet.wait_for_list("example.com/x", healthy={"x0"})
        crash(name)
        await kubelet.wait_for_list("example.com/x", unhealthy={"x0"})


CALLS = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    return 0 if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) >= 0 else ctypes.get_errno()
print(json.dumps({name: call(*arguments) for name, arguments in json.loads(sys.argv[1]).items()}))
"""
X86_64_CALLS = {
    "mount": [165, 0, 0, 0, 0, 0],
    "umount2": [166, 0, 0],
    "ptrace": [101, 0, 0, 0, 0],
    "bpf": [321, 0, 0, 0],
    "init_module": [175, 0, 0, 0],
    "finit_module": [313, 0, 0, 0],
    "kexec_load": [246, 0, 0, 0, 0],
    "setns": [308, 0, 0],
    "unshare": [272, 0x10000000],
    "add_key": [248, 0, 0, 0, 0, 0],
    "perf_event_open": [298, 0, 0, 0, 0, 0],
    "io_uring_setup": [425, 1, 0],
    "userfaultfd": [323, 0],
    "mknod": [133, 0, 0, 0],
    "settimeofday": [164, 0, 0],
    "open_by_handle_at": [304, 0, 0, 0],
}
"""Calls with harmless arguments: without the profile, the kernel refuses them for another reason, or accepts them."""
OTHER_CALLS = {
    "clone3": ([435, 0, 0], errno.ENOSYS),
    "a call of a later kernel": ([999], errno.ENOSYS),
    "clone of a user namespace": ([56, 0x10000000, 0, 0, 0, 0], errno.ENOSYS),
    "socket of AF_PACKET": ([41, 17, 3, 0], errno.ENOSYS),
    "socket of AF_VSOCK": ([41, 40, 1, 0], errno.ENOSYS),
    "syslog that clears the log": ([103, 5, 0, 0], errno.ENOSYS),
    "syslog that reads the size of the log": ([103, 10, 0, 0], 0),
    "getpid": ([39], 0),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are those of x86-64")
def test_profile_refuses_calls_that_the_agent_does_not_use_even_with_capabilities(image: Image) -> None:
    calls = X86_64_CALLS | {name: arguments for name, (arguments, _) in OTHER_CALLS.items()}
    results = {}
    for profile in (None, PROFILE):
        capabilities = ("SYS_ADMIN", "SYS_PTRACE", "SYSLOG", "MKNOD", "SYS_TIME")
        sandbox = Sandbox(program=PYTHON, seccomp=profile, capabilities=capabilities)
        run = image.run(CALLS, json.dumps(calls), sandbox=sandbox)
        assert run.returncode == 0, run.stderr
        results[profile] = json.loads(run.stdout)
    assert {name: results[PROFILE][name] for name in X86_64_CALLS} == dict.fromkeys(X86_64_CALLS, errno.EPERM)
    assert {name: results[PROFILE][name] for name in OTHER_CALLS} == {
        name: expected for name, (_, expected) in OTHER_CALLS.items()
    }
    # It is the profile that refuses them, not the kernel.
    assert (results[None]["unshare"], results[None]["mount"]) == (0, errno.EFAULT)


async def test_denied_call_is_named_in_the_log(
    image: Image, node: FakeNode, kubelet: KubeletStandIn, tmp_path: Path
) -> None:
    node.plug("/dev/x0")
    node.write_config("""
        apiVersion: genplug.io/v1alpha1
        kind: DevicePluginConfig
        resources:
          example.com/x: {devices: [{glob: "/dev/x*"}]}
    """)
    profile = json.loads(PROFILE.read_text())
    is_netlink = {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule.get("args") != [is_netlink]]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    flags = ("run", "--config", "/etc/genplug", "--root", "/host", "--log-format", "json")
    sandbox = Sandbox(seccomp=path)
    stderr = asyncio.subprocess.PIPE
    async with image.start(*flags, mounts=build_mounts(node, kubelet), sandbox=sandbox, stderr=stderr) as process:
        await kubelet.wait_for_list("example.com/x", healthy={"x0"})
        entry = await read_log_entry(process, Event.WATCH_DEGRADED)
    assert "kernel uevents cannot be received" in entry["msg"]
    assert "Function not implemented; the seccomp profile, AppArmor or SELinux may deny" in entry["msg"]


async def test_agent_in_a_user_namespace_states_why_it_cannot_reach_the_kubelet(
    image: Image, node: FakeNode, kubelet: KubeletStandIn
) -> None:
    for directory in (kubelet.plugins_dir, kubelet.plugins_dir.parent, node.directory):
        directory.chmod(0o755)
    # The directories of pytest are not accessible to other users.
    bundle = node.directory / "bundle"
    node.plug("/dev/x0")
    node.write_config("""
        apiVersion: genplug.io/v1alpha1
        kind: DevicePluginConfig
        resources:
          example.com/x: {devices: [{glob: "/dev/x*"}]}
    """)
    flags = ("run", "--config", "/etc/genplug", "--root", "/host", "--log-format", "json")
    stderr = asyncio.subprocess.PIPE
    sandbox = Sandbox(has_user_namespace=True)
    mounts = build_mounts(node, kubelet)
    image.bundle.chmod(0o755)
    for path in ("/tmp", *mounts):
        # The runtime creates missing directories as the user of the container.
        (image.bundle / "rootfs" / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    with bind_mount(image.bundle, bundle):
        accessible = replace(image, bundle=bundle)
        async with accessible.start(*flags, mounts=mounts, sandbox=sandbox, stderr=stderr) as process:
            entry = await read_log_entry(process, Event.PLUGIN_DIR_UNUSABLE)
    assert "This process is in a user namespace" in entry["msg"]
    assert "Run the pod without 'hostUsers: false'" in entry["msg"]


PLANS = """
import contextlib, io, json, pathlib, sys
from genplug.cli.main import main
found = {}
for path in sorted(pathlib.Path("/configs").iterdir()):
    policy = pathlib.Path("/policies", path.name)
    options = ["--policy", str(policy)] if policy.exists() else []
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        main(["plan", "--config", str(path), "--root", f"/machines/{path.stem}", "-o", "json", *options])
    document = json.loads(output.getvalue())
    found[path.stem] = {
        resource["name"]: sorted(device["id"] for device in resource["devices"]) for resource in document["resources"]
    }
print(json.dumps(found))
"""


def test_recipes_find_their_devices_without_any_capability(image: Image, tmp_path: Path) -> None:
    for recipe in RECIPES:
        build_machine(recipe, tmp_path / recipe)
    mounts = {"/machines": (tmp_path, "ro"), "/configs": (CONFIGS, "ro"), "/policies": (POLICIES, "ro")}
    sandbox = Sandbox(program=PYTHON, seccomp=PROFILE, has_device_cgroup=True)
    run = image.run(PLANS, sandbox=sandbox, mounts=mounts)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for recipe in RECIPES:
        expected = read_expectation(recipe)["resources"]
        assert found[recipe].keys() == expected.keys()
        # The expectations have one of the replicas of a device.
        assert {name for name, devices in expected.items() if not devices.keys() <= set(found[recipe][name])} == set()
