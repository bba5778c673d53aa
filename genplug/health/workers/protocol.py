"""What a probe wants to know of the node, as values: the question that goes to a worker, and the reply that comes back.

Both travel between processes as plain tuples, so both are plain: a question is a tuple of texts, its kind first, and
two devices that want to know the same ask the same.
"""

from typing import Any, TypeAlias

from attrs import frozen

ProbeRequest: TypeAlias = tuple[str, ...]
"""A question: the kind of probe (the module of :mod:`genplug.health.probes` that answers it), and what it is about."""


@frozen
class ProbeResponse:
    """What came of a question: an answer (its form is the kind's own), or why there is none."""

    answer: Any = None
    error: str = ""
