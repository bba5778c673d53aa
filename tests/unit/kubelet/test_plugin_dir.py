"""Socket names, socket identities, the lock and leftover sockets (docs/internals/kubelet-contract.md §10)."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.kubelet.plugin_dir import (
    MAX_SOCKET_PATH_BYTES,
    PluginDir,
    PluginDirReplacedError,
    PluginDirUnusableError,
    new_socket_name,
    private_umask,
    stat_socket,
)

KUBELET = Path("/var/lib/kubelet/device-plugins")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as name:
        yield Path(name)


def bind(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    return server


@given(st.from_regex(r"[a-z0-9.-]{1,244}/[A-Za-z0-9_.-]{1,63}", fullmatch=True))
def test_13_socket_name_of_any_resource_is_unique_and_fits_the_path(resource: str) -> None:
    names = {new_socket_name(resource, KUBELET) for _ in range(3)}
    assert len(names) == 3
    assert all(len(os.fsencode(KUBELET / name)) <= MAX_SOCKET_PATH_BYTES for name in names)


def test_13_socket_names_of_similar_resources_differ() -> None:
    long = "a" * 240 + ".example/" + "b" * 62
    assert new_socket_name(long + "x", KUBELET)[:-13] != new_socket_name(long + "y", KUBELET)[:-13]


def test_socket_name_begins_with_a_short_resource_name() -> None:
    assert new_socket_name("nvidia.com/gpu", KUBELET).startswith("genplug-nvidia-com-gpu-")


def test_socket_name_in_a_too_long_directory_raises_an_error_with_a_hint(directory: Path) -> None:
    with pytest.raises(PluginDirUnusableError, match="shorter --device-plugins-dir"):
        new_socket_name("a/b", directory / ("x" * 90))


def test_14_socket_is_accessible_to_its_owner_only_with_any_umask(directory: Path) -> None:
    previous = os.umask(0o000)
    try:
        with private_umask():
            server = bind(directory / "a.sock")
        assert os.umask(0o000) == 0o000
    finally:
        os.umask(previous)
        server.close()
    assert (directory / "a.sock").stat().st_mode & 0o077 == 0


def test_identity_differs_when_a_socket_is_bound_again_at_its_path(directory: Path) -> None:
    path = directory / "kubelet.sock"
    first = bind(path)
    identity = stat_socket(path)
    path.unlink()
    second = bind(path)
    assert identity is not None
    assert stat_socket(path) not in (None, identity)
    first.close()
    second.close()


def test_identity_is_none_without_a_socket(directory: Path) -> None:
    (directory / "kubelet.sock").write_text("")
    assert stat_socket(directory / "kubelet.sock") is None
    assert stat_socket(directory / "missing") is None


def test_16_lock_is_refused_until_the_first_holder_closes_the_directory(directory: Path) -> None:
    first, second = PluginDir(directory), PluginDir(directory)
    assert first.lock()
    assert not second.lock()
    first.close()
    assert second.lock()
    second.close()


def test_15_and_18_remove_leftovers_deletes_own_sockets_only(directory: Path) -> None:
    servers = [bind(directory / name) for name in ("genplug-a.sock", "kubelet.sock", "other.sock")]
    for name in ("DEPRECATION", ".tmp123", "genplug-file.sock", "kubelet_internal_checkpoint"):
        (directory / name).write_text("")
    (directory / "genplug-dir.sock").mkdir()
    held = PluginDir(directory)
    assert held.lock()
    assert held.remove_leftovers() == ("genplug-a.sock",)
    assert {entry.name for entry in directory.iterdir()} == {
        "kubelet.sock",
        "other.sock",
        "DEPRECATION",
        ".tmp123",
        "genplug-file.sock",
        "kubelet_internal_checkpoint",
        "genplug-dir.sock",
    }
    held.close()
    for server in servers:
        server.close()


def test_26_listing_raises_when_the_directory_was_deleted_and_created_again(directory: Path) -> None:
    plugins = directory / "device-plugins"
    plugins.mkdir()
    held = PluginDir(plugins)
    assert held.list_sockets().kubelet is None
    plugins.rmdir()
    plugins.mkdir()
    with pytest.raises(PluginDirReplacedError, match="deleted or replaced"):
        held.list_sockets()
    held.close()


def test_33_missing_directory_raises_an_error_with_a_hint(directory: Path) -> None:
    with pytest.raises(PluginDirUnusableError, match=r"--device-plugins-dir .*daemonset\.devicePluginsDir"):
        PluginDir(directory / "device-plugins")


def test_listing_raises_when_the_directory_was_deleted(directory: Path) -> None:
    plugins = directory / "device-plugins"
    plugins.mkdir()
    held = PluginDir(plugins)
    plugins.rmdir()
    with pytest.raises(PluginDirReplacedError, match="deleted or replaced"):
        held.list_sockets()
    held.close()


def test_listing_as_text_names_its_sockets(directory: Path) -> None:
    held = PluginDir(directory)
    assert str(held.list_sockets()) == "no sockets"
    servers = [bind(directory / name) for name in ("genplug-b.sock", "other.sock", "genplug-a.sock")]
    assert str(held.list_sockets()) == "genplug-a.sock, genplug-b.sock"
    servers.append(bind(directory / "kubelet.sock"))
    assert str(held.list_sockets()) == "kubelet.sock, genplug-a.sock, genplug-b.sock"
    held.close()
    for server in servers:
        server.close()
