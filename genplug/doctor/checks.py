"""All checks, in the order of the report."""

from collections.abc import Sequence

from genplug.doctor import configuration_checks, kubelet_checks, limit_checks, machine_checks, runtime_checks
from genplug.doctor.findings import Check

CHECKS: tuple[Check, ...] = tuple(
    check
    for module in (configuration_checks, kubelet_checks, machine_checks, limit_checks, runtime_checks)
    for check in module.REGISTRY.checks
)


def select_checks(names: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks with these names, all without names.

    Raises:
        KeyError: no check has a name.
    """
    by_name = {check.name: check for check in CHECKS}
    return tuple(by_name[name] for name in dict.fromkeys(names)) if names else CHECKS
