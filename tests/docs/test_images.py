"""The pictures of the documentation: each has a page, and none is large."""

import re

import pytest

from tests.page.take_pictures import IMAGES, MAX_BYTES, PICTURES
from tests.support.pages import ROOT

NAMES = sorted(path.name for path in IMAGES.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_small_and_has_a_page_with_a_description(name: str) -> None:
    assert (IMAGES / name).stat().st_size < MAX_BYTES
    pages = "".join(path.read_text() for path in ROOT.glob("docs/**/*.md"))
    assert re.search(rf"!\[[^]]{{10,}}\]\([./]*/images/{re.escape(name)}\)", pages)


def test_script_writes_the_pictures_of_the_page() -> None:
    assert {f"{view.name}.png" for view in PICTURES} <= set(NAMES)
