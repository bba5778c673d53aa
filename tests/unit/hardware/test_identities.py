"""Identities: no hardware is given under two IDs, and a device keeps its ID as long as its key leads to it."""

import os

import pytest

from tests.support.identity_model import play_history, settle

HISTORIES = int(os.environ.get("GENPLUG_HISTORIES", "300"))


@pytest.mark.parametrize("start", range(0, HISTORIES, 100))
def test_no_random_history_gives_hardware_under_two_ids(start: int) -> None:
    for seed in range(start, min(start + 100, HISTORIES)):
        node, events = play_history(seed)
        assert not node.error, f"history {seed}: {events}"
        assert not node.difference, f"history {seed}: {events}: {node.difference}"


@pytest.mark.parametrize("start", range(0, HISTORIES, 100))
def test_assignment_after_a_change_agrees_with_one_of_all_devices(start: int) -> None:
    for seed in range(start, min(start + 100, HISTORIES)):
        node, events = play_history(seed, is_mixed=True)
        assert not node.difference, f"history {seed}: {events}: {node.difference}"


@pytest.mark.parametrize("start", range(0, HISTORIES, 100))
def test_all_hardware_is_offered_once_when_no_pod_uses_it(start: int) -> None:
    for seed in range(start, min(start + 100, HISTORIES)):
        node, _ = play_history(seed)
        settle(node)
        # A group is left out if another device has one of its disks.
        singles = {thing for _, things in node.find_devices() for thing in things if len(things) == 1}
        offered = [thing for things in node.offered.values() for thing in things]
        assert len(offered) == len(set(offered)), seed
        assert singles <= set(offered), seed
        assert not node.ledger.needs, seed
