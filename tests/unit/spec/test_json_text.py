"""JSON of other programs: the number of levels is limited, because the functions that print a document recurse."""

import pytest

from genplug.cli.output import format_yaml
from genplug.spec.json_text import check_depth, parse_json
from genplug.spec.limits import MAX_JSON_DEPTH
from genplug.spec.printable import escape_document


def nest(depth: int) -> str:
    """Return lists and mappings with this number of levels."""
    pairs, rest = divmod(depth, 2)
    return "[" * rest + '{"a": [' * pairs + "]}" * pairs + "]" * rest


@pytest.mark.parametrize("depth", [MAX_JSON_DEPTH + 1, 400, 900, 100_000])
def test_document_with_too_many_levels_is_rejected(depth: int) -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_JSON_DEPTH} levels"):
        parse_json(nest(depth))


def test_document_with_the_maximum_number_of_levels_can_be_printed() -> None:
    document = parse_json(nest(MAX_JSON_DEPTH))
    assert format_yaml(escape_document(document))
    check_depth(document)


def test_number_of_values_is_not_limited() -> None:
    assert len(parse_json(b"[" + b"[]," * 100_000 + b"1]")) == 100_001


@pytest.mark.parametrize("text", ["", "{", b"\xff", "1" * 5000])
def test_text_that_is_not_json_is_rejected(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
