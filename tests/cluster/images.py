"""Images for the machine, built by buildah: nothing can be pulled there."""

import os
import shutil
import subprocess
from pathlib import Path

BUSYBOX = "docker.io/library/busybox:1"
"""The image of the test's pods, and the sandbox of every pod."""


def busybox(directory: Path) -> Path:
    """Build the image of busybox as an archive that containerd imports; Debian's busybox-static is all of it."""
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

    def buildah(*arguments: str) -> str:
        return subprocess.run([*store, *arguments], check=True, capture_output=True, text=True, env=_ENVIRONMENT).stdout

    tree = directory / "tree"
    (tree / "bin").mkdir(parents=True)
    program = shutil.which("busybox")
    assert program, "busybox-static is one of the packages of .ci/tools"
    shutil.copy(program, tree / "bin/busybox")
    for name in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    container = buildah("from", "scratch").strip()
    buildah("copy", "-q", container, str(tree), "/")
    buildah("config", "--cmd", '["/bin/sleep", "infinity"]', "--env", "PATH=/bin", container)
    buildah("commit", "-q", container, BUSYBOX)
    buildah("push", "-q", BUSYBOX, f"docker-archive:{archive}:{BUSYBOX}")
    return archive


_ENVIRONMENT = os.environ | {"BUILDAH_ISOLATION": "chroot"}
