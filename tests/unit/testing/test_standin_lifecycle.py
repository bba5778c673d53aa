"""Start, stop and restart of the stand-in, and the files in its directory."""

import json
import socket
import stat
from pathlib import Path

import grpc
import pytest

from genplug.testing.kubelet import KubeletStandIn
from tests.support.processes import count_descriptors
from tests.support.tiny_plugin import TinyPlugin

X = "example.com/x"


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


async def test_start_deletes_all_files_except_the_checkpoint_and_directories(kubelet_dir: Path) -> None:
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


async def test_crash_ends_streams_and_leaves_a_socket_that_refuses_connections(kubelet: KubeletStandIn) -> None:
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


async def test_restart_creates_a_new_socket_and_restores_resources_without_devices(
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
        assert [registration.start for registration in kubelet.registrations] == [1, 2]


async def test_checkpoint_restores_allocations_after_a_restart(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b"})
        held = await kubelet.admit(X, pod="p")
        await kubelet.restart()
    async with TinyPlugin(kubelet.plugins_dir, X, "a", "b") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a", "b"})

        assert await kubelet.admit(X, pod="p") == held
        assert "Allocate" not in plugin.methods
        assert (await kubelet.admit(X, pod="q")).ids != held.ids


async def test_checkpoint_has_the_kubelets_format_and_is_replaced_by_a_rename(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        path = kubelet.plugins_dir / "kubelet_internal_checkpoint"
        before = path.stat().st_ino
        await kubelet.admit(X, pod="p", container="c")

        assert path.stat().st_ino != before
        data = json.loads(path.read_text())["Data"]
        assert data["RegisteredDevices"] == {X: ["a"]}
        [entry] = data["PodDeviceEntries"]
        assert (entry["PodUID"], entry["ContainerName"], entry["ResourceName"]) == ("p", "c", X)
        assert entry["DeviceIDs"] == {"-1": ["a"]}
        assert sorted(path.name for path in kubelet.plugins_dir.iterdir()) == [
            "kubelet.sock",
            "kubelet_internal_checkpoint",
            "tiny.sock",
        ]


async def test_wipe_deletes_all_sockets_except_kubelet_socket(kubelet: KubeletStandIn) -> None:
    async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
        await plugin.register()
        await kubelet.wait_for_list(X, healthy={"a"})
        kubelet.wipe()

        assert not (plugin.directory / plugin.socket).exists()
        connect(kubelet.socket)
        assert kubelet.stream_count(X) == 1


async def test_fifty_restarts_leave_no_open_descriptor(kubelet: KubeletStandIn) -> None:
    async def serve_and_restart() -> None:
        async with TinyPlugin(kubelet.plugins_dir, X, "a") as plugin:
            await plugin.register()
            await kubelet.wait_for_list(X)
            await kubelet.restart()

    await serve_and_restart()
    before = count_descriptors()
    for _ in range(50):
        await serve_and_restart()
    assert count_descriptors() <= before + 2


async def test_second_start_raises_and_second_stop_does_not(kubelet: KubeletStandIn) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        await kubelet.start()
    await kubelet.stop()
    await kubelet.stop()
