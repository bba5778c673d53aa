"""Inputs, findings and statistics in a directory, which a later run continues."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from tests.fuzz.target import Failure, Target, try_input


class Statistics(Struct):
    """The sums over all runs of a target."""

    inputs: int = 0
    seconds: float = 0.0
    edges: int = 0
    features: int = 0
    date: str = ""


class State(Struct, frozen=True):
    """A directory with what the runs have found so far, which a later run continues."""

    path: Path
    statistics: dict[str, Statistics] = {}

    @classmethod
    def open(cls, path: Path) -> "State":
        """Return the state in a directory, which is created if it is missing."""
        path.mkdir(parents=True, exist_ok=True)
        file = path / "statistics.json"
        stored = json.loads(file.read_text()) if file.exists() else {}
        return cls(path, {name: Statistics(**values) for name, values in stored.items()})

    def directory(self, kind: str, target: Target) -> Path:
        """Return a directory of a target, for example of its findings."""
        path = self.path / kind / target.name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, target: Target, run: Statistics) -> None:
        """Add a run to the statistics."""
        total = self.statistics.setdefault(target.name, Statistics())
        total.inputs += run.inputs
        total.seconds += run.seconds
        total.edges, total.features = max(total.edges, run.edges), max(total.features, run.features)
        total.date = run.date
        texts = {name: asdict(values) for name, values in sorted(self.statistics.items())}
        (self.path / "statistics.json").write_text(json.dumps(texts, indent=2) + "\n")

    def list_findings(self, target: Target) -> Mapping[str, str]:
        """Return the summaries of the findings of a target that are not fixed, by the paths of their inputs."""
        reports = sorted(self.directory("findings", target).glob("*.txt"))
        return {str(report.with_suffix("")): report.read_text().partition("\n")[0] for report in reports}

    def add_finding(self, target: Target, content: bytes, failure: Failure) -> None:
        """Keep the smallest input of a finding, with its report."""
        name = hashlib.sha256(failure.signature.encode()).hexdigest()[:12]
        path = self.directory("findings", target) / name
        if not path.exists() or len(content) < path.stat().st_size:
            path.write_bytes(content)
            path.with_suffix(".txt").write_text(f"{failure.summary}\n\n{failure.signature}\n\n{failure.trace}")

    def recheck_findings(self, target: Target) -> None:
        """Remove the findings that are fixed."""
        for path in map(Path, self.list_findings(target)):
            if try_input(target, path.read_bytes()) is None:
                path.unlink()
                path.with_suffix(".txt").unlink()
