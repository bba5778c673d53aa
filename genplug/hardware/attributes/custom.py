"""Attributes that a configuration defines: they join facts that the kernel keeps apart, by reading any files.

The value of a path that leads to a directory is the name of the directory after symlinks are resolved, because the
target of a link is a fact, too. For the same reason a regular expression searches the resolved path of a directory.
"""

from collections.abc import Iterable, Iterator

from genplug.hardware.attributes.sysfs_device import DEPENDS_ON_LISTING, AttributeValue, SysfsDevice
from genplug.hardware.dependencies import Dependencies
from genplug.spec.globs import Glob, GlobError, escape_glob
from genplug.spec.limits import MAX_ATTRIBUTE_CHARACTERS, MAX_ATTRIBUTE_VALUES, MAX_VALUE_CHARACTERS
from genplug.spec.model import CustomAttribute
from genplug.spec.regex import Pattern, PatternError, matched_value, render_regexes
from genplug.spec.template import MissingAttributeError, RenderLimitError, Template, Values


class AttributeLimitError(Exception):
    """A custom attribute exceeds a limit; the message names the attribute and the limit."""


def read_custom_attribute(custom: CustomAttribute, values: Values, device: SysfsDevice) -> AttributeValue | None:
    """Return a custom attribute, None if it does not exist; ``values`` are the attributes that it is made of.

    Raises:
        AttributeLimitError: it has too many values, or values that are too long.
    """
    try:
        patterns = tuple(render_regexes(custom.find, values)) if custom.find is not None else ()
        for template in (*custom.paths, *custom.values):
            found = _read_template(custom, template, patterns, values, device)
            if found is not None:
                return found
    except (MissingAttributeError, GlobError, PatternError):
        return None
    except RenderLimitError as error:
        raise _limit_error(custom, str(error)) from None
    return None


def _read_template(
    custom: CustomAttribute, template: Template, patterns: tuple[Pattern, ...], values: Values, device: SysfsDevice
) -> AttributeValue | None:
    """Return the value that a path or a text of the attribute gives, None if it gives none."""
    try:
        if template in custom.values:
            found = _search_texts(custom, patterns, template.render_each(values))
        else:
            found = _read_values(custom, patterns, _list_paths(template, values, device), device)
        if not custom.collect_all:
            return next(found, None)
        return _collect(custom, found)
    except (MissingAttributeError, GlobError):
        return None


def _collect(custom: CustomAttribute, found: Iterator[AttributeValue]) -> AttributeValue | None:
    """Return all values as one, in the order of the files and matches and with repeats, with the origin of the first.

    The values of two attributes at the same position belong to the same file, if both are read from the same files.
    """
    texts: list[str] = []
    origin, characters = "", 0
    for value in found:
        origin = origin or value.origin
        texts += value.values
        characters += sum(map(len, value.values))
        if len(texts) > MAX_ATTRIBUTE_VALUES:
            raise _limit_error(custom, f"has more than {MAX_ATTRIBUTE_VALUES} values")
        if characters > MAX_ATTRIBUTE_CHARACTERS:
            raise _limit_error(custom, f"has values of more than {MAX_ATTRIBUTE_CHARACTERS} characters together")
    return AttributeValue(tuple(texts), origin) if texts else None


def _list_paths(template: Template, values: Values, device: SysfsDevice) -> Iterator[str]:
    is_glob = template.has_glob
    for path in template.render_each(values, escape_glob if is_glob else str):
        if not path.startswith("/"):
            continue
        glob = Glob.parse(path) if is_glob else None
        if error := device.policy.read_glob_error(glob) if glob is not None else device.policy.read_error(path):
            device.refuse(path, error)
            continue
        if glob is None:
            device.depends.add(path)
            _depend_on_links(path, device)
            yield path
            continue
        found = device.host.glob(glob)
        device.depends.update(directory.rstrip("/") + DEPENDS_ON_LISTING for directory in found.directories)
        for match in found.paths:
            if error := device.policy.read_error(match):
                # Without a reason for a file elsewhere: the reason would reveal that the file exists.
                if device.policy.read.names(match):
                    device.refuse(match, error)
                continue
            _depend_on_links(match, device)
            yield match


def _depend_on_links(path: str, device: SysfsDevice) -> None:
    """Add the symlinks and the target of a path; those of sysfs and procfs change with their directories only."""
    if path.startswith(("/sys/", "/proc/")):
        return
    device.host.stat_tracked(path, dependencies := Dependencies())
    device.depends.update(
        f"{directory.rstrip('/')}/{name}" for directory, names in dependencies.names.items() for name in names
    )


def _read_values(
    custom: CustomAttribute, patterns: tuple[Pattern, ...], paths: Iterator[str], device: SysfsDevice
) -> Iterator[AttributeValue]:
    for path in paths:
        if not custom.use_dir_name and (directory := device.resolve(path)) is not None:
            text = directory.rpartition("/")[2] if custom.find is None else directory
        elif (content := device.read_text(path)) is not None:
            device.depends.add(path)
            text = content
        else:
            continue
        if custom.use_dir_name:
            is_found = custom.find is None or next(_find_values(custom, patterns, text), None) is not None
            if is_found:
                yield AttributeValue((path.rpartition("/")[0].rpartition("/")[2],), path)
            continue
        yield from (AttributeValue((value,), path) for value in _find_values(custom, patterns, text))


def _search_texts(
    custom: CustomAttribute, patterns: tuple[Pattern, ...], texts: Iterable[str]
) -> Iterator[AttributeValue]:
    for text in texts:
        origin = f"the text '{text}'" if custom.find is not None else "other attributes"
        yield from (AttributeValue((value,), origin) for value in _find_values(custom, patterns, text))


def _limit_error(custom: CustomAttribute, reason: str) -> AttributeLimitError:
    return AttributeLimitError(f"the attribute '{custom.name}' ({custom.location}) {reason}")


def _find_values(custom: CustomAttribute, patterns: tuple[Pattern, ...], text: str) -> Iterator[str]:
    """Yield every match in a text that is not empty; the whole text if the attribute has no pattern."""
    matches: Iterator[str | None] = (
        (matched_value(match, pattern) for pattern in patterns for match in pattern.finditer(text))
        if custom.find is not None
        else iter((text,))
    )
    for value in filter(None, matches):
        if len(value) > MAX_VALUE_CHARACTERS:
            reason = f"has a value of {len(value)} characters, at most {MAX_VALUE_CHARACTERS} are allowed"
            raise _limit_error(custom, f"{reason}; extract a part of it with 'find'")
        yield value
