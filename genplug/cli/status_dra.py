"""The part of ``genplug status`` about Dynamic Resource Allocation: driver, published resources and prepared claims."""

from collections.abc import Iterator, Sequence

from genplug.cli.documents import JSON
from genplug.cli.output import Cell, Painted, Style, format_table, table_width
from genplug.observe.text import count_noun, format_age, summarize_texts

_MAX_ROWS = 20
"""Claims in the table without ``-o wide``."""
_MAX_REMARKS = 3
"""Reasons of a resource in the table without ``-o wide``."""


def list_dra_lines(dra: JSON) -> Iterator[str]:
    """Yield the state of the driver and of the publisher for the summary of the agent."""
    publisher = dra["publisher"]
    if dra["registered"]:
        since = dra["registeredSince"]
        age = "" if since is None else f" for {format_age(since)}"
        # The publisher writes the slices of the other resources.
        refused = sum(bool(resource["refusal"]) for resource in dra["resources"])
        exception = f", refused for {count_noun(refused, 'resource')}" if refused else ""
        yield f"driver {dra['driver']}: registered{age}; ResourceSlices: {publisher['phase']}{exception}"
    else:
        yield Painted(f"driver {dra['driver']}: not registered: {dra['error']}", Style.ERROR)
    if publisher["error"]:
        retry = f"; next request in {publisher['retrySeconds']:.0f} s" if publisher["retrySeconds"] else ""
        yield Painted(f"  warning: ResourceSlices: {publisher['error']}{retry}", Style.WARNING)
    if not publisher["keepsTaints"]:
        text = "the API server does not keep taints, so unhealthy devices are not published"
        yield Painted(f"  warning: {text}", Style.WARNING)
    if dra["damagedRecords"]:
        text = f"{dra['damagedRecords']} damaged records of claims; see the event record_bad in the log"
        yield Painted(f"  warning: {text}", Style.WARNING)


def format_dra(dra: JSON, *, is_wide: bool) -> Iterator[str]:
    """Yield the tables of published resources and of prepared claims."""
    width = None if is_wide else table_width()
    if dra["resources"]:
        headings = ("PUBLISHED", "SLICES", "DEVICES", "TAINTED", "LEFT-OUT", "WITHHELD", "REMARKS")
        rows = [_build_row(resource, is_wide=is_wide) for resource in dra["resources"]]
        yield format_table(headings, rows, width)
    claims: Sequence[JSON] = dra["claims"]
    if claims:
        shown = claims if is_wide else claims[:_MAX_ROWS]
        rows = [
            (
                f"{claim['namespace']}/{claim['name']}",
                "?" if claim["pods"] is None else ", ".join(claim["pods"]) or "none",
                tuple(f"{device['resource']}: {device['id']}" for device in claim["devices"]),
            )
            for claim in shown
        ]
        more = len(claims) - len(shown)
        table = format_table(("CLAIM", "PODS", "DEVICES"), rows, width)
        yield table + (f"\nand {more} more claims with -o wide" if more else "")


def _build_row(resource: JSON, *, is_wide: bool) -> tuple[Cell, ...]:
    left_out = len(resource["leftOut"])
    return (
        resource["resource"],
        str(resource["slices"]),
        str(resource["devices"]),
        str(resource["tainted"]),
        Painted(str(left_out), Style.WARNING) if left_out else "0",
        str(len(resource["withheld"])),
        tuple(_list_remarks(resource, is_wide=is_wide)),
    )


def _list_remarks(resource: JSON, *, is_wide: bool) -> Iterator[str]:
    if resource["refusal"]:
        yield Painted(f"refused: {resource['refusal']}", Style.ERROR)
    if is_wide:
        reasons = [f"{entry['id']}: {entry['reason']}" for entry in resource["leftOut"]]
    else:
        reasons = summarize_texts(entry["reason"] for entry in resource["leftOut"])
    yield from reasons if is_wide else reasons[:_MAX_REMARKS]
    if len(reasons) > _MAX_REMARKS and not is_wide:
        yield f"{len(reasons) - _MAX_REMARKS} more reasons with -o wide"
