"""The description of a probe kind: what each module of :mod:`genplug.health.probes` exports as ``KIND``.

A description is all that the rest of genplug knows of a kind: how its options are decoded, whether the policy allows
it, how it is bound to a device, how it is run or which events it listens to, and what its results mean.
A kind is either run again and again (:class:`Polling`) or evaluates what the kernel sends (:class:`Listening`).
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from attrs import frozen

from genplug.hardware.inventory import Device
from genplug.health.thresholds import Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.policy import Policy
from genplug.spec.probes import Check
from genplug.spec.template import Template


class OptionsDecoder(Protocol):
    """Reads the options of one probe.

    The options have the types that the JSON schema gives them.
    What a schema cannot check is checked here, and reported at the option's location; a method then returns what it
    returns for an option that is not there.
    """

    def has(self, option: str) -> bool:
        """Return whether an option is there."""
        ...

    def text(self, option: str) -> str | None:
        """Return a scalar as it is written."""
        ...

    def number(self, option: str, default: float) -> float:
        """Return a number, or the default where the option is not a number."""
        ...

    def quantity(self, option: str) -> tuple[float, str] | None:
        """Return a number or quantity (``64Gi``), and how it is written."""
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

    def regex_template(self, option: str) -> Template | None:
        """Return a regular expression that may hold templates."""
        ...

    def command(self, option: str) -> tuple[Template, ...]:
        """Return the path of a program and its arguments."""
        ...

    def reject(self, option: str, message: str, hint: str) -> None:
        """Report that the value of an option contradicts another."""
        ...

    def require(self, option: str, other: str, hint: str) -> None:
        """Report that ``option`` is there without ``other``, which it needs."""
        ...


class Effect(Enum):
    """What a run of a probe does: it decides where it is run, and whether ``genplug capture`` may run it."""

    READ = auto()
    """It only reads files: ``genplug capture`` runs it, and records what it reads."""
    OPEN = auto()
    """It opens device nodes, which may have effects."""
    CALL = auto()
    """It waits for another program: it is run concurrently with others, and ends by itself at its timeout."""


class EventStream(Enum):
    """What sends the events that a probe listens to."""

    KERNEL_LOG = auto()
    """Records of ``/dev/kmsg``, those from before the start included; an event is the text of a record."""
    UEVENTS = auto()
    """Events of the kernel's devices; an event is a :class:`genplug.hardware.uevents.Uevent`."""


@frozen
class Polling:
    """How a kind is run again and again; ``run`` is called in a worker process, everything else in the agent.

    ``request`` makes the request for a device, and raises MissingAttributeError where the device lacks what it needs.
    ``run`` answers a request within a timeout (seconds) with plain values (tuples, texts, numbers); it raises OSError
    where there is no answer.
    ``evaluate`` gives the meaning of an answer: it gets the check, the answer, what it remembered of the runs before
    (None at first), and the time (monotonic seconds), and returns the result and what to remember.
    ``changes_with_time`` says of what is remembered whether an unchanged answer may get another meaning.
    """

    request: Callable[[Any, Device], ProbeRequest]
    run: Callable[[ProbeRequest, CachedFileReader, float], Any]
    evaluate: Callable[[Any, Any, Any, float], tuple[Result, Any]]
    effect: Effect
    changes_with_time: Callable[[Any], bool] = lambda _memory: False


@frozen
class Listening:
    """Which events a kind evaluates.

    ``bind`` makes what is compared with events of a device, and raises MissingAttributeError or RegexError.
    ``evaluate`` gets that and an event, and returns its meaning for the device, None where it has none.
    ``may_concern`` returns false for an event that concerns no device of a check; most events concern none.
    """

    stream: EventStream
    bind: Callable[[Any, Device], Any]
    evaluate: Callable[[Any, Any], Result | None]
    may_concern: Callable[[Any, Any], bool] = lambda _check, _event: True


@frozen
class Denial:
    """Why a policy denies a check, as a sentence, and the option that it is about; empty if it is about the kind."""

    reason: str
    option: str = ""


@frozen
class ProbeKind:
    """A kind of probe. ``name`` is its key in the configuration, ``spec`` the class of its decoded options.

    ``decode`` returns None where an option is missing or invalid, which it has reported.
    ``denial`` returns which rule of a policy denies a check, None where it is allowed.
    ``default_name`` is what a probe without a ``name`` is called; where it is empty, by its kind.
    """

    name: str
    spec: type[Check]
    decode: Callable[[OptionsDecoder], Check | None]
    polling: Polling | None = None
    listening: Listening | None = None
    denial: Callable[[Any, Policy], Denial | None] = lambda _check, _policy: None
    default_name: Callable[[Any], str] = lambda _check: ""

    def __attrs_post_init__(self) -> None:
        if (self.polling is None) == (self.listening is None):
            raise ValueError(f"probe kind {self.name!r} must have either 'polling' or 'listening'")
