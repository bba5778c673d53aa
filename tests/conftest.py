"""What every test can use, and what happens to tests whose need is missing."""

import importlib.util
import os

import pytest

pytest_plugins = ["genplug.testing.plugin"]


NEEDS = {
    "root": (os.geteuid() == 0, "needs root: run pytest as root for the tests on real device nodes and mounts"),
    "generator": (importlib.util.find_spec("grpc_tools") is not None, "needs the generator of the dev extra"),
}
"""What a marker asks for: whether it is there, and what to do about it."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (is_there, reason) in NEEDS.items():
        if item.get_closest_marker(marker) is None or is_there:
            continue
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; CI must not leave this test out")
        pytest.skip(reason)
