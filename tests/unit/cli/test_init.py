"""``genplug init``: a recipe, or those that find something here put together, is a configuration to start from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genplug
from genplug.cli.init import merge_recipes, select_recipes
from genplug.cli.main import main
from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.recipes.catalog import HEADER, Recipe, shipped_recipes
from genplug.testing.node.file_trees import build_tree

REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "examples" / "configs"
TREES = REPOSITORY / "tests" / "recipes" / "trees"


def test_the_list_names_every_recipe_and_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["KIND", "FOR"]
    listed = dict(row.split(maxsplit=1) for row in rows)
    assert sorted(listed) == sorted(path.stem for path in CONFIGS.iterdir())
    for kind, text in listed.items():
        assert (CONFIGS / f"{kind}.yaml").read_text().startswith(f"# {text}\n")


@pytest.mark.parametrize("kind", shipped_recipes())
def test_a_kind_gives_its_recipe_as_it_is(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", kind]) == 0
    assert capsys.readouterr().out == (CONFIGS / f"{kind}.yaml").read_text()
    assert main(["init", kind, "-o", str(tmp_path / "c.yaml")]) == 0
    assert (tmp_path / "c.yaml").read_text() == (CONFIGS / f"{kind}.yaml").read_text()


def test_an_unknown_kind_names_the_one_that_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "nvida-gpu"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "there is no recipe 'nvida-gpu': did you mean 'nvidia-gpu'?" in said.err
    assert main(["init", "zzz"]) == 2
    assert "'genplug init --list' names those that there are" in capsys.readouterr().err


def test_a_file_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("mine")
    assert main(["init", "devdax", "-o", str(tmp_path / "c.yaml")]) == 1
    assert "it exists, and somebody may have edited it" in capsys.readouterr().err
    assert (tmp_path / "c.yaml").read_text() == "mine"
    assert main(["init", "devdax", "-o", str(tmp_path / "missing" / "c.yaml")]) == 1
    assert "it cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_machine_with_nothing_is_told_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    for advice in ("--root /host", "genplug init --list", "genplug init KIND", "--explain"):
        assert advice in said.err


@pytest.mark.parametrize("kind", sorted(path.stem for path in TREES.glob("*.tree")))
def test_a_machine_gets_the_recipe_that_is_for_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tree((TREES / f"{kind}.tree").read_text(), tmp_path / "root")
    out = tmp_path / "c.yaml"
    assert main(["init", "--root", str(tmp_path / "root"), "-o", str(out)]) == 0
    # Under a policy that allows what it asks for.
    config = load_text(out.read_text(), "c.yaml", None)
    inventory = discover(config, Host.at(tmp_path / "root"))
    assert any(inventory.devices.values())
    assert f"#   {kind}: " in out.read_text().partition(HEADER)[0]
    capsys.readouterr()
    assert main(["validate", str(out), "-o", "json"]) in {0, 78}
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {one["code"] for one in problems} <= {"GP019"}
    assert not problems or "only a policy allows" in out.read_text()


def recipe(kind: str, resources: str, comment: str = "For tests.\n#\n# More.") -> Recipe:
    return Recipe(kind, f"# {comment}\n{HEADER}{resources}")


X = recipe("all-x", "  a.io/x:  # which x\n    # these\n    devices: [{glob: /dev/x*}]\n", "All x.")
Y = recipe("y", "  a.io/y:\n    devices: [{glob: /dev/y0}]\n\n  a.io/none: {devices: [{glob: /dev/none}]}\n")
NONE = recipe("none", "  a.io/none:\n    devices: [{glob: /dev/none}]\n")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    build_tree("/dev/x0 char 240:0\n/dev/x1 char 240:1\n/dev/y0 char 240:2\n/sys/class/f/f0/ directory", tmp_path)
    return Host.at(tmp_path)


def test_recipes_that_find_something_stand_in_one_file_under_their_comments(host: Host) -> None:
    assert merge_recipes(select_recipes([X, NONE, Y], host), 3) == (
        "# Made by 'genplug init', which looked at this machine with 3 recipes. It found:\n"
        "#   all-x: 2 devices\n"
        "#   y: 1 device\n"
        "#\n"
        "# 'genplug validate' checks this file, 'genplug plan' shows what it offers. It is yours to edit.\n"
        "apiVersion: genplug.io/v1alpha1\n"
        "kind: DevicePluginConfig\n"
        "resources:\n"
        "  # All x.\n"
        "  a.io/x:  # which x\n"
        "    # these\n"
        "    devices: [{glob: /dev/x*}]\n"
        "\n"
        "  # For tests.\n"
        "  #\n"
        "  # More.\n"
        "  a.io/y:\n"
        "    devices: [{glob: /dev/y0}]\n"
        "\n"
        "  a.io/none: {devices: [{glob: /dev/none}]}\n"
    )


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (recipe("shared", "  a.io/shared:\n    devices: [{glob: /dev/x0}]\n"), "its devices are those of all-x"),
        (recipe("again", "  a.io/x:\n    devices: [{glob: /dev/y0}]\n"), "its resources are called as those of all-x"),
        (
            recipe("both", "  a.io/both:\n    devices: [{glob: /dev/*, groupBy: a}]\n    share: {overlap: true}\n"),
            "its devices are those of all-x",
        ),
    ],
    ids=["nodes", "names", "only one of them may overlap"],
)
def test_a_recipe_whose_devices_another_has_is_left_out_and_named(second: Recipe, reason: str, host: Host) -> None:
    choice = select_recipes([X, second], host)
    assert [one.recipe for one in choice.taken] == [X]
    assert choice.left_out == {second.kind: reason}
    text = merge_recipes(choice, 2)
    assert f"#   {second.kind}: {reason}\n" in text
    assert not discover(load_text(text, "c.yaml"), host).conflicts


def test_recipes_that_may_overlap_do(host: Host) -> None:
    both = [
        recipe(kind, f"  a.io/{kind}:\n    devices: [{{glob: /dev/x*}}]\n    share: {{overlap: true}}\n")
        for kind in ("one", "two")
    ]
    choice = select_recipes(both, host)
    assert [one.recipe for one in choice.taken] == both
    assert not discover(load_text(merge_recipes(choice, 2), "c.yaml"), host).conflicts


def test_functions_without_a_node_are_known_by_their_path(host: Host) -> None:
    text = "    devices: [{glob: /sys/class/f/*}]\n    allocate: {env: {F: f}}\n"
    choice = select_recipes([recipe("f", f"  a.io/f:\n{text}"), recipe("g", f"  a.io/g:\n{text}")], host)
    assert choice.left_out == {"g": "its devices are those of f"}


def test_a_recipe_with_devices_of_its_own_stays_and_says_which_are_not(host: Host) -> None:
    some = recipe("some", "  a.io/some:\n    devices: [{glob: '/dev/[xy]0'}]\n")
    choice = select_recipes([X, some], host)
    assert not choice.left_out
    assert choice.taken[1].note == "2 devices, 1 of them in all-x too: exclude from one what both have"


@pytest.mark.parametrize(
    "resource",
    [
        "    devices: [{glob: /dev/x*}]\n    allocate: {mounts: [{hostPath: /opt, containerPath: /opt}]}\n",
        '    devices: [{glob: "/dev/{x0,sdz}"}]\n',
    ],
    ids=["mounts", "block devices"],
)
def test_a_recipe_that_needs_a_policy_says_so(resource: str, host: Host) -> None:
    build_tree("/dev/sdz block 8:0", host.root)
    [taken] = select_recipes([recipe("m", f"  a.io/m:\n{resource}")], host).taken
    assert taken.note == "2 devices; it asks for what only a policy allows, as its comments say"


def test_a_recipe_that_fails_does_not_cost_the_others(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    choice = select_recipes([recipe("bad", "  a.io/bad:\n    devices: [{golb: x}]\n"), X], host)
    assert [one.recipe for one in choice.taken] == [X]
    said = capsys.readouterr().err
    assert "without the recipe bad, which fails here: bad.yaml:8:" in said
    assert "unknown key 'golb'" in said


def test_installed_it_finds_the_recipes_in_its_own_directory(tmp_path: Path) -> None:
    """As the wheel has it, which takes them by ``force-include`` of pyproject.toml."""
    shutil.copytree(Path(genplug.__file__).parent, tmp_path / "genplug", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "genplug" / "recipes" / "configs").mkdir()
    (tmp_path / "genplug" / "recipes" / "configs" / "one.yaml").write_text(X.text)
    command = [sys.executable, "-m", "genplug", "init", "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "KIND   FOR\none    All x.\n"
