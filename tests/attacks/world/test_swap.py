"""A privileged container on the node replaces device nodes while pods start."""

from typing import Any

import pytest

from tests.attacks.world.swap import Answer, Periods, Result, attack, find_cdi_error, find_unchecked
from tests.attacks.world.swapper import GENUINE, Change

ALLOCATES = 1000
"""Enough for hundreds of answers; ``python -m tests.attacks.world.swap`` makes 100 000 calls."""


@pytest.mark.root
@pytest.mark.parametrize("mode", ["nodes", "cdi"])
async def test_device_node_that_is_replaced_without_pause_gives_no_other_device(mode: str) -> None:
    result = await attack(mode, ALLOCATES)
    assert not result.wrong
    assert not result.failures
    assert len(result.answers) > 50
    assert result.refused > 100
    assert result.changes > 1000
    # With 'inject: nodes', the path of a right answer can still lead elsewhere when the runtime uses it.
    assert result.elsewhere < len(result.answers)


def test_answer_without_a_genuine_device_during_the_call_is_wrong() -> None:
    changes = [Change(0, GENUINE, 0, 10), Change(0, "disk", 20, 30), Change(0, GENUINE, 40, 50)]
    periods = Periods(changes, frozenset({GENUINE}))
    assert [periods.overlap(0, *call) for call in ((5, 6), (25, 35), (31, 39), (31, 45), (60, 70))] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert not periods.overlap(1, 0, 100)
    result = Result("nodes", 2, answers=[Answer(0, 31, 39, "/dev/x0"), Answer(0, 12, 14, "/dev/x0")])
    assert find_unchecked(result, changes) == ["x0: the path led elsewhere during the whole call (/dev/x0)"]


@pytest.mark.parametrize(
    ("node", "error"),
    [
        ({"path": "/dev/x3", "type": "c", "major": 240, "minor": 3}, ""),
        ({"path": "/dev/x3", "type": "b", "major": 240, "minor": 3}, "the CDI file defines x3 as"),
        ({"path": "/dev/x3", "type": "c", "major": 1, "minor": 1}, "the CDI file defines x3 as"),
        ({"path": "/dev/x3"}, "the CDI file defines x3 as"),
    ],
)
def test_cdi_file_with_another_device_is_wrong(node: dict[str, Any], error: str) -> None:
    spec = {"devices": [{"name": "x3", "containerEdits": {"deviceNodes": [node]}}]}
    assert find_cdi_error(spec, 3).startswith(error)
    assert bool(find_cdi_error(spec, 3)) == bool(error)
    assert find_cdi_error(spec, 4)
