"""Unpack an image with umoci and run it with runc, as a container runtime of a cluster does."""

import asyncio
import copy
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from attrs import frozen


@frozen
class Image:
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

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run genplug in the image and return its result.

        As in the chart, the user is root without capabilities; the root file system is read-only except /tmp.
        """
        with self._prepare_container(arguments) as command:
            return subprocess.run(command, capture_output=True, text=True, check=False)

    @asynccontextmanager
    async def start(
        self, *arguments: str, mounts: Mapping[str, tuple[Path, str]]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start genplug in the image; leaving the context stops it.

        ``mounts`` maps a path in the container to a path on this machine and its mode, ``ro`` or ``rw``.
        """
        with self._prepare_container(arguments, mounts) as command:
            process = await asyncio.create_subprocess_exec(*command)
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    @contextmanager
    def _prepare_container(
        self, arguments: tuple[str, ...], mounts: Mapping[str, tuple[Path, str]] | None = None
    ) -> Iterator[list[str]]:
        spec = json.loads((self.bundle / "config.json").read_text())
        changed = copy.deepcopy(spec)
        changed["root"]["readonly"] = True
        process = changed["process"]
        process |= {"terminal": False, "capabilities": {}, "noNewPrivileges": True}
        process["args"] += arguments
        # The tests need no cgroup limits, and this machine may not permit to set them.
        del changed["linux"]["resources"]
        changed["mounts"] = [mount for mount in changed["mounts"] if mount["type"] != "cgroup"]
        changed["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
        for container_path, (host_path, mode) in (mounts or {}).items():
            changed["mounts"].append(
                {"destination": container_path, "type": "bind", "source": str(host_path), "options": ["rbind", mode]}
            )
        (self.bundle / "config.json").write_text(json.dumps(changed))
        try:
            yield [
                "runc",
                "--root",
                str(self.bundle / "state"),
                "run",
                "--bundle",
                str(self.bundle),
                f"gp{uuid4().hex}",
            ]
        finally:
            (self.bundle / "config.json").write_text(json.dumps(spec))

    def _read_manifest(self) -> dict[str, Any]:
        return self._read_blob(_read_index(self.layout))

    def _read_blob(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        return dict(json.loads((self.layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text()))


def _read_index(layout: Path) -> dict[str, Any]:
    (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
    return dict(descriptor)
