"""The image's lock against what the package asks for: a new dependency must not be left out of the image."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_has_every_requirement_in_a_version_that_will_do(lock: str, wanted: list[str]) -> None:
    text = (REPOSITORY / "deploy/image" / lock).read_text()
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))
    assert wanted
    for requirement in map(Requirement, wanted):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier
