"""The page about limits has every limit, and every limit is used."""

import re
from pathlib import Path

import pytest

import genplug
from genplug.spec import limits
from tests.support.pages import read_page

LIMITS = [name for name in vars(limits) if name.isupper()]
PACKAGE = Path(genplug.__file__).parent


def test_page_has_a_row_for_each_limit() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([\d .]+) \| [^|]+ \|$", read_page("limits"), re.MULTILINE)
    assert sorted(row.replace(" ", "") for row in rows) == sorted(str(getattr(limits, name)) for name in LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_limit_is_used_by_another_module(name: str) -> None:
    sources = (path for path in PACKAGE.rglob("*.py") if path != Path(limits.__file__))
    assert any(re.search(rf"\b{name}\b", source.read_text()) for source in sources)
