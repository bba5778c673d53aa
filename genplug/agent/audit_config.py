"""Summarizes the difference between two configurations, for the audit log. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from genplug.spec.content import list_content
from genplug.spec.globs import Glob
from genplug.spec.model import Config, Resource
from genplug.spec.policy import Policy

MAX_NAMES = 100
"""Resource names in each part of a difference."""

_KEYS = {
    "sources": "devices",
    "expected": "expect",
    "has_topology": "topology",
    "overlap": "share",
    "max_per_container": "share",
    "distinct": "share",
    "preference": "preferredAllocation",
    "pre_start": "preStart",
}
"""The keys of the configuration, for fields of a resource that have another name."""
_NOT_KEYS = {"name", "location", "name_template", "policy"}


class ConfigDifference(Struct, frozen=True):
    """The difference between two configurations: resource names, and the keys of each changed resource.

    ``omitted`` is the number of names that are left out because of :data:`MAX_NAMES`.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    omitted: int = 0


def compare_configs(previous: Config | None, current: Config) -> ConfigDifference:
    """Return the difference between two configurations; without a previous one, every resource is added."""
    before = previous.resources if previous is not None else {}
    after = current.resources
    added = tuple(name for name in after if name not in before)
    removed = tuple(name for name in before if name not in after)
    changed = {
        name: keys for name in after if name in before and (keys := _list_changed_keys(before[name], after[name]))
    }
    omitted = sum(max(len(names) - MAX_NAMES, 0) for names in (added, removed, changed))
    kept = dict(list(changed.items())[:MAX_NAMES])
    return ConfigDifference(added[:MAX_NAMES], removed[:MAX_NAMES], kept, omitted)


def digest_policy(policy: Policy) -> str:
    """Return a digest (SHA-256) of the content of a policy, without the name of its file."""
    content = json.dumps(_content(replace(policy, file="")), sort_keys=True)
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def _list_changed_keys(previous: Resource, current: Resource) -> tuple[str, ...]:
    names = (name for name in Resource.__struct_fields__ if name not in _NOT_KEYS)
    changed = (name for name in names if _content(getattr(previous, name)) != _content(getattr(current, name)))
    return tuple(dict.fromkeys(_KEYS.get(name, name) for name in changed))


def _content(value: Any) -> Any:  # noqa: ANN401 - a field of a resource
    """Return a value as texts, numbers and lists, without the locations in it: an added line moves later locations."""
    if isinstance(value, Glob):
        return value.text
    if isinstance(value, Struct):
        return (type(value).__name__, *map(_content, list_content(value)))
    if isinstance(value, Mapping):
        return {key: _content(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return tuple(map(_content, value))
    return value
