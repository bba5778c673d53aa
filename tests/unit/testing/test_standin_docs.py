"""The examples of the pages about the stand-ins, run as the pages describe."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from genplug.testing.api_server import ApiServerStandIn
from genplug.testing.node.fake_node import FakeNode

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
_BY_DRA = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources: {vendor.test/x: {serve: dra, devices: [{glob: /dev/x*}]}}
"""


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("test-a-plugin.md", ["my_plugin.py", "test_my_plugin.py"]),
        pytest.param("test-a-dra-driver.md", ["my_driver.py", "test_my_driver.py"], marks=pytest.mark.openssl),
    ],
)
def test_example_of_the_page_passes(page: str, files: list[str], tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (PAGES / page).read_text(), re.DOTALL))
    assert sorted(blocks) == files
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", files[1]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.openssl
async def test_example_with_both_stand_ins_passes_with_genplug_as_the_driver(
    node: FakeNode, api_server: ApiServerStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (PAGES / "test-a-dra-driver.md").read_text().partition("## Test the whole driver\n")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(block, "test-a-dra-driver.md", "exec"), names)
    (example,) = (value for name, value in names.items() if name.startswith("test_"))

    node.plug("/dev/x0")
    for name, value in api_server.environment.items():
        monkeypatch.setenv(name, value)

    @asynccontextmanager
    async def start_agent(directory: Path) -> AsyncIterator[None]:
        account = api_server.write_account(node.directory / "account")
        settings = {"node_name": "node-1", "account_dir": account, "dra_driver": "example.com", "drain_seconds": 0.1}
        async with node.run_agent(_BY_DRA, kubelet_dir=directory, **settings):
            yield

    await example(api_server, node.kubelet_dir, start_agent)
