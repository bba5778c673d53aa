"""An image as a cluster would use it: unpacked from its layers by umoci, run by runc in namespaces of its own."""

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
    """An image in the OCI layout at ``layout``, unpacked into ``bundle``; ``files`` are what it came with."""

    layout: Path
    bundle: Path
    files: Mapping[str, Path]

    @classmethod
    def unpacked(cls, layout: Path, bundle: Path) -> Self:
        """Unpack what a build wrote."""
        tag = _index(layout)["annotations"]["org.opencontainers.image.ref.name"]
        unpack = ["umoci", "unpack", "--image", f"{layout}:{tag}", bundle]
        subprocess.run(unpack, check=True, capture_output=True)
        root = bundle / "rootfs"
        return cls(layout, bundle, {f"/{one.relative_to(root)}": one for one in root.rglob("*") if not one.is_dir()})

    @property
    def config(self) -> dict[str, Any]:
        """What the image says about itself: platform, environment, labels, history."""
        return self._blob(self._manifest()["config"])

    @property
    def layer_sizes(self) -> list[int]:
        """What a node loads for each layer, in bytes."""
        return [layer["size"] for layer in self._manifest()["layers"]]

    @property
    def digest(self) -> str:
        """The digest of the manifest: what the image is pulled by."""
        return str(_index(self.layout)["digest"])

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end as the chart does: root without a capability, the root read-only; only /tmp is writable."""
        with self._container(arguments) as command:
            return subprocess.run(command, capture_output=True, text=True, check=False)

    @asynccontextmanager
    async def running(
        self, *arguments: str, mounts: Mapping[str, tuple[Path, str]]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run it meanwhile; ``mounts`` are directories of this machine, ``ro`` or ``rw``, by their place in it."""
        with self._container(arguments, mounts) as command:
            process = await asyncio.create_subprocess_exec(*command)
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    @contextmanager
    def _container(
        self, arguments: tuple[str, ...], mounts: Mapping[str, tuple[Path, str]] | None = None
    ) -> Iterator[list[str]]:
        spec = json.loads((self.bundle / "config.json").read_text())
        changed = copy.deepcopy(spec)
        changed["root"]["readonly"] = True
        process = changed["process"]
        process |= {"terminal": False, "capabilities": {}, "noNewPrivileges": True}
        process["args"] += arguments
        # The limits and devices of a cgroup are the cluster's business, and this machine may have none to give.
        del changed["linux"]["resources"]
        changed["mounts"] = [one for one in changed["mounts"] if one["type"] != "cgroup"]
        changed["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
        for location, (directory, mode) in (mounts or {}).items():
            changed["mounts"].append(
                {"destination": location, "type": "bind", "source": str(directory), "options": ["rbind", mode]}
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

    def _manifest(self) -> dict[str, Any]:
        return self._blob(_index(self.layout))

    def _blob(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        return dict(json.loads((self.layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text()))


def _index(layout: Path) -> dict[str, Any]:
    (only,) = json.loads((layout / "index.json").read_text())["manifests"]
    return dict(only)
