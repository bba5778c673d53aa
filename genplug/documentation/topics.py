"""The topics of ``genplug explain``: error codes, alerts, events and metrics, each with its documentation."""

import logging
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import StrEnum
from functools import cache

from msgspec import Struct

from genplug.documentation.key_search import DOCUMENTS, list_all_keys
from genplug.documentation.markdown import strip_inline
from genplug.documentation.pages import list_sections, list_table_rows
from genplug.observe.events import Event

_CODE = re.compile(r"(GP\d+): (.+)")
_LOWERCASE = re.compile(r"^\[?[a-z]")
_ALERT = re.compile(r"Genplug\w+")
_MAX_SUGGESTIONS = 3
_CUTOFF = 0.7
_NAME_CUTOFF = 0.6


class Kind(StrEnum):
    """The kind of a topic."""

    CODE = "code"
    ALERT = "alert"
    EVENT = "event"
    METRIC = "metric"


KIND_HEADINGS = {
    Kind.CODE: "error and warning codes",
    Kind.ALERT: "alerts",
    Kind.EVENT: "events of the log",
    Kind.METRIC: "metrics",
}


class Topic(Struct, frozen=True):
    """A topic: its name, a line about it, and its documentation as Markdown."""

    kind: Kind
    name: str
    summary: str
    text: str


@cache
def list_topics() -> tuple[Topic, ...]:
    """Return all topics in the order of their pages."""
    return (*_list_codes(), *_list_alerts(), *_list_events(), *_list_metrics())


def find_topic(name: str) -> Topic | None:
    """Return the topic with a name, in any case."""
    return next((topic for topic in list_topics() if topic.name.lower() == name.lower()), None)


def find_short_name(name: str) -> Topic | None:
    """Return the alert or metric with a name without the prefix ``Genplug`` or ``genplug_``, in any case."""
    return find_topic(f"genplug{name}") or find_topic(f"genplug_{name}")


def suggest_names(word: str) -> list[str]:
    """Return names of topics and paths of keys that are close to a word that is neither."""
    names = [topic.name for topic in list_topics()]
    paths = [*dict.fromkeys(key.short_path for document in DOCUMENTS for key in list_all_keys(document))]
    last_names = {path.rpartition(".")[2]: path for path in reversed(paths)}
    by_last_name = [last_names[name] for name in _find_close(word.rpartition(".")[2], last_names)]
    found = (
        by_last_name + _find_close(word, paths)
        if "." in word
        else _find_close(word, names, _NAME_CUTOFF) + by_last_name
    )
    return [*dict.fromkeys(found)][:_MAX_SUGGESTIONS]


def _find_close(word: str, names: Iterable[str], cutoff: float = _CUTOFF) -> list[str]:
    lowered = {name.lower(): name for name in names}
    return [lowered[name] for name in get_close_matches(word.lower(), lowered, _MAX_SUGGESTIONS, cutoff)]


def _list_codes() -> Iterator[Topic]:
    for section in list_sections("errors.md"):
        if (found := _CODE.fullmatch(section.heading)) is not None:
            yield Topic(Kind.CODE, found[1], found[2], section.text)


def _list_alerts() -> Iterator[Topic]:
    for section in list_sections("alerts.md"):
        if _ALERT.fullmatch(section.heading):
            summary, _, text = section.text.partition("\n")
            yield Topic(Kind.ALERT, section.heading, strip_inline(summary), text.strip())


def _list_events() -> Iterator[Topic]:
    for event in Event:
        level = logging.getLevelName(event.level).lower()
        yield Topic(Kind.EVENT, event.code, level, event.meaning)


def _list_metrics() -> Iterator[Topic]:
    for name, kind, labels, meaning in list_table_rows("metrics.md", "Metrics"):
        written = f"Labels: {labels}" if labels else "It has no labels."
        sentence = _LOWERCASE.sub(lambda match: match[0].upper(), meaning) + ("" if meaning.endswith(".") else ".")
        yield Topic(Kind.METRIC, name.strip("`"), kind, f"{sentence}\n\n{written}")
