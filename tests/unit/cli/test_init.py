"""``genplug init``: it prints a recipe, or a configuration of the recipes that match the machine."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import genplug
from genplug.cli.main import main
from genplug.config.load import load, load_text
from genplug.config.policy import load_policy
from genplug.hardware.discovery import discover
from genplug.hardware.host import Host
from genplug.recipes.catalog import HEADER, Recipe, shipped_recipes
from genplug.recipes.detect import combine_recipes
from genplug.recipes.policies import merge_policies
from genplug.testing.machines.catalog import TREES
from genplug.testing.node.file_trees import build_tree

REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "examples" / "configs"
POLICIES = REPOSITORY / "examples" / "policies"


def test_list_shows_every_recipe_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["KIND", "FOR"]
    assert max(map(len, rows)) <= 120
    # A long summary continues on an indented line.
    text = re.sub(r"\n +", " ", "\n".join(rows))
    listed = dict(row.split(maxsplit=1) for row in text.splitlines())
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


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("gpu", {"nvidia-gpu", "amd-gpu", "intel-gpu"}),
        ("GPUs", {"nvidia-gpu", "amd-gpu", "intel-gpu"}),
        ("amd gpu", {"amd-gpu"}),
        ("hailo", {"edge-inference"}),
        ("coral", {"edge-inference"}),
        ("kvm", {"fuse-kvm-tun"}),
        ("camera", {"video-capture", "mipi-camera"}),
        ("RoCE", {"infiniband"}),
        ("fpga", {"fpga-dfl"}),
        # Only in the comments or the resources.
        ("hantro", {"v4l2-codec"}),
        ("uvcvideo", {"video-capture"}),
        ("rknpu", {"edge-inference"}),
    ],
)
def test_unknown_kind_lists_recipes_that_mention_it(
    word: str, kinds: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", word]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    head, columns, *rows = printed.err.splitlines()
    assert head == f"genplug init: there is no recipe {word!r}, but recipes that mention it:"
    assert columns.split() == ["KIND", "FOR"]
    assert kinds <= {row.split()[0] for row in rows}
    assert len(rows) < 12


def test_list_with_words_shows_the_recipes_that_mention_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list", "fuse"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["KIND", "fuse-kvm-tun"]
    assert main(["init", "--list", "nvida-gpu"]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert "did you mean 'nvidia-gpu'?" in printed.err


def test_word_in_a_name_or_summary_hides_recipes_that_only_mention_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "fuse"]) == 2
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()[2:]] == ["fuse-kvm-tun"]


@pytest.mark.parametrize("kind", shipped_recipes())
def test_recipe_is_valid_and_complete_with_its_own_policy(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, policy = tmp_path / "c.yaml", tmp_path / "policy.yaml"
    assert main(["init", kind, "-o", str(config)]) == 0
    advice = capsys.readouterr().err
    assert main(["init", kind, "--policy", "-o", str(policy)]) == 0
    # The command says so exactly if the default policy refuses the recipe.
    is_refused = main(["validate", str(config)]) != 0
    assert ("the default policy does not allow" in advice) == is_refused
    assert main(["validate", "--policy", str(policy), str(config)]) == 0
    build_tree((TREES / f"{kind}.tree").read_text(), tmp_path / "root")
    host = Host.at(tmp_path / "root")
    with_policy = discover(load((config,), policy=policy).config, host).devices
    without = discover(load_text(config.read_text(), str(config), None), host).devices
    assert {name: [device.nodes for device in devices] for name, devices in with_policy.items()} == {
        name: [device.nodes for device in devices] for name, devices in without.items()
    }
    assert not [fault for devices in with_policy.values() for device in devices for fault in device.faults]


def test_policy_of_a_recipe_denies_other_devices_and_names(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    assert main(["init", "devdax", "--policy", "-o", str(policy)]) == 0
    loaded = load_policy(policy).policy
    assert loaded.device_error("/dev/dax1.3") == ""
    assert "devices.allow" in loaded.device_error("/dev/nvidia0")
    assert "resources" in loaded.resource_error("nvidia.com/gpu")


def test_several_kinds_are_one_configuration_and_one_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, policy = tmp_path / "c.yaml", tmp_path / "policy.yaml"
    kinds = ["nvidia-gpu", "usb-serial", "infiniband"]
    assert main(["init", *kinds, "-o", str(config)]) == 0
    advice = "genplug init nvidia-gpu usb-serial infiniband --policy -o policy.yaml"
    assert f"the default policy does not allow nvidia-gpu: '{advice}' writes" in capsys.readouterr().err
    assert main(["init", *kinds, "--policy", "-o", str(policy)]) == 0
    assert main(["validate", "--policy", str(policy), str(config)]) == 0
    names = load((config,), policy=policy).config.resources
    assert set(names) == {"nvidia.com/gpu", "devices.example.com/serial", "rdma/hca"}


def test_two_kinds_with_the_same_resource_cannot_be_combined(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "amd-gpu", "amd-gpu"]) == 0
    same = [kind for kind, recipe in shipped_recipes().items() if "  nvidia.com/gpu:" in recipe.text]
    assert same == ["nvidia-gpu"]
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"the recipes nvidia-gpu and copy both have the resource nvidia.com/gpu"):
        combine_recipes([shipped_recipes()["nvidia-gpu"], Recipe("copy", shipped_recipes()["nvidia-gpu"].text)])


def test_policy_of_a_machine_allows_all_of_its_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("nvidia-gpu", "devdax", "fuse-kvm-tun"):
        build_tree((TREES / f"{kind}.tree").read_text(), tmp_path / "root")
    config, policy = tmp_path / "c.yaml", tmp_path / "policy.yaml"
    root = str(tmp_path / "root")
    assert main(["init", "--root", root, "-o", str(config)]) == 0
    advice = capsys.readouterr().err
    assert f"genplug init --root {root} --policy -o policy.yaml" in advice
    assert main(["validate", str(config)]) == 78
    assert main(["init", "--root", root, "--policy", "-o", str(policy)]) == 0
    assert main(["validate", "--policy", str(policy), str(config)]) == 0
    capsys.readouterr()
    inventory = discover(load((config,), policy=policy).config, Host.at(tmp_path / "root"))
    assert all(inventory.devices[name] for name in ("nvidia.com/gpu", "pmem.example.com/devdax"))
    loaded = load_policy(policy).policy
    assert loaded.mount_error("/usr/local/nvidia", read_only=True) == ""
    assert loaded.mount_error("/etc", read_only=True)
    assert loaded.device_error("/dev/uinput")


def test_merged_policy_has_the_default_of_a_list_that_a_policy_does_not_have() -> None:
    merged = merge_policies([{"resources": ["a.io/*"]}, {"devices": {"allow": ["/dev/b"], "block": True}}])
    assert merged["resources"] == ["*"]
    assert merged["devices"] == {"allow": ["/dev/**"], "block": True}
    assert "mounts" not in merged
    # Numbers, as the IDs of groups are, have no globs.
    numbers = merge_policies([{"supplementalGroups": {"allow": [44]}}, {"supplementalGroups": {"allow": [109, 44]}}])
    assert numbers.get("supplementalGroups", {"allow": [44, 109]}) == {"allow": [44, 109]}


def test_merged_policy_has_no_path_that_another_glob_covers() -> None:
    first, second = {"devices": {"allow": ["/dev/vfio/vfio", "/dev/kfd"]}}, {"devices": {"allow": ["/dev/vfio/*"]}}
    assert merge_policies([first, second])["devices"]["allow"] == ["/dev/kfd", "/dev/vfio/*"]


def test_wheel_contains_recipes_and_policies() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in ("configs", "policies"):
        assert build["force-include"][f"examples/{name}"] == f"genplug/recipes/{name}"


def test_shipped_policy_denies_nothing_that_another_recipe_needs() -> None:
    for path in POLICIES.iterdir():
        assert not load_policy(path).policy.deny


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


def test_installed_package_uses_the_policies_in_its_own_directory(installed: Path) -> None:
    (installed / "genplug" / "recipes" / "configs" / "x.yaml").write_text(f"# All x.\n{HEADER}")
    (installed / "genplug" / "recipes" / "policies").mkdir()
    (installed / "genplug" / "recipes" / "policies" / "x.yaml").write_text("# Everything.\n")
    assert init(installed, "x", "--policy").stdout == "# Everything.\n"


def init(installed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "genplug", "init", *arguments]
    return subprocess.run(command, cwd=installed, capture_output=True, text=True, check=True)


def test_installed_package_uses_the_recipes_in_its_own_directory(installed: Path) -> None:
    (installed / "genplug" / "recipes" / "configs" / "x.yaml").write_text("# All x.\n")
    assert init(installed, "--list").stdout == "KIND   FOR\nx      All x.\n"


@pytest.mark.parametrize("recipe", shipped_recipes().values(), ids=lambda recipe: recipe.kind)
def test_recipe_without_a_resource_has_the_other_resources_unchanged(recipe: Recipe) -> None:
    complete = yaml.safe_load(recipe.text)["resources"]
    for name in complete:
        rest = yaml.safe_load(recipe.without_resources({name}).text)["resources"] or {}
        assert rest == {other: value for other, value in complete.items() if other != name}


def test_resource_with_devices_of_another_recipe_is_left_out_alone(installed: Path) -> None:
    recipes = {
        "one": "  a.io/one: {devices: [{glob: '/dev/[xw]0'}]}\n",
        "two": (
            "  # All x.\n  a.io/all:\n    devices: [{glob: /dev/x*}]\n"
            "  # Only y.\n  'a.io/y':\n    devices: [{glob: /dev/y0}]\n"
            "  # Only z.\n  a.io/z: {devices: [{glob: /dev/z0}]}\n"
        ),
    }
    for kind, resources in recipes.items():
        path = installed / "genplug" / "recipes" / "configs" / f"{kind}.yaml"
        path.write_text(f"# Summary of {kind}.\n{HEADER}{resources}")
    nodes = [f"/dev/{name} char 240:{number}" for number, name in enumerate(("x0", "x1", "y0", "z0", "w0"))]
    build_tree("\n".join(nodes), installed / "root")
    text = init(installed, "--root", "root").stdout
    assert "#   two: 2 devices\n" in text
    assert "#   two, a.io/all: 1 of its 2 devices is in one\n" in text
    assert set(load_text(text, "c.yaml", None).resources) == {"a.io/one", "a.io/y", "a.io/z"}
    assert "# Only y." in text
    assert "# All x." not in text


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
