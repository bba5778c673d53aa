"""Writes how many containers share a device, within the maxima of the schema of the configuration."""

from genplug.convert.conversion import Draft
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


def _set(draft: Draft, name: str, count: int, maximum: int, section: Section, key: str) -> None:  # noqa: PLR0913, PLR0917 - private
    if count > maximum:
        message = f"{count} exceeds {maximum}, the maximum of '{name}' in genplug"
        section.unsupported(key, message, f"the configuration has {maximum}", draft=draft, at=(name,))
    if count > 1 or name == "tokens":
        draft.body[name] = min(max(count, 1), maximum)
