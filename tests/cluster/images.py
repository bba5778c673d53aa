"""Build the image of the test pods with buildah, because the machine cannot pull images."""

import os
import shutil
import subprocess
from pathlib import Path

BUSYBOX = "docker.io/library/busybox:1"
"""The image of the test pods and of the sandbox of every pod."""


def build_busybox(directory: Path) -> Path:
    """Build an image that contains Debian's busybox-static and return it as an archive for containerd."""
    archive = directory / "busybox.tar"
    store = [
        "buildah",
        "--root",
        str(directory / "store"),
        "--runroot",
        str(directory / "run"),
        "--storage-driver",
        "vfs",
    ]

    def run_buildah(*arguments: str) -> str:
        return subprocess.run([*store, *arguments], check=True, capture_output=True, text=True, env=_ENVIRONMENT).stdout

    tree = directory / "tree"
    (tree / "bin").mkdir(parents=True)
    program = shutil.which("busybox")
    assert program, "busybox is missing: run .ci/tools, which installs busybox-static"
    shutil.copy(program, tree / "bin/busybox")
    for name in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    container = run_buildah("from", "scratch").strip()
    run_buildah("copy", "-q", container, str(tree), "/")
    run_buildah("config", "--cmd", '["/bin/sleep", "infinity"]', "--env", "PATH=/bin", container)
    run_buildah("commit", "-q", container, BUSYBOX)
    run_buildah("push", "-q", BUSYBOX, f"docker-archive:{archive}:{BUSYBOX}")
    return archive


_ENVIRONMENT = os.environ | {"BUILDAH_ISOLATION": "chroot"}
