"""A kubelet alone, and a whole cluster, of each version of Kubernetes that tests/cluster/build has built."""

import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.cluster import TOOLS, Cluster
from tests.cluster.machine import Machine
from tests.cluster.node import Node

VERSIONS = sorted(
    (one.parent for one in TOOLS.glob("kubernetes/*/kubelet")),
    key=lambda directory: [int(part) for part in directory.name.split(".")],
)
"""Directories of programs, oldest first."""
# Without any the tests must still be there, to be told what they need.
EACH_VERSION = {"params": VERSIONS or [None], "ids": lambda directory: directory.name if directory else "none-built"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the machine beside a test that failed."""
    report = yield
    machines = [one.machine for one in getattr(item, "funcargs", {}).values() if isinstance(one, Cluster | Node)]
    if report.failed and machines:
        report.sections.append(("the machine's logs", machines[0].logs()))
    return report


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the image of the tests' pods."""
    return images.busybox(tmp_path_factory.mktemp("busybox"))


def machine() -> Machine:
    """A machine in a directory with a short name, for sockets lie in it."""
    return Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp")))


@pytest.fixture(scope="module", **EACH_VERSION)
def node(request: pytest.FixtureRequest, busybox: Path) -> Iterator[Node]:
    """containerd and a kubelet that nobody else speaks to."""
    with machine() as one:
        node = Node(one, request.param, images.BUSYBOX)
        node.start()
        node.load(busybox)
        yield node


@pytest.fixture(scope="session")
def genplug_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of genplug's image, built as for a release."""
    archive = tmp_path_factory.mktemp("image") / "genplug.tar"
    build = ["deploy/image/build.sh", "--tag", "registry.example/genplug:test", "--output", archive]
    subprocess.run(build, check=True, cwd=Path(__file__).parents[2])
    return archive


@pytest.fixture(scope="module", **EACH_VERSION)
def cluster(request: pytest.FixtureRequest, busybox: Path, genplug_image: Path) -> Iterator[Cluster]:
    """A cluster of one node."""
    with machine() as one:
        cluster = Cluster(one, request.param, TOOLS)
        cluster.start(busybox, genplug_image)
        yield cluster
