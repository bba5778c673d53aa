"""Reads the configuration of the container runtime: containerd or CRI-O, and whether it injects CDI devices.

Sources: the CRI plugin configuration guide of containerd (``enable_cdi`` is false by default in 1.7 and true in 2.0,
where version 3 of the format begins), and crio.conf(5) of CRI-O, which always injects CDI devices.
"""

import posixpath
import tomllib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from genplug.doctor.facts import Machine, Runtime, UnknownFactError
from genplug.doctor.machine import read_text
from genplug.spec.limits import MAX_RUNTIME_FILES
from genplug.spec.root_paths import strip_root

DEFAULT_CDI_DIRS = ("/etc/cdi", "/var/run/cdi")
"""The default of ``cdi_spec_dirs`` in both runtimes."""
CONTAINERD_FILES = (
    "/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
)
CONTAINERD_SOCKETS = ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock")
CRIO_FILE, CRIO_DIRECTORY, CRIO_SOCKET = "/etc/crio/crio.conf", "/etc/crio/crio.conf.d", "/run/crio/crio.sock"
_VERSION_WITH_CDI = 3
_PLUGINS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")


def read_runtime(machine: Machine) -> Runtime:
    """Return the container runtime of the host.

    Raises:
        UnknownFactError: neither a socket nor a configuration file of a runtime is visible.
    """
    files = _Files(machine)
    if files.exists(CRIO_SOCKET) or files.exists(CRIO_FILE):
        return _read_crio(files)
    config = next(filter(files.exists, CONTAINERD_FILES), None)
    if config is not None or any(map(files.exists, CONTAINERD_SOCKETS)):
        return _read_containerd(files, config)
    raise UnknownFactError(
        f"no socket and no configuration file of containerd or CRI-O is visible under {machine.settings.root}; in the "
        "container of the agent they are not mounted. Run genplug doctor on the node itself"
    )


class _Files:
    """The TOML files of a runtime that were read, and the errors in them."""

    def __init__(self, machine: Machine) -> None:
        self._root = str(machine.settings.root).rstrip("/")
        self.read: list[str] = []
        self.errors: list[str] = []

    def exists(self, path: str) -> bool:
        """Return whether a path of the host exists."""
        return Path(self._root + path).exists()

    def load(self, path: str) -> dict[str, Any]:
        """Return a file, empty if it cannot be read."""
        try:
            document = tomllib.loads(read_text(Path(self._root + path)))
        except (OSError, tomllib.TOMLDecodeError, RecursionError) as error:
            self.errors.append(f"{path}: {error}")
            return {}
        self.read.append(path)
        return document

    def find(self, pattern: str) -> list[str]:
        """Return the first files that match a glob, in their order; an invalid glob is an error of the file with it."""
        try:
            # Without "..", which would lead out of the root.
            relative = posixpath.normpath(f"/{pattern}").lstrip("/")
            found = list(islice(Path(self._root or "/").glob(relative), MAX_RUNTIME_FILES))
        except (ValueError, NotImplementedError, IndexError) as error:
            self.errors.append(f"{pattern}: {error}")
            return []
        return sorted(strip_root(path, self._root or "/") for path in found)


def _read_crio(files: _Files) -> Runtime:
    tables = [files.load(CRIO_FILE)] if files.exists(CRIO_FILE) else []
    tables += [files.load(path) for path in files.find(f"{CRIO_DIRECTORY}/*")]
    directories: Sequence[str] = DEFAULT_CDI_DIRS
    for table in tables:
        directories = _get(table, "crio", "runtime", "cdi_spec_dirs", default=directories)
    return Runtime(
        "CRI-O", has_cdi=True, cdi_dirs=_normalize(directories), files=tuple(files.read), errors=tuple(files.errors)
    )


def _read_containerd(files: _Files, config: str | None) -> Runtime:
    if config is None:
        return Runtime("containerd", None, DEFAULT_CDI_DIRS)
    tables = [files.load(config)]
    version = tables[0].get("version", 1)
    imports = tables[0].get("imports")
    for pattern in imports if isinstance(imports, list) else ():
        if isinstance(pattern, str):
            path = posixpath.join(posixpath.dirname(config), pattern)
            tables += [files.load(found) for found in files.find(path) if found != config]
    has_cdi: bool | None = True if isinstance(version, int) and version >= _VERSION_WITH_CDI else None
    directories: Sequence[str] = DEFAULT_CDI_DIRS
    for table in tables:
        for plugin in _PLUGINS:
            has_cdi = _get(table, "plugins", plugin, "enable_cdi", default=has_cdi)
            directories = _get(table, "plugins", plugin, "cdi_spec_dirs", default=directories)
    return Runtime("containerd", has_cdi, _normalize(directories), tuple(files.read), tuple(files.errors))


def _get(table: Mapping[str, Any], *keys: str, default: Any) -> Any:  # noqa: ANN401 - a value of TOML
    """Return a value of nested tables if it has the type of the default."""
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    is_expected = is_list if isinstance(default, list | tuple) else isinstance(value, bool)
    return value if is_expected else default


def _normalize(directories: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(normalize_directory, directories)))


def normalize_directory(path: str) -> str:
    """Return a directory as one of several spellings: ``/var/run`` is a link to ``/run`` (file-hierarchy(7))."""
    path = posixpath.normpath(path)
    return path.removeprefix("/var") if path == "/var/run" or path.startswith("/var/run/") else path
