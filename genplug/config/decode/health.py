"""Decoding of ``health``: the numbers that all probes share, and each probe with its own."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from attrs import evolve, frozen

from genplug.config.decode.command import read_command
from genplug.config.decode.values import ValueDecoder, is_set, items, number
from genplug.config.diagnostics import Diagnostics, ErrorCode
from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode
from genplug.spec.location import SourceLocation
from genplug.spec.policy import Policy
from genplug.spec.probes import (
    Check,
    CounterLimit,
    ExecCheck,
    FileCheck,
    HealthSpec,
    HttpCheck,
    KernelLogCheck,
    OnError,
    OnMissing,
    OpenCheck,
    PciCheck,
    ProbeSpec,
    ProbeTiming,
    UeventCheck,
    UnixSocketCheck,
    ValueCheck,
)
from genplug.spec.selectors import parse_quantity

_AT_START: Final = "atStart"
_OK: Final = 200


@frozen
class HealthReader:
    """Reads a ``health``; without a policy nothing is refused as not allowed."""

    problems: Diagnostics
    texts: ValueDecoder
    policy: Policy | None

    def health(self, node: Node | None, where: str) -> HealthSpec:
        """Return how health is told."""
        if not isinstance(node, MapNode):
            return HealthSpec()
        shared = _numbers(node, evolve(ProbeTiming(), sticky=is_set(node, "sticky", value=True)))
        probes = tuple(self._probes(node.get("probes"), f"{where}.probes", shared))
        return HealthSpec(
            number(node.get("removalGracePeriodSeconds"), HealthSpec().removal_grace_period_seconds), probes
        )

    def _probes(self, node: Node | None, where: str, shared: ProbeTiming) -> Iterator[ProbeSpec]:
        taken: dict[str, SourceLocation] = {}
        # Names that are made give way to those that are written, wherever they stand.
        written = frozenset(_text(item.get("name")) or "" for item in items(node) if isinstance(item, MapNode))
        for index, item in enumerate(items(node)):
            if not isinstance(item, MapNode):
                continue
            kind = next((kind for kind in _KINDS if kind in item.entries), None)
            if kind is None:
                continue
            entry = item.entries[kind]
            check = _KINDS[kind](self, entry, f"{where}[{index}].{kind}")
            name = self._written_name(item, taken, f"{where}[{index}]")
            if not name:
                name = _free_name(_made_name(kind, entry.value), written | taken.keys())
                taken[name] = entry.key
            if check is not None:
                yield ProbeSpec(entry.key, name, check, _numbers(item, shared))

    def _written_name(self, item: MapNode, taken: dict[str, SourceLocation], where: str) -> str:
        written = item.get("name")
        if not isinstance(written, ScalarNode):
            return ""
        if (first := taken.get(written.text)) is not None:
            message, hint = f"two probes are called {written.text!r}", "log and metrics tell probes apart by names"
            location, width = written.at(0), len(written.text)
            self.problems.add(
                ErrorCode.CONFLICT, location, message, key_path=where, hint=hint, width=width, related_location=first
            )
        taken.setdefault(written.text, written.location)
        return written.text

    def _pci(self, entry: MapEntry, where: str) -> Check | None:
        fields = _fields(entry)
        width = fields.get("minLinkWidth")
        keeps_width = isinstance(width, ScalarNode) and width.value == _AT_START
        address = self.texts.template(fields.get("address"), f"{where}.address")
        return PciCheck(address, int(number(width, 0)) or None, keeps_width)

    def _file(self, entry: MapEntry, where: str) -> Check | None:
        fields = _fields(entry)
        path = self.texts.path(fields.get("path"), f"{where}.path", is_glob=True)
        find = self.texts.pattern(fields.get("find"), f"{where}.find")
        wanted = ValueCheck(
            equals=_text(fields.get("equals")),
            not_equals=_text(fields.get("notEquals")),
            matches=self.texts.pattern(fields.get("matches"), f"{where}.matches"),
            not_matches=self.texts.pattern(fields.get("notMatches"), f"{where}.notMatches"),
            minimum=self._bound(fields.get("min"), f"{where}.min"),
            maximum=self._bound(fields.get("max"), f"{where}.max"),
            bits_clear=self._bits(fields.get("bitsClear"), f"{where}.bitsClear"),
        )
        if wanted.minimum and wanted.maximum and wanted.minimum[0] > wanted.maximum[0]:
            message, location = "no number is both at least 'min' and at most 'max'", fields.entries["min"].key
            self.problems.add(
                ErrorCode.SELECTOR, location, message, key_path=where, hint="swap the two", width=len("min")
            )
        counter = self._counter(fields, where)
        if path is None:
            return None
        missing = _text(fields.get("missing")) or ""
        return FileCheck(
            path,
            find,
            wanted,
            counter,
            require_all=_text(fields.get("require")) != "any",
            missing=OnMissing(missing) if missing in list(OnMissing) else OnMissing.ERROR,
        )

    def _counter(self, fields: MapNode, where: str) -> CounterLimit | None:
        together = ("maxIncrease", "perSeconds")
        written = [key for key in together if key in fields.entries]
        if len(written) == 1:
            (there,), (lacking,) = written, [key for key in together if key not in written]
            message, hint = f"{there!r} without {lacking!r}", "a counter may rise by 'maxIncrease' in 'perSeconds'"
            location = fields.entries[there].key
            self.problems.add(ErrorCode.MISSING_KEY, location, message, key_path=where, hint=hint, width=len(there))
        if len(written) < len(together):
            return None
        return CounterLimit(*(number(fields.get(key), 0) for key in together))

    def _kernel_log(self, entry: MapEntry, where: str) -> Check | None:
        fields = _fields(entry)
        keys = ("fail", "ignore", "clear")
        fail, ignore, clear = (self.texts.find(fields.get(key), f"{where}.{key}") for key in keys)
        return KernelLogCheck(fail, ignore, clear) if fail is not None else None

    def _uevent(self, entry: MapEntry, where: str) -> Check | None:
        fields = _fields(entry)
        fail, clear = (self.texts.find(fields.get(key), f"{where}.{key}") for key in ("fail", "clear"))
        path = self.texts.path(fields.get("path"), f"{where}.path")
        return UeventCheck(fail, clear, path) if fail is not None else None

    def _open(self, entry: MapEntry, where: str) -> Check | None:
        if self.policy is not None and (fault := self.policy.open_error()):
            message, hint = f"to open device nodes is {fault}", self.policy.help
            self.problems.add(ErrorCode.NOT_ALLOWED, entry.key, message, key_path=where, hint=hint, width=len("open"))
        mode = _text(_fields(entry).get("mode"))
        return OpenCheck(mode) if mode in {"r", "w", "rw"} else OpenCheck()

    def _exec(self, entry: MapEntry, where: str) -> Check | None:
        command = _fields(entry).get("command")
        arguments = read_command(command, f"{where}.command", self.texts, self.policy, self.problems)
        return ExecCheck(arguments) if arguments else None

    def _http(self, entry: MapEntry, where: str) -> Check | None:
        fields = _fields(entry)
        url = self.texts.template(fields.get("url"), f"{where}.url")
        status = int(number(fields.get("expectStatus"), _OK))
        return HttpCheck(url, status) if url is not None else None

    def _unix_socket(self, entry: MapEntry, where: str) -> Check | None:
        path = self.texts.path(_fields(entry).get("path"), f"{where}.path")
        return UnixSocketCheck(path) if path is not None else None

    def _bound(self, node: Node | None, where: str) -> tuple[float, str] | None:
        found = self.texts.parse_quantity(node, where)
        return (found, node.text) if found is not None and isinstance(node, ScalarNode) else None

    def _bits(self, node: Node | None, where: str) -> int | None:
        # Of another number the schema has said that it is none of these.
        if not isinstance(node, ScalarNode) or isinstance(node.value, bool | float | None):
            return None
        found = parse_quantity(node.text)
        if found is None or found < 1 or found != int(found):
            message, hint = f"{node.text!r} is no mask of bits", "write a number, for example 0x4"
            self.problems.add(
                ErrorCode.WRONG_VALUE, node.at(0), message, key_path=where, hint=hint, width=len(node.text)
            )
            return None
        return int(found)


_KINDS: Final[Mapping[str, Callable[[HealthReader, MapEntry, str], Check | None]]] = {
    "pci": HealthReader._pci,  # noqa: SLF001 - a table of the class's own methods
    "file": HealthReader._file,  # noqa: SLF001
    "kernelLog": HealthReader._kernel_log,  # noqa: SLF001
    "uevent": HealthReader._uevent,  # noqa: SLF001
    "open": HealthReader._open,  # noqa: SLF001
    "exec": HealthReader._exec,  # noqa: SLF001
    "http": HealthReader._http,  # noqa: SLF001
    "unixSocket": HealthReader._unix_socket,  # noqa: SLF001
}


def _fields(entry: MapEntry) -> MapNode:
    return entry.value if isinstance(entry.value, MapNode) else MapNode(entry.key, {})


def _text(node: Node | None) -> str | None:
    return node.text if isinstance(node, ScalarNode) and node.value is not None else None


def _made_name(kind: str, value: Node) -> str:
    """Name a probe of a file by the file, any other by its kind."""
    path = _text(value.get("path")) if kind == "file" and isinstance(value, MapNode) else None
    name = (path or "").rstrip("/").rpartition("/")[2]
    return name if name and not set(name) & set("*?[]{}$") else kind


def _free_name(made: str, taken: AbstractSet[str]) -> str:
    """Return a name that no other probe has: as it was made, or with a number behind it."""
    name, count = made, 1
    while name in taken:
        count += 1
        name = f"{made}-{count}"
    return name


def _numbers(node: MapNode, shared: ProbeTiming) -> ProbeTiming:
    on_error = _text(node.get("onError"))
    return ProbeTiming(
        period=number(node.get("periodSeconds"), shared.period),
        timeout=number(node.get("timeoutSeconds"), shared.timeout),
        failure_threshold=int(number(node.get("failureThreshold"), shared.failure_threshold)),
        success_threshold=int(number(node.get("successThreshold"), shared.success_threshold)),
        on_error=OnError(on_error) if on_error in list(OnError) else shared.on_error,
        sticky=shared.sticky,
    )
