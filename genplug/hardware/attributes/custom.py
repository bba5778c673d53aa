"""Attributes that a configuration defines: they join what the kernel keeps apart, by files of any place.

A path that leads to a folder has the folder's name as its value, links followed: what a link leads to is a fact too.
"""

from collections.abc import Iterator

from genplug.hardware.attributes.sysfs_device import DEPENDS_ON_LISTING, Fact, Place
from genplug.spec.globs import Glob, GlobError, has_magic, literal
from genplug.spec.model import OwnAttribute
from genplug.spec.natural_sort import natural_key
from genplug.spec.regex import Pattern, PatternError, filled, value_of
from genplug.spec.template import MissingAttributeError, Values


def joined(own: OwnAttribute, values: Values, place: Place) -> Fact | None:
    """Return an own attribute's values, given those of the attributes that it is made of."""
    try:
        patterns = tuple(filled(own.find, values)) if own.find is not None else ()
        found = _found(own, patterns, _paths(own, values, place), place)
        if not own.takes_all:
            return next(found, None)
        facts = list(found)
    except (MissingAttributeError, GlobError, PatternError):
        return None
    texts = dict.fromkeys(value for fact in facts for value in fact.values)
    return Fact(tuple(sorted(texts, key=natural_key)), facts[0].origin) if facts else None


def _paths(own: OwnAttribute, values: Values, place: Place) -> Iterator[str]:
    is_glob = any(isinstance(part, str) and has_magic(part) for part in own.path.parts)
    for text in own.path.render_each(values, literal if is_glob else str):
        if not text.startswith("/"):
            continue
        if not is_glob:
            place.depends.add(text)
            yield text
            continue
        found = place.host.glob(Glob.parse(text))
        place.depends.update(folder.rstrip("/") + DEPENDS_ON_LISTING for folder in found.folders)
        yield from found.paths


def _found(own: OwnAttribute, patterns: tuple[Pattern, ...], paths: Iterator[str], place: Place) -> Iterator[Fact]:
    for path in paths:
        if not own.takes_folder and own.find is None and (folder := place.host.resolved(path)) is not None:
            yield Fact((folder.rpartition("/")[2],), path)
            continue
        text = place.host.text(path)
        if text is None:
            continue
        place.depends.add(path)
        values = _values(own, patterns, text)
        if own.takes_folder and (values or own.find is None):
            yield Fact((path.rpartition("/")[0].rpartition("/")[2],), path)
        elif values:
            yield Fact(values, path)


def _values(own: OwnAttribute, patterns: tuple[Pattern, ...], text: str) -> tuple[str, ...]:
    """Return what a file's text says: the first match, or all of them; all of the text where nothing is looked for."""
    if own.find is None:
        return (text,) if text else ()
    matches = (value_of(match, pattern) for pattern in patterns for match in pattern.finditer(text))
    values = (value for value in matches if value)
    if own.takes_all:
        return tuple(values)
    first = next(values, None)
    return (first,) if first is not None else ()
