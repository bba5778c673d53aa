"""The package from which genplug is installed: of the operating system, of Python, or a single-file program."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from itertools import islice
from pathlib import Path

from genplug.record.facts import Fact, Known, Unknown
from genplug.spec.limits import MAX_PACKAGE_STATUS_LINES

_SYSTEM_DIRECTORY = "usr/lib/genplug"
"""The directory of the .deb and the .rpm, deploy/packages/nfpm.yaml."""
_DPKG_STATUS = "var/lib/dpkg/status"
"""The installed packages of dpkg: paragraphs with the fields ``Package`` and ``Version``, deb-control(5)."""
_SINGLE_FILE = re.compile(r"(?:^|/)([^/]+\.pyz)/|/\.shiv/([^/]+)/")
"""A module in a zipapp, and a module that the program of shiv has unpacked."""


def find_package(module: Path, root: Path = Path("/")) -> Fact:
    """Return the package that contains a module of genplug."""
    if module.is_relative_to(root / _SYSTEM_DIRECTORY):
        version = _read_dpkg_version(root / _DPKG_STATUS)
        if version:
            return Known(f"Debian package genplug {version}", f"/{_DPKG_STATUS}")
        return Unknown(
            f"/{_SYSTEM_DIRECTORY} belongs to a package of the operating system that is not one of dpkg: "
            "'rpm --query genplug' prints it"
        )
    if (found := _SINGLE_FILE.search(str(module))) is not None:
        return Known(f"single-file program {found[1] or found[2]}", "the path of the running code")
    try:
        package = distribution("genplug")
    except PackageNotFoundError:
        return Unknown("genplug runs from a directory without the metadata of a package")
    installer = (package.read_text("INSTALLER") or "").strip()
    by = f", installed by {installer}" if installer else ""
    return Known(f"Python package genplug {package.version}{by}", "the metadata of the Python package")


def _read_dpkg_version(status: Path) -> str:
    """Return the version of the installed package, or an empty text."""
    try:
        with status.open(encoding="utf-8", errors="replace") as lines:
            is_genplug = False
            for line in islice(lines, MAX_PACKAGE_STATUS_LINES):
                if line.startswith("Package: "):
                    is_genplug = line.split()[1:] == ["genplug"]
                elif is_genplug and line.startswith("Version: "):
                    return line.partition(" ")[2].strip()
    except OSError:
        pass
    return ""
