"""Warns about valid configurations that probably differ from what their author intended.

Each check yields warnings about a decoded configuration and the tree that it comes from. A check must not warn about a
configuration that works as written: tests run all checks on the recipes and on the examples of the documentation.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from genplug.config.decode.values import entries, items
from genplug.config.schema import format_key_path
from genplug.config.yaml_tree import ListNode, MapEntry, MapNode, Node, ScalarNode
from genplug.hardware.attribute_names import is_known_attribute
from genplug.spec.diagnostic import Diagnostic, WarningCode
from genplug.spec.globs import Glob, has_magic
from genplug.spec.location import SourceLocation
from genplug.spec.model import CandidateType, Config, Source
from genplug.spec.selectors import normalize
from genplug.struct_values import hide_in_repr

Path = tuple[str | int, ...]
"""A path of keys and of indices in lists."""


@hide_in_repr("written", "tree")
class _Subject(Struct, frozen=True):
    """A configuration: ``written`` is the merged tree, and ``tree`` the same with ``defaults`` applied to resources."""

    config: Config
    written: MapNode
    tree: MapNode

    def resources(self) -> Iterator[tuple[str, MapNode]]:
        """Yield each resource with its name and its tree."""
        for name, entry in entries(self.tree.get("resources")):
            if isinstance(entry.value, MapNode):
                yield name, entry.value


def find_warnings(config: Config, written: MapNode, tree: MapNode) -> Iterator[Diagnostic]:
    """Yield the warnings about a valid configuration; ``tree`` is ``written`` with ``defaults`` applied."""
    subject = _Subject(config, written, tree)
    for check in _CHECKS:
        yield from check(subject)


def find_policy_warnings(tree: MapNode) -> Iterator[Diagnostic]:
    """Yield the warnings about a valid policy."""
    for path, scalar in _walk(tree):
        yield from _check_glob(path, scalar)
    yield from _check_characters_of(tree)


_REGEX_SYNTAX = (
    (re.compile(r"(?<=/)[A-Za-z]+(\.[*+])(?=/|\Z)"), "in a glob, '.' matches only itself, and '*' any text"),
    (re.compile(r"\](\+)"), "in a glob, '+' matches only itself"),
    (re.compile(r"(\([^()/]*\|[^()/]*\))"), "in a glob, '(', '|' and ')' match only themselves"),
    (re.compile(r"[^/](\|)\s*/dev/"), "in a glob, '|' matches only itself"),
    (re.compile(r"(\$)(?=/|\Z)"), "in a glob, '$' matches only itself"),
)
"""Regular expressions for a glob that looks like a regular expression, each with its explanation."""


def _check_globs(subject: _Subject) -> Iterator[Diagnostic]:
    for path, scalar in _walk(subject.written):
        if not {"glob", "exclude"} & {step for step in path[-2:] if isinstance(step, str)}:
            continue
        yield from _check_glob(path, scalar)


def _check_glob(path: Path, scalar: ScalarNode) -> Iterator[Diagnostic]:
    if not scalar.text.startswith("/dev/"):
        return
    for pattern, explanation in _REGEX_SYNTAX:
        if found := pattern.search(scalar.text):
            suggestion = f"'{_suggest_glob(scalar.text)}'"
            hint = f"write [{suggestion}]" if "', '" in suggestion else f"write {suggestion}"
            message = f"{scalar.text!r} looks like a regular expression: {explanation}"
            yield _warn(WarningCode.REGEX_IN_GLOB, scalar, found.start(1), len(found[1]), message, path, hint)
            return


def _suggest_glob(text: str) -> str:
    """Return the glob that a regular expression probably means."""
    text = re.sub(r"\(([^()|]*(?:\|[^()|]*)+)\)", lambda found: "{" + found[1].replace("|", ",") + "}", text)
    text = re.sub(r"\|\s*/dev/", "', '/dev/", text)
    text = re.sub(r"(\[[^]]*\])\+", r"\1*", text.removesuffix("$"))
    return re.sub(r"(?<=[A-Za-z])\.[*+]", "*", text)


_OTHER_TEMPLATES = re.compile(
    r"\{\{-?\s*\.?(?P<double>[\w.]+)\s*-?\}\}|\$\((?P<make>[\w.]+)\)|%\((?P<python>[\w.]+)\)s|%(?P<windows>[\w.]+)%"
    r"|\$(?P<shell>[A-Za-z][\w.]*)|\A\{(?P<single>[\w.]+)\}\Z"
)
"""References in the syntax of Helm and Jinja, make, Python, Windows and shells."""
_WITHOUT_TEMPLATES = ("find", "matches", "fail", "pattern", "command")


def _check_templates(subject: _Subject) -> Iterator[Diagnostic]:
    custom = {name: _list_custom_names(resource) for name, resource in subject.resources()}
    for path, scalar in _walk(subject.written):
        if not any(sign in scalar.text for sign in "${%") or any(step in _WITHOUT_TEMPLATES for step in path):
            continue
        known = custom.get(str(path[1]), frozenset()) if path[0] == "resources" and len(path) > 1 else frozenset[str]()
        for found in _OTHER_TEMPLATES.finditer(scalar.text):
            name = next(filter(None, found.groups()), "").rstrip(".")
            if name in known or is_known_attribute(name):
                message = f"{found[0]!r} is plain text, not a reference to the attribute {name!r}"
                is_glob = bool({"glob", "exclude"} & set(path[-2:]))
                reference = f"write '${{{name}}}'"
                hint = "a glob has no references: use wildcards, and 'where' for conditions" if is_glob else reference
                yield _warn(WarningCode.TEMPLATE_SYNTAX, scalar, found.start(), len(found[0]), message, path, hint)


_BLANK_CHARACTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters without a visible form that Unicode classifies as letters or symbols."""


def _check_characters(subject: _Subject) -> Iterator[Diagnostic]:
    yield from _check_characters_of(subject.written)


def _check_characters_of(tree: MapNode) -> Iterator[Diagnostic]:
    for path, entry in _walk_keys(tree):
        if found := _find_invisible(str(path[-1])):
            # The location of a key is exact only if it is not quoted.
            yield _warn_about_character("key", *found, entry.key, path)
    for path, scalar in _walk(tree):
        if found := _find_invisible(scalar.text):
            yield _warn_about_character("value", *found, scalar.at(found[0]), path)
        elif _is_path_with_space(path, scalar.text):
            yield _warn(
                WarningCode.INVISIBLE_CHARACTER,
                scalar,
                len(scalar.text.rstrip()),
                1,
                "the path ends with a space, so that only names that end with a space match",
                path,
                "delete the space",
            )


def _find_invisible(text: str) -> tuple[int, str] | None:
    """Return the offset of the first character that is not visible, and the character."""
    if text.isascii():
        return None
    for offset, character in enumerate(text):
        is_blank = unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp") and character != " "
        if is_blank or character in _BLANK_CHARACTERS:
            return offset, character
    return None


_WITH_SPACES = frozenset({"env", "annotations", "find", "matches", "command"})
"""Keys of values in which a space at the end can be intended."""


def _is_path_with_space(path: Path, text: str) -> bool:
    """Return whether a value is a path or a glob that ends with a space or a tab."""
    return text.startswith("/") and text.endswith((" ", "\t")) and _WITH_SPACES.isdisjoint(path)


def _warn_about_character(what: str, _offset: int, character: str, location: SourceLocation, path: Path) -> Diagnostic:
    name = unicodedata.name(character, "unnamed").lower()
    message = f"the {what} contains U+{ord(character):04X} ({name}), which is not visible or looks like a space"
    hint = f"delete it and type the {what} again; text that is copied from a page or a chat can contain it"
    return Diagnostic(WarningCode.INVISIBLE_CHARACTER, location, message, format_key_path(path), hint=hint)


class _Claim(Struct, frozen=True):
    """A glob of a resource whose matches all become its devices; ``path`` is its path in the tree."""

    resource: str
    scalar: ScalarNode
    path: Path
    kind: CandidateType
    overlap: bool

    def conflicts_with(self, other: "_Claim") -> bool:
        """Return whether a path that both match can belong to one of the resources only."""
        return self.resource != other.resource and self.kind is other.kind and not (self.overlap and other.overlap)


MAX_COMPARISONS = 50_000
"""Comparisons of a path with the globs of other resources: more are too slow at each load, and are left out."""


def _check_same_devices(subject: _Subject) -> Iterator[Diagnostic]:
    claims = tuple(_list_claims(subject))
    by_text: dict[str, list[_Claim]] = {}
    for claim in claims:
        same = by_text.setdefault(claim.scalar.text, [])
        previous = next(filter(claim.conflicts_with, same), None)
        # A second claim of a resource adds nothing.
        if all((claim.resource, claim.overlap) != (other.resource, other.overlap) for other in same[:2]):
            same.append(claim)
        if previous is not None:
            yield _warn_about_claim(claim, previous, "has the same glob")
    paths = [claim for claim in claims if not has_magic(claim.scalar.text)]
    globs = [(claim, Glob.parse(claim.scalar.text)) for claim in claims if has_magic(claim.scalar.text)]
    if len(paths) * len(globs) > MAX_COMPARISONS:
        return
    for path in paths:
        for claim, glob in globs:
            if path.conflicts_with(claim) and glob.matches(path.scalar.text):
                yield _warn_about_claim(path, claim, f"has the glob {claim.scalar.text!r}, which matches this path")
                break


def _list_claims(subject: _Subject) -> Iterator[_Claim]:
    for name, resource in subject.resources():
        decoded = subject.config.resources[name]
        sources = items(resource.get("devices"))
        for index, (source, node) in enumerate(zip(decoded.sources, sources, strict=False)):
            if _claims_every_path(source) and isinstance(node, MapNode):
                path: Path = ("resources", name, "devices", index, "glob")
                for scalar in _list_scalars(node.get("glob")):
                    yield _Claim(name, scalar, path, source.type, decoded.overlap)


def _warn_about_claim(claim: _Claim, other: _Claim, reason: str) -> Diagnostic:
    message = f"the resource {other.resource!r} {reason}, and a device belongs to a single resource"
    hint = "remove or exclude it from one of the resources, or write 'share: {overlap: true}' in both"
    return _warn(
        WarningCode.SAME_DEVICES,
        claim.scalar,
        0,
        len(claim.scalar.text),
        message,
        claim.path,
        hint,
        other.scalar.at(0),
    )


def _claims_every_path(source: Source) -> bool:
    """Return whether every path that the globs of a source match becomes a device node of it."""
    return not (source.where or source.exclude or source.nodes or source.sysfs)


_NUMBER, _ID, _ADDRESS = r"-?[0-9]+", r"[0-9a-f]{4}", r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
_FORMATS: Mapping[str, tuple[re.Pattern[str], str]] = {
    **{
        name: (re.compile(_ID), "0x10de")
        for name in ("pci.vendor", "pci.device", "pci.subsystemVendor", "pci.subsystemDevice")
    },
    **{name: (re.compile(_ID), "1a86") for name in ("usb.vendor", "usb.product")},
    **{name: (re.compile(_ADDRESS), "0000:3b:00.0") for name in ("pci.address", "sriov.pf")},
    **{
        name: (re.compile(_NUMBER), "0")
        for name in ("major", "minor", "index", "numaNode", "iommu.group", "sriov.vfIndex")
    },
    "pci.class": (re.compile(r"[0-9a-f]{6}"), "0x030200"),
    "pci.slot": (re.compile(_ADDRESS.removesuffix(r"\.[0-7]")), "0000:3b:00"),
    "usb.port": (re.compile(r"(?:usb)?[0-9]+(?:-[0-9]+(?:\.[0-9]+)*)?"), "1-1.2"),
    "path": (re.compile(r"/.*"), "/dev/ttyUSB0"),
}
"""The form of the values of built-in attributes as conditions compare them, and an example.

The kernel writes these values (Documentation/ABI/testing/sysfs-bus-pci and sysfs-bus-usb).
"""


def _check_conditions(subject: _Subject) -> Iterator[Diagnostic]:
    for name, resource in subject.resources():
        for index, source in enumerate(items(resource.get("devices"))):
            where = source.get("where") if isinstance(source, MapNode) else None
            for attribute, entry in entries(where):
                path: Path = ("resources", name, "devices", index, "where", attribute)
                yield from _check_choices(attribute, entry.value, path)


def _check_choices(attribute: str, selector: Node, path: Path) -> Iterator[Diagnostic]:
    if attribute not in _FORMATS:
        return
    pattern, example = _FORMATS[attribute]
    nodes = [selector.get(key) for key in ("in", "notIn")] if isinstance(selector, MapNode) else [selector]
    for scalar in (scalar for node in nodes for scalar in _list_scalars(node)):
        if not has_magic(scalar.text) and pattern.fullmatch(normalize(scalar.text)) is None:
            message = f"no value of {attribute!r} equals {scalar.text!r}"
            hint = f"a value has the form {example!r}"
            yield _warn(WarningCode.IMPOSSIBLE_CONDITION, scalar, 0, len(scalar.text), message, path, hint)


_PROBE_KEYS = ("periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold", "onError", "sticky")


def _check_effects(subject: _Subject) -> Iterator[Diagnostic]:
    """Warn about keys of a resource that have no effect; keys in 'defaults' are for other resources."""
    for name, entry in entries(subject.written.get("resources")):
        resource = subject.config.resources.get(name)
        if resource is None or not isinstance(entry.value, MapNode):
            continue
        for key, written in entries(entry.value.get("health")):
            if key in _PROBE_KEYS and not resource.health.probes:
                reason = "the resource has no probes"
                yield _warn_about_key(("resources", name, "health", key), written, reason, "add 'probes', or remove it")
        is_shared = resource.replicas > 1 or resource.slices is not None or resource.tokens is not None
        for key, written in entries(entry.value.get("share")):
            is_distinct = key == "distinct" and isinstance(written.value, ScalarNode) and written.value.value is True
            if is_distinct and not is_shared:
                reason = "without 'replicas' or 'slices', each device is listed once"
                yield _warn_about_key(("resources", name, "share", key), written, reason, "remove it")


def _warn_about_key(path: Path, entry: MapEntry, reason: str, hint: str) -> Diagnostic:
    key = str(path[-1])
    message = f"{key!r} has no effect: {reason}"
    where = format_key_path(path[:-1])
    return Diagnostic(WarningCode.NO_EFFECT, entry.key, message, where, hint=hint, width=len(key))


_NUMBERED = frozenset({"path", "name", "index", "major", "minor", "attr.devnum", "attr.dev"})
"""Attributes of a node in /dev/bus/usb that contain or follow from its number."""


def _check_ids(subject: _Subject) -> Iterator[Diagnostic]:
    """Warn about IDs of the number of a USB device, which the kernel increments each time a device is plugged in.

    See ``choose_devnum`` in drivers/usb/core/hub.c of Linux. Numbers of other nodes, such as ttyUSB0, are the lowest
    that are free: they move only if several devices are plugged in again.
    """
    for path, scalar in _walk(subject.written):
        match path:
            case ("resources", str() as name, "devices", int() as index, "glob", *_):
                resource = subject.config.resources.get(name)
                if not scalar.text.startswith("/dev/bus/usb/") or resource is None or resource.tokens is not None:
                    continue
                source = resource.sources[index]
                template = source.id or source.group_by
                if template is None or (template.names and template.names <= _NUMBERED):
                    what = "the path of the device" if template is None else f"'{template.text}'"
                    yield _warn_about_id(scalar, path, what)
            case ("resources", _, "devices", _, "id" | "groupBy") if "${attr.devnum" in scalar.text:
                yield _warn_about_id(scalar, path, f"'{scalar.text}'")


def _warn_about_id(scalar: ScalarNode, path: Path, what: str) -> Diagnostic:
    message = f"the ID is made of {what}, which contains a number that changes each time the device is plugged in"
    hint = "write 'id: ${usb.serial}', or 'id: ${usb.port}' for devices without a serial number"
    return _warn(WarningCode.UNSTABLE_ID, scalar, 0, len(scalar.text), message, path, hint)


_CHECKS: Sequence[Callable[[_Subject], Iterator[Diagnostic]]] = (
    _check_globs,
    _check_templates,
    _check_characters,
    _check_same_devices,
    _check_conditions,
    _check_effects,
    _check_ids,
)


def _warn(  # noqa: PLR0913, PLR0917 - the fields of a diagnostic
    code: WarningCode,
    scalar: ScalarNode,
    offset: int,
    width: int,
    message: str,
    path: Path,
    hint: str,
    related_location: SourceLocation | None = None,
) -> Diagnostic:
    location, shown = scalar.at(offset), width if scalar.start is not None else 1
    return Diagnostic(
        code,
        location,
        message,
        format_key_path(path),
        hint=hint,
        width=max(shown, 1),
        related_location=related_location,
    )


def _walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, ScalarNode]]:
    """Yield every string of a tree with its path."""
    if isinstance(node, MapNode):
        for key, entry in node.entries.items():
            yield from _walk(entry.value, (*path, key))
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from _walk(item, (*path, index))
    elif isinstance(node.value, str):
        yield path, node


def _walk_keys(node: Node, path: Path = ()) -> Iterator[tuple[Path, MapEntry]]:
    """Yield every key of a tree with its path."""
    if isinstance(node, MapNode):
        for key, entry in node.entries.items():
            yield (*path, key), entry
            yield from _walk_keys(entry.value, (*path, key))
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from _walk_keys(item, (*path, index))


def _list_custom_names(resource: MapNode) -> frozenset[str]:
    sources = (item for item in items(resource.get("devices")) if isinstance(item, MapNode))
    return frozenset(name for source in sources for name, _ in entries(source.get("attributes")))


def _list_scalars(node: Node | None) -> list[ScalarNode]:
    """Return the strings of a string or a list of strings."""
    nodes = node.items if isinstance(node, ListNode) else (node,)
    return [item for item in nodes if isinstance(item, ScalarNode) and isinstance(item.value, str)]
