"""The model of ``health``: what is looked at beside the presence of nodes, and what a look means. Frozen values.

Field names follow the configuration language (docs/reference/health.md).
Patterns that hold no templates are kept as their texts: :func:`genplug.spec.regex.compiled` knows each of them.
"""

from enum import StrEnum
from typing import TypeAlias

from attrs import field, frozen

from genplug.spec.location import SourceLocation
from genplug.spec.template import Template


class OnError(StrEnum):
    """What it means that a probe could not look (config-language: ``onError``)."""

    KEEP = "keep"
    UNHEALTHY = "unhealthy"
    HEALTHY = "healthy"


class OnMissing(StrEnum):
    """What it means that there is no such file (config-language: ``file.missing``)."""

    ERROR = "error"
    FAIL = "fail"
    OK = "ok"


@frozen
class ProbeTiming:
    """How often a probe looks (seconds), how long a look may take (seconds), and how many looks decide."""

    period: float = 10.0
    timeout: float = 2.0
    failure_threshold: int = 3
    success_threshold: int = 2
    on_error: OnError = OnError.KEEP
    sticky: bool = False


@frozen
class ValueCheck:
    """What a file's value has to be; None: not asked. ``bits_clear`` is a mask of bits that have to be 0.

    ``minimum`` and ``maximum`` come with the text that was written, for reasons.
    """

    equals: str | None = None
    not_equals: str | None = None
    matches: str | None = None
    not_matches: str | None = None
    minimum: tuple[float, str] | None = None
    maximum: tuple[float, str] | None = None
    bits_clear: int | None = None


@frozen
class CounterLimit:
    """A value that only counts up: it may rise by ``most`` in a window of so many ``seconds``."""

    max_increase: float
    window_seconds: float


@frozen
class PciCheck:
    """``pci``: the functions at these addresses, or those of the device; the least width of their links (lanes).

    ``keep_initial_width`` wants no less than there was at the first look.
    """

    address: Template | None = None
    min_width: int | None = None
    keep_initial_width: bool = False


@frozen
class FileCheck:
    """``file``: paths or globs, what of each text is the value, and what it has to be; all files, or any of them."""

    path: Template
    find: str | None = None
    expected: ValueCheck = ValueCheck()
    counter: CounterLimit | None = None
    require_all: bool = True
    missing: OnMissing = OnMissing.ERROR


@frozen
class KernelLogCheck:
    """``kernelLog``: lines that are a fault, those of them that are none, and lines that end it."""

    fail: Template
    ignore: Template | None = None
    clear: Template | None = None


@frozen
class UeventCheck:
    """``uevent``: one ``KEY=VALUE`` of an event that is a fault, and one that ends it; ``path`` is whose events."""

    fail: Template
    clear: Template | None = None
    path: Template | None = None


@frozen
class OpenCheck:
    """``open``: the device's nodes can be opened. ``mode`` is ``r``, ``w`` or ``rw``."""

    mode: str = "rw"


@frozen
class ExecCheck:
    """``exec``: a program ends with 0; its path first, then its arguments."""

    command: tuple[Template, ...]


@frozen
class HttpCheck:
    """``http``: a URL answers with this status."""

    url: Template
    expect_status: int = 200


@frozen
class UnixSocketCheck:
    """``unixSocket``: somebody listens on a socket of the host's."""

    path: Template


Check: TypeAlias = (
    PciCheck | FileCheck | KernelLogCheck | UeventCheck | OpenCheck | ExecCheck | HttpCheck | UnixSocketCheck
)


@frozen
class ProbeSpec:
    """One probe: its name in reasons, log and metrics, unique in its resource; what it looks at; its numbers."""

    location: SourceLocation = field(eq=False)
    name: str
    check: Check
    timing: ProbeTiming = ProbeTiming()


@frozen
class HealthSpec:
    """How long a device that vanished stays in the list, Unhealthy (seconds), and what else is looked at."""

    removal_grace_period_seconds: float = 60.0
    probes: tuple[ProbeSpec, ...] = ()


def check_templates(check: Check) -> tuple[Template, ...]:
    """Return every template of a check."""
    match check:
        case PciCheck():
            found: tuple[Template | None, ...] = (check.address,)
        case FileCheck() | UnixSocketCheck():
            found = (check.path,)
        case KernelLogCheck():
            found = (check.fail, check.ignore, check.clear)
        case UeventCheck():
            found = (check.fail, check.clear, check.path)
        case ExecCheck():
            found = check.command
        case HttpCheck():
            found = (check.url,)
        case OpenCheck():
            found = ()
    return tuple(one for one in found if one is not None)
