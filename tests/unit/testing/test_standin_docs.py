"""The examples of the pages about the stand-ins, run as the pages describe."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[3] / "docs" / "how-to"


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
