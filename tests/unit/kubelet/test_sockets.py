"""Names, identities, the lock and the leftovers of the kubelet's directory."""

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


def bound(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    return server


@given(st.from_regex(r"[a-z0-9.-]{1,244}/[A-Za-z0-9_.-]{1,63}", fullmatch=True))
def test_13_a_name_of_any_length_fits_the_path_and_is_never_the_same_twice(resource: str) -> None:
    names = {new_socket_name(resource, KUBELET) for _ in range(3)}
    assert len(names) == 3
    assert all(len(os.fsencode(KUBELET / name)) <= MAX_SOCKET_PATH_BYTES for name in names)


def test_13_similar_names_differ() -> None:
    long = "a" * 240 + ".example/" + "b" * 62
    assert new_socket_name(long + "x", KUBELET)[:-13] != new_socket_name(long + "y", KUBELET)[:-13]


def test_a_short_name_says_what_it_is_of() -> None:
    assert new_socket_name("nvidia.com/gpu", KUBELET).startswith("genplug-nvidia-com-gpu-")


def test_a_directory_too_deep_for_any_socket_is_refused_with_a_way_out(directory: Path) -> None:
    with pytest.raises(PluginDirUnusableError, match="shorter --kubelet-dir"):
        new_socket_name("a/b", directory / ("x" * 90))


def test_14_a_socket_is_for_its_owner_alone_whatever_the_environment_says(directory: Path) -> None:
    before = os.umask(0o000)
    try:
        with private_umask():
            server = bound(directory / "a.sock")
        assert os.umask(0o000) == 0o000
    finally:
        os.umask(before)
        server.close()
    assert (directory / "a.sock").stat().st_mode & 0o077 == 0


def test_a_socket_made_anew_at_the_same_path_is_another(directory: Path) -> None:
    path = directory / "kubelet.sock"
    first = bound(path)
    was = stat_socket(path)
    path.unlink()
    second = bound(path)
    assert was is not None
    assert stat_socket(path) not in (None, was)
    first.close()
    second.close()


def test_what_is_no_socket_has_no_identity(directory: Path) -> None:
    (directory / "kubelet.sock").write_text("")
    assert stat_socket(directory / "kubelet.sock") is None
    assert stat_socket(directory / "missing") is None


def test_16_a_second_process_does_not_get_the_directory_and_gets_it_when_the_first_ends(directory: Path) -> None:
    first, second = PluginDir(directory), PluginDir(directory)
    assert first.lock()
    assert not second.lock()
    first.close()
    assert second.lock()
    second.close()


def test_15_and_18_leftovers_go_and_nothing_else(directory: Path) -> None:
    servers = [bound(directory / name) for name in ("genplug-a.sock", "kubelet.sock", "other.sock")]
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


def test_26_a_directory_deleted_and_made_again_is_gone_for_good(directory: Path) -> None:
    plugins = directory / "device-plugins"
    plugins.mkdir()
    held = PluginDir(plugins)
    assert held.list_sockets().kubelet is None
    plugins.rmdir()
    plugins.mkdir()
    with pytest.raises(PluginDirReplacedError, match="deleted or replaced"):
        held.list_sockets()
    held.close()


def test_33_a_missing_directory_is_said_to_be_missing(directory: Path) -> None:
    with pytest.raises(PluginDirUnusableError, match="--kubelet-dir"):
        PluginDir(directory / "device-plugins")
