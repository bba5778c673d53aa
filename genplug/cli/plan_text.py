"""The table of ``genplug plan``, and the text of ``--explain``."""

from collections.abc import Iterator, Mapping, Sequence

from genplug.allocation.resource_state import ResourceState
from genplug.cli.output import format_table
from genplug.hardware.explain import CandidateExplanation
from genplug.hardware.inventory import Inventory
from genplug.spec.printable import escape_line


def format_plan(states: Mapping[str, ResourceState], inventory: Inventory) -> str:
    """Return the table of devices, the globs without a match, and the paths that are left out."""
    rows = []
    for name, state in states.items():
        for grant in state.offer.grants.values():
            nodes = ", ".join(
                f"{node.path} ({node.info.describe_numbers()})"
                for health in grant.devices
                for node in health.device.nodes
            )
            rows.append((name, grant.id, "healthy" if grant.healthy else "unhealthy", nodes, grant.reason))
        if not state.offer.grants:
            rows.append((name, "-", "none", "-", "no device of this node matches"))
    headings = ("RESOURCE", "DEVICE", "STATE", "NODES", "REASON")
    parts = [format_table(headings, rows) if rows else "the configuration has no resources"]
    if inventory.unmatched_globs:
        parts.append(
            "\n".join(
                escape_line(f"{unmatched.resource}: nothing matches {unmatched.glob} ({unmatched.location})")
                for unmatched in inventory.unmatched_globs
            )
        )
    left_out = [
        (outcome.resource, outcome.path, outcome.reason) for outcome in inventory.outcomes if outcome.device is None
    ]
    if left_out:
        parts.append("left out:\n" + format_table(("RESOURCE", "PATH", "REASON"), left_out))
    return "\n\n".join(parts)


def format_explanation(explanation: CandidateExplanation) -> str:
    """Return the evaluation of a path as lines."""
    return "\n".join(map(escape_line, _explanation_lines(explanation)))


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
