"""The agent as a user without permission for the files of the kubelet (docs/internals/kubelet-contract.md §10)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genplug.observe.events import Event
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from tests.support.agent_process import read_log_entry, start_agent
from tests.support.http import get_from_port
from tests.support.network import free_port
from tests.support.pages import ROOT
from tests.support.resources import X_CONFIG, X

pytestmark = pytest.mark.root

USER = 65534
AS_OTHER_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a copy of genplug that every user can read, wherever the checkout is."""
    directory = tmp_path_factory.mktemp("code")
    for name in ("genplug", "schemas"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    for parent in (directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    started = subprocess.run([*AS_OTHER_USER, sys.executable, "-m", "genplug", "--version"], cwd=directory, check=False)
    assert started.returncode == 0, "other users must be able to execute the Python of the tests"
    return directory


@pytest.fixture
def configured_node(xy_node: FakeNode) -> FakeNode:
    """Return a node with a configuration that every user can read."""
    xy_node.write_config(X_CONFIG)
    for directory in (xy_node.directory, xy_node.kubelet_dir):
        directory.chmod(0o755)
    return xy_node


async def test_76_user_without_permission_for_the_socket_is_reported_with_the_user_and_a_hint(
    configured_node: FakeNode, kubelet: KubeletStandIn, code: Path
) -> None:
    os.chown(kubelet.plugins_dir, USER, USER)
    kubelet.socket.chmod(0o755)
    port = free_port()
    async with start_agent(configured_node, f"--listen=127.0.0.1:{port}", prefix=AS_OTHER_USER, cwd=code) as process:
        entry = await read_log_entry(process, Event.REGISTRATION_FAILED)
        error = (
            f"cannot connect to {kubelet.socket}: Permission denied. This process has the user ID {USER}; "
            f"{kubelet.socket} has the owner 0 and the mode 0755. Run genplug as root"
        )
        assert error in entry["msg"]
        status, text = await get_from_port(port, "/readyz?verbose")
        assert status == 503
        assert error in text
        # Permission without a restart is enough.
        kubelet.socket.chmod(0o777)
        await kubelet.wait_for_list(X, healthy={"x0"})
        assert (await get_from_port(port, "/readyz"))[0] == 200


@pytest.mark.parametrize(("mode", "operation"), [(0o750, "open the kubelet's directory"), (0o755, "create sockets in")])
async def test_76_user_without_permission_for_the_directory_is_reported_with_the_user_and_a_hint(
    configured_node: FakeNode, kubelet: KubeletStandIn, code: Path, mode: int, operation: str
) -> None:
    kubelet.plugins_dir.chmod(mode)
    async with start_agent(configured_node, prefix=AS_OTHER_USER, cwd=code) as process:
        entry = await read_log_entry(process, Event.PLUGIN_DIR_UNUSABLE)
        assert entry["msg"] == (
            f"cannot {operation} {kubelet.plugins_dir}: Permission denied. This process has the user ID {USER}; "
            f"{kubelet.plugins_dir} has the owner 0 and the mode {mode:04o}. Run genplug as root"
        )
        assert process.returncode is None


async def test_76_directory_above_the_socket_that_denies_the_access_is_named(
    configured_node: FakeNode, kubelet: KubeletStandIn, code: Path
) -> None:
    configured_node.kubelet_dir.chmod(0o700)
    async with start_agent(configured_node, prefix=AS_OTHER_USER, cwd=code) as process:
        entry = await read_log_entry(process, Event.PLUGIN_DIR_UNUSABLE)
        assert f"{kubelet.plugins_dir}: Permission denied" in entry["msg"]
        assert f"{configured_node.kubelet_dir} has the owner 0 and the mode 0700. Run genplug as root" in entry["msg"]
