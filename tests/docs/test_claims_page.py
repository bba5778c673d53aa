"""The page about prepared claims lists every reason for which a claim is refused."""

from genplug.allocation.errors import ClaimErrorCode
from tests.support.pages import read_page, table_rows


def test_page_lists_every_reason() -> None:
    listed = [row[0].strip("`") for row in table_rows(read_page("claims"), "`reason`")]
    assert listed == [code.value for code in ClaimErrorCode]
