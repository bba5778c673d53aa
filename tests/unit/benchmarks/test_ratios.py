"""Ratios of genplug and a peer over alternating rounds, and their table."""

import math
import re

from benchmarks.ratios import APPEARS, UNITS, Pair, Ratio, Series, encode_pairs, format_pairs, pair_rounds

RSS = "8 devices: RSS"


def make_pair(genplug: tuple[float | None, ...], peer: tuple[float | None, ...]) -> Pair:
    return Pair(APPEARS, "ms", Series(genplug), Series(peer))


def test_ratio_divides_medians_and_its_range_divides_rounds() -> None:
    assert make_pair((10, 20, 60), (5, 5, 20)).ratio == Ratio(4, 2, 4)


def test_missing_value_is_longer_than_every_other_value() -> None:
    assert Series((1, None, 3)).median == 3
    assert math.isinf(Series((1, None)).median)


def test_ratio_is_absent_if_the_peer_reports_nothing() -> None:
    assert make_pair((1, 2, 3), (None, None, None)).ratio is None
    assert make_pair((1, 2, 3), (4, None, None)).ratio is None


def test_ratio_ignores_rounds_without_a_value_of_both_plugins() -> None:
    assert make_pair((1, 2, 9), (2, 2, None)).ratio == Ratio(1, 0.5, 1)


def test_ratio_is_absent_if_the_figure_of_the_peer_is_zero() -> None:
    assert make_pair((1,), (0,)).ratio is None


def test_figure_that_no_round_reached_has_no_value() -> None:
    pairs = {pair.name: pair for pair in pair_rounds([{RSS: 40.0}, {}], [{RSS: 10.0}, {RSS: 10.0}])}
    assert tuple(pairs) == tuple(UNITS)
    assert pairs[RSS].genplug.values == (40.0, None)
    assert pairs[APPEARS].peer.values == (None, None)


def test_table_names_lists_that_did_not_arrive() -> None:
    row = format_pairs([make_pair((10, 20), (None, None))]).splitlines()[1]
    assert re.split(" {3,}", row)[1:] == ["15 ms", "10 .. 20", "not reported within 15 s", "-", "-", "-"]


def test_table_counts_the_rounds_without_a_list() -> None:
    text = " ".join(format_pairs([make_pair((1, 1, 1), (4, None, 5))]).split())
    assert "5 ms" in text
    assert "1 of 3 not" in text


def test_record_has_null_for_a_missing_value() -> None:
    (entry,) = encode_pairs([make_pair((1, 2), (None, None))])
    assert entry["values"] == (1, 2)
    assert entry["peerFigure"] == {"median": None, "min": None, "max": None, "values": (None, None)}
    assert entry["ratio"] is None
