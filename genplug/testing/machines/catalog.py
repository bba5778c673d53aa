r"""Reads the machine of a recipe and its faults.

``trees/RECIPE.tree`` has the files of the machine, for :mod:`genplug.testing.node.file_trees`. A recipe with probes has
a list of cases, ``faults/RECIPE.yaml``:

- fault: what happens, as a sentence
  probe: the name of the probe that detects the fault; omitted if the change is not a fault
  before: {log: [...]}                       # changes before the agent starts; default: none
  write: {/sys/...: text}                    # files whose text changes, or that appear
  remove: [/sys/...]                         # files that are removed
  log: [...]                                 # messages of the kernel
  unhealthy: {device: part of its reason}    # globs over IDs: exactly these are unhealthy; {} if it is not a fault
  warning: {device: part of the reason}      # globs over IDs: these have a warning of the probe; default: none
  recovery: {log: [...]}                     # changes that end the fault; default: the files are restored
  lasts: an hour                             # instead of ``recovery``: the fault lasts longer than a test can wait

A character of a text is a byte, so that ``"\xff\xff\xff\xff"`` can be written to a configuration space.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree

TREES, FAULTS = (Path(__file__).parent / name for name in ("trees", "faults"))
FAST_TIMING = {"periodSeconds": 0.1, "timeoutSeconds": 30, "failureThreshold": 1, "successThreshold": 1}
"""Keys of ``health`` with which a probe runs often and decides on a single result.

No case has a probe that hangs: a timeout would only report that the machine is busy.
"""
Case: TypeAlias = Mapping[str, Any]
"""A case of a file of faults, or another mapping with its keys ``write``, ``remove`` and ``log``."""


def build_machine(name: str, root: Path) -> None:
    """Create the files of a recipe's machine under a directory."""
    build_tree((TREES / f"{name}.tree").read_text("utf-8"), root)


def read_faults(name: str) -> tuple[Case, ...]:
    """Return the cases of a recipe; nothing if the recipe has no probes."""
    path = FAULTS / f"{name}.yaml"
    return tuple(yaml.safe_load(path.read_text("utf-8"))) if path.is_file() else ()


def select_faults(name: str) -> list[Case]:
    """Return the cases of a recipe in which devices become unhealthy; those that end at once come first."""
    cases = [case for case in read_faults(name) if case["unhealthy"] and "before" not in case]
    return sorted(cases, key=lambda case: "lasts" in case)


def render_fast_config(text: str) -> str:
    """Return a configuration whose probes have :data:`FAST_TIMING`."""
    config = yaml.safe_load(text)
    for resource in config["resources"].values():
        health = resource.get("health", {})
        health.update(FAST_TIMING)
        for probe in health.get("probes", ()):
            for key in FAST_TIMING:
                probe.pop(key, None)
        resource["health"] = health
    return json.dumps(config)


class MachineChanges:
    """Changes files of a node, and restores their previous content."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self._previous: dict[Path, bytes | str | None] = {}

    def apply(self, case: Case) -> None:
        """Write and remove the files of a case, and add its lines to the kernel log."""
        for path, text in case.get("write", {}).items():
            location = self.node.locate(path)
            location.parent.mkdir(parents=True, exist_ok=True)
            self._keep(location)
            self._write(location, text.encode("latin-1"))
        for path in case.get("remove", ()):
            location = self.node.locate(path)
            self._keep(location)
            location.unlink()
        if lines := case.get("log"):
            self.node.write_kernel_log(*lines)

    def restore(self) -> None:
        """Restore all files that were changed."""
        for location, content in self._previous.items():
            if isinstance(content, bytes):
                self._write(location, content)
            elif content is None:
                location.unlink()
            else:
                location.symlink_to(content)
        self._previous.clear()

    def _write(self, location: Path, text: bytes) -> None:
        # A probe must not read a part of the text: files of the kernel change at once.
        complete = self.node.directory / "complete"
        complete.write_bytes(text)
        complete.replace(location.resolve())

    def _keep(self, location: Path) -> None:
        content: bytes | str | None = None
        if location.is_symlink():
            content = str(location.readlink())
        elif location.exists():
            content = location.read_bytes()
        self._previous.setdefault(location, content)
