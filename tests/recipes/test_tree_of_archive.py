"""``python -m tests.support.tree_of_archive`` prints a tree that is equivalent to the captured machine."""

from pathlib import Path

import pytest

from genplug.capture.archive import open_root
from genplug.cli.main import main
from genplug.testing.machines.catalog import build_machine
from genplug.testing.node.file_trees import build_tree
from tests.support.recipes import config_path
from tests.support.tree_of_archive import tree_lines


@pytest.mark.parametrize(("recipe", "glob"), [("ptp-clock", "/dev/ptp*"), ("intel-npu", "/dev/accel/*")])
def test_tree_of_archive_gives_same_plan(
    recipe: str, glob: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, archive = str(config_path(recipe)), str(tmp_path / "node.tar.gz")
    build_machine(recipe, tmp_path / "machine")
    assert main(["capture", "--root", str(tmp_path / "machine"), "--config", config, "-o", archive]) == 0
    with open_root(archive) as unpacked:
        lines = list(tree_lines(unpacked, [glob]))
    build_tree("\n".join(lines), tmp_path / "again")

    def plan(root: str) -> str:
        assert main(["plan", "--root", str(tmp_path / root), "--config", config, "--explain"]) == 0
        return capsys.readouterr().out

    capsys.readouterr()
    assert plan("again") == plan("machine")
