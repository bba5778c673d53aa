"""Writes how many containers share a device, within the maxima of the schema of the configuration."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import combinations, product, starmap

from genplug.convert.conversion import Draft, Report
from genplug.convert.section import Section

MAX_REPLICAS = 1000
"""The maximum of ``replicas`` in the schema of the configuration."""
MAX_POOL_TOKENS = 10_000
"""The maximum of ``tokens`` in the schema of the configuration."""


def set_replicas(draft: Draft, count: int, section: Section, key: str) -> None:
    """List each device of a resource several times; 1 or less lists it once."""
    _set(draft, "replicas", count, MAX_REPLICAS, section, key)


def set_tokens(draft: Draft, count: int, section: Section, key: str) -> None:
    """Offer a number of grants, each of which gives a container all devices of the resource."""
    _set(draft, "tokens", count, MAX_POOL_TOKENS, section, key)


def allow_overlaps(report: Report) -> None:
    """Allow resources to share the device nodes that both of them select, as plugins without this check do."""
    patterns = {draft.name: set(_list_patterns(draft)) for draft in report.drafts}
    for first, second in combinations(report.drafts, 2):
        if any(starmap(_overlaps, product(patterns[first.name], patterns[second.name]))):
            for draft in (first, second):
                draft.body.setdefault("share", {})["overlap"] = True
    for draft in report.drafts:
        if "overlap" in draft.body.get("share", {}):
            message = "several resources can have a device node, as before: 'share.overlap' allows it"
            report.note(draft.location, message, "remove it where each device node must belong to one resource")


def _list_patterns(draft: Draft) -> Iterator[str]:
    """Yield globs over the paths of the device nodes of a resource."""
    for source in draft.body["devices"]:
        globs = source["glob"] if isinstance(source["glob"], list) else [source["glob"]]
        if source.get("type") != "directory":
            yield from globs
        for node in source.get("nodes", ()):
            path = node["path"] if isinstance(node, dict) else node
            if path != "${path}":
                yield re.sub(r"\$\{[^}]*\}", "*", path)


def _overlaps(first: str, second: str) -> bool:
    """Return whether two globs can match the same path; the answer for two patterns can be a wrong yes."""
    if first == second or fnmatchcase(first, second) or fnmatchcase(second, first):
        return True
    prefixes = [re.split(r"[*?\[]", glob)[0] for glob in (first, second)]
    is_pattern = [prefix != glob for prefix, glob in zip(prefixes, (first, second), strict=True)]
    return all(is_pattern) and (prefixes[0].startswith(prefixes[1]) or prefixes[1].startswith(prefixes[0]))


def _set(draft: Draft, name: str, count: int, maximum: int, section: Section, key: str) -> None:  # noqa: PLR0913, PLR0917 - private
    if count > maximum:
        message = f"{count} exceeds {maximum}, the maximum of '{name}' in genplug"
        section.unsupported(key, message, f"the configuration has {maximum}", draft=draft, at=(name,))
    if count > 1 or name == "tokens":
        draft.body[name] = min(max(count, 1), maximum)
