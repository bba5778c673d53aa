"""Failed steps of an endpoint: each is an event once, with the error of the system, and is retried."""

import asyncio
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from genplug.kubelet.bind import bind_error
from genplug.kubelet.endpoint_state import FREE_DISCONNECTS
from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.events import drain_events
from tests.support.http import get
from tests.support.mounts import bind_mount, mount_tmpfs, remount
from tests.support.resources import X_CONFIG, X
from tests.support.sockets import list_plugin_sockets


def fill(directory: Path) -> Iterator[Path]:
    """Create files until the file system has no inode left; yield each."""
    with suppress(OSError):
        for number in range(10_000):
            path = directory / f"full-{number}"
            path.touch()
            yield path


@pytest.mark.root
async def test_full_directory_is_an_event_once_with_the_error_of_the_system(xy_node: FakeNode) -> None:
    kubelet = xy_node.kubelet
    kubelet.plugins_dir.mkdir(parents=True)
    with mount_tmpfs(kubelet.plugins_dir, "nr_inodes=16"):
        async with kubelet, xy_node.run_agent(X_CONFIG, listen=("127.0.0.1", 0)) as agent:
            await kubelet.wait_for_list(X, healthy={"x0"})
            events = record_events(agent)
            files = list(fill(kubelet.plugins_dir))
            [name] = list_plugin_sockets(kubelet)
            (kubelet.plugins_dir / name).unlink()
            failing = asyncio.ensure_future(next_event(events, Event.SERVE_FAILED))
            while not failing.done():
                # The inode of the socket is free only when its server has stopped.
                files += fill(kubelet.plugins_dir)
                await asyncio.sleep(0.02)
            failed = await failing
            reason = f"cannot create a socket in {kubelet.plugins_dir}: No space left on device; free space or inodes"
            assert f"{X}: cannot serve: {reason}" in failed.text
            assert "GRPC" not in failed.text
            code, text = await get(agent, "/readyz?verbose")
            assert code == 503
            assert reason in text
            [status] = agent.status.resources
            assert reason in status.reason
            _, metrics = await get(agent, "/metrics")
            assert f'genplug_registrations_total{{resource="{X}",result="failure"}} 1.0' in metrics
            for path in set(files):
                path.unlink()
            await next_event(events, Event.REGISTERED)
            await kubelet.wait_for_list(X, healthy={"x0"})
            assert Event.SERVE_FAILED not in set(drain_events(events))
        await kubelet.stop()


@pytest.mark.root
async def test_read_only_directory_is_an_event_with_the_error_of_the_system(
    xy_node: FakeNode, kubelet: KubeletStandIn
) -> None:
    mounted = xy_node.directory / "m"
    with ExitStack() as stack:
        stack.enter_context(bind_mount(kubelet.plugins_dir, mounted))
        async with xy_node.run_agent(X_CONFIG, device_plugins_dir=mounted) as agent:
            await kubelet.wait_for_list(X, healthy={"x0"})
            events = record_events(agent)
            remount(mounted, "ro")
            [name] = list_plugin_sockets(kubelet)
            (kubelet.plugins_dir / name).unlink()
            failed = await next_event(events, Event.SERVE_FAILED)
            assert f"cannot create a socket in {mounted}: Read-only file system" in failed.text
            remount(mounted, "rw")
            await kubelet.wait_for_list(X, healthy={"x0"})


@pytest.mark.parametrize("loss", ["socket", "stream"])
async def test_devices_are_back_after_each_loss_without_a_failed_attempt(
    xy_node: FakeNode, kubelet: KubeletStandIn, loss: str
) -> None:
    # The pauses are those of tests/unit/kubelet/test_endpoint_state.py; ``python -m benchmarks`` measures the time.
    async with xy_node.run_agent(X_CONFIG) as agent:
        events = record_events(agent)
        await kubelet.wait_for_list(X, healthy={"x0"})
        await next_event(events, Event.REGISTERED)
        for number in range(1, FREE_DISCONNECTS + 1):
            if loss == "stream":
                kubelet.cancel_stream(X)
            else:
                [name] = list_plugin_sockets(kubelet)
                (kubelet.plugins_dir / name).unlink()
            await next_event(events, Event.DISCONNECTED)
            # Another generation would be the retry of a failed attempt.
            registered = await next_event(events, Event.REGISTERED)
            assert registered.facts["generation"] == number + 1
            await kubelet.wait_for_list(X, healthy={"x0"})
        assert len(kubelet.attempts) == FREE_DISCONNECTS + 1
        assert not {Event.SERVE_FAILED, Event.REGISTRATION_FAILED} & set(drain_events(events))


async def test_each_change_of_a_flapping_device_is_listed(xy_node: FakeNode, kubelet: KubeletStandIn) -> None:
    flaps = 5
    async with xy_node.run_agent(X_CONFIG):
        await kubelet.wait_for_list(X, healthy={"x0"})
        for _ in range(flaps):
            # The first changes are listed at once; each of the others waits until the budget of lists allows it.
            xy_node.plug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0", "x1"})
            xy_node.unplug("/dev/x1")
            await kubelet.wait_for_list(X, healthy={"x0"}, unhealthy={"x1"})
        assert len(kubelet.messages(X)) == 1 + 2 * flaps


def test_error_of_a_bind_is_the_error_of_the_system(tmp_path: Path) -> None:
    assert bind_error(tmp_path / "a") is None
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names, not paths
    error = bind_error(tmp_path / "missing" / "a")
    assert error is not None
    assert error.errno == errno.ENOENT


def test_error_of_a_bind_without_free_descriptors_is_returned(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number of a new descriptor, and the numbers of the standard streams are used.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        error = bind_error(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error is not None
    assert error.errno == errno.EMFILE
