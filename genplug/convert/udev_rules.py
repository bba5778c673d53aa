"""Parses the rules of Akri's udev handler, and converts their filters into conditions.

The grammar is that of ``udev_rule_grammar.pest`` of github.com/project-akri/akri. The handler passes most equality
filters to libudev, which compares them as globs, and compares the others as regular expressions over the whole value
(``discovery_impl.rs``).
"""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from genplug.convert.texts import escape_condition
from genplug.spec.location import TextSyntaxError

_FIELD = re.compile(r"[A-Z_]+")
_KEYED = frozenset({"ATTR", "ATTRS", "ENV"})
_PLAIN = frozenset({"DEVPATH", "DRIVER", "DRIVERS", "KERNEL", "KERNELS", "SUBSYSTEM", "SUBSYSTEMS", "TAG", "TAGS"})
_GLOBBED = frozenset({"KERNEL", "TAG", "SUBSYSTEM", "ATTR", "ENV", "DEVPATH"})
"""The fields whose equality libudev compares, as globs."""
_OPERATOR = re.compile(r"==|!=|\+=|-=|:=|=")
_LITERAL = re.compile(r"[\w:/ ,@%=~#-]*\Z")
_SIMPLE = re.compile(r"(?:[\w:/ ,@%=~#-]|\[[\w-]+\])*\Z")
"""Texts that mean the same as a glob and as a regular expression."""
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*\Z")
_USB = {"idVendor": "usb.vendor", "idProduct": "usb.product", "serial": "usb.serial"}
_PROPERTIES = {
    "ID_VENDOR_ID": "usb.vendor",
    "ID_MODEL_ID": "usb.product",
    "ID_SERIAL_SHORT": "usb.serial",
    "DRIVER": "driver",
    "SUBSYSTEM": "subsystem",
}
_UDEV_DATA = "/run/udev/data/c${major}:${minor}"


class RuleSyntaxError(TextSyntaxError):
    """A rule that Akri refuses."""


class Filter(Struct, frozen=True):
    """A comparison of a rule: the field, its key in braces, the value, and whether they must differ."""

    name: str
    key: str
    value: str
    is_negated: bool

    @property
    def text(self) -> str:
        """The filter as in a rule."""
        key = f"{{{self.key}}}" if self.key else ""
        return f'{self.name}{key}{"!=" if self.is_negated else "=="}"{self.value}"'


def parse_rule(rule: str) -> list[Filter]:
    """Return the filters of a rule.

    Raises:
        RuleSyntaxError: the rule has another form, or a field or an operator that Akri does not support.
    """
    filters: list[Filter] = []
    position = 0
    while position < len(rule):
        position = _skip_spaces(rule, position)
        if filters and position < len(rule):
            if rule[position] != ",":
                message = f"expected ',' between two filters, found {rule[position]!r}"
                raise RuleSyntaxError(message, position)
            position = _skip_spaces(rule, position + 1)
        if position < len(rule):
            found, position = _parse_filter(rule, position)
            filters.append(found)
            position = _skip_spaces(rule, position)
    if not filters:
        message = 'expected a rule such as SUBSYSTEM=="video4linux", found an empty text'
        raise RuleSyntaxError(message, 0)
    return filters


def _skip_spaces(rule: str, position: int) -> int:
    while position < len(rule) and rule[position].isspace():
        position += 1
    return position


def _parse_filter(rule: str, start: int) -> tuple[Filter, int]:
    """Return a filter and the position after it."""
    match = _FIELD.match(rule, start)
    name = match[0] if match else ""
    if name not in _KEYED | _PLAIN:
        known = ", ".join(sorted(_KEYED | _PLAIN))
        message = f"expected a field that Akri supports, found {name or rule[start]!r}"
        raise RuleSyntaxError(message, start, f"the fields are {known}")
    position, key = start + len(name), ""
    if name in _KEYED:
        end = rule.find("}", position)
        if rule[position : position + 1] != "{" or end < 0:
            message = f"expected a key in braces after {name}"
            raise RuleSyntaxError(message, position, f"write {name}{{NAME}}")
        key, position = rule[position + 1 : end], end + 1
    operator = _OPERATOR.match(rule, position)
    if operator is None or operator[0] not in ("==", "!="):
        message = f"expected == or !=, found {operator[0] if operator else rule[position : position + 1]!r}"
        raise RuleSyntaxError(message, position, "Akri supports rules that match, and no assignments")
    position = operator.end()
    end = rule.find('"', position + 1)
    if rule[position : position + 1] != '"' or end < 0:
        message = "expected a value in double quotes"
        raise RuleSyntaxError(message, position)
    return Filter(name, key, rule[position + 1 : end], operator[0] == "!="), end + 1


class Conditions(Struct):
    """The globs, attributes and conditions for a rule, and what cannot be expressed: what and why, what to do."""

    globs: tuple[str, ...] = ()
    attributes: dict[str, Any] = {}
    where: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []

    def add(self, attribute: str, condition: Any) -> None:  # noqa: ANN401 - a condition of 'where'
        """Add a condition; a second condition on an attribute applies to a copy of the attribute."""
        if attribute not in self.where:
            self.where[attribute] = condition
            return
        copy = f"same{len(self.attributes)}"
        self.attributes[copy] = {"value": f"${{{attribute}}}"}
        self.where[copy] = condition


def convert_filters(filters: Sequence[Filter]) -> Conditions:
    """Return the conditions for the filters of a rule."""
    subsystem, name = _first(filters, "SUBSYSTEM"), _first(filters, "KERNEL")
    parts = [filter_.value if filter_ else "*" for filter_ in (subsystem, name)]
    found = Conditions((f"/sys/class/{parts[0]}/{parts[1]}", f"/sys/bus/{parts[0]}/devices/{parts[1]}"))
    for filter_ in filters:
        if filter_ is not subsystem and filter_ is not name:
            _convert_filter(filter_, found)
    return found


def _first(filters: Sequence[Filter], name: str) -> Filter | None:
    """Return the first filter of a field that can be a part of a glob."""
    return next(
        (filter_ for filter_ in filters if filter_.name == name and not filter_.is_negated and _is_name(filter_.value)),
        None,
    )


def _is_name(value: str) -> bool:
    """Return whether a glob of libudev is a glob of genplug for one part of a path."""
    return bool(re.fullmatch(r"(?:[\w:@%=~#*?-]|\.(?!\.)|\[!?[\w-]+\])+", value)) and value not in (".", "..")


def _convert_filter(filter_: Filter, found: Conditions) -> None:
    attribute = _attribute_of(filter_, found)
    if not attribute:
        return
    value = filter_.value
    is_glob = filter_.name in _GLOBBED and not filter_.is_negated
    if filter_.name == "DEVPATH":
        value = f"/sys{value}"
    if is_glob:
        condition: Any = _to_glob(value)
    elif _SIMPLE.match(value):
        condition = _to_glob(value)
    else:
        condition = {"matches": f"^(?:{value})$"}
    if filter_.name in ("KERNELS", "SUBSYSTEMS"):
        _convert_parents(filter_, found)
    elif not filter_.is_negated:
        found.add(attribute, condition)
    elif isinstance(condition, str):
        found.add(attribute, {"notIn": condition, "missing": "ok"})
    else:
        message = f"{filter_.text} compares with a regular expression, which a negated condition cannot have"
        found.problems.append((message, "write 'notIn' with globs in 'where'"))


def _to_glob(value: str) -> str:
    """Return a glob of libudev as a glob of genplug: braces have no meaning in libudev."""
    return value.replace("{", "[{]")


def _convert_parents(filter_: Filter, found: Conditions) -> None:
    """Convert a filter on the device or one of its parents."""
    if filter_.name == "KERNELS" and _LITERAL.match(filter_.value.replace("*", "").replace(".", "")):
        globs = [f"*/{escape_dots(filter_.value)}", f"*/{escape_dots(filter_.value)}/*"]
        found.add("sysfs", {"notIn": globs} if filter_.is_negated else {"in": globs})
    elif filter_.name == "SUBSYSTEMS" and filter_.value in ("usb", "pci"):
        attribute = "usb.port" if filter_.value == "usb" else "pci.address"
        found.add(attribute, {"exists": not filter_.is_negated})
    else:
        message = f"genplug has no condition for {filter_.text} on the parents of a device"
        found.problems.append((message, "write conditions on 'sysfs', 'usb.port' or 'pci.address'"))


def escape_dots(value: str) -> str:
    """Return a regular expression of literal characters as a glob: ``.*`` is ``*``."""
    return escape_condition(value.replace(".*", "\0").replace("\\.", ".")).replace("\0", "*")


def _attribute_of(filter_: Filter, found: Conditions) -> str:
    """Return the attribute that a filter compares; it is added to the custom attributes if genplug does not have it."""
    name = f"{filter_.name.lower().rstrip('s')}{len(found.attributes)}"
    match filter_.name:
        case "KERNEL":
            return "name"
        case "SUBSYSTEM":
            return "subsystem"
        case "DRIVER" | "DRIVERS":
            return "driver"
        case "DEVPATH" | "KERNELS" | "SUBSYSTEMS":
            return "sysfs"
        case "TAG" | "TAGS":
            found.attributes[name] = {"path": _UDEV_DATA, "find": "(?m)^[GQ]:(.*)$", "all": True}
            return name
        case "ENV":
            if filter_.key in _PROPERTIES:
                return _PROPERTIES[filter_.key]
            find = f"(?m)^E:{re.escape(filter_.key)}=(.*)$"
            found.attributes[name] = {"path": _UDEV_DATA, "find": find}
            return name
        case _:
            return _file_attribute(filter_, name, found)


def _file_attribute(filter_: Filter, name: str, found: Conditions) -> str:
    """Return the attribute for a file of a device (``ATTR``) or of the device and its parents (``ATTRS``)."""
    if filter_.name == "ATTRS" and filter_.key in _USB:
        return _USB[filter_.key]
    if _ATTRIBUTE.match(filter_.key):
        return f"attr.{filter_.key}"
    if re.fullmatch(r"[\w.:-]+(?:/[\w.:-]+)*", filter_.key) and ".." not in filter_.key:
        found.attributes[name] = {"path": f"${{sysfs}}/{filter_.key}"}
        return name
    found.problems.append((f"genplug cannot read the file of {filter_.text}", "write an attribute with 'path' by hand"))
    return ""
