"""The red team's list: each attack that a test of this repository tries, what stops it, and the tests.

Modules named ``catalog`` in the packages below ``tests.attacks`` define the entries in ``ATTACKS``.
``python -m tests.attacks.catalog --record FILE`` writes the list as a table for the documentation.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pkgutil
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from attrs import frozen

import genplug
import tests.attacks

COLUMNS = ("Attack", "Adversary", "Stopped by", "Test")


class Adversary(StrEnum):
    """The origin of an attack: a role of docs/explanation/security.md, or a part of the system that fails."""

    EDITOR = "configuration editor"
    POD = "pod creator"
    NETWORK = "process in the cluster network"
    LOCAL_PROCESS = "process on the node without root privileges"
    PRIVILEGED_CONTAINER = "privileged container"
    WORLD = "hardware, kernel or kubelet"


@frozen
class Attack:
    """An attack.

    ``name`` identifies it, such as ``editor-read-host-secret``. ``tried`` is what the adversary does, ``stopped_by``
    what prevents it; both are clauses that begin with a capital letter. ``tests`` are ``FILE::NAME`` with the path of
    the file below ``tests/``. ``threats`` are the first words of rows in section 9.2 of
    docs/internals/kubelet-contract.md.
    """

    name: str
    adversary: Adversary
    tried: str
    stopped_by: str
    tests: tuple[str, ...]
    threats: tuple[str, ...] = ()


def load_attacks() -> tuple[Attack, ...]:
    """Return the entries of all packages, sorted by the name of the package, then in their order."""
    packages = sorted(module.name for module in pkgutil.iter_modules(tests.attacks.__path__) if module.ispkg)
    found: list[Attack] = []
    for package in packages:
        name = f"{tests.attacks.__name__}.{package}.catalog"
        if importlib.util.find_spec(name) is not None:
            found += importlib.import_module(name).ATTACKS
    return tuple(found)


def build_table() -> dict[str, object]:
    """Return the list as a table with the conditions of this run."""
    return {
        "conditions": {
            "date": datetime.now(tz=UTC).date().isoformat(),
            "genplug": genplug.__version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
        },
        "columns": list(COLUMNS),
        "rows": [
            [attack.tried, attack.adversary, attack.stopped_by, ", ".join(f"`{test}`" for test in attack.tests)]
            for attack in load_attacks()
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the list as a table for the documentation."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.catalog", description=main.__doc__)
    parser.add_argument("--record", type=Path, required=True, metavar="FILE", help="the file to write, in JSON")
    record: Path = parser.parse_args(arguments).record
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(build_table(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
