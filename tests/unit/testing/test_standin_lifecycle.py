"""How the stand-in starts, ends and starts again, and what it leaves in its directory."""

import json
import socket
import stat
from pathlib import Path

import grpc
import pytest

from genplug.testing.kubelet.stand_in import KubeletStandIn
from tests.support.processes import count_descriptors
from tests.support.tiny_plugin import TinyPlugin

X = "example.com/x"


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


async def test_a_start_deletes_every_file_but_the_checkpoint_and_spares_directories(kubelet_dir: Path) -> None:
    directory = kubelet_dir / "device-plugins"
    (directory / "kept").mkdir(parents=True)
    (directory / "kept" / "deep.sock").touch()
    for name in ("file", ".hidden", "kubelet.sock", "DEPRECATION"):
        (directory / name).touch()
    (directory / "link-to-a-directory").symlink_to("kept")
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(directory / "left.sock"))
    (directory / "kubelet_internal_checkpoint").write_text("not JSON")

    async with KubeletStandIn(kubelet_dir) as kubelet:
        assert sorted(path.name for path in directory.iterdir()) == [
            "kept",
            "kubelet.sock",
            "kubelet_internal_checkpoint",
        ]
        assert (directory / "kept" / "deep.sock").exists()
        assert stat.S_ISSOCK(kubelet.socket.stat().st_mode)
    left.close()


async def test_a_crash_leaves_a_socket_that_refuses_connections_and_ends_the_streams(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        before = kubelet.socket.stat()
        await kubelet.crash()

        assert kubelet.socket.stat().st_ino == before.st_ino
        assert kubelet.socket.stat().st_mtime_ns == before.st_mtime_ns
        with pytest.raises(ConnectionRefusedError):
            connect(kubelet.socket)
        with pytest.raises(ConnectionRefusedError):
            connect(kubelet.pod_resources_socket)
        with pytest.raises(grpc.aio.AioRpcError):
            await plugin.register()
        await plugin.stream_ended.wait()
        assert kubelet.devices(X).ids == frozenset()


async def test_a_restart_makes_a_new_socket_wipes_the_plugins_and_knows_resources_without_devices(
    kubelet: KubeletStandIn,
) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        before = kubelet.socket.stat().st_mtime_ns
        await kubelet.restart()

        connect(kubelet.socket)
        assert kubelet.socket.stat().st_mtime_ns != before
        assert not (plugin.directory / plugin.socket).exists()
        assert kubelet.node_status().capacity == {X: 0}
        assert kubelet.starts == 2
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        assert [one.start for one in kubelet.registrations] == [1, 2]


async def test_allocations_survive_a_restart_by_the_checkpoint(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b"})
        held = await kubelet.admit(X, pod="p")
        await kubelet.restart()
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b"})

        assert await kubelet.admit(X, pod="p") == held
        assert "Allocate" not in plugin.names
        assert (await kubelet.admit(X, pod="q")).ids != held.ids


async def test_the_checkpoint_has_the_real_ones_form_and_is_replaced_whole(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        path = kubelet.plugins_dir / "kubelet_internal_checkpoint"
        before = path.stat().st_ino
        await kubelet.admit(X, pod="p", container="c")

        assert path.stat().st_ino != before
        data = json.loads(path.read_text())["Data"]
        assert data["RegisteredDevices"] == {X: ["a"]}
        (entry,) = data["PodDeviceEntries"]
        assert (entry["PodUID"], entry["ContainerName"], entry["ResourceName"]) == ("p", "c", X)
        assert entry["DeviceIDs"] == {"-1": ["a"]}
        assert sorted(one.name for one in kubelet.plugins_dir.iterdir()) == [
            "kubelet.sock",
            "kubelet_internal_checkpoint",
            "tiny.sock",
        ]


async def test_a_wipe_while_running_spares_the_kubelets_own_socket_only(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        kubelet.wipe()

        assert not (plugin.directory / plugin.socket).exists()
        connect(kubelet.socket)
        assert kubelet.stream_count(X) == 1


async def test_fifty_restarts_leave_no_descriptor_behind(kubelet: KubeletStandIn) -> None:
    async def live_and_die() -> None:
        async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
            await plugin.register()
            await kubelet.wait_for_list(X)
            await kubelet.restart()

    await live_and_die()
    before = count_descriptors()
    for _ in range(50):
        await live_and_die()
    assert count_descriptors() <= before + 2


async def test_starting_twice_is_a_mistake_and_stopping_twice_is_none(kubelet: KubeletStandIn) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        await kubelet.start()
    await kubelet.stop()
    await kubelet.stop()
