"""``genplug demo``: the script that the README shows, the script of each recipe, and the live table."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genplug.cli.main import main
from genplug.recipes.catalog import shipped_recipes
from genplug.testing.machines.catalog import select_faults


def test_script_plays_every_step_and_succeeds() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "genplug", "demo", "--script"], capture_output=True, text=True, timeout=50, check=False
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.count("✓") == 9
    assert "did you mean 'glob'?" in played.stdout
    assert "/dev/ttyUSB" in played.stdout
    assert played.stdout.rstrip().endswith("Run `genplug demo` to try it by hand.")
    assert played.stderr == ""


def test_commands_that_the_demo_suggests_unplug_and_replug_a_device(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genplug", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, env={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout)
        assert any("healthy   /dev/ttyUSB1" in line for line in lines)
        unplug = next(line for line in lines if "unplug a device" in line).rsplit("  ", 1)[0]
        plug = next(line for line in lines if "plug it in again" in line).rsplit("  ", 1)[0]
        plan = next(line for line in lines if " plan --root " in line)
        subprocess.run(unplug, shell=True, check=True, timeout=10)
        assert any("UNHEALTHY   /dev/ttyUSB1" in line for line in lines)
        subprocess.run(plug, shell=True, check=True, timeout=10)
        assert any("healthy     /dev/ttyUSB1" in line or "healthy   /dev/ttyUSB1" in line for line in lines)
        planned = subprocess.run(plan, shell=True, check=True, capture_output=True, text=True, timeout=20)
        assert "SERIAL_PORTS" in planned.stdout
        demo.send_signal(signal.SIGINT)
        assert demo.wait(10) == 0


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_script_of_each_recipe_succeeds(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["demo", recipe, "--script"])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    assert printed.err == ""
    faults = select_faults(recipe)[:1]
    assert printed.out.count("✓") == 4 + sum(1 if "lasts" in case else 2 for case in faults)
    for case in faults:
        for reason in case["unhealthy"].values():
            assert reason in " ".join(printed.out.split())
    assert "with the same ID: " in printed.out


def test_live_demo_of_a_recipe_causes_and_ends_a_fault(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genplug", "demo", "nvidia-gpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, env={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout)
        assert any("healthy   /dev/nvidia2" in line for line in lines)
        assert any("kill -USR2" in line for line in lines)
        demo.send_signal(signal.SIGUSR2)
        assert any("UNHEALTHY   /dev/nvidia2" in line for line in lines)
        demo.send_signal(signal.SIGUSR2)
        assert any("demo: the fault has ended" in line for line in lines)
        assert any("healthy   /dev/nvidia2" in line for line in lines)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(10) == 0


def test_list_has_every_recipe_with_its_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, recipe in shipped_recipes().items():
        faults = str(len(select_faults(name)))
        assert [line.split()[1] for line in lines if line.split()[0] == name] == [faults], recipe.summary


def test_unknown_recipe_has_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "nvidia-gpus", "--script"]) == 2
    assert "did you mean 'nvidia-gpu'?" in capsys.readouterr().err
