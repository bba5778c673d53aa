"""Unpack an image with umoci and run it with runc, as a container runtime of a cluster does."""

import asyncio
import copy
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from msgspec import Struct

REVISION = "0123456789abcdef0123456789abcdef01234567"
TAG = "registry.example/genplug:image-test"


def copy_checkout(checkout: Path, directory: Path) -> Path:
    """Copy the files that an image is built from, with new modification times, and return the directory."""
    directory.mkdir()
    names = (
        ".dockerignore",
        "LICENSE",
        "README.md",
        "deploy",
        "docs",
        "examples",
        "genplug",
        "pyproject.toml",
        "schemas",
    )
    for name in names:
        source, target = checkout / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copy)
        else:
            shutil.copy(source, target)
    return directory


def build_image(checkout: Path, output: Path, *options: str, **environment: str) -> Path:
    """Build an image from a checkout and return the directory in OCI layout or the archive."""
    command: list[str | Path] = ["deploy/image/build.sh", "--tag", TAG, "--output", output, *options]
    subprocess.run(command, check=True, cwd=checkout, env=os.environ | {"REVISION": REVISION} | environment)
    return output


USER_NAMESPACE_ID = 100000
"""The user of the host that is root in a container with a user namespace."""


class Sandbox(Struct, frozen=True):
    """The rights of the container. The defaults are those of the chart, without a seccomp profile and device cgroup.

    - ``program`` replaces the entry point.
    - ``seccomp`` is the path of a profile.
    - ``capabilities`` are added names without ``CAP_``.
    - ``has_device_cgroup``: whether the container may open the default devices of runc only.
    - ``has_user_namespace``: whether root in the container is the user :data:`USER_NAMESPACE_ID` of the host.
    """

    program: tuple[str, ...] = ()
    seccomp: Path | None = None
    capabilities: tuple[str, ...] = ()
    has_device_cgroup: bool = False
    has_user_namespace: bool = False


_DEFAULT_SANDBOX = Sandbox()


class Image(Struct, frozen=True):
    """An image in OCI layout, unpacked into a runc bundle.

    ``files`` are the files of the image by their absolute path in it.
    """

    layout: Path
    bundle: Path
    files: Mapping[str, Path]

    @classmethod
    def unpack(cls, layout: Path, bundle: Path) -> Self:
        """Unpack the image in ``layout`` into the new directory ``bundle``."""
        tag = _read_index(layout)["annotations"]["org.opencontainers.image.ref.name"]
        command: list[str | Path] = ["umoci", "unpack", "--image", f"{layout}:{tag}", bundle]
        subprocess.run(command, check=True, capture_output=True)
        root = bundle / "rootfs"
        return cls(
            layout, bundle, {f"/{path.relative_to(root)}": path for path in root.rglob("*") if not path.is_dir()}
        )

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the image: platform, environment, labels, history."""
        return self._read_blob(self._read_manifest()["config"])

    @property
    def layer_sizes(self) -> list[int]:
        """The compressed size of each layer, in bytes."""
        return [layer["size"] for layer in self._read_manifest()["layers"]]

    @property
    def digest(self) -> str:
        """The digest of the manifest, by which the image is pulled."""
        return str(_read_index(self.layout)["digest"])

    def run(
        self,
        *arguments: str,
        sandbox: Sandbox = _DEFAULT_SANDBOX,
        mounts: Mapping[str, tuple[Path, str]] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run genplug in the image and return its result.

        As in the chart, the user is root without capabilities; the root file system is read-only except /tmp.
        """
        with self._prepare_container(arguments, mounts, sandbox) as command:
            return subprocess.run(command, capture_output=True, text=True, check=False)

    @asynccontextmanager
    async def start(
        self,
        *arguments: str,
        mounts: Mapping[str, tuple[Path, str]],
        sandbox: Sandbox = _DEFAULT_SANDBOX,
        name: str = "",
        stderr: int | None = None,
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start genplug in the image; leaving the context stops it.

        ``mounts`` maps a path in the container to a path on this machine and its mode, ``ro`` or ``rw``. ``name`` is
        the name of the container for :meth:`execute`.
        """
        with self._prepare_container(arguments, mounts, sandbox, name) as command:
            process = await asyncio.create_subprocess_exec(*command, stderr=stderr)
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    async def execute(self, name: str, *command: str) -> tuple[int, str]:
        """Run a program in a running container; return its exit code and its output."""
        process = await asyncio.create_subprocess_exec(
            *self._runc("exec", name, *command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace")

    def _runc(self, *arguments: str) -> list[str]:
        return ["runc", "--root", str(self.bundle / "state"), *arguments]

    @contextmanager
    def _prepare_container(
        self,
        arguments: tuple[str, ...],
        mounts: Mapping[str, tuple[Path, str]] | None = None,
        sandbox: Sandbox = _DEFAULT_SANDBOX,
        name: str = "",
    ) -> Iterator[list[str]]:
        spec = json.loads((self.bundle / "config.json").read_text())
        changed = copy.deepcopy(spec)
        changed["root"]["readonly"] = True
        process = changed["process"]
        granted = [f"CAP_{capability}" for capability in sandbox.capabilities]
        sets = dict.fromkeys(("bounding", "effective", "permitted"), granted) if granted else {}
        process |= {"terminal": False, "capabilities": sets, "noNewPrivileges": True}
        process["args"] = [*(sandbox.program or process["args"]), *arguments]
        # The tests need no other cgroup limits, and this machine may not permit to set them.
        del changed["linux"]["resources"]
        if sandbox.has_device_cgroup:
            changed["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        if sandbox.has_user_namespace:
            changed["linux"]["namespaces"].append({"type": "user"})
            mapping = [{"containerID": 0, "hostID": USER_NAMESPACE_ID, "size": 65536}]
            changed["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
        if sandbox.seccomp is not None:
            changed["linux"]["seccomp"] = json.loads(sandbox.seccomp.read_text())
        changed["mounts"] = [mount for mount in changed["mounts"] if mount["type"] != "cgroup"]
        changed["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
        for container_path, (host_path, mode) in (mounts or {}).items():
            changed["mounts"].append(
                {"destination": container_path, "type": "bind", "source": str(host_path), "options": ["rbind", mode]}
            )
        (self.bundle / "config.json").write_text(json.dumps(changed))
        try:
            yield self._runc("run", "--bundle", str(self.bundle), name or f"gp{uuid4().hex}")
        finally:
            (self.bundle / "config.json").write_text(json.dumps(spec))

    def _read_manifest(self) -> dict[str, Any]:
        return self._read_blob(_read_index(self.layout))

    def _read_blob(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        return dict(json.loads((self.layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text()))


def _read_index(layout: Path) -> dict[str, Any]:
    (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
    return dict(descriptor)
