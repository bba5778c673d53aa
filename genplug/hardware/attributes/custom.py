"""Attributes that a configuration defines: they join facts that the kernel keeps apart, by reading any files.

The value of a path that leads to a directory is the name of the directory after symlinks are resolved, because the
target of a link is a fact, too.
"""

from collections.abc import Iterator

from genplug.hardware.attributes.sysfs_device import DEPENDS_ON_LISTING, AttributeValue, SysfsDevice
from genplug.spec.globs import Glob, GlobError, escape_glob
from genplug.spec.model import CustomAttribute
from genplug.spec.natural_sort import natural_sort_key
from genplug.spec.regex import Pattern, PatternError, matched_value, render_regexes
from genplug.spec.template import RenderError, Values


def read_custom_attribute(custom: CustomAttribute, values: Values, device: SysfsDevice) -> AttributeValue | None:
    """Return a custom attribute, None if it does not exist; ``values`` are the attributes that it is made of."""
    try:
        patterns = tuple(render_regexes(custom.find, values)) if custom.find is not None else ()
        found = _read_values(custom, patterns, _list_paths(custom, values, device), device)
        if not custom.collect_all:
            return next(found, None)
        all_found = list(found)
    except (RenderError, GlobError, PatternError):
        return None
    if not all_found:
        return None
    texts = dict.fromkeys(text for value in all_found for text in value.values)
    return AttributeValue(tuple(sorted(texts, key=natural_sort_key)), all_found[0].origin)


def _list_paths(custom: CustomAttribute, values: Values, device: SysfsDevice) -> Iterator[str]:
    is_glob = custom.path.has_glob
    for path in custom.path.render_each(values, escape_glob if is_glob else str):
        if not path.startswith("/"):
            continue
        if not is_glob:
            device.depends.add(path)
            yield path
            continue
        found = device.host.glob(Glob.parse(path))
        device.depends.update(directory.rstrip("/") + DEPENDS_ON_LISTING for directory in found.directories)
        yield from found.paths


def _read_values(
    custom: CustomAttribute, patterns: tuple[Pattern, ...], paths: Iterator[str], device: SysfsDevice
) -> Iterator[AttributeValue]:
    for path in paths:
        if not custom.use_dir_name and custom.find is None and (directory := device.host.resolve(path)) is not None:
            yield AttributeValue((directory.rpartition("/")[2],), path)
            continue
        text = device.host.read_text(path)
        if text is None:
            continue
        device.depends.add(path)
        values = _find_values(custom, patterns, text)
        if custom.use_dir_name and (values or custom.find is None):
            yield AttributeValue((path.rpartition("/")[0].rpartition("/")[2],), path)
        elif values:
            yield AttributeValue(values, path)


def _find_values(custom: CustomAttribute, patterns: tuple[Pattern, ...], text: str) -> tuple[str, ...]:
    """Return the first match in a text, or all matches; the whole text if the attribute has no pattern."""
    if custom.find is None:
        return (text,) if text else ()
    matches = (matched_value(match, pattern) for pattern in patterns for match in pattern.finditer(text))
    values = (value for value in matches if value)
    if custom.collect_all:
        return tuple(values)
    first = next(values, None)
    return (first,) if first is not None else ()
