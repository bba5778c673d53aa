"""The red team's list is complete: its tests exist, and each threat of the contract has an attack."""

import ast
import re
from pathlib import Path

import pytest

from tests.attacks.catalog import Attack, load_attacks
from tests.support.pages import ROOT

ATTACKS = load_attacks()
CONTRACT = ROOT / "docs" / "internals" / "kubelet-contract.md"


def read_threats() -> list[str]:
    """Return the first cell of each row in section 9.2 of the contract."""
    section = CONTRACT.read_text().partition("\n### 9.2 ")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def list_tests(path: Path) -> set[str]:
    """Return the names of the tests in a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_has_tests_that_exist(attack: Attack) -> None:
    assert attack.tests
    for test in attack.tests:
        file, _, name = test.partition("::")
        assert name.startswith("test_")
        assert name in list_tests(ROOT / "tests" / file)


def test_names_of_attacks_are_unique() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", name) for name in names)


def test_each_threat_of_the_contract_has_an_attack() -> None:
    threats = read_threats()
    assert len(threats) > 5
    written = {threat for attack in ATTACKS for threat in attack.threats}
    assert [threat for threat in threats if not threat.startswith(tuple(written))] == []
    # A text that matches no row would hide that its row was removed.
    assert [text for text in written if not any(threat.startswith(text) for threat in threats)] == []


def test_each_test_of_the_red_team_is_in_the_list() -> None:
    listed = {test for attack in ATTACKS for test in attack.tests}
    written = {
        f"{path.relative_to(ROOT / 'tests')}::{name}"
        for path in sorted((ROOT / "tests" / "attacks").glob("*/test_*.py"))
        for name in list_tests(path)
        if name.startswith("test_")
    }
    assert written - listed == set()
