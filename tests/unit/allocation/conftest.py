from collections.abc import Iterator

import pytest

from tests.support.allocation import Node, made_node


@pytest.fixture
def node() -> Iterator[Node]:
    with made_node() as made:
        yield made
