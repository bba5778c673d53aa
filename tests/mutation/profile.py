"""A pytest plugin for mutation testing.

Hypothesis draws the same examples in each run, so that each run kills the same mutants. It does not search for a
smaller example after a failure, which would take most of the time. Property tests run last, because they are slow and
the first failure kills a mutant.
"""

import pytest
from hypothesis import HealthCheck, Phase, is_hypothesis_test, settings

settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=tuple(HealthCheck),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: isinstance(item, pytest.Function) and is_hypothesis_test(item.function))
