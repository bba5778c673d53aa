"""A stand-in for kubectl for each test."""

from pathlib import Path

import pytest

from tests.support.kubectl import KubectlStandIn


@pytest.fixture
def kubectl(tmp_path: Path) -> KubectlStandIn:
    directory = tmp_path / "kubectl"
    directory.mkdir()
    return KubectlStandIn(directory)
