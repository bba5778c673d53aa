"""A pytest plugin for mutation testing.

Hypothesis draws the same examples in each run, so that each run kills the same mutants. It does not search for a
smaller example after a failure, which would take most of the time. The fastest tests run first, because the first
failure kills a mutant.
"""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

STATISTICS = Path("mutmut-stats.json")
"""mutmut's file with the duration of each test, in the directory in which it runs the tests."""

settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=tuple(HealthCheck),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if STATISTICS.exists():
        durations = json.loads(STATISTICS.read_text())["duration_by_test"]
        items.sort(key=lambda item: durations.get(item.nodeid, 0))
