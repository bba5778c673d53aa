"""Decodes ``health``: the timing that all probes share, and each probe with its own.

The options of a probe are decoded by its kind (:mod:`genplug.health.probes`); here is what reads them from YAML.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.decode.command import decode_command
from genplug.config.decode.values import ValueDecoder, is_set, items, number
from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node, ScalarNode
from genplug.health.probes import PROBES
from genplug.spec.diagnostic import ErrorCode, WarningCode
from genplug.spec.limits import MAX_PROBES
from genplug.spec.location import SourceLocation
from genplug.spec.policy import Policy
from genplug.spec.probes import Check, HealthSpec, OnError, ProbeSpec, ProbeTiming
from genplug.spec.selectors import parse_quantity
from genplug.spec.template import Template

if TYPE_CHECKING:
    # The kinds import it; a configuration without probes has no kind.
    from genplug.health.probe_kind import Denial, ProbeKind

_MAX_BIT_MASK = (1 << 64) - 1
"""No register or counter of the kernel has more bits."""


class HealthDecoder(Struct, frozen=True):
    """Decodes a ``health``; without a policy every probe is allowed."""

    diagnostics: Diagnostics
    values: ValueDecoder
    policy: Policy | None

    def decode(self, node: Node | None, where: str) -> HealthSpec:
        """Return the probes and what they share."""
        if not isinstance(node, MapNode):
            return HealthSpec()
        default = HealthSpec().removal_grace_period_seconds
        shared = _decode_timing(node, replace(ProbeTiming(), sticky=is_set(node, "sticky", value=True)))
        probes = tuple(self._decode_probes(node, f"{where}.probes", shared))
        return HealthSpec(number(node.get("removalGracePeriodSeconds"), default), probes)

    def _decode_probes(self, health: MapNode, where: str, shared: ProbeTiming) -> Iterator[ProbeSpec]:
        locations: dict[str, SourceLocation] = {}
        node = health.get("probes")
        probes = [item for item in items(node) if isinstance(item, MapNode)]
        if len(probes) > MAX_PROBES:
            message = f"{len(probes)} probes, at most {MAX_PROBES} are allowed"
            hint = "a 'file' probe with a glob checks many files"
            self.diagnostics.add(ErrorCode.LIMIT, probes[MAX_PROBES].location, message, key_path=where, hint=hint)
            return
        # Default names give way to those in the configuration, wherever they are.
        configured = frozenset(_text(probe.get("name")) or "" for probe in probes)
        for index, probe in enumerate(items(node)):
            if not isinstance(probe, MapNode):
                continue
            kind = next((PROBES[key] for key in probe.entries if key in PROBES), None)
            if kind is None:
                continue
            entry = probe.entries[kind.name]
            check = self._decode_check(kind, entry, f"{where}[{index}].{kind.name}")
            name = self._decode_name(probe, locations, f"{where}[{index}]")
            if not name:
                default = (kind.default_name(check) if check is not None else "") or kind.name
                name = _free_name(default, configured | locations.keys())
                locations[name] = entry.key
            if check is not None:
                timing = _decode_timing(probe, shared)
                written = (probe if "timeoutSeconds" in probe.entries else health).entries.get("timeoutSeconds")
                if kind.polling is not None and written is not None and timing.timeout > timing.period:
                    self._warn_about_timeout(timing, written.key, f"{where}[{index}]")
                yield ProbeSpec(entry.key, name, check, timing, is_warning=_text(probe.get("severity")) == "warning")

    def _warn_about_timeout(self, timing: ProbeTiming, written: SourceLocation, where: str) -> None:
        self.diagnostics.warn(
            WarningCode.TIMEOUT,
            written,
            f"the timeout of {timing.timeout:g} s is longer than the period of {timing.period:g} s, so that a run that "
            "hangs delays the next runs",
            key_path=where,
            hint=f"use a timeoutSeconds of at most {timing.period:g}, or a longer periodSeconds",
            width=len("timeoutSeconds"),
        )

    def _decode_name(self, probe: MapNode, locations: dict[str, SourceLocation], where: str) -> str:
        name = probe.get("name")
        if not isinstance(name, ScalarNode):
            return ""
        if (first := locations.get(name.text)) is not None:
            self.diagnostics.add(
                ErrorCode.CONFLICT,
                name.at(0),
                f"two probes have the name {name.text!r}",
                key_path=where,
                hint="give each probe its own name: log and metrics identify probes by name",
                width=len(name.text),
                related_location=first,
            )
        locations.setdefault(name.text, name.location)
        return name.text

    def _decode_check(self, kind: "ProbeKind", entry: MapEntry, where: str) -> Check | None:
        options = entry.value if isinstance(entry.value, MapNode) else MapNode(entry.key, {})
        check = kind.decode(_NodeDecoder(options, where, self.diagnostics, self.values))
        denial = kind.denial(check, self.policy) if check is not None and self.policy is not None else None
        if denial is not None and self.policy is not None:
            location, width, key_path = _find_denied(denial, entry, options, where)
            width = width or len(kind.name)
            self.diagnostics.add(
                ErrorCode.NOT_ALLOWED, location, denial.reason, key_path=key_path, hint=self.policy.help, width=width
            )
        return check


class _NodeDecoder(Struct, frozen=True):
    """Reads the options of one probe from its node; a :class:`genplug.health.probe_kind.OptionsDecoder`."""

    node: MapNode
    where: str
    diagnostics: Diagnostics
    values: ValueDecoder

    def has(self, option: str) -> bool:
        return option in self.node.entries

    def text(self, option: str) -> str | None:
        return _text(self.node.get(option))

    def number(self, option: str, default: float) -> float:
        return number(self.node.get(option), default)

    def quantity(self, option: str) -> tuple[float, str] | None:
        node = self.node.get(option)
        value = self.values.parse_quantity(node, f"{self.where}.{option}")
        return (value, node.text) if value is not None and isinstance(node, ScalarNode) else None

    def bit_mask(self, option: str) -> int | None:
        node = self.node.get(option)
        # The schema has reported values of other types.
        if not isinstance(node, ScalarNode) or isinstance(node.value, bool | float | None):
            return None
        value = parse_quantity(node.text)
        if value is None or not 1 <= value <= _MAX_BIT_MASK or value != int(value):
            self.diagnostics.add(
                ErrorCode.WRONG_VALUE,
                node.at(0),
                f"{node.text!r} is not a bit mask",
                key_path=f"{self.where}.{option}",
                hint="write a whole number from 1 with at most 64 bits, for example 0x4",
                width=len(node.text),
            )
            return None
        return int(value)

    def template(self, option: str) -> Template | None:
        return self.values.template(self.node.get(option), f"{self.where}.{option}")

    def path(self, option: str, *, is_glob: bool = False) -> Template | None:
        return self.values.path(self.node.get(option), f"{self.where}.{option}", is_glob=is_glob)

    def regex(self, option: str) -> str | None:
        return self.values.pattern(self.node.get(option), f"{self.where}.{option}")

    def regex_templates(self, option: str) -> tuple[Template, ...]:
        node, where = self.node.get(option), f"{self.where}.{option}"
        if not isinstance(node, ListNode):
            template = self.values.find(node, where)
            return (template,) if template is not None else ()
        templates = [self.values.find(item, f"{where}[{index}]") for index, item in enumerate(node.items)]
        return () if None in templates else tuple(template for template in templates if template is not None)

    def command(self, option: str) -> tuple[Template, ...]:
        known = len(self.diagnostics.found)
        # The kind checks whether the policy allows the program.
        command = decode_command(self.node.get(option), f"{self.where}.{option}", self.values, None, self.diagnostics)
        return command if len(self.diagnostics.found) == known else ()

    def reject(self, option: str, message: str, hint: str) -> None:
        self._report(ErrorCode.SELECTOR, option, message, hint)

    def require(self, option: str, other: str, hint: str) -> None:
        self._report(ErrorCode.MISSING_KEY, option, f"{option!r} without {other!r}", hint)

    def _report(self, code: ErrorCode, option: str, message: str, hint: str) -> None:
        location = self.node.entries[option].key
        self.diagnostics.add(code, location, message, key_path=self.where, hint=hint, width=len(option))


def _find_denied(denial: "Denial", entry: MapEntry, options: MapNode, where: str) -> tuple[SourceLocation, int, str]:
    """Return location, width and key path of what is denied; a width of 0 is that of the key of the kind."""
    node = options.get(denial.option)
    # Of a list, the first value is denied: of a command, the program.
    node = next(iter(items(node)), node)
    if isinstance(node, ScalarNode):
        return node.at(0), max(len(node.text), 1), f"{where}.{denial.option}"
    return entry.key, 0, where


def _text(node: Node | None) -> str | None:
    return node.text if isinstance(node, ScalarNode) and node.value is not None else None


def _free_name(default: str, taken: AbstractSet[str]) -> str:
    """Return a name that no other probe has: the default, or the default with a number after it."""
    name, number_ = default, 1
    while name in taken:
        number_ += 1
        name = f"{default}-{number_}"
    return name


def _decode_timing(node: MapNode, shared: ProbeTiming) -> ProbeTiming:
    on_error = _text(node.get("onError"))
    return ProbeTiming(
        period=number(node.get("periodSeconds"), shared.period),
        timeout=number(node.get("timeoutSeconds"), shared.timeout),
        failure_threshold=int(number(node.get("failureThreshold"), shared.failure_threshold)),
        success_threshold=int(number(node.get("successThreshold"), shared.success_threshold)),
        on_error=OnError(on_error) if on_error in list(OnError) else shared.on_error,
        sticky=shared.sticky,
    )
