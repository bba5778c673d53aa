"""Every console example that needs neither a cluster nor hardware is executed, and prints what the page shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.docs.blocks import PAGES, ROOT, Block, blocks

SHOWN = {page: found for page in PAGES if (found := [block for block in blocks(page) if block.language == "console"])}


class Example(Struct, frozen=True):
    """A command of a console block and the output that the page shows."""

    command: str
    output: str


def examples(block: Block) -> Iterator[Example]:
    """Yield the commands of a block: ``$`` begins a command, ``>`` continues it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        continued = 0
        while continued < len(rest) and rest[continued].startswith("> "):
            continued += 1
        command = "\n".join([first, *(line[2:] for line in rest[:continued])])
        yield Example(command, "\n".join(rest[continued:]))


def output_pattern(output: str) -> re.Pattern[str]:
    """Return what the real output must match: ``...`` is any text; spaces, times and temporary paths may differ."""
    pattern = re.escape(" ".join(output.split()))
    pattern = pattern.replace(r"\.\.\.", ".*").replace(r"\ ", r"\s+")
    pattern = re.sub(r"\d+(?=\\s\+ms\b)", r"\\d+", pattern)
    return re.compile(re.sub(r"/tmp/\w+", r"/tmp/\\w+", pattern), re.DOTALL)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A directory like a checkout, with a ``genplug`` command on the path of :func:`run_command`."""
    for name in ("deploy", "docs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".bin"
    programs.mkdir()
    (programs / "genplug").write_text(f'#!/bin/sh\nexec {sys.executable} -m genplug "$@"\n')
    (programs / "genplug").chmod(0o755)
    return tmp_path


def run_command(command: str, directory: Path) -> str:
    """Run a command as a reader types it and return what the terminal shows."""
    environment = os.environ | {"PATH": f"{directory}/.bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["bash", "-c", command], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=50,
    )  # fmt: skip
    return ran.stdout


@pytest.mark.parametrize("page", SHOWN, ids=[str(page.relative_to(ROOT)) for page in SHOWN])
def test_console_examples_print_what_the_page_shows(page: Path, workspace: Path) -> None:
    for block in blocks(page):
        if block.file:
            (workspace / block.file).write_text(block.text)
        if block.language != "console" or block.no_run:
            continue
        found = list(examples(block))
        assert found, f"{block.location}: a console block needs a line that starts with '$ '"
        for example in found:
            output = run_command(example.command, workspace)
            shown = output_pattern(example.output)
            assert shown.fullmatch(output.strip()), f"{block.location}: $ {example.command}\n{output}"


def test_at_least_one_page_has_an_executed_example() -> None:
    assert [block for found in SHOWN.values() for block in found if not block.no_run]
