"""The probe kinds. Each module exports the description of a kind as ``KIND``; :data:`PROBES` is the table of them.

To add a kind, add a module, a line to :data:`PROBES`, a branch to the JSON schema, a section to
``docs/reference/health.md`` and a test file; ``tests/unit/health/test_probe_registry.py`` checks that they agree.
"""

from collections.abc import Mapping

from genplug.health.probe_kind import ProbeKind
from genplug.health.probes import exec as exec_probe
from genplug.health.probes import file, http, kernel_log, open, pci, tcp_socket, uevent, unix_socket  # noqa: A004 - names of kinds
from genplug.spec.probes import Check

PROBES: Mapping[str, ProbeKind] = {
    kind.name: kind
    for kind in (
        pci.KIND,
        file.KIND,
        kernel_log.KIND,
        uevent.KIND,
        open.KIND,
        exec_probe.KIND,
        http.KIND,
        unix_socket.KIND,
        tcp_socket.KIND,
    )
}
"""Every probe kind by its key in the configuration."""

_KINDS_OF_CHECKS = {kind.spec: kind for kind in PROBES.values()}


def kind_of(check: Check) -> ProbeKind:
    """Return the kind of a check.

    Raises:
        KeyError: no kind has checks of this class.
    """
    return _KINDS_OF_CHECKS[type(check)]
