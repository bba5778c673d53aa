"""The description of a probe kind, which each module of :mod:`genplug.health.probes` exports as ``KIND``.

The rest of genplug uses kinds only through their descriptions: the functions that decode the options, check the policy,
bind the kind to a device, run it or select its events, and evaluate its answers.
A kind is either polled (:class:`Polling`) or evaluates events of the kernel (:class:`Listening`).
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, Protocol

from msgspec import Struct

from genplug.hardware.inventory import Device
from genplug.health.thresholds import Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.policy import Policy
from genplug.spec.privileges import ProbeNeed
from genplug.spec.probes import Check
from genplug.spec.template import Template


class OptionsDecoder(Protocol):
    """Reads the options of one probe.

    The options have the types of the JSON schema.
    The methods check the rules that a schema cannot express, and report errors at the location of the option. They then
    return the value for a missing option.
    """

    def has(self, option: str) -> bool:
        """Return whether an option exists."""
        ...

    def text(self, option: str) -> str | None:
        """Return a scalar verbatim."""
        ...

    def number(self, option: str, default: float) -> float:
        """Return a number, or the default if the option is not a number."""
        ...

    def quantity(self, option: str) -> tuple[float, str] | None:
        """Return a number or quantity (``64Gi``), with its text."""
        ...

    def bit_mask(self, option: str) -> int | None:
        """Return an integer from 1, written as a number or in hexadecimal."""
        ...

    def template(self, option: str) -> Template | None:
        """Return a template."""
        ...

    def path(self, option: str, *, is_glob: bool = False) -> Template | None:
        """Return a template of an absolute path, or of a glob over such paths."""
        ...

    def regex(self, option: str) -> str | None:
        """Return a regular expression without templates."""
        ...

    def regex_templates(self, option: str) -> tuple[Template, ...]:
        """Return one or several regular expressions that may contain templates; empty after an error in one."""
        ...

    def command(self, option: str) -> tuple[Template, ...]:
        """Return the path of a program and its arguments."""
        ...

    def reject(self, option: str, message: str, hint: str) -> None:
        """Report that the value of an option contradicts another."""
        ...

    def require(self, option: str, other: str, hint: str) -> None:
        """Report that ``option`` exists without ``other``, which it needs."""
        ...


class Effect(Enum):
    """The effect of a run, which decides where it runs and whether ``genplug capture`` runs it."""

    READ = auto()
    """The run only reads files. ``genplug capture`` runs it, and records the files."""
    OPEN = auto()
    """The run opens device nodes, which may have side effects."""
    CALL = auto()
    """The run waits for another program. It runs concurrently with others, and ends by itself at its timeout."""


class EventStream(Enum):
    """The source of the events that a probe evaluates."""

    KERNEL_LOG = auto()
    """Records of ``/dev/kmsg``, including those from before the start; an event is the text of a record."""
    UEVENTS = auto()
    """Events of the kernel's devices; an event is a :class:`genplug.hardware.uevents.Uevent`."""


class Polling(Struct, frozen=True):
    """The functions of a polled kind; ``run`` is called in a worker process, the others in the agent.

    ``request`` returns the request for a device, and raises MissingAttributeError if the device lacks an attribute.
    ``run`` returns the answer to a request within a timeout (seconds) as plain values (tuples, texts, numbers), and
    raises OSError if there is no answer.
    ``evaluate`` is called with the check, the answer, the memory of the previous run (None at first), and the time
    (monotonic seconds); it returns the result and the memory for the next run.
    ``changes_with_time`` returns whether an unchanged answer may have another result later, with this memory.
    """

    request: Callable[[Any, Device], ProbeRequest]
    run: Callable[[ProbeRequest, CachedFileReader, float], Any]
    evaluate: Callable[[Any, Any, Any, float], tuple[Result, Any]]
    effect: Effect
    changes_with_time: Callable[[Any], bool] = lambda _memory: False


class Listening(Struct, frozen=True):
    """The functions of a kind that evaluates events.

    ``bind`` returns the patterns for a device, and raises MissingAttributeError or PatternError.
    ``evaluate`` is called with the patterns and an event; it returns the result for the device, or None if the event
    does not concern it.
    ``may_concern`` returns whether an event may concern a device of a check; most events do not.
    """

    stream: EventStream
    bind: Callable[[Any, Device], Any]
    evaluate: Callable[[Any, Any], Result | None]
    may_concern: Callable[[Any, Any], bool] = lambda _check, _event: True


class Denial(Struct, frozen=True):
    """The reason why a policy denies a check, as a sentence, and the denied option; empty if the kind is denied."""

    reason: str
    option: str = ""


class ProbeKind(Struct, frozen=True):
    """A kind of probe. ``name`` is its key in the configuration, ``spec`` the class of its decoded options.

    ``decode`` returns None after it reported a missing or invalid option.
    ``denial`` returns the rule of a policy that denies a check, or None if the check is allowed.
    ``restrict`` returns a request with the limits of a policy that only a run can check.
    ``default_name`` returns the name of a probe without ``name``; if it is empty, the name is that of the kind.
    ``needs`` returns what the agent needs from its container for a check; reading files in ``/sys`` needs nothing.
    """

    name: str
    spec: type[Check]
    decode: Callable[[OptionsDecoder], Check | None]
    polling: Polling | None = None
    listening: Listening | None = None
    denial: Callable[[Any, Policy], Denial | None] = lambda _check, _policy: None
    default_name: Callable[[Any], str] = lambda _check: ""
    restrict: Callable[[ProbeRequest, Policy], ProbeRequest] = lambda request, _policy: request
    needs: Callable[[Any], Iterable[ProbeNeed]] = lambda _check: ()

    def __post_init__(self) -> None:
        if (self.polling is None) == (self.listening is None):
            raise ValueError(f"probe kind {self.name!r} must have either 'polling' or 'listening'")
