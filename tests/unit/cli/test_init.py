"""``genplug init``: it prints a recipe, or a configuration of the recipes that match the machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genplug
from genplug.cli.main import main
from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.recipes.catalog import HEADER, shipped_recipes
from genplug.testing.node.file_trees import build_tree

REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "examples" / "configs"
TREES = REPOSITORY / "tests" / "recipes" / "trees"


def test_list_shows_every_recipe_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["KIND", "FOR"]
    listed = dict(row.split(maxsplit=1) for row in rows)
    assert sorted(listed) == sorted(path.stem for path in CONFIGS.iterdir())
    for kind, text in listed.items():
        assert (CONFIGS / f"{kind}.yaml").read_text().startswith(f"# {text}\n")


@pytest.mark.parametrize("kind", shipped_recipes())
def test_kind_prints_its_recipe_verbatim(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", kind]) == 0
    assert capsys.readouterr().out == (CONFIGS / f"{kind}.yaml").read_text()
    assert main(["init", kind, "-o", str(tmp_path / "c.yaml")]) == 0
    assert (tmp_path / "c.yaml").read_text() == (CONFIGS / f"{kind}.yaml").read_text()


def test_unknown_kind_is_a_usage_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "nvida-gpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "there is no recipe 'nvida-gpu': did you mean 'nvidia-gpu'?" in printed.err
    assert main(["init", "zzz"]) == 2
    assert "'genplug init --list' lists all recipes" in capsys.readouterr().err


def test_output_file_that_exists_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("mine")
    assert main(["init", "devdax", "-o", str(tmp_path / "c.yaml")]) == 1
    assert "the file exists and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "c.yaml").read_text() == "mine"
    assert main(["init", "devdax", "-o", str(tmp_path / "missing" / "c.yaml")]) == 1
    assert "the file cannot be created: No such file or directory" in capsys.readouterr().err


def test_machine_without_a_matching_recipe_gets_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    for advice in ("--root /host", "genplug init --list", "genplug init KIND", "--explain"):
        assert advice in printed.err


@pytest.mark.parametrize("kind", sorted(path.stem for path in TREES.glob("*.tree")))
def test_recipe_for_the_hardware_of_a_machine_is_selected(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tree((TREES / f"{kind}.tree").read_text(), tmp_path / "root")
    out = tmp_path / "c.yaml"
    assert main(["init", "--root", str(tmp_path / "root"), "-o", str(out)]) == 0
    # The policy None allows everything.
    config = load_text(out.read_text(), "c.yaml", None)
    inventory = discover(config, Host.at(tmp_path / "root"))
    assert any(inventory.devices.values())
    assert f"#   {kind}: " in out.read_text().partition(HEADER)[0]
    capsys.readouterr()
    assert main(["validate", str(out), "-o", "json"]) in {0, 78}
    diagnostics = json.loads(capsys.readouterr().out)["problems"]
    assert {diagnostic["code"] for diagnostic in diagnostics} <= {"GP019"}
    assert not diagnostics or "needs a policy" in out.read_text()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a directory with a copy of genplug and no recipes, laid out as ``force-include`` lays out the wheel."""
    shutil.copytree(Path(genplug.__file__).parent, tmp_path / "genplug", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "genplug" / "recipes" / "configs").mkdir()
    shutil.copytree(REPOSITORY / "schemas", tmp_path / "genplug" / "schemas")
    return tmp_path


def init(installed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "genplug", "init", *arguments]
    return subprocess.run(command, cwd=installed, capture_output=True, text=True, check=True)


def test_installed_package_uses_the_recipes_in_its_own_directory(installed: Path) -> None:
    (installed / "genplug" / "recipes" / "configs" / "x.yaml").write_text("# All x.\n")
    assert init(installed, "--list").stdout == "KIND   FOR\nx      All x.\n"


def test_recipe_that_fails_on_a_machine_is_reported_and_left_out(installed: Path) -> None:
    for kind, source in {"bad": "golb: x", "good": "glob: /dev/x0"}.items():
        text = f"# For tests.\n{HEADER}  a.io/{kind}: {{devices: [{{{source}}}]}}\n"
        (installed / "genplug" / "recipes" / "configs" / f"{kind}.yaml").write_text(text)
    build_tree("/dev/x0 char 240:0", installed / "root")
    done = init(installed, "--root", "root")
    assert "a.io/good" in done.stdout
    assert "a.io/bad" not in done.stdout
    lines = done.stderr.splitlines()
    assert lines[0].startswith(
        "genplug init: the recipe bad is left out, because it fails on this machine: bad.yaml:5:"
    )
    assert lines[-1].startswith("genplug init: found good (1 device); ")
