from collections.abc import Iterator

import pytest

from tests.support.allocation import DeviceTree
from tests.support.hardware import open_tree


@pytest.fixture
def tree() -> Iterator[DeviceTree]:
    with open_tree(DeviceTree) as made:
        yield made
