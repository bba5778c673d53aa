"""Attributes that a configuration defines: they join what the kernel keeps apart, by files of any sysfs_device.

A path that leads to a directory has the directory's name as its value, links followed: what a link leads to is a fact
too.
"""

from collections.abc import Iterator

from genplug.hardware.attributes.sysfs_device import DEPENDS_ON_LISTING, AttributeValue, SysfsDevice
from genplug.spec.globs import Glob, GlobError, escape_glob, has_magic
from genplug.spec.model import CustomAttribute
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.regex import Pattern, PatternError, matched_value, render_regexes
from genplug.spec.template import MissingAttributeError, Values


def read_custom_attribute(own: CustomAttribute, values: Values, sysfs_device: SysfsDevice) -> AttributeValue | None:
    """Return an own attribute's values, given those of the attributes that it is made of."""
    try:
        patterns = tuple(render_regexes(own.find, values)) if own.find is not None else ()
        found = _found(own, patterns, _paths(own, values, sysfs_device), sysfs_device)
        if not own.collect_all:
            return next(found, None)
        facts = list(found)
    except (MissingAttributeError, GlobError, PatternError):
        return None
    texts = dict.fromkeys(value for fact in facts for value in fact.values)
    return AttributeValue(tuple(sorted(texts, key=natural_sort_key)), facts[0].origin) if facts else None


def _paths(own: CustomAttribute, values: Values, sysfs_device: SysfsDevice) -> Iterator[str]:
    is_glob = any(isinstance(part, str) and has_magic(part) for part in own.path.parts)
    for text in own.path.render_each(values, escape_glob if is_glob else str):
        if not text.startswith("/"):
            continue
        if not is_glob:
            sysfs_device.depends.add(text)
            yield text
            continue
        found = sysfs_device.host.glob(Glob.parse(text))
        sysfs_device.depends.update(directory.rstrip("/") + DEPENDS_ON_LISTING for directory in found.directories)
        yield from found.paths


def _found(
    own: CustomAttribute, patterns: tuple[Pattern, ...], paths: Iterator[str], sysfs_device: SysfsDevice
) -> Iterator[AttributeValue]:
    for path in paths:
        if not own.use_dir_name and own.find is None and (directory := sysfs_device.host.resolve(path)) is not None:
            yield AttributeValue((directory.rpartition("/")[2],), path)
            continue
        text = sysfs_device.host.read_text(path)
        if text is None:
            continue
        sysfs_device.depends.add(path)
        values = _values(own, patterns, text)
        if own.use_dir_name and (values or own.find is None):
            yield AttributeValue((path.rpartition("/")[0].rpartition("/")[2],), path)
        elif values:
            yield AttributeValue(values, path)


def _values(own: CustomAttribute, patterns: tuple[Pattern, ...], text: str) -> tuple[str, ...]:
    """Return what a file's text says: the first match, or all of them; all of the text where nothing is looked for."""
    if own.find is None:
        return (text,) if text else ()
    matches = (matched_value(match, pattern) for pattern in patterns for match in pattern.finditer(text))
    values = (value for value in matches if value)
    if own.collect_all:
        return tuple(values)
    first = next(values, None)
    return (first,) if first is not None else ()
