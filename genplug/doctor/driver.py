"""Reads facts for the driver of Dynamic Resource Allocation (DRA): its directories and its access to the API server."""

import os
from collections.abc import Iterator
from pathlib import Path

from genplug.agent.settings import Settings
from genplug.doctor.facts import Driver, Machine

REGISTRY, PLUGINS = "plugins_registry", "plugins"
"""The directories of registration sockets and of drivers, in the directory of the kubelet."""


def read_driver(machine: Machine) -> Driver:
    """Return why a driver cannot use its directories, and why it cannot connect to the API server."""
    # Imported here: most configurations do not need a driver.
    from genplug.cluster.account import Account, AccountError  # noqa: PLC0415

    settings = machine.settings
    account_error = ""
    try:
        Account(directory=settings.account_dir).read()
    except AccountError as error:
        account_error = str(error)
    return Driver(tuple(_find_directory_errors(settings)), account_error)


def _find_directory_errors(settings: Settings) -> Iterator[str]:
    """Yield why the driver cannot use the directory of the kubelet, and those that it creates itself."""
    yield from _find_write_error(settings.kubelet_dir / REGISTRY)
    own = settings.kubelet_dir / PLUGINS / settings.dra_driver
    for directory in (own, settings.root / settings.cdi_dir.lstrip("/")):
        yield from _find_write_error(next(path for path in (directory, *directory.parents) if path.exists()))


def _find_write_error(directory: Path) -> Iterator[str]:
    if not directory.is_dir():
        yield f"{directory} does not exist" if not directory.exists() else f"{directory} is not a directory"
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield f"this process (user ID {os.geteuid()}) may not write to {directory}, or it is read-only"
