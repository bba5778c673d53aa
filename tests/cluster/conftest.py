"""Fixtures: a kubelet alone and a cluster, for each Kubernetes version that tests/cluster/build has built."""

import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.cluster import Cluster
from tests.cluster.machine import Machine
from tests.cluster.node import Node, read_minor
from tests.cluster.tools import TOOLS, find_versions

VERSIONS = find_versions("kube-apiserver")
"""Directories of the versions with all programs."""
_CLAIMS_ONLY_MINOR = 36
"""The version that is built for its part of DRA; device plugins are tested with the versions around it."""
# Without a built version the tests must still be collected, so that they report what they need.
CLUSTER_PARAMS: list[Path | None] = [path for path in VERSIONS if read_minor(path) != _CLAIMS_ONLY_MINOR] or [None]
NODE_PARAMS: list[Path | None] = [
    path for path in find_versions("kubelet") if read_minor(path) != _CLAIMS_ONLY_MINOR
] or [None]


def name_version(directory: Path | None) -> str:
    return directory.name if directory else "none-built"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the machine to the report of a failed test."""
    report = yield
    fixtures = getattr(item, "funcargs", {}).values()
    machines = [fixture.machine for fixture in fixtures if isinstance(fixture, Cluster | Node)]
    # The machine of the last test of a module is gone after its teardown.
    if report.failed and machines and machines[0].directory.exists():
        report.sections.append(("the machine's logs", machines[0].read_logs()))
    return report


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of the image of the test pods."""
    return images.build_busybox(tmp_path_factory.mktemp("busybox"))


def create_machine() -> Machine:
    """Return a machine in a directory with a short path, because the path of a Unix socket is limited."""
    return Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp")))


@pytest.fixture(scope="module", params=NODE_PARAMS, ids=name_version)
def node(request: pytest.FixtureRequest, busybox: Path) -> Iterator[Node]:
    """Return a node: containerd and a kubelet without an API server."""
    with create_machine() as machine:
        node = Node(machine, request.param, images.BUSYBOX)
        node.start()
        node.import_image(busybox)
        yield node


@pytest.fixture(scope="session")
def genplug_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of the image of genplug, built as for a release."""
    archive = tmp_path_factory.mktemp("image") / "genplug.tar"
    build: list[str | Path] = ["deploy/image/build.sh", "--tag", "registry.example/genplug:test", "--output", archive]
    subprocess.run(build, check=True, cwd=Path(__file__).parents[2])
    return archive


@pytest.fixture(scope="module", params=CLUSTER_PARAMS, ids=name_version)
def cluster(request: pytest.FixtureRequest, busybox: Path, genplug_image: Path) -> Iterator[Cluster]:
    """Return a cluster of one node."""
    with create_machine() as machine:
        cluster = Cluster(machine, request.param, TOOLS)
        cluster.start(busybox, genplug_image)
        yield cluster
