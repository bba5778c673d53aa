"""The numbers in test names are points of the checklist in docs/internals/kubelet-contract.md, section 10."""

import re

from tests.support.contract_points import CONTRACT, POINTS_WITHOUT_TEST, find_numbered_tests, read_points


def test_points_are_numbered_without_gaps() -> None:
    section = CONTRACT.read_text().partition("\n## 10. ")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]
    assert len(numbers) > 80
    assert numbers == list(range(1, len(numbers) + 1)) == list(read_points())


def test_every_number_in_a_test_name_is_a_point() -> None:
    unknown = {number: names for number, names in find_numbered_tests().items() if number not in read_points()}
    assert unknown == {}


def test_every_point_has_a_test_or_is_listed_without_one() -> None:
    assert sorted(set(read_points()) - find_numbered_tests().keys()) == sorted(POINTS_WITHOUT_TEST)
