"""The model of ``health``: which probes a resource has, and how their results decide. Frozen values.

Field names follow docs/reference/health.md.
Regular expressions without templates are kept as text; :func:`genplug.spec.regex.compile_regex` compiles them.
"""

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from genplug.spec.location import SourceLocation
from genplug.spec.template import Template
from genplug.struct_values import compare_without


class OnError(StrEnum):
    """The effect of a probe error on the device (``onError``)."""

    KEEP = "keep"
    UNHEALTHY = "unhealthy"
    HEALTHY = "healthy"


class ProbeTiming(Struct, frozen=True):
    """Period and timeout of a probe in seconds, and the numbers of consecutive results that decide."""

    period: float = 10.0
    timeout: float = 2.0
    failure_threshold: int = 3
    success_threshold: int = 2
    on_error: OnError = OnError.KEEP
    sticky: bool = False


class Check(Struct, frozen=True):
    """The options of one probe: the base class of the options of each kind (:mod:`genplug.health.probes`)."""

    @property
    def templates(self) -> tuple[Template, ...]:
        """Every template among the options."""
        return tuple(_find_templates(getattr(self, name) for name in self.__struct_fields__))

    @property
    def implied_attributes(self) -> frozenset[str]:
        """The attributes that the probe uses without a template for them."""
        return frozenset()

    @property
    def required_attributes(self) -> frozenset[str]:
        """The names of all attributes that a device should have for the probe."""
        return self.implied_attributes.union(*(template.names for template in self.templates))


@compare_without("location")
class ProbeSpec(Struct, frozen=True):
    """One probe: its name in reasons, log and metrics, unique within its resource; its options; its timing.

    With ``is_warning``, a failure is reported and does not make the device unhealthy.
    """

    location: SourceLocation
    name: str
    check: Check
    timing: ProbeTiming = ProbeTiming()
    is_warning: bool = False


class HealthSpec(Struct, frozen=True):
    """How long a device that disappeared remains in the list, Unhealthy (seconds), and the probes."""

    removal_grace_period_seconds: float = 60.0
    probes: tuple[ProbeSpec, ...] = ()


def _find_templates(values: object) -> Iterator[Template]:
    for value in values if isinstance(values, Iterator | tuple) else ():
        if isinstance(value, Template):
            yield value
        else:
            yield from _find_templates(value)
