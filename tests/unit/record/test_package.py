"""The package that contains genplug."""

from pathlib import Path

import pytest

import genplug
from genplug.record.facts import Known, Unknown
from genplug.record.package import find_package

STATUS = """\
Package: genplug-other
Version: 9.9

Package: genplug
Status: install ok installed
Version: 0.1.0-1.py311

Package: zsh
Version: 5.9
"""


def test_code_of_a_debian_package_has_the_version_of_dpkg(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    module = tmp_path / "usr/lib/genplug/genplug/__init__.py"
    assert find_package(module, tmp_path) == Known("Debian package genplug 0.1.0-1.py311", "/var/lib/dpkg/status")


def test_code_of_another_system_package_names_the_command_to_query(tmp_path: Path) -> None:
    fact = find_package(tmp_path / "usr/lib/genplug/genplug/__init__.py", tmp_path)
    assert isinstance(fact, Unknown)
    assert "'rpm --query genplug'" in fact.reason


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("/home/ann/kubectl-genplug.pyz/genplug/__init__.py", "kubectl-genplug.pyz"),
        ("/root/.shiv/genplug_8f2/site-packages/genplug/__init__.py", "genplug_8f2"),
    ],
)
def test_code_of_a_single_file_is_named(module: str, name: str) -> None:
    assert find_package(Path(module)) == Known(f"single-file program {name}", "the path of the running code")


def test_code_of_a_python_package_has_its_version() -> None:
    fact = find_package(Path(genplug.__file__))
    assert isinstance(fact, Known)
    assert fact.value.startswith("Python package genplug ")
