"""The probe kinds. Each module exports the description of a kind as ``KIND``; :data:`PROBES` is the table of them.

To add a kind, add a module, a line to :data:`PROBES`, a branch to the JSON schema, a section to
``docs/reference/health.md`` and a test file; ``tests/unit/health/test_probe_registry.py`` checks that they agree.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from genplug.spec.probes import Check

if TYPE_CHECKING:
    from genplug.health.probe_kind import ProbeKind


class _ProbeKinds(Mapping[str, "ProbeKind"]):
    """Kinds by key; the module of a kind is imported at the first access to the kind.

    The modules import ``subprocess``, ``socket`` and others, which ``genplug validate`` and the agent need only for a
    configuration that uses the kind.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules
        self._keys = {f"{__name__}.{module}": key for key, module in modules.items()}
        self._loaded: dict[str, ProbeKind] = {}

    def __getitem__(self, key: str) -> "ProbeKind":
        kind = self._loaded.get(key)
        if kind is None:
            kind = self._loaded[key] = import_module(f"{__name__}.{self._modules[key]}").KIND
        return kind

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def of_module(self, module: str) -> "ProbeKind":
        """Return the kind that a module exports; raise KeyError if the table does not have the module."""
        return self[self._keys[module]]


PROBES = _ProbeKinds(
    {
        "pci": "pci",
        "file": "file",
        "kernelLog": "kernel_log",
        "uevent": "uevent",
        "open": "open",
        "exec": "exec",
        "http": "http",
        "unixSocket": "unix_socket",
        "tcpSocket": "tcp_socket",
    }
)
"""Every probe kind by its key in the configuration; the table names the module of each kind."""
READ_KINDS = ("pci", "file", "open")
"""The kinds whose requests a worker with one thread runs: they read files and open device nodes."""


def kind_of(check: Check) -> "ProbeKind":
    """Return the kind of a check, which is the kind of the module that defines the class of the check.

    Raises:
        KeyError: the class belongs to a module without a kind.
    """
    return _kind_of_class(type(check))


@cache
def _kind_of_class(class_: type[Check]) -> "ProbeKind":
    return PROBES.of_module(class_.__module__)
