"""The lock files of the image contain every requirement of the package."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_lock_satisfies_every_requirement(lock: str, requirements: list[str]) -> None:
    text = (REPOSITORY / "deploy/image" / lock).read_text()
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))
    assert requirements
    for requirement in map(Requirement, requirements):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier
