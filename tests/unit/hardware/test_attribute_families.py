"""The names of built-in attributes, the modules that read them and the tests of each attribute agree."""

import importlib
import pkgutil
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from genplug.hardware import attributes
from genplug.hardware.attributes.lazy import READERS
from genplug.spec.names import SYSFS_ATTRIBUTES

MODULES = [
    importlib.import_module(f"{attributes.__name__}.{module.name}")
    for module in pkgutil.iter_modules(attributes.__path__)
]
FAMILIES = [
    module for module in MODULES if hasattr(module, "READERS") and module.__name__ != "genplug.hardware.attributes.lazy"
]
REPOSITORY = Path(__file__).parents[3]
CASES = Path(__file__).with_name("test_attributes.py").read_text()


def test_every_attribute_has_reader() -> None:
    assert set(READERS) == set(SYSFS_ATTRIBUTES)


def test_every_attribute_belongs_to_one_family() -> None:
    owners = Counter(name for family in FAMILIES for name in family.READERS)
    assert owners == Counter(SYSFS_ATTRIBUTES)


@pytest.mark.parametrize("name", SYSFS_ATTRIBUTES)
def test_attribute_has_test_case(name: str) -> None:
    assert f'("{name}", ' in CASES, f'expected a case ("{name}", PATH, VALUE) in tests/unit/hardware/test_attributes.py'


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__.rpartition(".")[2])
def test_family_names_source_of_its_facts(family: object) -> None:
    assert "Documentation/" in (family.__doc__ or ""), f"expected the kernel's documentation in {family}"


def test_families_are_listed_as_independent() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (modules,) = (each["modules"] for each in contracts if each["type"] == "independence" and "famil" in each["name"])
    assert sorted(modules) == sorted(family.__name__ for family in FAMILIES)
