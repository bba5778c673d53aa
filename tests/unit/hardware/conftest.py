from collections.abc import Iterator

import pytest

from tests.support.hardware import NodeTree, node_tree


@pytest.fixture
def tree() -> Iterator[NodeTree]:
    with node_tree() as made:
        yield made
