"""Print the record of the chart's example cluster, for docs/how-to/release-record.txt.

Requires root, .ci/tools and tests/cluster/build: ``python -m tests.cluster.record_example [VERSION]``.
"""

import platform
import sys
import tempfile
from pathlib import Path

import yaml

from tests.cluster import images
from tests.cluster.cluster import CHART, Cluster
from tests.cluster.machine import Machine
from tests.cluster.tools import TOOLS
from tests.cluster.transcript import build_image


def main(version: str = "1.34") -> None:
    """Install the example values of the chart, and print the record."""
    with Machine(Path(tempfile.mkdtemp(prefix="gpc", dir="/tmp"))) as machine:
        cluster = Cluster(machine, next(TOOLS.glob(f"kubernetes/{version}.*")), TOOLS)
        cluster.start(
            images.build_busybox(machine.directory), build_image(machine.directory, "registry.example/genplug:test")
        )
        cluster.install(yaml.safe_load((CHART / "ci/cluster-values.yaml").read_text()))
        cluster.wait_allocatable("devices.example.com/fuse", 10)
        # The suffix of the release names the build of the kernel of the test machine.
        print(cluster.run_plugin("record").replace(platform.release(), platform.release().partition("-")[0]), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
