"""What every test can use, and what happens to tests that need root where there is none."""

import os

import pytest

pytest_plugins = ["genplug.testing.plugin"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is None or os.geteuid() == 0:
        return
    if os.environ.get("CI"):
        pytest.fail("this test needs root, and CI must not leave it out")
    pytest.skip("needs root: run pytest as root for the tests on real device nodes and mounts")
