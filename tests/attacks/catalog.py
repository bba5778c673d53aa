"""The red team's list: each attack that a test of this repository tries, what stops it, and the tests.

Modules named ``catalog`` in the packages below ``tests.attacks`` define the entries in ``ATTACKS``.
``python docs/generate.py`` writes the list to docs/internals/attacks.md.
"""

import importlib
import importlib.util
import pkgutil
from enum import StrEnum

from msgspec import Struct

import tests.attacks


class Adversary(StrEnum):
    """The origin of an attack: a role of docs/explanation/security.md, or a part of the system that fails."""

    EDITOR = "configuration editor"
    POD = "pod creator"
    NETWORK = "process in the cluster network"
    LOCAL_PROCESS = "process on the node without root privileges"
    PRIVILEGED_CONTAINER = "privileged container"
    WORLD = "hardware, kernel or kubelet"


class Attack(Struct, frozen=True):
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
