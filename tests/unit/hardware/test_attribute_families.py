"""The table of attribute families, their modules and the tests of each attribute agree."""

import importlib
import pkgutil
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from genplug.hardware import attributes
from genplug.hardware.attributes import ATTRIBUTES, FAMILIES
from genplug.spec.names import is_attribute_name
from tests.unit.hardware.test_attributes import CASES

MODULES = {
    module.name: importlib.import_module(f"{attributes.__name__}.{module.name}")
    for module in pkgutil.iter_modules(attributes.__path__)
}
FAMILY_MODULES = {name: module for name, module in MODULES.items() if hasattr(module, "FAMILY")}
REPOSITORY = Path(__file__).parents[3]


def test_every_module_with_a_family_is_in_the_table() -> None:
    assert Counter(module.FAMILY.name for module in FAMILY_MODULES.values()) == Counter(
        family.name for family in FAMILIES
    )


def test_attribute_belongs_to_exactly_one_family() -> None:
    assert Counter(name for family in FAMILIES for name in family.attributes) == Counter(list(ATTRIBUTES))
    assert all(map(is_attribute_name, ATTRIBUTES))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_has_cases_with_a_value(name: str) -> None:
    expected = "expected a case (name, path, value) in tests/unit/hardware/test_attributes.py"
    assert any(value is not None for case, _, value in CASES if case == name), expected


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_has_description(name: str) -> None:
    description = ATTRIBUTES[name].description
    assert description
    assert not description.endswith("."), "expected a phrase for the table of the reference"


@pytest.mark.parametrize("name", FAMILY_MODULES)
def test_family_names_source_of_its_facts(name: str) -> None:
    assert "Documentation/" in (FAMILY_MODULES[name].__doc__ or ""), "expected the kernel's documentation"


def test_families_are_listed_as_independent() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (modules,) = (each["modules"] for each in contracts if each["type"] == "independence" and "famil" in each["name"])
    assert sorted(modules) == sorted(module.__name__ for module in FAMILY_MODULES.values())
