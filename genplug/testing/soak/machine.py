"""The node of a soak: devices, files and kubelet of a fake node, and the agent as a process of its own."""

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from random import Random
from typing import Final

import grpc

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.testing.kubelet.records import AdmissionError
from genplug.testing.node.config_files import swap_config_map
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.hanging_files import HangingFiles
from genplug.testing.soak.actions import ACTIONS
from genplug.testing.soak.clock import AgentClock
from genplug.testing.soak.configuration import INVALID_TEXTS, render_configuration, render_policy
from genplug.testing.soak.log_pipe import LogPipe
from genplug.testing.soak.model import Configuration, World
from genplug.testing.soak.mounts import SmallFileSystem
from genplug.testing.soak.steps import Step

_PROGRAM: Final = """\
#!/bin/sh
read -r state < '{state}'
case "$state" in
pass) exit 0;;
hang) exec sleep 3600;;
esac
echo "the program fails for $1"
exit 1
"""
CONFIG_FILE: Final = "genplug.yaml"
_END_SECONDS: Final = 20


class SoakError(Exception):
    """A check failed; the message states what was expected and what was found."""


class CallError(Exception):
    """A call of the kubelet failed; the message is the reason."""


class Machine:
    """The node. ``seed`` determines the devices of the calls that an action makes at once.

    ``has_mounts`` states that directories of the node are file systems of their own, ``has_clock`` that the wall clock
    of the agent can jump.
    """

    def __init__(self, world: World, log_file: Path, seed: int, *, has_mounts: bool, has_clock: bool) -> None:
        self.node = FakeNode()
        self.log = LogPipe(log_file)
        self.calls: Counter[str] = Counter()
        self.violations: list[str] = []
        self.on_inner_settle: Callable[[Step, Collection[str]], Awaitable[None]] | None = None
        self._has_mounts = has_mounts
        self._has_clock = has_clock
        self._families = world.families
        self._world = world
        self._random = Random(seed)
        self._program = self.node.directory / "check"
        self._state = self.node.directory / "state"
        self.clock = AgentClock(self.node.directory)
        self.file_systems: dict[str, SmallFileSystem] = {}
        self._audit_dir = self.node.directory / "audit"
        self._cdi_dir = self.node.locate("/var/run/cdi")
        self._files: dict[str, HangingFiles] = {}
        self._process: Process | None = None
        self._mounts = contextlib.ExitStack()
        self.port = _find_free_port()

    @property
    def agent_pid(self) -> int:
        """The ID of the process of the agent."""
        if self._process is None:
            raise RuntimeError("the agent was not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the agent, None while it runs."""
        return None if self._process is None else self._process.returncode

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Create the devices and the configuration, and run the kubelet and the agent until the context ends."""
        async with self.node:
            with self._mounts:
                self._prepare()
                await self.node.kubelet.start()
                await self._start_agent()
                try:
                    yield
                finally:
                    await self._stop_agent()

    def _prepare(self) -> None:
        self._program.write_text(_PROGRAM.format(state=self._state))
        self._program.chmod(0o755)
        self.set_program("pass")
        if self._has_mounts:
            for name, directory in (
                ("audit", self._audit_dir),
                ("cdi", self._cdi_dir),
                ("plugins", self.node.kubelet.plugins_dir),
            ):
                self.file_systems[name] = SmallFileSystem(directory)
                self._mounts.enter_context(self.file_systems[name].mount())
        for family in self._families:
            location = {"fuse": "/sys/remote", "": "/sys/attributes"}.get(family.probe)
            if family.probe == "fuse" or family.has_attribute:
                contents = dict.fromkeys(family.devices, "ok\n")
                files = HangingFiles(self.node.locate(location or ""), contents, max_hang_seconds=None)
                self._files[family.name] = self._mounts.enter_context(files)
            for device in family.devices:
                if family.probe == "file":
                    self.write_status(device, "ok")
                self.plug(device, self._world.minors[device])
        (self.node.directory / "policy.yaml").write_text(render_policy(self._program))
        self.write_configuration(self._world.configuration, "configmap")

    async def _start_agent(self) -> None:
        node = self.node
        command: list[str | Path] = [sys.executable, "-m", "genplug", "run", "--log-format", "json"]
        command += ["--config", node.config_dir, "--policy", node.directory / "policy.yaml", "--root", node.root]
        command += ["--kubelet-dir", node.kubelet_dir, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--audit-dir", self._audit_dir, "--audit-max-size", "1Mi", "--audit-keep", "3"]
        writing = await self.log.create()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GENPLUG_")}
        if self._has_clock:
            environment |= self.clock.prepare()
        try:
            self._process = await asyncio.create_subprocess_exec(*command, stderr=writing, env=environment)
        finally:
            os.close(writing)

    async def _stop_agent(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SoakError(f"the agent did not end within {_END_SECONDS} s after SIGTERM") from None
        finally:
            self.log.close()
        if process.returncode:
            raise SoakError(f"the agent ended with exit code {process.returncode} after SIGTERM, expected 0")

    async def pause(self, seconds: float) -> None:
        """Wait; the time is a part of a step."""
        await asyncio.sleep(seconds)

    async def execute(self, step: Step) -> None:
        """Perform a step."""
        await ACTIONS[step.kind].execute(step, self)

    async def execute_inner(self, step: Step) -> None:
        """Perform the steps during a step."""
        for inner in step.inner:
            await self.execute(inner)

    async def settle_within(self, step: Step, without: Collection[str] = ()) -> None:
        """Compare the lists with the model while a fault is active, except those of some families."""
        if self.on_inner_settle is not None:
            await self.on_inner_settle(step, without)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent."""
        os.kill(self.agent_pid, number)

    def plug(self, device: str, minor: int | None = None) -> None:
        """Create a device node if it does not exist."""
        if not self.node.locate(f"/dev/{device}").exists():
            self.node.plug(f"/dev/{device}", minor=minor)

    def unplug(self, device: str) -> None:
        """Delete a device node if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.node.unplug(f"/dev/{device}")

    def _files_of(self, device: str) -> HangingFiles | None:
        return next(
            (self._files[f.name] for f in self._families if device in f.devices and f.name in self._files), None
        )

    def write_status(self, device: str, status: str) -> None:
        """Write the status file of a device."""
        if (files := self._files_of(device)) is not None:
            files.write(device, status)
        else:
            location = self.node.locate(f"/sys/filed/{device}")
            location.parent.mkdir(parents=True, exist_ok=True)
            new = location.with_name(f".{device}")
            new.write_text(status)
            new.rename(location)

    def set_read_hangs(self, device: str, *, hangs: bool) -> None:
        """Make the reads of the file of a device hang, or answer them."""
        if (files := self._files_of(device)) is not None:
            (files.hang if hangs else files.release)(device)

    def set_read_fails(self, device: str, *, fails: bool) -> None:
        """Make the reads of the file of a device fail with EIO, or end the failures."""
        if (files := self._files_of(device)) is not None:
            files.fail(device, errno.EIO if fails else 0)

    def set_program(self, state: str) -> None:
        """Set what the program of the ``exec`` probes does."""
        new = self._state.with_name("new-state")
        new.write_text(f"{state}\n")
        new.rename(self._state)

    def write_configuration(self, configuration: Configuration, method: str) -> None:
        """Write a valid configuration."""
        self._write_config(render_configuration(configuration, self._families, self._program), method)

    def write_invalid(self, name: str, method: str) -> None:
        """Write an invalid configuration, or delete the file."""
        directory = self.node.config_dir
        if (text := INVALID_TEXTS[name]) is not None:
            self._write_config(text, method)
        elif (directory / "..data").is_symlink():
            swap_config_map(directory, {})
        else:
            (directory / CONFIG_FILE).unlink(missing_ok=True)

    def _write_config(self, text: str, method: str) -> None:
        if method != "configmap":
            self._remove_volume()
        self.node.write_config(text, CONFIG_FILE, how=method)  # type: ignore[arg-type]

    def _remove_volume(self) -> None:
        """Make a plain directory of the ConfigMap volume: the agent reads only the volume while it exists."""
        data = self.node.config_dir / "..data"
        if data.is_symlink():
            target = data.readlink()
            data.unlink()
            (self.node.config_dir / CONFIG_FILE).unlink(missing_ok=True)
            shutil.rmtree(self.node.config_dir / target)

    def cancel_stream(self, resource: str) -> None:
        """Cancel the list stream of a resource if it is connected."""
        with contextlib.suppress(LookupError):
            self.node.kubelet.cancel_stream(resource)

    @contextlib.asynccontextmanager
    async def allocate_meanwhile(self, tasks: int) -> AsyncIterator[None]:
        """Call Allocate and admit pods from a number of tasks until the context ends; then remove the pods."""
        stopping = asyncio.Event()
        pods = [f"pod-{number}" for number in range(tasks)]
        async with asyncio.TaskGroup() as group:
            for number, pod in enumerate(pods):
                call = self._allocate_until if number % 2 else self._admit_until
                group.create_task(call(stopping, pod))
            try:
                yield
                await asyncio.sleep(0.2)
            finally:
                stopping.set()
        for pod in pods:
            await self.node.kubelet.remove_pod(pod)

    def _choose_ids(self) -> tuple[str, list[str]]:
        resource = self._random.choice(self._families).resource
        ids = sorted(self.node.kubelet.devices(resource).ids) or ["absent"]
        return resource, self._random.sample(ids, min(len(ids), self._random.randint(1, 3)))

    async def allocate(self, resource: str, ids: Sequence[str]) -> pb.ContainerAllocateResponse:
        """Call Allocate as the kubelet does.

        Raises:
            CallError: the agent refused the call, or the connection ended.
        """
        try:
            response = await self.node.kubelet.endpoint(resource).allocate([ids])
        except grpc.aio.AioRpcError as error:
            raise CallError(error.details() or str(error.code())) from error
        except (LookupError, grpc.aio.UsageError) as error:
            raise CallError(str(error)) from error
        except asyncio.CancelledError:
            # gRPC raises the same error for a call whose connection is closed and for a canceled task.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise CallError("the connection was closed") from None
        return response.container_responses[0]

    def device_nodes(self, response: pb.ContainerAllocateResponse) -> list[str]:
        """Return the device nodes that a container gets, also those of CDI devices, whose files are read.

        Raises:
            CallError: no CDI file defines a device of the response.
        """
        nodes = [node.host_path for node in response.devices]
        injected = {node for device in response.cdi_devices for node in self._cdi_nodes(device.name)}
        return sorted([*nodes, *injected])

    def _cdi_nodes(self, device: str) -> list[str]:
        kind, _, name = device.partition("=")
        file = self._cdi_dir / f"genplug-{kind.replace('/', '_')}.json"
        try:
            document = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise CallError(f"the CDI file of {device} cannot be read: {error}") from error
        edits = [entry["containerEdits"] for entry in document["devices"] if entry["name"] == name]
        if len(edits) != 1:
            raise CallError(f"expected a definition of the CDI device {device}, found {len(edits)}")
        return [node.get("hostPath") or node["path"] for node in edits[0].get("deviceNodes", ())]

    async def _allocate_until(self, stopping: asyncio.Event, _pod: str) -> None:
        while not stopping.is_set():
            resource, ids = self._choose_ids()
            try:
                # A change of the configuration can remove the CDI device before its file is read.
                nodes = self.device_nodes(await self.allocate(resource, ids))
            except CallError:
                self.calls["refused"] += 1
            else:
                self._check_nodes(ids, nodes)
            await asyncio.sleep(0.001)

    async def _admit_until(self, stopping: asyncio.Event, pod: str) -> None:
        kubelet = self.node.kubelet
        while not stopping.is_set():
            resource, _ = self._choose_ids()
            try:
                allocation = await kubelet.admit(resource, self._random.randint(1, 2), pod=pod)
                nodes = self.device_nodes(allocation.response)
            except (AdmissionError, CallError, grpc.aio.UsageError):
                self.calls["refused"] += 1
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self.calls["refused"] += 1
            else:
                self._check_nodes(list(allocation.ids), nodes)
            await asyncio.sleep(0.01)
            await kubelet.remove_pod(pod)

    def _check_nodes(self, ids: list[str], nodes: list[str]) -> None:
        self.calls["allocated"] += 1
        expected = sorted({f"/dev/{device_id.split('-r')[0]}" for device_id in ids})
        if nodes != expected:
            self.violations.append(f"Allocate of {sorted(ids)}: expected the device nodes {expected}, found {nodes}")


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
