"""The table of ``genplug plan``, and the text of ``--explain``."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from genplug.allocation.offer import Grant
from genplug.allocation.resource_state import ResourceState
from genplug.cli.output import format_table, table_width, wrap_line
from genplug.hardware.explain import CandidateExplanation
from genplug.hardware.inventory import CandidateOutcome, Inventory
from genplug.observe.text import join_names
from genplug.spec.model import Serve
from genplug.spec.names import DRIVER_DOMAIN
from genplug.spec.printable import escape_line
from genplug.spec.similarity import similarity_key

_MAX_LEFT_OUT = 20
"""Rows of a resource in the list of what is left out."""


def format_plan(
    states: Mapping[str, ResourceState], inventory: Inventory, *, is_wide: bool = False, driver: str = DRIVER_DOMAIN
) -> str:
    """Return the table of devices, the globs without a match, the paths that are left out, and the published devices.

    Grants of the same devices with the same state are one row, and lists are cut. If ``is_wide``, every grant is a row,
    nothing is cut, and lines have any length. ``driver`` is the name of the driver of Dynamic Resource Allocation.
    """
    width = None if is_wide else table_width()
    rows = [row for name, state in states.items() for row in _device_rows(name, state, inventory, is_wide=is_wide)]
    headings = ("RESOURCE", "DEVICE", "STATE", "NODES", "REASON")
    parts = [format_table(headings, rows, width) if rows else "the configuration has no resources"]
    if shortages := list(_shortage_lines(states)):
        parts.append("\n".join(shortages if is_wide else map(wrap_line, shortages)))
    if inventory.unmatched_globs:
        notes = (escape_line(f"{unmatched.resource}: {unmatched.text}") for unmatched in inventory.unmatched_globs)
        parts.append("\n".join(notes if is_wide else map(wrap_line, notes)))
    if left_out := list(_left_out_rows(inventory, is_wide=is_wide)):
        parts.append("left out:\n" + format_table(("RESOURCE", "PATH", "REASON"), left_out, width))
    if published := {name: state for name, state in states.items() if state.offer.resource.serve is Serve.DRA}:
        # Most configurations do not need the module.
        from genplug.cli.plan_published import format_published  # noqa: PLC0415

        parts += format_published(published, driver, is_wide=is_wide)
    return "\n\n".join(parts)


def _device_rows(
    name: str, state: ResourceState, inventory: Inventory, *, is_wide: bool
) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the rows of a resource: one for the grants of the same devices, unless the table is wide."""
    resource = state.offer.resource
    for _, group in groupby(state.offer.grants.values(), lambda grant: grant if is_wide else _unit(grant)):
        grants = list(group)
        grant = grants[0]
        label = grant.id
        if len(grants) > 1:
            label = f"{len(grants)} × {'token' if resource.tokens is not None else grant.devices[0].device.id}"
        nodes = [
            f"{node.path} ({node.info.describe_numbers()})" for health in grant.devices for node in health.device.nodes
        ]
        shown = ", ".join(nodes) if is_wide else join_names(nodes)
        yield name, label, "healthy" if grant.healthy else "unhealthy", shown, grant.reason
    if not state.offer.grants:
        yield name, "-", "none", "-", _explain_none({name, resource.configured_name}, inventory)


def _shortage_lines(states: Mapping[str, ResourceState]) -> Iterator[str]:
    """Yield the resources that have fewer healthy devices than the configuration expects."""
    for name, state in states.items():
        expected, healthy = state.offer.resource.expected, state.offer.healthy_devices
        if expected is not None and healthy < expected:
            yield f"{escape_line(name)}: {healthy} of {expected} expected devices are healthy"


def _unit(grant: Grant) -> tuple[tuple[str, ...], bool, str]:
    """Return what grants have in common that are one row: their devices, their health and the reason."""
    return tuple(health.device.id for health in grant.devices), grant.healthy, grant.reason


def _explain_none(names: set[str], inventory: Inventory) -> str:
    devices = (device for name in names for device in inventory.devices.get(name, ()))
    found = sum(outcome.resource in names for outcome in inventory.left_out)
    found += sum(len(device.candidates) for device in devices)
    if not found:
        return "no device of this node matches"
    return f"{found} path{' is' if found == 1 else 's are'} found and left out; the reason is listed below"


def _left_out_rows(inventory: Inventory, *, is_wide: bool) -> Iterator[tuple[str, str, str]]:
    """Yield resource, paths and reason; a row has all paths of a resource with such a reason."""
    if is_wide:
        yield from ((outcome.resource, outcome.path, outcome.reason) for outcome in inventory.left_out)
        return
    by_resource: dict[str, dict[str, list[CandidateOutcome]]] = {}
    for outcome in inventory.left_out:
        by_resource.setdefault(outcome.resource, {}).setdefault(similarity_key(outcome.reason), []).append(outcome)
    for resource, groups in by_resource.items():
        rows = [
            (resource, join_names([outcome.path for outcome in group]), group[0].reason) for group in groups.values()
        ]
        yield from rows[:_MAX_LEFT_OUT]
        if more := sum(map(len, list(groups.values())[_MAX_LEFT_OUT:])):
            yield resource, f"{more} more paths", "'-o wide' shows all"


def format_explanation(explanation: CandidateExplanation, *, is_wide: bool = False) -> str:
    """Return the evaluation of a path as lines, which have any length if ``is_wide``."""
    lines = map(escape_line, _explanation_lines(explanation))
    return "\n".join(lines if is_wide else map(wrap_line, lines))


def _explanation_lines(explanation: CandidateExplanation) -> Iterator[str]:
    """Yield the evaluation of a path: its outcome, its source, the conditions, the attributes."""
    if explanation.device is not None:
        yield f"{explanation.path}: device {explanation.device}"
    else:
        yield f"{explanation.path}: left out: {explanation.reason or 'see above'}"
    yield f"  {explanation.resource} ({explanation.location}), found by '{explanation.found_by}'"
    for check in explanation.checks:
        outcome = "passed" if check.passed else "failed"
        yield f"  {outcome}: where {check.condition}: {_format_values(check.values, check.origin)}"
    for attribute in explanation.attributes:
        yield f"  {attribute.name}: {_format_values(attribute.values, attribute.origin)}"


def _format_values(values: Sequence[str], origin: str) -> str:
    """Return the values of an attribute with their origin; an attribute without values does not exist."""
    text = ", ".join(map(repr, values)) if values else "does not exist"
    return f"{text}   <- {origin}" if origin else text
