"""The fuzzing targets."""

import importlib
from collections.abc import Iterable, Sequence

from tests.fuzz.target import Target

MODULES = (
    "configuration",
    "manifests",
    "expressions",
    "archives",
    "requests",
    "kubelet",
    "documents_of_agents",
    "cdi",
    "kernel_messages",
    "http",
    "api_server",
    "claims",
)
"""The modules of this package; each has its targets in ``TARGETS``."""


def load_targets(names: Iterable[str] = ()) -> Sequence[Target]:
    """Return the targets with these names, or all targets.

    Raises:
        KeyError: one of the names is not that of a target.
    """
    modules = [importlib.import_module(f"{__name__}.{module}") for module in MODULES]
    targets: dict[str, Target] = {target.name: target for module in modules for target in module.TARGETS}
    return [targets[name] for name in names] or list(targets.values())
