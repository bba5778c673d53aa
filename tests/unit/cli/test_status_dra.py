"""The part of ``genplug status`` about Dynamic Resource Allocation."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from genplug.cli.status import select_resources, selection_error
from genplug.cli.status_dra import format_dra, list_dra_lines
from genplug.cli.status_text import format_status
from genplug.cli.status_watch import StatusWatch
from genplug.kubectl.agent_status import decode_agent_status
from genplug.observe.dra_status import ClaimedDevice, DeviceNote, DraStatus
from genplug.observe.page.content import Clock, build_sections
from genplug.observe.page.elements import render_html
from genplug.observe.status import ConfigStatus, Status
from genplug.observe.status_builder import build_unwritten_status
from tests.support.dra_status import DRA
from tests.support.outputs import check_output

_STYLES = re.compile("[\ufdd0-\ufdd4]")
"""The marks of styles, which :func:`genplug.cli.output.print_lines` replaces."""


def print_tables(dra: DraStatus, *, is_wide: bool = False) -> list[str]:
    tables = format_dra(dra.as_json(), is_wide=is_wide)
    return [line.rstrip() for table in tables for line in _STYLES.sub("", table).splitlines()]


def test_tables_have_published_resources_and_claims() -> None:
    assert [re.split(" {3,}", line.strip()) for line in print_tables(DRA)] == [
        ["PUBLISHED", "SLICES", "DEVICES", "TAINTED", "LEFT-OUT", "WITHHELD", "REMARKS"],
        ["example.com/gpu", "1", "3", "1", "2", "1", "publish.attributes.model has no value"],
        # A line has at most 120 characters.
        ["the pod default/viewer uses it by the device plugin"],
        ["API"],
        ["CLAIM", "PODS", "DEVICES"],
        ["default/training", "trainer", "example.com/gpu: gpu0"],
    ]


def test_wide_table_names_each_device_that_is_left_out() -> None:
    notes = tuple(DeviceNote(f"gpu{number}", f"reason of {letter}") for number, letter in enumerate("abcde"))
    dra = replace(DRA, resources=(replace(DRA.resources[0], left_out=notes, refusal="too many devices"),), claims=())
    lines = print_tables(dra, is_wide=True)
    assert "refused: too many devices" in lines[1]
    assert [line.strip() for line in lines[2:]] == [f"{note.id}: {note.text}" for note in notes]
    assert "2 more reasons with -o wide" in print_tables(dra)[-1]


def test_claims_whose_pods_are_not_known_have_a_question_mark() -> None:
    claims = tuple(replace(DRA.claims[0], name=f"claim-{number}", pods=None) for number in range(21))
    lines = print_tables(replace(DRA, resources=(), claims=claims))
    assert lines[1].split() == ["default/claim-0", "?", "example.com/gpu:", "gpu0"]
    assert (len(lines), lines[-1]) == (22, "and 1 more claims with -o wide")


def test_summary_has_the_errors_of_driver_and_publisher() -> None:
    driver, *warnings = list_dra_lines(replace(DRA, keeps_taints=False).as_json())
    assert driver.startswith("driver genplug.io: registered for ")
    assert driver.endswith("; ResourceSlices: waiting to retry")
    assert warnings == [
        f"  warning: ResourceSlices: {DRA.publish_error}; next request in 3 s",
        "  warning: the API server does not keep taints, so unhealthy devices are not published",
        "  warning: 1 damaged records of claims; see the event record_bad in the log",
    ]
    refused = replace(DRA, is_registered=False, registered_at=None, error="no handler", publish_error="", damaged=0)
    assert list(list_dra_lines(refused.as_json())) == ["driver genplug.io: not registered: no handler"]


def test_summary_counts_the_resources_whose_slices_are_refused() -> None:
    refused = replace(DRA.resources[0], resource="example.com/fpga", refusal="too many devices")
    driver, *_ = list_dra_lines(replace(DRA, phase="published", resources=(*DRA.resources, refused)).as_json())
    assert driver.endswith("; ResourceSlices: published, refused for 1 resource")


BRIEF = {"is_brief": True}
GPU, SERIAL, GONE = "example.com/gpu", "example.com/serial", "example.com/gone"
SERIAL_PUBLISHED = replace(DRA.resources[0], resource=SERIAL, pool=f"node-1/{SERIAL}")
GONE_CLAIM = replace(
    DRA.claims[0], name="old", devices=(ClaimedDevice("a", GONE, "x0"), ClaimedDevice("b", SERIAL, "y"))
)
DRA_OF_TWO = replace(DRA, resources=(*DRA.resources, SERIAL_PUBLISHED), claims=(*DRA.claims, GONE_CLAIM))


def build_document(dra: DraStatus | None = DRA_OF_TWO) -> dict[str, Any]:
    """Return the status of an agent with a published resource, and another that pods have by both APIs."""
    resources = tuple(map(build_unwritten_status, (GPU, SERIAL)))
    return Status("0.1.0", "node-1", ConfigStatus(), "", resources, dra=dra).as_json()


@pytest.mark.parametrize(
    ("word", "published", "claims"),
    [
        ("gpu", [GPU], ["training"]),
        (SERIAL, [SERIAL], ["old"]),
        ("gone", [], ["old"]),
        ("example", [GPU, SERIAL], ["training", "old"]),
    ],
)
def test_word_selects_published_resources_and_claims(word: str, published: list[str], claims: list[str]) -> None:
    document = build_document()
    assert not selection_error(document, [word])
    selected = dict(select_resources(document, [word]))
    check_output(selected)
    assert [resource["resource"] for resource in selected["dra"]["resources"]] == published
    assert [claim["name"] for claim in selected["dra"]["claims"]] == claims
    assert selected["dra"]["driver"] == "genplug.io"


def test_table_of_a_selected_resource_has_no_other_published_resource() -> None:
    summary, _, tables = format_status(select_resources(build_document(), ["gpu"]), "wide", is_brief=False).partition(
        "RESOURCE "
    )
    assert "driver genplug.io: registered" in summary
    assert GPU in tables
    assert "PUBLISHED" in tables
    assert SERIAL not in tables
    assert format_status(select_resources(build_document(), ["gpu"]), "name", is_brief=False) == GPU


def test_word_without_a_resource_is_refused_with_the_names_of_claims() -> None:
    error = selection_error(build_document(), ["nvme"])
    assert error.endswith(f"the agent has {GPU}, {SERIAL}, {GONE}")
    assert selection_error(build_document(None), ["gone"]).endswith(f"the agent has {GPU}, {SERIAL}")


def test_brief_status_has_the_driver_and_no_tables() -> None:
    text = format_status(build_document(), "table", is_brief=True)
    assert "driver genplug.io: registered" in text
    assert "PUBLISHED" not in text
    assert "CLAIM" not in text


@pytest.mark.parametrize(
    ("flags", "later", "prints"),
    [
        ({}, replace(DRA_OF_TWO, retry_seconds=1.5), 1),
        ({}, replace(DRA_OF_TWO, claims=()), 2),
        (BRIEF, replace(DRA_OF_TWO, claims=(), resources=()), 1),
        (BRIEF, replace(DRA_OF_TWO, publish_error="refused"), 2),
    ],
)
def test_watch_prints_a_status_that_shows_something_else(
    capsys: pytest.CaptureFixture[str], flags: Mapping[str, bool], later: DraStatus, prints: int
) -> None:
    watch = StatusWatch("table", 1.0, is_brief=flags.get("is_brief", False))
    watch.show(build_document())
    watch.show(build_document(later))
    assert capsys.readouterr().out.count("--- ") == prints


@pytest.mark.parametrize(("pods", "end"), [(1, "its 1 pod ends"), (3, "its 3 pods end"), (None, "no pod uses it")])
def test_remark_of_a_moved_resource_states_what_serves_it(pods: int | None, end: str) -> None:
    cause = "served by Dynamic Resource Allocation now; the endpoint of the device plugin is kept until "
    moved = replace(build_unwritten_status(GPU), is_moved=True, kept_for_pods=pods)
    alias = replace(moved, name="example.com/alias", is_removed=True, kept_for_pods=7)
    status = Status("0.1.0", "node-1", ConfigStatus(), "", (moved, alias), dra=DRA)
    check_output(dict(status.as_json()))
    decoded = decode_agent_status(status.as_json())
    texts = (
        " ".join(format_status(status.as_json(), "wide", is_brief=False).split()),
        render_html(dict(build_sections(status, {}, Clock(0.0, 0.0)))["resources"]),
        "\n".join(remark for resource in decoded.resources for remark in resource.remarks),
    )
    for text in texts:
        assert f"{cause}{end}" in text
        assert f"{cause}its 7 pods end" in text


def test_remark_of_a_removed_resource_has_the_number_of_pods() -> None:
    removed = replace(build_unwritten_status(GPU), is_removed=True, kept_for_pods=2)
    text = format_status(Status("0.1.0", None, ConfigStatus(), "", (removed,)).as_json(), "wide", is_brief=False)
    assert "removed from the configuration; the endpoint of the device plugin is kept until its 2 pods end" in text
