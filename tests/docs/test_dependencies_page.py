"""The page about dependencies has every dependency and its facts."""

import re
import tomllib
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement

from tests.docs.blocks import ROOT
from tests.support.sbom import sbom

PAGE = ROOT / "docs/explanation/dependencies.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "deploy/image/requirements.lock").read_text()


def read_table(heading: str, first: str) -> list[list[str]]:
    """Return the rows of the table that begins with the column ``Package`` and has ``first`` as its second column."""
    lines = iter(PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0].splitlines())
    for line in lines:
        if line.startswith(f"| Package | {first} |"):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


RUNTIME = read_table("Run time", "Purpose")
REQUIRED = read_table("Run time", "Required by")
DEVELOPMENT = read_table("Development", "Extra")


def test_run_time_table_equals_the_dependencies_of_the_project() -> None:
    assert [row[0] for row in RUNTIME] == [Requirement(text).name for text in PROJECT["dependencies"]]
    assert all(row[1] and row[2] for row in RUNTIME)


def test_both_run_time_tables_together_equal_the_lock() -> None:
    locked = re.findall(r"^([\w-]+)==", LOCK, re.MULTILINE)
    assert sorted(row[0] for row in [*RUNTIME, *REQUIRED]) == sorted(locked)


@pytest.mark.parametrize("row", REQUIRED, ids=lambda row: row[0])
def test_package_is_required_by_the_packages_that_the_table_names(row: list[str]) -> None:
    known = {row[0] for row in [*RUNTIME, *REQUIRED]}
    requiring = {
        name
        for name in known
        for text in distribution(name).requires or []
        if "extra ==" not in text and Requirement(text).name == row[0]
    }
    named = set(row[1].split(", "))
    assert named <= requiring
    # A package that another row requires is not repeated.
    assert requiring - named <= {row[0] for row in REQUIRED}


@pytest.mark.parametrize(
    ("name", "native"), [(row[0], row[4]) for row in RUNTIME] + [(row[0], row[3]) for row in REQUIRED]
)
def test_native_code_is_what_the_installed_package_contains(name: str, native: str) -> None:
    is_native = any(file.name.endswith(".so") for file in distribution(name).files or [])
    assert native == ("yes" if is_native else "no")


@pytest.mark.parametrize(
    ("name", "license_"), [(row[0], row[3]) for row in RUNTIME] + [(row[0], row[2]) for row in REQUIRED]
)
def test_license_is_that_of_the_installed_package(name: str, license_: str) -> None:
    assert license_ == sbom.read_license(distribution(name))


def test_development_table_equals_the_extras_of_the_project() -> None:
    extras = {
        (Requirement(text).name, extra)
        for extra, texts in PROJECT["optional-dependencies"].items()
        for text in texts
        if Requirement(text).name != "genplug"
    }
    assert sorted((row[0], row[1]) for row in DEVELOPMENT) == sorted(extras)
    assert all(row[2] for row in DEVELOPMENT)


def test_versions_of_the_copied_apis_are_those_of_the_contract() -> None:
    contract = (ROOT / "docs/internals/kubelet-contract.md").read_text()
    (version,) = re.findall(r"k8s\.io/kubelet (\d+\.\d+)", PAGE.read_text())
    assert f"k8s.io/kubelet at {version}" in contract
