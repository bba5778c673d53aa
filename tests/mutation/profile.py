"""A pytest plugin for mutation testing.

Hypothesis draws the same examples in each run, so that each run kills the same mutants. It does not search for a
smaller example after a failure, which would take most of the time.
"""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=tuple(HealthCheck),
)
