"""Uses every function of the agent on a fake node, whatever runs the agent: a process, or a container with a profile.

The steps fail if a function does not work, so the same steps record system calls and test a profile.
"""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode

X, OPENED, ADDED = "example.com/x", "example.com/opened", "example.com/added"
_HEADER = "apiVersion: genplug.io/v1alpha1\nkind: "
_POLICY = """\
openProbe: true
exec: {allow: [PROGRAM]}
unixSocket: {allow: [/dev/**]}
http: {allow: ["127.0.0.1:PORT"]}
mounts: {allow: [/sys/**]}
"""
_CONFIG = """\
resources:
  example.com/x:
    devices: [{glob: "/dev/x*", sysfs: "/sys/${name}"}]
    allocate:
      inject: cdi
      mounts: [{hostPath: "/sys/${name}", containerPath: "/x"}]
    preStart: {exec: {command: [PROGRAM, --version]}}
    health:
      periodSeconds: 0.2
      timeoutSeconds: 5
      onError: unhealthy
      probes:
      - file: {path: "/sys/${name}/state*", equals: ok}
      - exec: {command: [PROGRAM, --version]}
        periodSeconds: 5
      - http: {url: "http://127.0.0.1:PORT/healthz"}
      - tcpSocket: {port: PORT}
      - unixSocket: {path: /dev/service.sock}
      - uevent: {fail: WEDGED=}
      - kernelLog: {fail: "${name}: dead"}
  example.com/opened:
    devices: [{glob: /dev/opened}]
    health: {periodSeconds: 0.2, onError: unhealthy, probes: [{open: {mode: rw}}]}
"""


class Runner(Protocol):
    """Runs genplug, with paths of its own for the directories of the test (``locations``)."""

    program: str
    """The path of a program that accepts ``--version``."""
    port: int
    """The port of the agent's HTTP endpoints."""
    commands: tuple[str, ...]
    """The commands to run beside the agent, of :func:`run_commands`."""

    def start_agent(
        self, arguments: tuple[str, ...], directories: Mapping[str, tuple[Path, str]]
    ) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """Start the agent; ``directories`` maps a path in the container to a path of this machine, and its mode."""
        ...

    async def run_command(self, *arguments: str) -> tuple[int, str]:
        """Run a command of genplug beside the agent, and return its exit code and its output."""
        ...


def write_node(node: FakeNode, runner: Runner) -> None:
    """Write the devices, the configuration and the policy of the node."""
    for number in range(2):
        node.plug(f"/dev/x{number}")
        node.write(f"/sys/x{number}/state", "ok")
    # The numbers of /dev/null, which can be opened.
    node.plug("/dev/opened", major=1, minor=3)
    for name, text in (("config", _CONFIG), ("policy", _POLICY)):
        kind = "DevicePluginConfig" if name == "config" else "DevicePluginPolicy"
        filled = _HEADER + f"{kind}\n" + text.replace("PROGRAM", runner.program).replace("PORT", str(runner.port))
        if name == "config":
            node.write_config(filled)
        else:
            (node.directory / "policy.yaml").write_text(filled)
    for directory in ("audit", "r/var/run/cdi", "out"):
        (node.directory / directory).mkdir(parents=True)


async def use_every_function(node: FakeNode, kubelet: KubeletStandIn, runner: Runner) -> None:
    """Run the agent on the node, use its functions, and stop it.

    Raises:
        AssertionError: a function does not work.
        TimeoutError: a function does not work in time.
    """
    write_node(node, runner)
    server = await asyncio.start_unix_server(
        lambda _reader, writer: writer.close(), str(node.locate("/dev/service.sock"))
    )
    directories = {
        "/host": (node.root, "ro"),
        "/host/var/run/cdi": (node.locate("/var/run/cdi"), "rw"),
        "/etc/genplug": (node.config_dir, "ro"),
        "/policy.yaml": (node.directory / "policy.yaml", "ro"),
        "/var/lib/kubelet/device-plugins": (kubelet.plugins_dir, "rw"),
        "/var/lib/kubelet/pod-resources": (kubelet.pod_resources_socket.parent, "ro"),
        "/audit": (node.directory / "audit", "rw"),
        "/out": (node.directory / "out", "rw"),
    }
    options = ("--config", "/etc/genplug", "--policy", "/policy.yaml", "--root", "/host", "--audit-dir", "/audit")
    async with (
        server,
        runner.start_agent(("run", *options, "--listen", f"127.0.0.1:{runner.port}"), directories) as agent,
    ):
        await kubelet.wait_for_list(X, healthy={"x0", "x1"}, timeout=60)
        await kubelet.wait_for_list(OPENED, healthy={"opened"}, timeout=60)
        allocation = await kubelet.admit(X, 1, pod="first", ids={"x1"})
        assert [device.name for device in allocation.response.cdi_devices]
        node.write("/sys/x0/state", "dead")
        await kubelet.wait_for_list(X, unhealthy={"x0"}, timeout=60)
        node.write("/sys/x0/state", "ok")
        node.plug("/dev/x2")
        node.write("/sys/x2/state", "ok")
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"}, timeout=60)
        node.plug("/dev/added0")
        text = node.config_dir.joinpath("genplug.yaml").read_text()
        node.write_config(f"{text}  {ADDED}: {{devices: [{{glob: /dev/added*}}]}}\n", how="rename")
        await kubelet.wait_for_list(ADDED, healthy={"added0"}, timeout=60)
        await kubelet.restart()
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"}, timeout=60)
        await run_commands(runner)
        await kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"}, timeout=60)
        agent.terminate()
        assert await asyncio.wait_for(agent.wait(), 30) == 0


async def run_commands(runner: Runner) -> None:
    """Run commands that an administrator uses beside the agent.

    Raises:
        AssertionError: a command has an unexpected exit code.
    """
    host = ("--config", "/etc/genplug", "--policy", "/policy.yaml", "--root", "/host")
    address = ("--address", f"127.0.0.1:{runner.port}")
    commands = {
        "status": (("-o", "wide", *address), {0, 4}),
        "plan": ((*host, "--probe"), {0, 1, 3}),
        "doctor": (host, {0, 1, 4}),
        "capture": ((*host, "--output", "/out/capture.tar.gz"), {0}),
        "validate": (("--policy", "/policy.yaml", "/etc/genplug"), {0}),
        "audit": (("/audit",), {0}),
        "bundle": (("--output", "/out/bundle.tar.gz", *host, *address), {0, 1}),
        "reload": ((), {0}),
    }
    for command in runner.commands:
        arguments, codes = commands[command]
        code, output = await runner.run_command(command, *arguments)
        assert code in codes, f"genplug {command} exited with {code}: {output}"


def find_free_port() -> int:
    """Return a port on which no program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
