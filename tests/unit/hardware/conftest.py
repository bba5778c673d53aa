from collections.abc import Iterator

import pytest

from tests.support.hardware import NodeTree, open_tree


@pytest.fixture
def tree() -> Iterator[NodeTree]:
    with open_tree(NodeTree) as made:
        yield made
