"""The part of ``genplug status`` about Dynamic Resource Allocation."""

import re

from msgspec.structs import replace

from genplug.cli.status_dra import format_dra, list_dra_lines
from genplug.observe.dra_status import DeviceNote, DraStatus
from tests.support.dra_status import DRA

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
